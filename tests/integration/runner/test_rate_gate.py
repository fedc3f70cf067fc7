"""The gate before the gateway, in virtual time: calls go when they are due, whatever it takes to get them ready."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from benchmarks.million import VirtualLoop
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter, CallKind, LimitFeedback, Rate
from pipeline.runner.rate_gate import RateGate
from pipeline.runner.stop import StopSignal


def rate(story: Coroutine[Any, Any, None]) -> None:
    """Runs it in virtual time."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(story)
    finally:
        loop.close()


def test_calls_go_when_they_are_due_though_each_takes_its_time_to_get_ready() -> None:
    rng, due_at, gone_at = random.Random(1), [], []

    async def worker(gate: RateGate, calls: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(calls):
            slot = await gate.slot(CallKind.SUBMIT)
            assert slot is not None
            await asyncio.sleep(rng.uniform(0.005, 0.03))
            assert not await gate.slot_is_void(slot)
            ticket = gate.sent(CallKind.SUBMIT)
            due_at.append(slot.due_at)
            gone_at.append(loop.time())
            await asyncio.sleep(0.2)
            gate.answered(ticket, LimitFeedback.ACCEPTED)

    async def story() -> None:
        gate = RateGate(AdaptiveRateLimiter(rate=Rate(20, 1), burst=1), StopSignal())
        await asyncio.gather(*(worker(gate, 25) for _ in range(8)))

    rate(story())
    assert len(gone_at) == 200
    assert all(gone >= due for gone, due in zip(gone_at, due_at, strict=True))
    assert gone_at[-1] == pytest.approx(199 / 20, abs=0.1)
    late_s = sorted(gone - due for gone, due in zip(gone_at[50:], due_at[50:], strict=True))
    assert late_s[int(0.75 * len(late_s))] < 0.001


def test_a_hint_that_comes_while_a_call_waits_for_its_turn_voids_it() -> None:
    async def story() -> None:
        pace = AdaptiveRateLimiter(rate=Rate(10, 1), burst=1)
        gate, loop = RateGate(pace, StopSignal()), asyncio.get_running_loop()
        for number in range(60):  # calls have been taking 30 ms to get ready
            slot = await gate.slot(CallKind.SUBMIT)
            assert slot is not None
            await asyncio.sleep(0.03)
            assert not await gate.slot_is_void(slot)
            in_flight = gate.sent(CallKind.SUBMIT)
            if number < 59:
                gate.answered(in_flight, LimitFeedback.ACCEPTED)
        slot = await gate.slot(CallKind.SUBMIT)
        assert slot is not None
        assert slot.due_at - loop.time() > 0.02
        loop.call_later(0.01, gate.answered, in_flight, LimitFeedback.THROTTLED, 5.0)
        assert await gate.slot_is_void(slot)
        assert loop.time() >= slot.due_at

    rate(story())
