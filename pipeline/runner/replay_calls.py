"""Repeated paid calls and cancellations: one HTTP call each, with a slot of the pace, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.gateway.kinds.interface import Call, CancelOutcome, ReplayKind, ReplayOutcome
from pipeline.gateway.ratelimit.limiter import CallInFlight, CallKind, LimitFeedback
from pipeline.gateway.responses import NoResponse, Response
from pipeline.records import Attempt
from pipeline.runner.cancellation import cancel_job
from pipeline.runner.context import RunContext
from pipeline.runner.stop import StopScope

MIN_ANSWER_S = 15.0
"""Seconds after which a repeated call is given up and repeated again, where no answered submit took long. A first
submit is waited for much longer, because giving it up leaves an unknown outcome. This one is unclear already, its key
buys nothing twice, and while it is waited for no other unclear submit is found out."""

SLOWEST_FACTOR = 2.0
"""A gateway whose answers take longer than usual is waited for so many times the slowest 2xx."""


@dataclass(slots=True)
class _Limit:
    """What a call says about the gateway's limit."""

    feedback: LimitFeedback = LimitFeedback.OTHER
    wait_s: float | None = None


class ReplayCalls:
    """The repeated calls of one run."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self.sent = 0

    async def send(
        self, call: Call, attempt: Attempt, *, counts_job: bool
    ) -> tuple[ReplayOutcome, Response | NoResponse]:
        """One repeated call in its turn. `counts_job`: its job is one more in flight.

        A run that stops buying still finds out what it paid for.
        """
        context = self._context
        in_flight = await self._turn()
        if in_flight is None:
            nothing = _not_sent()
            return ReplayOutcome(kind=ReplayKind.UNCLEAR, reason=nothing.what), nothing
        context.fail_point("before-replay")
        self.sent += 1
        with self._reported(in_flight) as limit:
            response = await context.client.submit(call, timeout_s=self._timeout_s())
            context.fail_point("after-replay")
            outcome = context.kind.classify_replay(response, now_unix=context.unix_time(), params=attempt.params)
            limit.feedback, limit.wait_s = _feedback(outcome, response, counts_job=counts_job), outcome.wait_s
        context.log_event("replay", request_id=attempt.request_id, outcome=outcome.kind.value, reason=outcome.reason)
        return outcome, response

    async def probe(self, call: Call) -> tuple[Response | NoResponse, str | None]:
        """One call that the gateway must refuse as invalid, in its turn; with the job where it takes it anyway."""
        context = self._context
        in_flight = await self._turn()
        if in_flight is None:
            return _not_sent(), None
        with self._reported(in_flight) as limit:
            response = await context.client.submit(call, timeout_s=self._timeout_s())
            found = context.kind.classify_submit(response, now_unix=context.unix_time())
            is_throttled = isinstance(response, Response) and response.status == 429
            limit.feedback = LimitFeedback.THROTTLED if is_throttled else LimitFeedback.OTHER
            limit.wait_s = found.stated_wait_s
        context.log_event("key probe", outcome=found.kind.value, reason=found.reason)
        return response, None if found.ticket is None else found.ticket.job_set_id

    def _timeout_s(self) -> float:
        return max(MIN_ANSWER_S, SLOWEST_FACTOR * self._context.client.slowest_submit_s)

    async def _turn(self) -> CallInFlight | None:
        """A slot of the pace that is used now; None when the run stops."""
        gate = self._context.gate
        while (slot := await gate.slot(CallKind.SUBMIT, after_stop=True)) is not None:
            if not await gate.slot_is_void(slot):
                return gate.sent(CallKind.SUBMIT)
            gate.release(CallKind.SUBMIT)
        return None

    @contextmanager
    def _reported(self, in_flight: CallInFlight) -> Iterator[_Limit]:
        """Reports to the gate what is set within it, and that the call ended where an error comes first."""
        limit = _Limit()
        try:
            yield limit
        finally:
            self._context.gate.answered(in_flight, limit.feedback, limit.wait_s)

    async def query(self, attempt: Attempt) -> tuple[ReplayOutcome, Response | NoResponse]:
        """One free call, in its turn, for the job of a submit by the id that the submit was given."""
        context = self._context
        if await context.gate.slot(CallKind.POLL) is None:
            nothing = _not_sent()
            return ReplayOutcome(kind=ReplayKind.UNCLEAR, reason=nothing.what), nothing
        with self._reported(context.gate.sent(CallKind.POLL)) as limit:
            response = await context.client.ask(context.kind.lookup_call(attempt.idempotency_key or ""))
            outcome = context.kind.classify_lookup(response, now_unix=context.unix_time())
            limit.wait_s = outcome.wait_s
        context.log_event("lookup", request_id=attempt.request_id, outcome=outcome.kind.value, reason=outcome.reason)
        return outcome, response

    async def cancel(self, job_set_id: str) -> bool:
        """Whether the job is canceled, and so not charged."""
        context = self._context
        if not context.kind.abilities.cancel:
            return False
        found = await cancel_job(context.client, context.kind, job_set_id, pause=self._pause)
        return found is CancelOutcome.CANCELED

    async def _pause(self, seconds: float) -> None:
        await self._context.stop.pause(seconds, until=StopScope.ALL)


def _not_sent() -> NoResponse:
    return NoResponse(sent=False, what="the run stops")


def _feedback(outcome: ReplayOutcome, response: Response | NoResponse, *, counts_job: bool) -> LimitFeedback:
    if isinstance(response, Response) and response.status == 429:
        return LimitFeedback.THROTTLED
    if outcome.kind is ReplayKind.JOB:
        # A canary gives a job that is in flight or ended already: the number of jobs does not grow by it.
        return LimitFeedback.ACCEPTED if counts_job else LimitFeedback.OTHER
    return LimitFeedback.UNKNOWN if outcome.kind is ReplayKind.UNCLEAR else LimitFeedback.OTHER
