"""The executors of the runs that one worker session serves: one for each run, renewed when its order changes."""

from __future__ import annotations

import asyncio
import time

from pipeline.gateway.webhook_tokens import CallbackDelivery
from pipeline.runner.cluster.job_queue import RunOrder
from pipeline.runner.cluster.run_executor import RunExecutor
from pipeline.runner.cluster.worker_pipeline import WorkerResources

ORDER_CACHE_S = 0.5
"""Seconds for which an order that was read counts as current, so that not every request asks the database again."""


class RunExecutors:
    """Finds or starts the executor of a run."""

    def __init__(self, resources: WorkerResources) -> None:
        self._resources = resources
        self._executors: dict[str, RunExecutor] = {}
        self._asked_at: dict[str, float] = {}
        self._opening = asyncio.Lock()
        self._is_closed = False

    @property
    def active_count(self) -> int:
        """Requests that are processed here."""
        return sum(executor.active_count for executor in self._executors.values())

    @property
    def unsent(self) -> int:
        """Requests that wait here to be bought."""
        return sum(executor.unsent for executor in self._executors.values())

    def called(self, delivery: CallbackDelivery) -> bool:
        """A callback named a request; whether it is processed here."""
        return any(executor.called(delivery) for executor in self._executors.values())

    async def of(self, run_id: str) -> RunExecutor | None:
        """The executor of a run as it is ordered now, None without an order; a changed order makes a new one."""
        executor = self._executors.get(run_id)
        if executor is not None and time.monotonic() - self._asked_at.get(run_id, 0.0) < ORDER_CACHE_S:
            return executor
        # One at a time: the first requests of a run come together, and two executors of one run would each have
        # workers, a poller and a loss budget of its own.
        async with self._opening:
            order = await self._resources.queue.order(run_id)
            self._asked_at[run_id] = time.monotonic()
            # Looked up again: another request may have started it during the await.
            executor = self._executors.get(run_id)
            if executor is not None and order is not None and executor.order.version == order.version:
                return executor
            if executor is not None:
                await self._executors.pop(run_id).close()
            return None if order is None or self._is_closed else await self._start(order)

    async def _start(self, order: RunOrder) -> RunExecutor:
        executor = RunExecutor(order, self._resources)
        executor.start()
        await self._apply_stops(executor)
        self._executors[order.run_id] = executor
        return executor

    async def _apply_stops(self, executor: RunExecutor) -> None:
        for notice in await self._resources.queue.stop_notices(executor.order.run_id):
            executor.apply_stop(notice)

    async def maintain(self) -> None:
        """One round of what is done from time to time, and of the reasons to stop that other workers found."""
        for executor in list(self._executors.values()):
            await executor.maintain()
            await self._apply_stops(executor)

    def start_no_more(self) -> None:
        """The session ends: no executor is started any more."""
        self._is_closed = True

    async def close(self) -> None:
        """Submits in flight end and are recorded; everything else is left for other workers."""
        self.start_no_more()
        await asyncio.gather(*(executor.close() for executor in self._executors.values()))
