"""The queue before the ledger's writer: order, hand-overs, and what a loop that stopped has left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from pipeline.ledger import write_queue
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import LedgerChange
from pipeline.ledger.write_queue import BATCH_LIMIT, QueuedWrite, WriteQueue


class Recorded:
    """A queue whose writer notes the names of the jobs it was handed, batch by batch."""

    def __init__(self, *, inline: bool = False) -> None:
        self.batches: list[list[str]] = []
        self.queue = WriteQueue(self._do, lambda: None, inline=inline)

    def _do(self, jobs: Sequence[QueuedWrite]) -> None:
        self.batches.append([job.change.request_id for job in jobs if job.change is not None])
        self.queue.deliver(jobs, [(None, None)] * len(jobs))

    @property
    def names(self) -> list[str]:
        return [name for batch in self.batches for name in batch]


@contextmanager
def started(*, inline: bool = False) -> Iterator[Recorded]:
    recorded = Recorded(inline=inline)
    recorded.queue.start()
    try:
        yield recorded
    finally:
        recorded.queue.end()


def change(name: str) -> LedgerChange:
    return LedgerChange(request_id=name, event=Event.NOTE, at=1.0)


def put(queue: WriteQueue, name: str, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
    future: asyncio.Future[None] = loop.create_future()
    queue.put(QueuedWrite(future, loop=loop, change=change(name)), loop)
    return future


def run(queue: WriteQueue, *names: str) -> list[Future[None]]:
    done: list[Future[None]] = [Future() for _ in names]
    queue.run([QueuedWrite(one, change=change(name)) for one, name in zip(done, names, strict=True)])
    return done


@pytest.mark.parametrize("inline", [True, False])
def test_what_one_turn_of_the_loop_adds_is_one_batch(inline: bool) -> None:
    async def add() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(put(recorded.queue, str(number), loop) for number in range(50)))

    with started(inline=inline) as recorded:
        asyncio.run(add())
    assert [batch for batch in recorded.batches if batch] == [[str(number) for number in range(50)]]


@pytest.mark.parametrize("inline", [True, False])
def test_a_thread_that_waits_comes_behind_what_coroutines_added(inline: bool) -> None:
    async def add() -> None:
        first = put(recorded.queue, "first", asyncio.get_running_loop())
        (second,) = run(recorded.queue, "second")
        second.result(timeout=60)
        await first

    with started(inline=inline) as recorded:
        asyncio.run(add())
    assert recorded.names == ["first", "second"]


def test_many_changes_are_parted_into_commits() -> None:
    names = [str(number) for number in range(3 * BATCH_LIMIT + 1)]
    with started() as recorded:
        for one in run(recorded.queue, *names):
            one.result(timeout=60)
    assert recorded.names == names
    assert max(map(len, recorded.batches)) <= 2 * BATCH_LIMIT


def test_what_a_loop_left_that_stopped_is_written_at_the_end() -> None:
    loop = asyncio.new_event_loop()
    with started() as recorded:
        put(recorded.queue, "left", loop)
        loop.close()
    assert recorded.names == ["left"]


def test_a_loop_does_not_wait_for_the_turn_of_another() -> None:
    stopped = asyncio.new_event_loop()

    async def add() -> None:
        await asyncio.wait_for(put(recorded.queue, "mine", asyncio.get_running_loop()), timeout=60)

    with started() as recorded:
        put(recorded.queue, "of a loop that never turns", stopped)
        asyncio.run(add())
        stopped.close()
    assert recorded.names == ["of a loop that never turns", "mine"]


def test_loops_of_several_threads_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_queue, "GATHER_S", 0.0)

    async def add(thread: int) -> None:
        loop = asyncio.get_running_loop()
        for number in range(60):
            await put(recorded.queue, f"{thread}-{number}", loop)

    with started() as recorded:
        threads = [threading.Thread(target=asyncio.run, args=(add(number),)) for number in range(3)]
        for one in threads:
            one.start()
        for one in threads:
            one.join(timeout=60)
    assert sorted(recorded.names) == sorted(f"{thread}-{number}" for thread in range(3) for number in range(60))
