"""Polling: one poller for every job in flight. It polls when the schedule says so and records what the gateway reports.

An error of a poll never decides a job's fate, and a job past its deadline is stalled, never failed. Free of charge.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from pipeline.errors import DopError, LedgerError
from pipeline.gateway.classification import PollOutcomeKind
from pipeline.gateway.responses import NoResponse, Response
from pipeline.ledger.states import Event
from pipeline.runner.circuit_breaker import CircuitBreaker
from pipeline.runner.context import PendingJob, RunContext
from pipeline.runner.firewall import is_cancellation
from pipeline.runner.free_poll import own_outcome, poll_in_turn
from pipeline.runner.poll_outcomes import STEP, PollOutcomes
from pipeline.runner.poll_schedule import PollSchedule
from pipeline.runner.stop import StopScope

POLL_CONCURRENCY = 16
"""Polls that are in flight at the same time; the limiter spaces them, this bounds connections."""

MIN_PAUSE_S = 0.05
"""Thousands of plans are reviewed in small groups, not one at a time."""

MIN_NUDGE_GAP_S = 1.0
"""Seconds between two hinted polls of one job: a client that repeats a callback causes no flood of polls."""


class Poller:
    """Every job in flight, polled as the schedule says. Jobs come by the queue `context.accepted`."""

    def __init__(
        self, context: RunContext, plan: PollSchedule, breaker: CircuitBreaker, *, style: str | None = None
    ) -> None:
        self._context = context
        self.plan = plan
        self._jobs: dict[str, PendingJob] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._input_closed = False
        self._outcomes = PollOutcomes(context, plan, breaker, self._jobs)
        self._looking: set[str] = set()
        self._again: set[str] = set()
        self.style = style or context.kind.poll_styles[0]
        """what answers here: remembered from run to run, since a wrong one costs each job its grace"""
        self.polls = 0
        context.stop.subscribe(self._news.set)

    def __len__(self) -> int:
        """Jobs in flight, those in the queue included."""
        return len(self._jobs) + self._context.accepted.qsize()

    def _take_in(self) -> None:
        """Empty the queue of accepted jobs."""
        while not self._context.accepted.empty():
            self._add(self._context.accepted.get_nowait())

    async def _take_in_later(self) -> None:
        while True:
            self._add(await self._context.accepted.get())

    def _add(self, job: PendingJob) -> None:
        """A job is in flight from now on (or still, after a restart)."""
        self._jobs[job.request_id] = job
        self.plan.add(job.request_id, job.model, job.accepted_at, asyncio.get_running_loop().time())
        self._news.set()

    def resume(self, job: PendingJob, *, soon: bool) -> None:
        """Poll a job that another process had in flight; `soon`: a callback may have come while no process had it."""
        self._add(job)
        if soon:
            self.plan.bring_forward(job.request_id, asyncio.get_running_loop().time())

    def job(self, request_id: str) -> PendingJob | None:
        """The job of a request that is in flight here."""
        self._take_in()
        return self._jobs.get(request_id)

    def poll_soon(self, request_id: str) -> bool:
        """A callback says that the job may be finished: poll it now. False when it is not in flight here."""
        job = self.job(request_id)
        if job is None:
            return False
        now = asyncio.get_running_loop().time()
        # The answer that is on its way may have been written before the job ended, so one more poll follows it.
        if request_id in self._looking:
            self._again.add(request_id)
        elif job.nudged_at <= now:
            # A second callback within the gap gets its poll at the end of the gap; a third one finds that poll planned.
            job.nudged_at = max(now, job.nudged_at + MIN_NUDGE_GAP_S)
            self.plan.nudge(request_id, job.nudged_at)
            self._news.set()
        return True

    def close_input(self) -> None:
        """No more jobs will come: the poller ends when the last one does."""
        self._input_closed = True
        self._news.set()

    async def run(self) -> None:
        """Polls until nothing is in flight and nothing more can come, or until the run stops."""
        loop = asyncio.get_running_loop()
        intake = asyncio.create_task(self._take_in_later())
        try:
            while not self._context.stop.all and (len(self) or self._tasks or not self._input_closed):
                # Before queue and plan are read: what comes after that ends the pause below.
                self._news.clear()
                self._take_in()
                self._context.gate.pace.hurry_polls(self.plan.is_late(loop.time()))
                for request_id in self.plan.take(loop.time(), POLL_CONCURRENCY - len(self._tasks)):
                    self._start(str(request_id))
                await self._pause(loop.time())
        finally:
            for task in (intake, *self._tasks):
                task.cancel()
            await asyncio.gather(intake, *self._tasks, return_exceptions=True)
            # Jobs that were accepted while this ended are paid for as well; their counts are recorded with the others'.
            self._take_in()
            await self._record_poll_counts()

    async def _pause(self, now: float) -> None:
        # With all connections in use nothing but the end of a poll makes a difference, so no timer is set.
        due = self.plan.next_due(now) if len(self._tasks) < POLL_CONCURRENCY else None
        if due is None:
            await self._news.wait()
            return
        alarm = asyncio.get_running_loop().call_later(max(MIN_PAUSE_S, due - now), self._news.set)
        try:
            await self._news.wait()
        finally:
            alarm.cancel()

    def _start(self, request_id: str) -> None:
        self._looking.add(request_id)
        task = asyncio.create_task(self._poll(self._jobs[request_id]))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._news.set()

    async def _poll(self, job: PendingJob) -> None:
        """One look. A hint that comes meanwhile counts for the next one: the answer may be older than it."""
        try:
            await self._poll_once(job)
        except LedgerError as error:
            self._context.stop.request(str(error), exit_code=error.exit_code, reach=StopScope.ALL)
        except BaseException as error:
            if is_cancellation(error):
                raise
            self.plan.unclear(job.request_id, asyncio.get_running_loop().time())
            await self._context.firewall.park(STEP, job.request_id, job.row_id, error, reason="poll: ")
        finally:
            self._looking.discard(job.request_id)
            if job.request_id in self._again:
                self._again.discard(job.request_id)
                self.poll_soon(job.request_id)

    async def _poll_once(self, job: PendingJob) -> None:
        context = self._context
        polled = await poll_in_turn(context, job.job_set_id, lambda: self._ask(job))
        if polled is None:
            self.plan.put_back(job.request_id, asyncio.get_running_loop().time())
            return
        answer, verdict = polled.answer, own_outcome(context, job.request_id, polled)
        # A call whose first byte left did reach the gateway, whatever became of its answer.
        if isinstance(answer, Response) or answer.sent:
            context.reachability.reached()
        else:
            context.reachability.failed(verdict.reason, is_permanent=verdict.is_permanent)
        if verdict.kind is PollOutcomeKind.REPORT and verdict.report is not None:
            self.style, job.refused = self._style_for(job), 0
        elif verdict.kind is PollOutcomeKind.NOT_FOUND:
            job.refused += 1
        await self._outcomes.act(job, verdict)

    async def _ask(self, job: PendingJob) -> Response | NoResponse:
        """The poll; after a 404 the other style is tried in turn, since dialect and address vary independently."""
        job.polls += 1
        self.polls += 1
        return await self._context.client.poll(job.job_set_id, job.polling_url, self._style_for(job))

    def _style_for(self, job: PendingJob) -> str:
        """The style that last gave a report, then the others."""
        styles = (self.style, *(style for style in self._context.kind.poll_styles if style != self.style))
        return styles[job.refused % len(styles)]

    async def _record_poll_counts(self) -> None:
        """How often the jobs still in flight were polled, for their line of the report."""
        for job in list(self._jobs.values()):  # a submit in flight may still add to it
            if job.polls:
                with suppress(DopError):
                    await self._context.recorder.record(job.request_id, Event.NOTE, {"polls": job.polls})
