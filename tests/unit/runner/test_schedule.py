"""The times of a schedule: one worker starts the run of each, and a time while none was there is made up for."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress

import pytest

from pipeline.errors import UsageError
from pipeline.runner.cluster.schedule import ScheduledRuns

COMMAND = (sys.executable, "-S", "-c", "raise SystemExit(3)")


class Claims:
    """Which times this worker was given; it asks for all."""

    def __init__(self, *, mine: bool) -> None:
        self.asked: list[float] = []
        self.ended = 0
        self._mine = mine

    async def claim_time(self, at: float) -> bool:
        self.asked.append(at)
        return self._mine

    async def end_scheduled(self) -> None:
        self.ended += 1


async def run(cron: str, claims: Claims, times: int) -> list[str]:
    said: list[str] = []
    left = times

    async def sleep(seconds: float) -> None:
        nonlocal left
        assert seconds >= 0.0
        if not left:
            raise TimeoutError
        left -= 1

    with suppress(TimeoutError):
        await ScheduledRuns(cron, COMMAND, said.append).run(claims, sleep)
    return said


async def test_each_time_is_asked_for_in_order_and_its_run_is_started_where_it_is_given() -> None:
    claims, now = Claims(mine=True), time.time()
    said = await run("*/5 * * * *", claims, 2)
    first, second = claims.asked
    assert now - 600 < first <= time.time()
    assert second == first + 300
    assert said == [f"worker: the scheduled run of {at:.0f} ended with 3" for at in claims.asked]
    assert claims.ended == 2


async def test_where_another_worker_has_it_nothing_is_started() -> None:
    claims = Claims(mine=False)
    assert await run("*/5 * * * *", claims, 3) == []
    assert (len(claims.asked), claims.ended) == (3, 0)


async def test_a_time_of_long_ago_is_not_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_790_000_000.0)  # 14:13 UTC
    claims = Claims(mine=False)
    await run("0 2 * * *", claims, 1)
    assert claims.asked == [1_790_042_400.0]


def test_times_that_can_not_be_read_are_refused() -> None:
    with pytest.raises(UsageError, match=r"schedule\.cron: '61 \* \* \* \*' is no time"):
        ScheduledRuns("61 * * * *", COMMAND, print)


async def test_a_run_that_is_going_is_ended_with_the_worker() -> None:
    said: list[str] = []
    schedule = ScheduledRuns("* * * * * *", ("/bin/sleep", "600"), said.append)
    running = asyncio.create_task(schedule.run(Claims(mine=True)))
    for _ in range(1_000):
        await asyncio.sleep(0.01)
        if schedule._process is not None:
            break
    process = schedule._process
    assert process is not None
    await schedule.stop()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert process.returncode == -15
