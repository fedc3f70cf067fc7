"""What a repeated paid call came to, in the ledger and for the user."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pipeline.errors import InvariantError
from pipeline.gateway.kinds.interface import ReplayOutcome
from pipeline.gateway.responses import NoResponse, Response
from pipeline.gateway.wire import SubmittedJob
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied, JobTaken
from pipeline.records import Attempt
from pipeline.runner.context import RunContext, accepted_job

MISMATCH = "the gateway says that its key belongs to another request"
"""Begins the reason of a request that is parked for good."""

DETAIL_CHARS = 2_000
"""Characters of an answer that the history keeps."""


class ReplayRecorder:
    """Records the outcomes of one run. `on_answer` is called when a repeated call was answered with its job."""

    def __init__(self, context: RunContext, on_answer: Callable[[], None]) -> None:
        self._context, self._on_answer = context, on_answer

    async def accept(self, attempt: Attempt, job: SubmittedJob, response: Response | NoResponse, how: str) -> bool:
        """Record the job of an unclear submit and hand it to the poller; False when it belongs to another request."""
        context = self._context
        values = {"job_set_id": job.job_set_id, "polling_url": job.polling_url, "accepted_at": context.unix_time()}
        said = ""
        if isinstance(response, Response):
            said = response.body[:DETAIL_CHARS].decode("utf-8", "replace") + response.trace
        detail = context.calls.without_secrets(attempt, f"{how}: {said}")
        try:
            recorded = await context.recorder.record(
                attempt.request_id, Event.ACCEPT, {**values, "reason": None}, token=attempt.token, detail=detail
            )
        except InvariantError:
            return True  # settled meanwhile
        if isinstance(recorded, JobTaken):
            return False
        if isinstance(recorded, Applied):
            self._on_answer()
            context.notify(f"{attempt.row_id}: {how}; it is job {job.job_set_id}, charged once")
            now = asyncio.get_running_loop().time()
            context.hand_to_poller(accepted_job(attempt, job.job_set_id, job.polling_url, now))
        return True

    async def park(self, attempt: Attempt, outcome: ReplayOutcome) -> None:
        """MONEY: never sent again, under this key or another: something was bought under it, perhaps by other bytes."""
        reason = f"{MISMATCH} ({outcome.reason}); it is not sent again"
        await self._context.recorder.record(attempt.request_id, Event.NOTE, {"reason": reason}, detail=reason)
        self._context.notify(f"{attempt.row_id}: stays unknown: {reason}; `dop resolve` settles it")
