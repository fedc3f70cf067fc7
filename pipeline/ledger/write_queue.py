"""The queue before the writer's thread: what waits shares a commit, and each caller hears what became of its change."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection

from pipeline.ledger.transitions import LedgerChange

BATCH_LIMIT = 400
"""Changes that are handed over together, and after which no more join a commit: at most two of these make one.

SQLite takes 32,766 parameters a statement; the disk write dominates well before."""

GATHER_S = 0.004
"""A run's first change waits this many seconds for others: half as many commits, each dearer than its changes."""


class QueuedWrite:
    """One thing for the writer to do, and who waits for it: a future of an event loop, or of another thread."""

    __slots__ = ("alone", "change", "loop", "transaction", "waiter")

    def __init__(
        self,
        waiter: asyncio.Future[Any] | Future[Any],
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        change: LedgerChange | None = None,
        transaction: Callable[[Connection], object] | None = None,
        alone: bool = True,
    ) -> None:
        self.waiter = waiter
        self.loop = loop
        self.change = change
        self.transaction = transaction
        self.alone = alone

    @classmethod
    def unawaited(cls, change: LedgerChange) -> QueuedWrite:
        """A change without a caller that waits for its outcome."""
        return cls(Future(), change=change)


WriteResult = tuple[object, BaseException | None]
"""What became of a change or a transaction, or the error."""


class WriteQueue:
    """Hands jobs to `do` in order, many at a time: in a thread of its own, or `inline` in the event loop itself.

    `leave` is called by the writer at its end, to close its connection.
    """

    def __init__(self, do: Callable[[Sequence[QueuedWrite]], None], leave: Callable[[], None], *, inline: bool) -> None:
        self._do = do
        self._leave = leave
        self._inline = inline
        self._waiting: list[QueuedWrite] = []  # what coroutines added and is not handed over yet
        self._adding = threading.Lock()
        self._queue: queue.SimpleQueue[Sequence[QueuedWrite] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()

    def start(self) -> None:
        """Starts the thread, unless the queue is inline."""
        if not self._inline:
            self._thread = threading.Thread(target=self._work, name="ledger-writer", daemon=True)
            self._thread.start()

    def put(self, job: QueuedWrite, loop: asyncio.AbstractEventLoop) -> None:
        """Adds a job that a coroutine waits for. The jobs of one turn of its event loop are handed over together.

        A hand-over wakes the writer's thread, which then wants the interpreter: one a job cost the loop more than
        everything else of the ledger.
        """
        with self._adding:
            # Jobs of another loop wait for that loop's turn, which may never come: each loop hands over its own.
            if not self._waiting or self._waiting[-1].loop is not loop:
                loop.call_soon(self._flush)
            self._waiting.append(job)

    def run(self, jobs: Sequence[QueuedWrite]) -> None:
        """Adds jobs whose futures a thread waits for; inline they are done when it returns."""
        self._flush()  # what a coroutine added before comes before
        self._hand_over(jobs)

    def end(self) -> None:
        """Does what waits, then ends the thread."""
        self._flush()
        if self._thread is not None:
            self._ending.set()
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def deliver(self, jobs: Sequence[QueuedWrite], results: Sequence[WriteResult]) -> None:
        """Gives each waiting caller its result, with one wake-up an event loop."""
        waiting: dict[asyncio.AbstractEventLoop, list[tuple[QueuedWrite, WriteResult]]] = {}
        for job, result in zip(jobs, results, strict=True):
            if job.loop is not None:
                waiting.setdefault(job.loop, []).append((job, result))
            else:
                _settle([(job, result)])
        for loop, settled in waiting.items():
            if self._inline:
                _settle(settled)
                continue
            with suppress(RuntimeError):  # the loop is closed: no caller waits any more, and the change is recorded
                loop.call_soon_threadsafe(_settle, settled)

    def _flush(self) -> None:
        """Hands over what coroutines added; any thread may call it."""
        with self._adding:
            jobs, self._waiting = self._waiting, []
        self._hand_over(jobs)

    def _hand_over(self, jobs: Sequence[QueuedWrite]) -> None:
        if self._inline and jobs:
            self._do(jobs)
            return
        for first in range(0, len(jobs), BATCH_LIMIT):
            self._queue.put(jobs[first : first + BATCH_LIMIT])

    def _work(self) -> None:
        ended = False
        while not ended:
            jobs: list[QueuedWrite] = []
            added = self._queue.get()
            # Only for what a coroutine waits for. A command's thread has one change at a time, and would wait in vain
            # for company. `_ending` cuts the pause short.
            if added and added[0].loop is not None:
                self._ending.wait(GATHER_S)
            while added is not None:
                jobs += added
                if len(jobs) >= BATCH_LIMIT:
                    break
                try:
                    added = self._queue.get_nowait()
                except queue.Empty:
                    break
            # `end` puts None behind everything else, so all that was put before it is done.
            ended = added is None
            try:
                self._do(jobs)
            except BaseException as error:  # noqa: BLE001 - MONEY: without its thread every caller would wait for ever
                left = [job for job in jobs if not job.waiter.done()]
                self.deliver(left, [(None, error)] * len(left))
        self._leave()


def _settle(settled: Sequence[tuple[QueuedWrite, WriteResult]]) -> None:
    for job, (result, error) in settled:
        if job.waiter.done():
            continue  # MONEY: the caller was cancelled; the change is recorded all the same
        if error is not None:
            # No future can hold a StopIteration: its caller would wait for ever.
            job.waiter.set_exception(RuntimeError(repr(error)) if isinstance(error, StopIteration) else error)
        else:
            job.waiter.set_result(result)
