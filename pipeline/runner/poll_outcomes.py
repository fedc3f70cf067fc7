"""Records what a poll came to, and plans the next one.

No failed poll decides a job's fate: a job ends by a report, or is stalled at its deadline and stays collectable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pipeline.errors import ExitCode
from pipeline.gateway.classification import PollOutcome, PollOutcomeKind
from pipeline.gateway.job_status import JobStatus, JobStatusReport
from pipeline.gateway.json_fields import one_line
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied
from pipeline.runner.circuit_breaker import CircuitBreaker
from pipeline.runner.context import PendingJob, ReadyVideo, RunContext
from pipeline.runner.link_renewal import NO_RESULT
from pipeline.runner.poll_schedule import PollSchedule
from pipeline.runner.stop import StopScope

STEP = "polling"
"""Names this step in the firewall."""

LAG_GRACE_S = 60.0
"""A 404 this soon after the submit is replication lag. Source: wire, point 11."""

NO_URL_TRIES = 5
"""Polls of a finished job that names no video before it counts as failed. Source: wire, point 5."""

SHOWN_ADDRESS_CHARS = 100
"""Characters of an address of a video that can't be fetched, in the reason of its request."""

SENSELESS_POLLS = 3
"""Answered polls in a row that say nothing about the job, after which the operator is notified: one may be a glitch."""

KEY_REFUSALS = 5
"""Refused polls in a row, with none answered between, after which the key is taken for refused."""

_ENDINGS = {
    JobStatus.FAILED: Event.FAIL,
    JobStatus.REFUSED: Event.REFUSE,
    JobStatus.CANCELED: Event.CANCEL,
}


class PollOutcomes:
    """Acts on the outcomes of polls. `jobs` are those in flight, by request; what ends is taken out of it."""

    def __init__(
        self, context: RunContext, plan: PollSchedule, breaker: CircuitBreaker, jobs: dict[str, PendingJob]
    ) -> None:
        self._context = context
        self._plan = plan
        self._breaker = breaker
        self._jobs = jobs
        self._refusals = 0
        self._strange_words: set[str] = set()
        self._notified_senseless = False

    async def act(self, job: PendingJob, verdict: PollOutcome) -> None:
        """Record what the poll says of its job, and plan the next one."""
        now = asyncio.get_running_loop().time()
        if verdict.kind is PollOutcomeKind.REPORT and verdict.report is not None:
            self._refusals = job.senseless = 0
            self._context.firewall.passed(STEP)
            self._breaker.poll_answered(now)
            await self._report(job, verdict.report, now)
            return
        self._context.log_event("poll", row_id=job.row_id, verdict=verdict.kind.value, reason=verdict.reason)
        if verdict.kind is PollOutcomeKind.KEY_REFUSED:
            self._key_refused(verdict)
        # Only where the gateway claims success: errors are an outage, and those are reported elsewhere.
        if verdict.kind is PollOutcomeKind.UNCLEAR and verdict.status is not None and verdict.status < 300:
            self._count_senseless(job, verdict.reason)
        if verdict.kind is PollOutcomeKind.NOT_FOUND and now - job.accepted_at > LAG_GRACE_S:
            # API: an unknown id past the grace is still no verdict on the job; the deadline decides, as `stalled`.
            self._plan.pending(job.request_id, now)
        else:
            self._plan.unclear(job.request_id, now, verdict.wait_s)
        await self._stall_if_overdue(job, now)

    def _count_senseless(self, job: PendingJob, reason: str) -> None:
        """Notify once a run that polls are answered and make no sense: without a word it would look like patience."""
        job.senseless += 1
        job.senseless_reason = reason
        if job.senseless == SENSELESS_POLLS and not self._notified_senseless:
            self._notified_senseless = True
            self._context.notify(
                f"{job.row_id}: {SENSELESS_POLLS} polls in a row say nothing about job {job.job_set_id} ({reason}); "
                "polling continues until the deadline"
            )

    async def _report(self, job: PendingJob, report: JobStatusReport, now: float) -> None:
        if not report.known_word and report.word not in self._strange_words:
            self._strange_words.add(report.word)
            self._context.notify(
                f"the gateway says {report.word!r}, a state this program does not know: taken as pending"
            )
        if report.status is JobStatus.DONE:
            await self._done(job, report, now)
        elif report.status in _ENDINGS:
            reason = report.reason or report.word
            refunded = self._context.kind.abilities.refunds_known
            # MONEY: a price of 0 gives the money back in every sum. Only where the gateway publishes that such jobs are
            # free.
            values = {"reason": reason} | ({"price_microusd": 0} if refunded else {})
            await self._end(job, _ENDINGS[report.status], now, values)
            charge = "not charged" if refunded else "whether it is refunded is not known"
            self._context.notify(f"{job.row_id}: {report.status.value} ({reason}); {charge}")
        else:
            self._plan.pending(job.request_id, now, report.status.value)
            await self._stall_if_overdue(job, now)

    async def _done(self, job: PendingJob, report: JobStatusReport, now: float) -> None:
        video_url = self._context.client.video_address(report)
        if video_url is None:
            await self._without_video(job, report, now)
            return
        found = {"video_url": video_url, "preview_url": report.preview_url, "reason": None}
        # Before the hand-over: the downloader records its results for a row that the ledger has as finished.
        await self._end(job, Event.COMPLETE, now, found)
        self._context.ready.put_nowait(
            ReadyVideo(
                request_id=job.request_id,
                row_id=job.row_id,
                take=job.take,
                job_set_id=job.job_set_id,
                polling_url=job.polling_url,
                video_url=video_url,
            )
        )

    async def _without_video(self, job: PendingJob, report: JobStatusReport, now: float) -> None:
        job.polls_without_url += 1
        if job.polls_without_url < NO_URL_TRIES:
            self._plan.unclear(job.request_id, now)  # not `pending`: its generation time is over
            return
        text = "the gateway says done and names no video"
        if report.other_address:
            text = f"{text} that can be fetched: {one_line(report.other_address, SHOWN_ADDRESS_CHARS)}"
        await self._end(job, Event.FAIL, now, {"reason": f"{NO_RESULT}{text}"})
        self._context.notify(f"{job.row_id}: {text}; `dop collect RUN` asks again, free of charge")

    async def _end(self, job: PendingJob, event: Event, now: float, values: Mapping[str, object]) -> None:
        ending = {"polls": job.polls, "finished_at": self._context.unix_time(), **values}
        recorded = await self._context.recorder.record(job.request_id, event, ending)
        # Where another process recorded the end first, the age at this poll is no generation time, and teaches nothing.
        self._plan.ended(job.request_id, now, now - job.accepted_at if isinstance(recorded, Applied) else None)
        self._jobs.pop(job.request_id, None)
        self._context.gate.job_ended()

    async def _stall_if_overdue(self, job: PendingJob, now: float) -> None:
        if not self._plan.is_overdue(job.request_id, now):
            return
        self._plan.forget(job.request_id)
        self._jobs.pop(job.request_id, None)
        # It may still run, but is waited for no longer: under a small cap on jobs it would block the run for ever.
        self._context.gate.job_ended()
        reason = "deadline passed; still collectable with `dop collect`"
        if job.senseless >= SENSELESS_POLLS:
            reason = f"{reason}; no poll made sense: {job.senseless_reason}"
        elif job.refused:
            reason = f"{reason}; the gateway says that it knows no job {job.job_set_id}"
        await self._context.recorder.record(job.request_id, Event.STALL, {"polls": job.polls, "reason": reason})
        self._context.notify(f"{job.row_id}: no result before the deadline: stalled, paid, and still collectable")

    def _key_refused(self, verdict: PollOutcome) -> None:
        """One refused poll may be the front's mood; several without an answer between mean the key or the credit."""
        self._refusals += 1
        if self._refusals >= KEY_REFUSALS:
            text = f"the gateway refuses the key or the account: {verdict.reason}"
            self._context.stop.request(text, exit_code=ExitCode.FATAL, reach=StopScope.ALL)
