"""Requests of a worker whose outcome is being found out: the queue's job of each ends when the search has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.states import Event
from pipeline.records import State
from pipeline.runner.cluster.job_queue import NOT_FOUND_OUT
from pipeline.runner.replay_recorder import MISMATCH
from pipeline.runner.replays import CaseEnd
from pipeline.runner.run_pipeline import RunPipeline


class UnclearRequests:
    """Those of one executor. `on_end` is called for each that is over here."""

    def __init__(
        self, run_id: str, queries: LedgerQueries, pipeline: RunPipeline, *, on_end: Callable[[str], None]
    ) -> None:
        self._run_id, self._queries, self._pipeline, self._on_end = run_id, queries, pipeline, on_end
        self._conclusions: set[asyncio.Task[None]] = set()

    def take_up(self, request_id: str) -> bool:
        """Begin the search for an unknown outcome that another worker or run left; False when it can't be found out."""
        self._pipeline.replays.add(request_id)
        return self._pipeline.replays.works_on(request_id)

    def noted(self, request_id: str) -> None:
        """An outcome became unknown here: the request is kept as long as the search lasts."""
        if not self._pipeline.replays.works_on(request_id):
            self._on_end(request_id)

    def over(self, request_id: str, end: CaseEnd) -> None:
        """The search has ended."""
        if end is CaseEnd.RELEASED:
            self._on_end(request_id)
            return
        task = asyncio.create_task(self._conclude(request_id))
        self._conclusions.add(task)
        task.add_done_callback(self._conclusions.discard)

    async def _conclude(self, request_id: str) -> None:
        """An accepted request is polled on; one that is still unknown is not queued again under this order."""
        attempt = await asyncio.to_thread(self._queries.listed, self._run_id, request_id)
        if attempt is not None and attempt.state is not State.UNKNOWN:
            return
        try:
            if attempt is not None and not (attempt.reason or "").startswith(MISMATCH):
                await self._pipeline.context.recorder.record(request_id, Event.NOTE, {"reason": NOT_FOUND_OUT})
        finally:
            self._on_end(request_id)

    async def close(self) -> None:
        """Wait for what is being recorded."""
        await asyncio.gather(*self._conclusions, return_exceptions=True)
