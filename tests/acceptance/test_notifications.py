"""Notifications: at the end of a run and when the operator is needed; bounded, without secrets, never in the way."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config.settings import NotifySettings
from pipeline.reports.notifications import notify
from tests.acceptance.conftest import Opened
from tests.support.cli_driver import KEY, Dop, shots
from tests.support.raw_server import Caller, ScriptedGateway, http

Against = Callable[..., Opened]
EVENT = {"event": "run_ended", "text": "Done", "exit_code": 0}


def keeping(dop: Dop) -> tuple[str, Callable[[], list[dict[str, object]]]]:
    """A command that appends what it reads to a file, and what it was given so far."""
    script = dop.folder / "notify.sh"
    script.write_text(f"#!/bin/sh\ncat >> {dop.folder}/notes\necho >> {dop.folder}/notes\nenv >> {dop.folder}/env\n")
    script.chmod(0o755)
    notes = dop.folder / "notes"
    return str(script), lambda: [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []


def test_the_end_of_a_run_is_notified_with_its_summary_and_no_secret(against: Against) -> None:
    dop, _ = against()
    command, notes = keeping(dop)
    manifest = dop.csv(shots(2))
    first = dop.buy(manifest, "--set", f"notify.command={command}")
    assert first.code == 0, first.err
    (note,) = notes()
    assert (note["event"], note["command"], note["needs_you"], note["exit_code"]) == ("run_ended", "run", False, 0)
    assert (note["run"], note["new_videos"]) == (first.run, 2)
    assert "Done: 2 videos ready" in str(note["text"])
    assert KEY not in json.dumps(note)
    assert KEY not in (dop.folder / "env").read_text()
    dop.buy(manifest, "--set", f"notify.command={command}")
    assert len(notes()) == 1, "nothing to buy is no run"


def test_what_needs_the_operator_is_notified(against: Against) -> None:
    dop, _ = against(prompts={"scene 2 ": {"status": 502}})
    command, notes = keeping(dop)
    end = dop.buy(dop.csv(shots(2)), "--set", f"notify.command={command}")
    assert end.code == 3, end.err
    assert {note["event"]: note["needs_you"] for note in notes()} == {"needs_you": True, "run_ended": True}
    assert "perhaps paid" in str([note["text"] for note in notes()])


def test_an_error_before_a_run_begins_is_notified(against: Against) -> None:
    dop, _ = against()
    command, notes = keeping(dop)
    dop.environ["PIXAZO_API_KEY"] = ""
    assert dop.buy(dop.csv(shots(1)), "--set", f"notify.command={command}").code == 7
    assert [(note["event"], note["exit_code"]) for note in notes()] == [("failed", 7)]


@pytest.mark.long
def test_a_command_that_fails_or_is_not_there_is_a_warning(rehearsal: Dop) -> None:
    end = rehearsal.buy(rehearsal.csv(shots(1)), "--set", "notify.command=/bin/false x")
    assert end.code == 0
    assert "warning: notify.command (/bin/false) ended with 1" in end.err
    again = rehearsal.buy(rehearsal.csv(shots(2)), "--set", "notify.command=/not/there")
    assert again.code == 0
    assert "notify.command (/not/there) can't be started: No such file or directory" in again.err


def test_a_command_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = tmp_path / "slow.sh"
    script.write_text(f"#!/bin/sh\n(sleep 1; touch {mark}) &\nsleep 60\n")
    script.chmod(0o755)
    began = time.monotonic()
    problems = notify(NotifySettings(command=str(script), timeout_s=0.5), EVENT, {"PATH": "/bin:/usr/bin"})
    assert problems == [f"notify.command ({script}) did not end within 0.5 s and was killed"]
    assert time.monotonic() - began < 2
    time.sleep(1)
    assert not mark.exists()


async def post(script: Callable[[Caller], object], path: str = "/services/T0/secret") -> tuple[list[str], bytes]:
    """The warnings of one POST, and what the server heard."""
    import asyncio

    async with ScriptedGateway(script) as server:  # type: ignore[arg-type]
        settings = NotifySettings(url=f"{server.url}{path}", timeout_s=0.5)
        problems = await asyncio.to_thread(notify, settings, EVENT, {})
    return problems, server.heard


async def test_an_address_gets_the_object_as_a_post() -> None:
    async def answer(caller: Caller) -> None:
        await caller.read_request()
        await caller.say(http(b"ok"))

    problems, heard = await post(answer)
    head, _, body = heard.partition(b"\r\n\r\n")
    assert problems == []
    assert head.startswith(b"POST /services/T0/secret HTTP/1.1")
    assert json.loads(body) == EVENT


@pytest.mark.parametrize("status", ["500 Oops", "302 Found", None])
async def test_an_address_that_does_not_take_it_is_a_warning_without_its_path(status: str | None) -> None:
    async def answer(caller: Caller) -> None:
        await caller.read_request()
        if status is None:
            await caller.stall()
        else:
            await caller.say(http(b"", status=status))

    (problem,), _ = await post(answer)
    assert "secret" not in problem
    assert (f"answers {status[:3]}" if status else "did not answer within 0.5 s") in problem


@pytest.mark.long
def test_the_path_of_the_address_is_shown_nowhere(rehearsal: Dop) -> None:
    rehearsal.environ["DOP_NOTIFY__URL"] = "https://127.0.0.1:9/services/T0/secret"
    end = rehearsal.buy(rehearsal.csv(shots(1)))
    assert end.code == 0
    assert "notify.url (127.0.0.1) can't be reached" in end.err
    shown = rehearsal.call("doctor", "--settings").out + end.err + (rehearsal.latest / "run.json").read_text()
    assert "https://127.0.0.1:9/***" in shown
    assert "T0/secret" not in shown
