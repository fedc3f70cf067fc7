"""Any error of any hook stays its own, while sixteen POSTs hang; three rows that fail alike stop the buying."""

from __future__ import annotations

import asyncio
import hmac
import io
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter
from tests.support.cli_driver import shots
from tests.support.fake_gateway import POLL_PATH
from tests.support.hostile_gateway import HostileGateway, Order, against
from tests.support.troubles import (
    EAGER,
    FATAL,
    HELD_S,
    assert_all_recorded,
    row,
)

# --- any error, anywhere


class Panic(BaseException):
    """What libraries written in Rust raise: no `Exception`."""


KINDS: dict[str, Callable[[], BaseException]] = {
    "RuntimeError": lambda: RuntimeError("poison"),
    "Panic": lambda: Panic("poison"),
    "CancelledError": asyncio.CancelledError,
    "GeneratorExit": GeneratorExit,
    "StopIteration": lambda: StopIteration("poison"),
    "StopAsyncIteration": lambda: StopAsyncIteration("poison"),
    "TimeoutError": lambda: TimeoutError("poison"),
    "MemoryError": MemoryError,
    "RecursionError": lambda: RecursionError("poison"),
    "ExceptionGroup": lambda: ExceptionGroup("poison", [ValueError("poison")]),
    "UnicodeDecodeError": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "poison"),
}
"""Errors that a seam may raise; a `CancelledError` that no task asked for is one of them."""


class Poison:
    """A seam of a library raises in the command's threads while sixteen POSTs hang: once, or at every use."""

    def __init__(
        self, gateway: HostileGateway, *, times: int = 1, hanging: int = 16, kind: str = "RuntimeError"
    ) -> None:
        self._gateway = gateway
        self._make = KINDS[kind]
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
            raise self._make()

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
    patch.setattr(json, "dumps", strikes(poison, json.dumps, lambda value, **more: _is_submit(value)))


def _is_submit(value: object) -> bool:
    return isinstance(value, dict) and {"prompt", "seed", "input_images"} <= set(value)


def _save(patch: pytest.MonkeyPatch, poison: Poison) -> None:
    def is_video(*args: Any, **more: Any) -> bool:
        return str(args[1]).endswith(".mp4")

    for name in ("replace", "rename", "link"):
        patch.setattr(os, name, strikes(poison, getattr(os, name), is_video))


def _print(patch: pytest.MonkeyPatch, poison: Poison) -> None:
    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            if self is sys.stderr:
                poison.strike()
            return super().write(text)

    patch.setattr(io, "StringIO", Stream)


def _log(patch: pytest.MonkeyPatch, poison: Poison) -> None:
    patch.setattr(logging.Logger, "handle", strikes(poison, logging.Logger.handle, lambda *_: True))


def _clock(patch: pytest.MonkeyPatch, poison: Poison) -> None:
    patch.setattr(time, "time", strikes(poison, time.time, lambda: True))


def _callback(patch: pytest.MonkeyPatch, poison: Poison) -> None:
    patch.setattr(hmac, "compare_digest", strikes(poison, hmac.compare_digest, lambda *_: True))


def _rate(patch: pytest.MonkeyPatch, poison: Poison) -> None:
    answered = strikes(poison, AdaptiveRateLimiter.answered, lambda *_, **__: True)
    patch.setattr(AdaptiveRateLimiter, "answered", answered)


HOOKS: dict[str, Callable[[pytest.MonkeyPatch, Poison], None]] = {
    "body": _body,
    "poll": _on_request(POLL_PATH),
    "fetch": _on_request("/clips/"),
    "save": _save,
    "print": _print,
    "log": _log,
    "clock": _clock,
    "callback": _callback,
    "rate": _rate,
}

MANY = 24
BUSY = ("--set", "pace.submit_concurrency=17", *EAGER)
"""Sixteen POSTs hang, and one worker is left for the rows that set a hook off."""


SIBLINGS = [("poll", "CancelledError"), ("body", "Panic"), ("save", "StopIteration"), ("save", "TimeoutError")]
OTHERS = [
    pytest.param(hook, kind, marks=pytest.mark.long)
    for hook in HOOKS
    for kind in KINDS
    if kind != "RuntimeError" and (hook, kind) not in SIBLINGS
]


@pytest.mark.parametrize(("hook", "kind"), [*((hook, "RuntimeError") for hook in HOOKS), *SIBLINGS, *OTHERS])
def test_a_hook_that_raises_once_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: str, kind: str
) -> None:
    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        if row(order) == 1:
            return await gateway.accept(order)
        if row(order) == 2:
            await gateway.until(lambda: poison.is_armed)
            if hook == "callback":
                gateway.aside(_called(gateway))
                await gateway.until(poison.is_over)
            return web.json_response({"error": "no such picture"}, status=422)
        order.charged = True
        poison.hanging += 1
        await gateway.until(poison.is_over)
        return await gateway.accept(order)

    async def _called(gateway: HostileGateway) -> None:
        await gateway.call_back(gateway.orders[0], {"job_set_id": gateway.orders[0].job})

    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        if order is not None and row(order) == 1 and not poison.is_armed:
            return await gateway.report(order, job, jobs=[{"id": "j", "status": "queued"}])
        return await gateway.report(order, job)

    with HostileGateway(submit=submit, poll=poll) as gateway:
        poison = Poison(gateway, kind=kind)
        dop = against(tmp_path, gateway)
        manifest = dop.csv(shots(MANY))
        with monkeypatch.context() as patch:
            HOOKS[hook](patch, poison)
            end = dop.buy(manifest, *BUSY, *(["--webhook"] if hook == "callback" else []))
        assert poison.raised == 1, "the hook was not used"
        assert_all_recorded(dop, gateway, end)
        assert dop.states().get("done", 0) >= MANY - 2, end.err  # row 2 is refused, one row may be parked
        assert end.code in (0, 1, 5), end.err
        last = dop.buy(manifest, *BUSY)
        assert dop.states() == {"done": MANY - 1, "rejected": 1}, last.err
        assert len(gateway.charged) == MANY - 1


@pytest.mark.long
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
        assert_all_recorded(dop, gateway, end)
        assert end.code == FATAL, end.err
        assert begun <= len(gateway.charged) < 60
        assert "poison" in end.err
