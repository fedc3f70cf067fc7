"""The stop signal: a request wakes every waiter itself, and no reason is missed."""

from __future__ import annotations

import asyncio

from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter, CallKind, Rate
from pipeline.runner.rate_gate import RateGate
from pipeline.runner.stop import StopScope, StopSignal


async def test_a_request_alone_ends_the_wait_for_a_slot() -> None:
    stop = StopSignal()
    gate = RateGate(AdaptiveRateLimiter(rate=Rate(1, 3600.0), now=asyncio.get_running_loop().time()), stop)
    assert await gate.slot(CallKind.SUBMIT) is not None
    waiting = asyncio.create_task(gate.slot(CallKind.SUBMIT))
    await asyncio.sleep(0)
    stop.request("enough", exit_code=5, reach=StopScope.SUBMITS)
    assert await asyncio.wait_for(waiting, 1.0) is None


async def test_every_reason_is_followed_also_those_given_before_and_while_one_is_handled() -> None:
    stop, seen = StopSignal(), []
    stop.request("first", exit_code=5, reach=StopScope.SUBMITS)

    async def follow() -> None:
        async for reason in stop.follow():
            seen.append(reason.text)
            if len(seen) == 1:
                stop.request("second", exit_code=8, reach=StopScope.SUBMITS)
                await asyncio.sleep(0)

    task = asyncio.create_task(follow())
    for _ in range(5):
        await asyncio.sleep(0)
    stop.request("third", exit_code=7, reach=StopScope.ALL)
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    assert seen == ["first", "second", "third"]


async def test_a_pause_ends_with_the_reason_that_concerns_it() -> None:
    stop = StopSignal()
    pauses = [asyncio.create_task(stop.pause(3600.0)), asyncio.create_task(stop.pause(3600.0, until=StopScope.ALL))]
    await asyncio.sleep(0)
    stop.request("enough", exit_code=5, reach=StopScope.SUBMITS)
    await asyncio.wait_for(pauses[0], 1.0)
    assert not pauses[1].done()
    stop.request("away", exit_code=130, reach=StopScope.ALL)
    await asyncio.wait_for(pauses[1], 1.0)
    await asyncio.wait_for(stop.pause(0.0, until=StopScope.ALL), 1.0)
