"""An error of one row or one step stays its own: the other rows are bought, booked and fetched as if it had not been.

Each gateway here answers one row with something that no client expects while the POSTs of other rows are under way. A
POST that is cancelled may be paid: so every test compares the gateway's books with the ledger, and wants no `unknown`.
"""

from __future__ import annotations

import asyncio
import hmac
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from PIL import Image

from tests.acceptance.driving import Ended, ended, shots, table, wait_for
from tests.acceptance.gatewaydouble import POLL_PATH
from tests.acceptance.hostile_gateway import Contained, HostileGateway, Order, Submitted, against
from tests.cluster.machines import several

EAGER = ("--set", "pace.rate=500/1s", "--set", "pace.burst=50")
"""Sixteen submits are under way at once from the first moment."""

SOON = ("--max-duration", "3s")
"""Of a run that may look for a bad link again and again."""

HELD_S = 0.4
"""How long POSTs stay open after the hostile answer, in seconds: an error reaches the whole program meanwhile."""

ROWS = 20
FATAL = 7


def not_yet(value: object, why: str) -> Any:
    """A parameter with which the test fails until the issue is done."""
    return pytest.param(value, marks=pytest.mark.xfail(strict=True, reason=why))


def row(order: Order) -> int:
    """The number of the row that an order is for; `shots` writes it into the prompt."""
    return int(order.prompt.split()[1])


class Trouble:
    """Submits of row 1 are answered at once, all others only HELD_S after the trouble was set off."""

    def __init__(self, answer: Submitted | None = None) -> None:
        self._answer = answer
        self.set_off_at: float | None = None

    def set_off(self) -> None:
        """Now the hostile answer is on its way."""
        self.set_off_at = self.set_off_at or time.monotonic()

    def _is_over(self) -> bool:
        return self.set_off_at is not None and time.monotonic() > self.set_off_at + HELD_S

    async def submit(self, gateway: HostileGateway, order: Order) -> web.StreamResponse:
        """The document's answer, or `answer` for row 1."""
        order.charged = True
        if row(order) > 1:
            await gateway.until(self._is_over)
        elif self._answer is not None:
            return await self._answer(gateway, order)
        return await gateway.accept(order)


def assert_all_booked(dop: Contained, gateway: HostileGateway, end: Ended) -> None:
    """No submit is in doubt, and the ledger has the id of every job that was charged."""
    assert dop.states().get("unknown", 0) == 0, end.err
    assert dop.states().get("submitting", 0) == 0, end.err
    assert dop.jobs() == gateway.charged_jobs


def assert_goes_on(dop: Contained, gateway: HostileGateway, manifest: Path, *, rows: int) -> None:
    """Later commands work, buy nothing twice, and the good rows have their videos."""
    for later in (dop.call("collect", *SOON), dop.buy(manifest, *SOON)):
        assert later.code not in (FATAL, Contained.CRASHED, 3), later.err
    assert len({order.prompt for order in gateway.charged}) == len(gateway.charged) == rows
    saved = {line["row_id"] for line in dop.rows() if line["status"] == "done" and line["local_path"]}
    assert {f"row-{number}" for number in range(2, rows + 1)} <= saved


# --- addresses that a gateway names

UNREADABLE_HOSTS = [not_yet("xn--", "a host that cannot be decoded ends the whole run"), "\u2100.example", "[::1"]


def _spoils(host: str) -> str:
    return f"https://{host}/clip.mp4"


@pytest.mark.parametrize("host", UNREADABLE_HOSTS)
def test_a_result_address_that_cannot_be_read_is_the_trouble_of_its_row_alone(tmp_path: Path, host: str) -> None:
    trouble = Trouble()

    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        if order is not None and row(order) == 1:
            trouble.set_off()
            results = {"raw": {"url": _spoils(host)}}
            return await gateway.report(order, job, jobs=[{"id": "j", "status": "completed", "results": results}])
        return await gateway.report(order, job)

    with HostileGateway(submit=trouble.submit, poll=poll) as gateway:
        dop = against(tmp_path, gateway)
        manifest = dop.csv(shots(ROWS))
        end = dop.buy(manifest, *EAGER, *SOON)
        assert_all_booked(dop, gateway, end)
        assert end.code not in (FATAL, Contained.CRASHED), end.err
        assert_goes_on(dop, gateway, manifest, rows=ROWS)


@pytest.mark.parametrize("host", UNREADABLE_HOSTS)
def test_a_polling_address_that_cannot_be_read_makes_no_job_uncollectable(tmp_path: Path, host: str) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        return await gateway.queue(order, f"https://{host}/v2/requests/status/{order.job}")

    with HostileGateway(submit=submit) as gateway:
        dop = against(tmp_path, gateway)
        manifest = dop.csv(shots(ROWS))
        end = dop.buy(manifest, *EAGER)
        assert_all_booked(dop, gateway, end)
        assert (end.code, end.counts) == (0, {"done": ROWS}), end.err


# --- text of the gateway

HALF = "half \ud800 a pair"
PLACES: dict[str, Callable[[Order], dict[str, Any]]] = {
    "the reason of a failure": lambda order: {"jobs": [{"id": "j", "status": "failed"}], "error": HALF},
    "an unknown state word": lambda order: {"jobs": [{"id": "j", "status": HALF}]} if order.polls < 3 else {},
    "the address of the video": lambda order: {
        "jobs": [{"id": "j", "status": "completed", "results": {"raw": {"url": f"https://{HALF}/clip.mp4"}}}]
    },
    "the address of the preview": lambda order: {
        "jobs": [
            {
                "id": "j",
                "status": "completed",
                "results": {
                    "raw": {"url": f"{order.base}/clips/{order.job}"},
                    "min": {"url": f"https://example.com/{HALF}"},
                },
            }
        ]
    },
}


@pytest.mark.parametrize("place", PLACES)
def test_half_a_character_in_the_answer_to_a_poll_leaves_the_ledger_usable(tmp_path: Path, place: str) -> None:
    trouble = Trouble()

    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        if order is None or row(order) > 1:
            return await gateway.report(order, job)
        trouble.set_off()
        return await gateway.report(order, job, **PLACES[place](order))

    with HostileGateway(submit=trouble.submit, poll=poll) as gateway:
        dop = against(tmp_path, gateway)
        manifest = dop.csv(shots(4))
        end = dop.buy(manifest, *EAGER, *SOON)
        assert_all_booked(dop, gateway, end)
        assert_the_ledger_is_usable(dop, gateway, manifest)


ANSWERS: dict[str, Callable[[Order], tuple[int, dict[str, Any]]]] = {
    "beside the id": lambda order: (200, {"job_set_id": order.job, "type": HALF}),
    "a refusal": lambda order: (422, {"error": HALF}),
    "a server error": lambda order: (500, {"error": HALF}),
    "the polling address": lambda order: (
        202,
        {"request_id": order.job, "status": "QUEUED", "polling_url": f"https://example.com/{HALF}"},
    ),
    "the id": lambda order: (200, {"job_set_id": f"{order.job}-\ud800"}),
}


@pytest.mark.parametrize(
    "place",
    [
        not_yet(place, "half a surrogate pair ends the run and the ledger") if place == "the polling address" else place
        for place in ANSWERS
    ],
)
def test_half_a_character_in_the_answer_to_a_submit_leaves_the_ledger_usable(tmp_path: Path, place: str) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        if row(order) > 1:
            return await gateway.accept(order)
        status, body = ANSWERS[place](order)
        order.charged = status < 300
        return web.json_response(body, status=status)

    with HostileGateway(submit=submit) as gateway:
        dop = against(tmp_path, gateway)
        manifest = dop.csv(shots(4))
        end = dop.buy(manifest, *EAGER, *SOON)
        assert end.code not in (FATAL, Contained.CRASHED), end.err
        assert len(dop.jobs()) >= 3
        assert_the_ledger_is_usable(dop, gateway, manifest)


def assert_the_ledger_is_usable(dop: Contained, gateway: HostileGateway, manifest: Path) -> None:
    """Every command that reads, replays or continues the ledger works, and nothing is bought again."""
    bought, jobs = len(gateway.orders), dop.jobs()
    for verb in ("check", "rebuild", "check"):
        care = dop.typed("ledger", verb, "--outputs", str(dop.outputs))
        assert care.code == 0, (verb, care.out, care.err)
    for later in (dop.call("collect"), dop.buy(manifest, *SOON), dop.call("report")):
        assert later.code not in (FATAL, Contained.CRASHED), later.err
    assert len(gateway.orders) == bought
    assert dop.jobs() == jobs


# --- prices, pictures, words: a step of the program fails for one row

MODELS = ("--set", "models=dop-lite,dop-next")
PRICED = (*MODELS, "--set", "prices.dop-next=0.2")
"""Of two configurations one knows a price for the new model, the other one does not."""


def two_models(count: int, *, dear: set[int]) -> str:
    """Some rows ask for the model that has no price in one of the configurations."""
    return table(
        {"id": f"row-{n}", "image": f"https://cdn.example.com/{n}.jpg", "prompt": f"scene {n} of all", "seed": n}
        | {"model": "dop-next" if n in dear else "dop-lite"}
        for n in range(1, count + 1)
    )


@pytest.mark.xfail(strict=True, reason="KeyError in the worker: what is under way becomes unknown, again and again")
@pytest.mark.long
def test_a_worker_that_lacks_a_price_parks_those_rows_and_buys_the_others(tmp_path: Path, postgres: str) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        order.charged = True
        await asyncio.sleep(HELD_S / 2)  # so that POSTs are under way when a row without a price comes
        return await gateway.accept(order)

    with HostileGateway(submit=submit) as gateway, several(tmp_path, postgres, gateway) as machines:
        machines.hire(1, words=MODELS)
        manifest = machines.csv(two_models(21, dear=set(range(15, 22))))
        running = machines.start("run", manifest, "--yes", "--cluster", *PRICED, "--max-duration", "15s")
        wait_for(lambda: running.poll() is not None or machines.states().get("done", 0) == 14)
        running.terminate()
        said = ended(running).err
        machines.dismiss()
        assert machines.states().get("unknown", 0) == 0, said + machines.all_said()
        assert {order.body["model"] for order in gateway.orders} == {"dop-lite"}, said + machines.all_said()
        assert machines.states().get("done", 0) == len(gateway.charged) == 14, machines.all_said()


@pytest.mark.xfail(strict=True, reason="KeyError in the run: what is under way becomes unknown")
def test_a_retry_that_lacks_a_price_of_another_row_loses_nothing_that_it_sends(tmp_path: Path) -> None:
    failing = [True]

    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        order.charged = True
        if not failing[0]:
            await asyncio.sleep(HELD_S)
        return await gateway.accept(order)

    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        if failing[0]:
            return await gateway.report(order, job, jobs=[{"id": "j", "status": "failed"}])
        return await gateway.report(order, job)

    with HostileGateway(submit=submit, poll=poll) as gateway:
        dop = against(tmp_path, gateway)
        manifest = dop.csv(two_models(12, dear={12}))
        first = dop.buy(manifest, "--max-new", 11, *EAGER, *PRICED)
        assert dop.states() == {"failed": 11, "planned": 1}, first.err
        failing[0] = False
        one_by_one = ("--set", "pace.rate=50/1s")  # the last row's turn comes while the others' POSTs are under way
        end = dop.call("retry", first.run, "--failed", "--yes", *MODELS, *one_by_one)
        assert_all_booked(dop, gateway, end)
        assert dop.states() == {"done": 11, "planned": 1}, end.err


PROGRAM = """
import asyncio, os, pipeline, sys
{spoil}
result = asyncio.run(pipeline.run(sys.argv[1], yes=True, progress={progress}, pace__rate="500/1s", pace__burst=50))
print(result.exit_code, result.done)
"""
SPOILS = {
    "closed": "sys.stderr.close()",
    "none": "sys.stderr = sys.__stderr__ = None",
    "reader gone": "reader, writer = os.pipe(); os.close(reader); sys.stderr = os.fdopen(writer, 'w', buffering=1)",
}


@pytest.mark.parametrize(
    ("spoil", "progress"),
    [
        pytest.param(
            spoil,
            progress,
            marks=[pytest.mark.xfail(strict=True, reason="an error of stderr cancels every POST, or nothing is bought")]
            if (spoil, progress) != ("none", False)
            else [],
        )
        for spoil in SPOILS
        for progress in (True, False)
    ],
)
def test_a_program_without_a_stderr_buys_and_books_all_the_same(tmp_path: Path, spoil: str, progress: bool) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        if row(order) == 1:
            return web.json_response({"error": "no such picture"}, status=422)  # which the run tells
        order.charged = True
        await asyncio.sleep(HELD_S)
        return await gateway.accept(order)

    with HostileGateway(submit=submit) as gateway:
        dop = against(tmp_path, gateway)
        manifest = dop.csv(shots(ROWS))
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(spoil=SPOILS[spoil], progress=progress), str(manifest)],
            cwd=tmp_path,
            env=dop.environment()
            | {"DOP_OUTPUTS__DIR": str(dop.outputs), "DOP_POLL__FIRST_S": "0.05"}
            | {"DOP_POLL__MIN_S": "0.05", "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert len(gateway.orders) == ROWS, done.stderr
        assert dop.states() == {"rejected": 1, "done": ROWS - 1}, done.stderr
        assert dop.jobs() == gateway.charged_jobs
        assert done.stdout.splitlines()[-1:] == [f"1 {ROWS - 1}"], done.stderr


def pictures(folder: Path, count: int) -> str:
    """A sheet of rows with a picture of this machine each; the sandbox makes every one fail."""
    for number in range(1, count + 1):
        Image.new("RGB", (64, 48), (number, 0, 0)).save(folder / f"{number}.png")
    return table(
        {"id": f"row-{n}", "image": f"{n}.png", "prompt": f"scene {n} [sandbox:fail]", "seed": n}
        for n in range(1, count + 1)
    )


SMALL = ("--set", "sandbox.generation_s=0", "--set", "sandbox.size=180p")


@pytest.mark.xfail(strict=True, reason="FileNotFoundError ends the run before the other rows are sent")
def test_a_retry_whose_picture_was_deleted_parks_that_row_and_sends_the_others(tmp_path: Path) -> None:
    dop = Contained(folder=tmp_path)
    manifest = dop.csv(pictures(tmp_path, 3))
    first = dop.buy(manifest, *SMALL)
    assert dop.states() == {"failed": 3}, first.err
    (tmp_path / "1.png").unlink()
    end = dop.call("retry", first.run, "--failed", *SMALL)
    assert end.code not in (FATAL, Contained.CRASHED, 3), end.err
    assert "1.png" in end.err
    newest = {line["row_id"]: int(line["attempt"]) for line in dop.rows(first.run) if line["job_set_id"]}
    assert newest == {"row-1": 1, "row-2": 2, "row-3": 2}


# --- one row is refused


def sheet_with_a_word() -> str:
    """Ten rows; a web firewall takes the first one's prompt for an attack."""
    first = {"id": "r0", "image": "https://cdn.example.com/0.jpg", "prompt": "the union select committee", "seed": 1}
    others = (
        {"id": f"r{n}", "image": f"https://cdn.example.com/{n}.jpg", "prompt": f"F cat {n}", "seed": 1}
        for n in range(1, 10)
    )
    return table([first, *others])


REFUSALS = {
    "the document's": ({"error": "Access denied for this operation"}, "application/json"),
    "content policy": ({"detail": "The prompt violates our content policy"}, "application/json"),
    "a web firewall": ("<html><h1>403 Forbidden</h1>Request blocked.</html>", "text/html"),
}


@pytest.mark.xfail(strict=True, reason="a 403 stops the whole run with exit 7")
@pytest.mark.parametrize("words", REFUSALS)
@pytest.mark.parametrize("concurrency", [1, 16])
def test_one_row_that_is_refused_with_403_is_rejected_and_the_others_are_bought(
    tmp_path: Path, words: str, concurrency: int
) -> None:
    body, kind = REFUSALS[words]

    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        if "union select" in order.prompt:
            text = body if isinstance(body, str) else json.dumps(body)
            return web.Response(status=403, text=text, content_type=kind)
        return await gateway.accept(order)

    with HostileGateway(submit=submit) as gateway:
        dop = against(tmp_path, gateway)
        manifest = dop.csv(sheet_with_a_word())
        told = ("--set", f"pace.submit_concurrency={concurrency}")
        end = dop.buy(manifest, *told)
        assert end.code == 1, end.err
        assert dop.states() == {"rejected": 1, "done": 9}
        assert "r0" in end.err
        (refused,) = [line for line in dop.rows() if line["status"] == "rejected"]
        assert (refused["row_id"], refused["cost_state"]) == ("r0", "none")
        assert "403" in refused["reason"] or any(word in refused["reason"] for word in ("denied", "policy", "blocked"))


@pytest.mark.xfail(strict=True, reason="the refused row goes first again")
def test_a_row_that_was_refused_does_not_go_first_again_the_next_night(tmp_path: Path) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        if "union select" in order.prompt:
            return web.json_response({"error": "Access denied for this operation"}, status=403)
        return await gateway.accept(order)

    with HostileGateway(submit=submit) as gateway:
        dop = against(tmp_path, gateway)
        manifest = dop.csv(sheet_with_a_word())
        dop.buy(manifest, "--max-new", 1)
        first_night = len(gateway.orders)
        end = dop.buy(manifest)
        assert len(gateway.charged) == 9, end.err
        assert "union select" not in gateway.orders[first_night].prompt


@pytest.mark.xfail(strict=True, reason="the first 403 stops the run: one row is taken for the key")
def test_a_second_row_that_is_refused_means_the_key(tmp_path: Path) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        return web.json_response({"error": "Access denied for this operation"}, status=403)

    with HostileGateway(submit=submit) as gateway:
        dop = against(tmp_path, gateway)
        end = dop.buy(dop.csv(shots(10)), "--set", "pace.submit_concurrency=1")
        assert end.code == FATAL, end.err
        assert len({order.prompt for order in gateway.orders}) == 2


# --- downloads


@pytest.mark.xfail(strict=True, reason="failing downloads sleep in the download workers")
def test_bad_links_leave_the_download_workers_to_the_good_ones(tmp_path: Path) -> None:
    bad = 8

    async def fetch(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        if row(order) <= bad and not all_good(gateway):
            return web.Response(status=503, text="busy")
        return await gateway.clip(order)

    def all_good(gateway: HostileGateway) -> bool:
        return all(order.fetches for order in gateway.charged if row(order) > bad) and len(gateway.charged) == ROWS

    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        tried = {row(one) for one in gateway.charged if one.fetches}
        if order is not None and row(order) > bad and len(tried & set(range(1, bad + 1))) < 4:
            return await gateway.report(order, job, jobs=[{"id": "j", "status": "queued"}])
        return await gateway.report(order, job)

    with HostileGateway(poll=poll, fetch=fetch) as gateway:
        dop = against(tmp_path, gateway)
        end = dop.buy(dop.csv(shots(ROWS)), *EAGER, "--max-duration", "8s")
        assert {row(order) for order in gateway.charged if order.fetches} == set(range(1, ROWS + 1)), end.err
        assert len(dop.videos()) == ROWS, end.err
        assert (end.code, end.counts) == (0, {"done": ROWS}), end.err


# --- any error, anywhere


class Poison:
    """A seam of a library raises in the command's threads while sixteen POSTs hang: once, or as often as it is met."""

    def __init__(self, gateway: HostileGateway, *, times: int = 1, hanging: int = 16) -> None:
        self._gateway = gateway
        self._left = times
        self._wanted = hanging
        self.hanging = 0
        self.raised_at: float | None = None
        self.raised = 0

    @property
    def is_armed(self) -> bool:
        """Whether the POSTs hang."""
        return self.hanging >= self._wanted

    def strike(self) -> None:
        """Raises when it is due."""
        if self.is_armed and self._left > 0 and threading.current_thread() is not self._gateway.thread:
            self._left -= 1
            self.raised += 1
            self.raised_at = self.raised_at or time.monotonic()
            raise RuntimeError("poison")

    def is_over(self) -> bool:
        """Whether it had the time to do its harm."""
        return self.raised_at is not None and time.monotonic() > self.raised_at + HELD_S


def strikes(poison: Poison, function: Any, when: Callable[..., bool]) -> Any:
    """`function`, poisoned for those calls that `when` picks."""

    def poisoned(*args: Any, **kwargs: Any) -> Any:
        if poison.is_armed and when(*args, **kwargs):
            poison.strike()
        return function(*args, **kwargs)

    return poisoned


def _on_request(part: str) -> Callable[[pytest.MonkeyPatch, Poison], None]:
    def put(patch: pytest.MonkeyPatch, poison: Poison) -> None:
        when = lambda session, method, url, **more: part in str(url)  # noqa: E731
        patch.setattr(aiohttp.ClientSession, "_request", strikes(poison, aiohttp.ClientSession._request, when))

    return put


def _body(patch: pytest.MonkeyPatch, poison: Poison) -> None:
    patch.setattr(json, "dumps", strikes(poison, json.dumps, lambda told, **more: _is_submit(told)))


def _is_submit(told: object) -> bool:
    return isinstance(told, dict) and {"prompt", "seed", "input_images"} <= set(told)


def _save(patch: pytest.MonkeyPatch, poison: Poison) -> None:
    def is_video(*args: Any, **more: Any) -> bool:
        return str(args[1]).endswith(".mp4")

    for name in ("replace", "rename", "link"):
        patch.setattr(os, name, strikes(poison, getattr(os, name), is_video))


def _print(patch: pytest.MonkeyPatch, poison: Poison) -> None:
    class Told(io.StringIO):
        def write(self, text: str) -> int:
            if self is sys.stderr:
                poison.strike()
            return super().write(text)

    patch.setattr(io, "StringIO", Told)


def _log(patch: pytest.MonkeyPatch, poison: Poison) -> None:
    patch.setattr(logging.Logger, "handle", strikes(poison, logging.Logger.handle, lambda *_: True))


def _clock(patch: pytest.MonkeyPatch, poison: Poison) -> None:
    patch.setattr(time, "time", strikes(poison, time.time, lambda: True))


def _callback(patch: pytest.MonkeyPatch, poison: Poison) -> None:
    patch.setattr(hmac, "compare_digest", strikes(poison, hmac.compare_digest, lambda *_: True))


HOOKS: dict[str, Callable[[pytest.MonkeyPatch, Poison], None]] = {
    "body": _body,
    "poll": _on_request(POLL_PATH),
    "fetch": _on_request("/clips/"),
    "save": _save,
    "print": _print,
    "log": _log,
    "clock": _clock,
    "callback": _callback,
}

MANY = 24
BUSY = ("--set", "pace.submit_concurrency=17", *EAGER)
"""Sixteen POSTs hang, and one worker is left for the rows that set a hook off."""


@pytest.mark.parametrize(
    "hook",
    [hook if hook in ("poll", "callback") else not_yet(hook, "the error cancels every POST") for hook in HOOKS],
)
def test_a_hook_that_raises_once_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: str) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        if row(order) == 1:
            return await gateway.accept(order)
        if row(order) == 2:
            await gateway.until(lambda: poison.is_armed)
            if hook == "callback":
                told = {"job_set_id": gateway.orders[0].job}
                gateway.aside(_called(gateway, told))
                await gateway.until(poison.is_over)
            return web.json_response({"error": "no such picture"}, status=422)
        order.charged = True
        poison.hanging += 1
        await gateway.until(poison.is_over)
        return await gateway.accept(order)

    async def _called(gateway: HostileGateway, told: dict[str, str]) -> None:
        await gateway.call_back(gateway.orders[0], told)

    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        if order is not None and row(order) == 1 and not poison.is_armed:
            return await gateway.report(order, job, jobs=[{"id": "j", "status": "queued"}])
        return await gateway.report(order, job)

    with HostileGateway(submit=submit, poll=poll) as gateway:
        poison = Poison(gateway)
        dop = against(tmp_path, gateway)
        manifest = dop.csv(shots(MANY))
        with monkeypatch.context() as patch:
            HOOKS[hook](patch, poison)
            end = dop.buy(manifest, *BUSY, *(["--webhook"] if hook == "callback" else []))
        assert poison.raised == 1, "the hook was not met"
        assert_all_booked(dop, gateway, end)
        assert dop.states().get("done", 0) >= MANY - 2, end.err  # row 2 is refused, one row may be parked
        assert end.code in (0, 1, 5), end.err
        last = dop.buy(manifest, *BUSY)
        assert dop.states() == {"done": MANY - 1, "rejected": 1}, last.err
        assert len(gateway.charged) == MANY - 1


@pytest.mark.xfail(strict=True, reason="the first error stops everything")
@pytest.mark.parametrize("hook", ["body", "save"])
def test_three_rows_that_fail_in_the_same_way_stop_the_buying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    begun = 4

    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        poison.hanging += 1
        return await gateway.accept(order)

    with HostileGateway(submit=submit) as gateway:
        poison = Poison(gateway, times=10_000, hanging=begun)
        dop = against(tmp_path, gateway)
        with monkeypatch.context() as patch:
            HOOKS[hook](patch, poison)
            pace = ("--set", "pace.submit_concurrency=1", "--rate", "20/1s")
            end = dop.buy(dop.csv(shots(60)), *pace, "--max-duration", "15s")
        assert poison.raised >= 3, f"the first one stopped everything: {end.err}"
        assert_all_booked(dop, gateway, end)
        assert end.code == FATAL, end.err
        assert begun <= len(gateway.charged) < 60
        assert "poison" in end.err
