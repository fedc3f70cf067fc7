"""Workers that share one rate, in virtual time: the program's own limiter, a row in memory, an exact limit."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from benchmarks.million import VirtualLoop
from benchmarks.simulation import Hint, Latency, Limiter
from pipeline.gateway.ratelimit.limiter import CallKind, LimitFeedback
from pipeline.runner.cluster.shared_limit import Report, RowState, SharedPace
from pipeline.runner.cluster.shared_rate import SharedRateLimiter
from pipeline.runner.cluster.shared_rate_row import Check

T = TypeVar("T")
EPOCH_S = 1_800_000_000.0
GRACE_S = 0.02
"""Until another worker has read of a hint that one worker saw."""
SUBMIT = CallKind.SUBMIT


class MemoryRow:
    """The row without a database: one visitor at a time, a round trip each way."""

    def __init__(self, settings: SharedPace | None = None, *, trip_s: float = 0.001) -> None:
        self.row = RowState(settings=settings or SharedPace())
        self.visits = 0
        self.in_flight = 0
        self._trip_s = trip_s
        self._lock = asyncio.Lock()

    async def change(self, act: Callable[[RowState, float, int], tuple[RowState, T]], *, count: bool) -> T:
        async with self._lock:
            await asyncio.sleep(self._trip_s)
            self.visits += 1
            self.row, result = act(self.row, EPOCH_S + asyncio.get_running_loop().time(), self.in_flight)
            await asyncio.sleep(self._trip_s)
            return result

    async def check(self) -> Check:
        await asyncio.sleep(self._trip_s)
        return Check(self.row.blocked_at, self.row.held_until, self.row.cap, self.in_flight)

    async def close(self) -> None:
        """Nothing to let go of."""


@dataclass
class Shared:
    """What the workers did together."""

    left: int
    row: MemoryRow
    admitted_at: list[float] = field(default_factory=list)
    rejected_at: list[float] = field(default_factory=list)
    sent_too_early: int = 0
    silent: list[tuple[float, float]] = field(default_factory=list)
    """from when on every worker should know until when nothing may go"""
    by_worker: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Line:
    """The way to the gateway, and when a worker stops as if it was killed (the loop's seconds)."""

    limiter: Limiter
    hint: Hint
    latency: Latency
    seed: int = 1
    killed_at: dict[int, float] = field(default_factory=dict)


async def submit_all(it: Shared, line: Line, *, workers: int, tasks: int = 16) -> None:
    """`workers` workers of `tasks` tasks each, until all submits are admitted."""
    rng = random.Random(line.seed)
    limiters = [SharedRateLimiter(it.row) for _ in range(workers)]

    async def one_call(place: int) -> None:
        shared, now = limiters[place], asyncio.get_running_loop().time
        it.left -= 1
        slot = await shared.slot(SUBMIT)
        assert slot is not None
        await asyncio.sleep(rng.uniform(0.002, 0.005))  # the intent is made durable
        await asyncio.sleep(max(slot.due_at - now(), 0.0))
        if await shared.is_void(slot):
            shared.release(slot)
            it.left += 1
            return
        sent_at = now()
        it.sent_too_early += any(known_at < sent_at < until for known_at, until in it.silent)
        shared.sent(slot, sent_at)
        there_s, back_s = line.latency.draw(rng)
        await asyncio.sleep(there_s)
        wait_s = line.limiter.admit(now())
        (it.rejected_at if wait_s else it.admitted_at).append(now())
        await asyncio.sleep(back_s)
        hint_s = line.hint(wait_s) if wait_s else None
        if wait_s:
            it.left += 1
        else:
            it.by_worker[place] = it.by_worker.get(place, 0) + 1
        if hint_s is not None and hint_s <= 60:
            it.silent.append((now() + GRACE_S, now() + hint_s))
        feedback = LimitFeedback.THROTTLED if wait_s else LimitFeedback.ACCEPTED
        shared.answered(Report(slot=slot.slot, sent_at=sent_at, answered_at=now(), feedback=feedback, wait_s=hint_s))

    async def task(place: int) -> None:
        while it.left > 0:
            await one_call(place)
            if it.left <= 0:
                await asyncio.sleep(0.5)  # a call in flight may still be rejected

    groups = {place: asyncio.gather(*(task(place) for _ in range(tasks))) for place in range(workers)}
    for place, at in line.killed_at.items():
        asyncio.get_running_loop().call_at(at, _kill, groups[place], limiters[place])
    await asyncio.gather(*groups.values(), return_exceptions=True)
    for place, shared in enumerate(limiters):
        if place not in line.killed_at:
            await shared.close()


def _kill(group: asyncio.Future[list[None]], shared: SharedRateLimiter) -> None:
    """Nothing more is reported, as if the host was cut off."""
    if shared._visits is not None:
        shared._visits.cancel()
    shared._visit_soon = lambda: None  # type: ignore[method-assign]
    group.cancel()


def together(
    line: Line, *, calls: int, workers: int, settings: SharedPace | None = None, row: MemoryRow | None = None
) -> Shared:
    """`calls` submits of several workers, in virtual time."""

    async def story() -> Shared:
        it = Shared(calls, row or MemoryRow(settings))
        await submit_all(it, line, workers=workers)
        return it

    loop = VirtualLoop()
    try:
        return loop.run_until_complete(story())
    finally:
        loop.close()
