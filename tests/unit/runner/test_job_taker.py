"""How a worker asks for jobs, in virtual time: by the handful, no more than its share, and ends reported in time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Sequence
from typing import Any, cast

import pytest

from benchmarks.million import VirtualLoop
from pipeline.runner.cluster.job_claims import Claim, JobClaims
from pipeline.runner.cluster.job_taker import ASK_INTERVAL_S, ENDED_WAIT_S, MAX_COLLECT, JobTaker, Load

SUBMITS = 16


class Queue:
    """Jobs in memory, each turn with a round trip; and the worker that has them."""

    def __init__(self, *, buy: int = 0, collect: int = 0, holds: int = 1_000) -> None:
        self.waiting = {False: buy, True: collect}
        self.workers = 1
        self.turns: list[tuple[float, int, int, int]] = []
        self.given_back: list[str] = []
        self.unsent: list[str] = []
        self.held: set[str] = set()
        self.most_unsent = 0
        self.ended_at: dict[str, float] = {}
        self.taker = JobTaker(
            cast("JobClaims", self), load=self._load, take_up=self._take_up, submits=SUBMITS, holds=holds
        )

    def _load(self) -> Load:
        return Load(held=len(self.held), unsent=len(self.unsent))

    async def turn(self, ended: Sequence[str], *, to_buy: int, to_collect: int, room: int | None = None) -> list[Claim]:
        await asyncio.sleep(0.002)
        room = to_buy + to_collect if room is None else room
        self.ended_at |= dict.fromkeys(ended, now())
        found: list[Claim] = []
        for collects, limit in ((True, to_collect), (False, to_buy)):
            for _ in range(min(limit, room - len(found), math.ceil(self.waiting[collects] / self.workers))):
                name = f"{'collect' if collects else 'buy'}-{self.waiting[collects]}"
                self.waiting[collects] -= 1
                found.append(Claim(request_id=name, run_id="run", collects=collects, attempt=None))
        self.turns.append((now(), to_buy, to_collect, len(found)))
        return found

    async def give_back(self, request_ids: Sequence[str]) -> None:
        self.given_back += request_ids

    async def _take_up(self, claim: Claim) -> None:
        self.held.add(claim.request_id)
        if not claim.collects:
            self.unsent.append(claim.request_id)
            self.most_unsent = max(self.most_unsent, len(self.unsent))

    def end(self, name: str, *, is_finished: bool = True) -> None:
        self.held.discard(name)
        self.taker.ended(name, is_finished)

    def sell(self) -> None:
        """The oldest is bought, and over at once."""
        self.end(self.unsent.pop(0))


def now() -> float:
    return asyncio.get_running_loop().time()


def acted(story: Coroutine[Any, Any, None]) -> None:
    loop = VirtualLoop()
    try:
        loop.run_until_complete(story)
    finally:
        loop.close()


async def working(queue: Queue, story: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(queue.taker.run())
    await story
    queue.taker.stop()
    await task


def test_a_worker_that_buys_asks_by_the_handful_and_never_has_more_than_its_share() -> None:
    queue = Queue(buy=1_000)

    async def buy() -> None:
        for _ in range(1_100):
            await asyncio.sleep(0.002)  # 500 a second
            if queue.unsent:
                queue.sell()

    acted(working(queue, buy()))
    assert queue.waiting[False] + len(queue.unsent) == 0
    assert queue.most_unsent <= 2 * SUBMITS
    assert max(to_buy for _, to_buy, _, _ in queue.turns) <= SUBMITS
    useful = [found for *_, found in queue.turns if found]
    assert 1_000 / len(useful) >= 0.7 * SUBMITS
    assert len(queue.turns) <= 1.3 * len(useful)


def test_a_worker_that_can_not_buy_takes_no_more_to_buy_and_continues_to_collect() -> None:
    queue = Queue(buy=100, collect=120)
    acted(working(queue, asyncio.sleep(10)))
    assert (len(queue.unsent), queue.waiting) == (2 * SUBMITS, {False: 100 - 2 * SUBMITS, True: 0})
    assert max(to_collect for _, _, to_collect, _ in queue.turns) == MAX_COLLECT
    assert queue.turns[2][0] < 0.1, "those to collect are taken at once, not one handful at each interval"


@pytest.mark.parametrize(("buy", "collect"), [(30, 30), (0, 30), (30, 0)])
def test_a_worker_takes_all_that_it_may_hold_and_no_more(buy: int, collect: int) -> None:
    queue = Queue(buy=buy, collect=collect, holds=20)
    acted(working(queue, asyncio.sleep(3)))
    assert len(queue.held) == 20, "the last few too, though they are less than a handful"


def test_a_worker_that_may_hold_few_collects_first() -> None:
    queue = Queue(buy=30, collect=7, holds=10)
    acted(working(queue, asyncio.sleep(1)))
    assert (queue.waiting[True], len(queue.held)) == (0, 10)


def test_a_worker_that_holds_all_it_may_takes_others_by_the_handful() -> None:
    queue = Queue(collect=400, holds=100)

    async def story() -> None:
        await asyncio.sleep(0.1)
        assert len(queue.held) == 100
        for _ in range(300):
            await asyncio.sleep(0.005)
            queue.end(min(queue.held))
            assert len(queue.held) <= 100

    acted(working(queue, story()))
    useful = [found for *_, found in queue.turns[2:] if found]
    assert sum(useful) > 280
    assert sum(useful) / len(useful) >= SUBMITS / 2


def test_ends_wait_for_company_but_not_for_long() -> None:
    queue = Queue(collect=MAX_COLLECT)

    async def story() -> None:
        await asyncio.sleep(ASK_INTERVAL_S + 0.1)
        begun, asked = now(), len(queue.turns)
        for name in sorted(queue.held)[:3]:
            queue.end(name)
        await asyncio.sleep(1.5 * ENDED_WAIT_S)
        assert len(queue.turns) == asked + 1
        assert {round(at - begun, 2) for at in queue.ended_at.values()} == {ENDED_WAIT_S}
        assert len(queue.ended_at) == 3

    acted(working(queue, story()))


def test_the_rest_of_few_is_left_to_others_until_a_worker_has_nothing_to_buy() -> None:
    queue = Queue(buy=24)
    queue.workers = 2

    async def story() -> None:
        await asyncio.sleep(ASK_INTERVAL_S / 2)
        assert (len(queue.unsent), queue.waiting[False]) == (12, 12)
        while queue.unsent:
            queue.sell()
        await asyncio.sleep(0.01)
        assert (len(queue.unsent), queue.waiting[False]) == (6, 6)
        await asyncio.sleep(3 * ASK_INTERVAL_S)
        assert queue.waiting[False] == 0, "the others did not take it"

    acted(working(queue, story()))


def test_new_jobs_are_taken_when_they_are_notified_and_otherwise_at_the_next_interval() -> None:
    queue = Queue()

    async def story() -> None:
        await asyncio.sleep(0.1)
        queue.waiting[False] = 5
        await asyncio.sleep(0.1)
        assert not queue.held
        queue.taker.jobs_came()
        await asyncio.sleep(0.01)
        assert len(queue.held) == 5
        queue.waiting[False] = 5
        await asyncio.sleep(ASK_INTERVAL_S + 0.01)
        assert queue.waiting[False] == 0

    acted(working(queue, story()))


def test_what_is_not_over_is_given_back_at_once_and_what_is_left_is_reported_at_the_end() -> None:
    queue = Queue(buy=2)

    async def story() -> None:
        await asyncio.sleep(0.1)
        first, second = queue.unsent
        queue.end(first, is_finished=False)
        await asyncio.sleep(0.01)
        assert queue.given_back == [first]
        queue.end(second)

    async def whole() -> None:
        await working(queue, story())
        assert not queue.ended_at
        await queue.taker.flush()
        assert len(queue.ended_at) == 1

    acted(whole())


def test_an_error_of_the_database_ends_the_loop() -> None:
    queue = Queue()

    async def broken(ended: Sequence[str], *, to_buy: int, to_collect: int, room: int | None = None) -> list[Claim]:
        raise OSError("the database is away")

    queue.turn = broken  # type: ignore[method-assign]

    async def story() -> None:
        with pytest.raises(OSError, match="away"):
            await queue.taker.run()

    acted(story())
