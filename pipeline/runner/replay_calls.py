"""Repeated paid calls and cancellations: one HTTP call each, with a slot of the pace, and what came of it."""

from __future__ import annotations

from pipeline.gateway.kinds.interface import Call, CancelOutcome, ReplayKind, ReplayOutcome
from pipeline.gateway.ratelimit.limiter import CallKind, LimitFeedback
from pipeline.gateway.responses import CallPhase, NoResponse, Response
from pipeline.records import Attempt
from pipeline.runner.context import RunContext
from pipeline.runner.stop import StopScope

CANCEL_TRIES = 5
"""Cancel calls for one job before it counts as not canceled."""

CANCEL_PAUSE_S = 0.2
"""Seconds before the second cancel call, doubled each time: a job can be canceled only while it is queued."""


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
        context, gate = self._context, self._context.gate
        while (slot := await gate.slot(CallKind.SUBMIT, after_stop=True)) is not None:
            if not await gate.slot_is_void(slot):
                break
            gate.release(CallKind.SUBMIT)
        if slot is None:
            reason = "the run stops"
            nothing = NoResponse(sent=False, what=reason, phase=CallPhase.CONNECT)
            return ReplayOutcome(kind=ReplayKind.UNCLEAR, reason=reason), nothing
        in_flight = gate.sent(CallKind.SUBMIT)
        context.fail_point("before-replay")
        self.sent += 1
        try:
            response = await context.client.submit(call)
        except BaseException:
            gate.answered(in_flight, LimitFeedback.OTHER)
            raise
        context.fail_point("after-replay")
        outcome = context.kind.classify_replay(response, now_unix=context.unix_time(), params=attempt.params)
        gate.answered(in_flight, _feedback(outcome, response, counts_job=counts_job), outcome.wait_s)
        context.log_event("replay", request_id=attempt.request_id, outcome=outcome.kind.value, reason=outcome.reason)
        return outcome, response

    async def look_up(self, attempt: Attempt) -> tuple[ReplayOutcome, Response | NoResponse]:
        """One free call, in its turn, for the job of a submit by the id that the submit was given."""
        context = self._context
        if await context.gate.slot(CallKind.POLL) is None:
            nothing = NoResponse(sent=False, what="the run stops", phase=CallPhase.CONNECT)
            return ReplayOutcome(kind=ReplayKind.UNCLEAR, reason=nothing.what), nothing
        in_flight = context.gate.sent(CallKind.POLL)
        response = await context.client.ask(context.kind.lookup_call(attempt.idempotency_key or ""))
        outcome = context.kind.classify_lookup(response, now_unix=context.unix_time())
        context.gate.answered(in_flight, LimitFeedback.OTHER, outcome.wait_s)
        context.log_event("lookup", request_id=attempt.request_id, outcome=outcome.kind.value, reason=outcome.reason)
        return outcome, response

    async def cancel(self, job_set_id: str) -> bool:
        """Whether the job is canceled, and so not charged."""
        context = self._context
        if not context.kind.abilities.cancel:
            return False
        for tries in range(CANCEL_TRIES):
            found = context.kind.classify_cancel(await context.client.ask(context.kind.cancel_call(job_set_id)))
            if found is not CancelOutcome.UNCLEAR:
                return found is CancelOutcome.CANCELED
            await context.stop.pause(CANCEL_PAUSE_S * 2**tries, until=StopScope.ALL)
        return False


def _feedback(outcome: ReplayOutcome, response: Response | NoResponse, *, counts_job: bool) -> LimitFeedback:
    if isinstance(response, Response) and response.status == 429:
        return LimitFeedback.THROTTLED
    if outcome.kind is ReplayKind.JOB:
        return LimitFeedback.ACCEPTED if counts_job else LimitFeedback.OTHER
    return LimitFeedback.UNKNOWN if outcome.kind is ReplayKind.UNCLEAR else LimitFeedback.OTHER
