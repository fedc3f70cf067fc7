"""Callbacks as a user uses them: `dop run --webhook` against the sandbox, and `dop webhook serve` beside runs."""

from __future__ import annotations

import json
import signal
import stat

import pytest

from tests.support.cli_driver import Dop, ended, shots, wait_for
from tests.support.webhook_catcher import serving

pytestmark = pytest.mark.long  # whole runs over HTTP; the money's own tests stay in the fast set

SLOW_POLLS = ("--set", "poll.max_s=60s", "--set", "sandbox.size=180p")
"""Without calls, jobs would wait two minutes for their first look."""


def left_behind(dop: Dop) -> str:
    """Everything readable that runs left, but the file that tokens are made from, and the sandbox's own books."""
    files = [path for path in dop.outputs.rglob("*") if path.is_file() and path.name != "callback-seed"]
    ours = [path for path in files if "sandbox" not in path.parts and path.suffix != ".mp4"]
    return "".join(path.read_bytes().decode("utf-8", "replace") for path in ours)


def test_with_callbacks_on_a_job_is_polled_about_once(rehearsal: Dop) -> None:
    manifest = rehearsal.csv(shots(10))
    end = rehearsal.call("run", manifest, "--webhook", *SLOW_POLLS)
    assert end.code == 0, end.err
    rows = rehearsal.rows()
    assert [row["status"] for row in rows] == ["done"] * 10
    assert sum(int(row["polls"]) for row in rows) / len(rows) < 1.1
    seed = rehearsal.outputs / "callback-seed"
    assert stat.S_IMODE(seed.stat().st_mode) == 0o600
    assert "whsec_" not in left_behind(rehearsal).replace("whsec_***", "")
    assert seed.read_text().strip() not in left_behind(rehearsal) + end.err


def test_a_queue_gateway_calls_the_address_of_the_header(rehearsal: Dop) -> None:
    end = rehearsal.call("run", rehearsal.csv(shots(6)), "--webhook", "--set", "sandbox.dialect=queue", *SLOW_POLLS)
    assert end.code == 0, end.err
    assert sum(int(row["polls"]) for row in rehearsal.rows()) == 6


def test_callbacks_change_no_identity(rehearsal: Dop) -> None:
    manifest = rehearsal.csv(shots(2))
    assert rehearsal.call("run", manifest, "--webhook", *SLOW_POLLS).code == 0
    plan = json.loads(rehearsal.call("plan", manifest, "--json").out)
    assert (plan["new"], plan["done"]) == (0, 2)
    end = rehearsal.call("run", manifest)
    assert end.code == 0
    assert "Nothing to buy: all 2 videos already exist" in end.err


def test_a_run_uses_the_receiver_that_is_there_already(rehearsal: Dop) -> None:
    receiver = serving(rehearsal)
    assert receiver.stdout is not None
    address = receiver.stdout.readline().strip().removeprefix("http://")
    sets = ("--set", f"webhook.listen={address}", "--set", f"webhook.public_url=http://{address}")
    end = rehearsal.call("run", rehearsal.csv(shots(5)), "--webhook", *sets, *SLOW_POLLS)
    assert end.code == 0, end.err
    assert sum(int(row["polls"]) for row in rehearsal.rows()) == 5
    spool = rehearsal.outputs / "callbacks" / "sandbox"
    wait_for(lambda: len(list(spool.glob("*.json"))) == 0)
    receiver.send_signal(signal.SIGTERM)
    assert ended(receiver).code == 0


def test_a_receiver_of_another_ledger_is_refused_before_anything_is_bought(rehearsal: Dop) -> None:
    stranger = Dop(folder=rehearsal.folder / "stranger")
    stranger.folder.mkdir()
    other = serving(stranger)
    rehearsal.started.append(other)
    assert other.stdout is not None
    address = other.stdout.readline().strip().removeprefix("http://")
    sets = ("--set", f"webhook.listen={address}", "--set", f"webhook.public_url=http://{address}")
    end = rehearsal.call("run", rehearsal.csv(shots(1)), "--webhook", *sets)
    assert end.code == 2
    assert "can't be had" in end.err
    assert rehearsal.ledger_mills() == 0


@pytest.mark.long
def test_missing_callbacks_cost_patience_and_then_polls(rehearsal: Dop) -> None:
    sets = ("--set", "webhook.listen=127.0.0.1:0", "--set", "webhook.public_url=https://hooks.example.com")
    end = rehearsal.call(
        "run", rehearsal.csv(shots(5)), "--webhook", *sets, "--set", "poll.max_s=0.5", "--set", "sandbox.size=180p"
    )
    assert end.code == 0, end.err
    assert "without a callback" in end.err


def test_a_public_gateway_needs_a_public_address(rehearsal: Dop) -> None:
    sets = ("--set", "gateway.base_url=https://gateway.example", "--yes")
    end = rehearsal.call("run", rehearsal.csv(shots(1)), "--webhook", *sets)
    assert end.code == 2
    assert "set webhook.public_url" in end.err
