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
"""Changes in one commit. SQLite takes 32,766 parameters a statement; the disk write dominates well before."""

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
        self._waiting: list[QueuedWrite] = []
        self._queue: queue.SimpleQueue[QueuedWrite | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()

    def start(self) -> None:
        """Starts the thread, unless the queue is inline."""
        if not self._inline:
            self._thread = threading.Thread(target=self._work, name="ledger-writer", daemon=True)
            self._thread.start()

    def put(self, job: QueuedWrite, loop: asyncio.AbstractEventLoop) -> None:
        """Adds a job that a coroutine waits for."""
        if not self._inline:
            self._queue.put(job)
            return
        # One flush for all that this turn of the event loop puts in: they share a transaction.
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append(job)

    def run(self, jobs: Sequence[QueuedWrite]) -> None:
        """Adds jobs whose futures a thread waits for; inline they are done when it returns."""
        if self._inline:
            self._flush()
            self._do(jobs)
            return
        for job in jobs:
            self._queue.put(job)

    def end(self) -> None:
        """Does what waits, then ends the thread."""
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
        jobs, self._waiting = self._waiting, []
        if jobs:
            self._do(jobs)

    def _work(self) -> None:
        ended = False
        while not ended:
            jobs: list[QueuedWrite] = []
            item = self._queue.get()
            # Only for what a coroutine waits for. A command's thread has one change at a time, and would wait in vain
            # for company. `_ending` cuts the pause short.
            if item is not None and item.loop is not None:
                self._ending.wait(GATHER_S)
            while item is not None:
                jobs.append(item)
                if len(jobs) >= BATCH_LIMIT:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            # `end` puts None behind everything else, so all that was put before it is done.
            ended = item is None
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
