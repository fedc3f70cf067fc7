"""What a worker that died left half done: a submit without an outcome, a clip without its check."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from pipeline.ledger.postgres_session import cause_of
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied
from pipeline.records import Attempt
from pipeline.runner.cluster.shot_keeper import ShotKeeper
from pipeline.runner.events import OutcomeUnknown
from pipeline.runner.run_pipeline import RunPipeline


class LeftBehind:
    """Finishes such requests of one executor, beside its steps.

    Args:
        on_end: called with each request once nothing more is done for it here.
        on_failure: called when that can't be recorded: this worker's session restarts.
    """

    def __init__(
        self,
        pipeline: RunPipeline,
        shots: ShotKeeper,
        *,
        on_end: Callable[[str], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self._pipeline, self._shots = pipeline, shots
        self._on_end, self._on_failure = on_end, on_failure
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, attempt: Attempt) -> None:
        """Take up a request whose intent has no outcome."""
        self._start(self._lose(attempt))

    def clip(self, attempt: Attempt) -> None:
        """Check a candidate that is fetched."""
        self._start(self._check(attempt))

    async def close(self) -> None:
        """Leave what is not finished to others."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _lose(self, attempt: Attempt) -> None:
        """MONEY: its worker died or froze during the submit. It may be paid: never sent again automatically.

        The token names that very submit: when its worker wakes after all, its answer is still recorded.
        """
        why = {"reason": "the worker was lost during the submit"}
        context = self._pipeline.context
        recorded = await context.recorder.record(attempt.request_id, Event.LOSE, why, token=attempt.token)
        if isinstance(recorded, Applied):
            context.events.emit(OutcomeUnknown(attempt=attempt))
        if not self._pipeline.replays.works_on(attempt.request_id):
            self._on_end(attempt.request_id)

    async def _check(self, attempt: Attempt) -> None:
        await self._shots.check(attempt)
        self._on_end(attempt.request_id)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - nothing else would end this request's job: begin again
            self._on_failure(cause_of(error))
