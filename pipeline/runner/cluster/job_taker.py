"""Takes jobs for one worker as it has room, by the handful, and tells the queue of those that have ended.

A worker takes up little more than it can submit soon, and no more at once than it can submit at the same time, so that
others have their share.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from pipeline.runner.cluster.job_claims import Claim, JobClaims

ASK_INTERVAL_S = 0.5
"""Seconds between two questions for jobs while none is there; workers are notified of new ones as well."""

MAX_COLLECT = 50
"""Jobs to collect that are taken, and ended ones that are gathered, at most by one statement."""

ENDED_WAIT_S = 0.25
"""Ended jobs wait so long (seconds) for company: nothing but the command that follows the run waits for them."""

MAX_UNSENT, REFILL_BELOW = 2.0, 1.25
"""A worker has at most so many requests to buy, in multiples of `pace.submit_concurrency`, and takes more when it has
no more than the second: while it asks, some are left for its submitters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a worker has: requests of any kind, and those of them that are still to be bought."""

    held: int
    unsent: int


class JobTaker:
    """The loop that asks for jobs.

    Args:
        load: what the worker has now.
        take_up: called with each job that was taken.
        submits: requests that the worker submits at the same time.
        holds: requests at most in the worker's hands.
    """

    def __init__(
        self,
        claims: JobClaims,
        *,
        load: Callable[[], Load],
        take_up: Callable[[Claim], Awaitable[None]],
        submits: int,
        holds: int,
    ) -> None:
        self._claims, self._load, self._take_up = claims, load, take_up
        self._submits, self._holds = submits, holds
        self._ended: list[str] = []
        self._back: list[str] = []
        self._ended_since = self._asked_at = float("-inf")
        self._more_to_buy = self._more_to_collect = True  # as far as this worker knows
        self._shared_few = False  # it got a part of few: the rest is for the others, or for later
        self._stopped = False
        self._news = asyncio.Event()

    def ended(self, request_id: str, is_finished: bool) -> None:
        """A request is not processed here any more: its job is done, or for another worker."""
        if not self._ended:
            self._ended_since = _now()
            self._news.set()  # the loop may be waiting for a later moment
        (self._ended if is_finished else self._back).append(request_id)
        self.room_changed()

    def room_changed(self) -> None:
        """The worker has fewer requests than before."""
        if self._is_due():
            self._news.set()

    def jobs_came(self) -> None:
        """New jobs are queued."""
        self._more_to_buy = self._more_to_collect = True
        self.room_changed()

    def stop(self) -> None:
        """Take no more jobs; `run` returns."""
        self._stopped = True
        self._news.set()

    async def run(self) -> None:
        """Take jobs until `stop`.

        Raises:
            psycopg.Error: the database is away.
            LedgerError: a row that is to be bought was changed since it was planned.
        """
        while not self._stopped:
            await self._one_turn()
            while not self._stopped and not self._is_due():
                self._news.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), max(self._next_at() - _now(), 0.0))

    async def flush(self) -> None:
        """Tell the queue of what has ended; nothing is taken."""
        ended, self._ended = self._ended, []
        await self._claims.turn(ended, to_buy=0, to_collect=0)

    async def _one_turn(self) -> None:
        if self._back:
            back, self._back = self._back, []
            await self._claims.give_back(back)
        to_buy, to_collect, room = self._room()
        ended, self._ended = self._ended, []
        self._asked_at = _now()
        self._more_to_buy = self._more_to_collect = False
        taken = await self._claims.turn(ended, to_buy=to_buy, to_collect=to_collect, room=room)
        collected = sum(one.collects for one in taken)
        # What was notified meanwhile counts as well.
        self._more_to_collect |= collected == to_collect
        self._more_to_buy |= len(taken) - collected == to_buy
        self._shared_few = 0 < len(taken) - collected < to_buy
        for one in taken:
            if self._stopped:
                return  # the session gives back whatever it has
            await self._take_up(one)

    def _room(self) -> tuple[int, int, int]:
        """How many jobs to buy, to collect, and in all this worker has room for."""
        load = self._load()
        free = max(self._holds - load.held, 0)
        # A worker that is nearly full asks from time to time: else each end would be a statement that takes one other.
        if free < min(self._submits, self._holds) // 2 and _now() < self._asked_at + ASK_INTERVAL_S:
            free = 0
        to_buy = 0
        if load.unsent <= REFILL_BELOW * self._submits:
            to_buy = min(int(MAX_UNSENT * self._submits) - load.unsent, self._submits, free)
        return max(to_buy, 0), min(free, MAX_COLLECT), free

    def _is_due(self) -> bool:
        if self._back or len(self._ended) >= MAX_COLLECT or _now() >= self._next_at():
            return True
        to_buy, to_collect, _ = self._room()
        may_buy = self._more_to_buy or (self._shared_few and self._load().unsent == 0)
        return (may_buy and to_buy > 0) or (self._more_to_collect and to_collect > 0)

    def _next_at(self) -> float:
        ask_at = self._asked_at + ASK_INTERVAL_S
        return min(ask_at, self._ended_since + ENDED_WAIT_S) if self._ended else ask_at


def _now() -> float:
    return asyncio.get_running_loop().time()
