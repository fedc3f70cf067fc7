"""One free poll in its turn: a slot of the pace, the call, what the answer means, and what it says about the limit.

The poller, the renewal of links and the recovery of unclear submits poll through it, so that a call is counted as in
flight until it has ended, whatever happens in between.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pipeline.gateway.classification import PollOutcome, PollOutcomeKind
from pipeline.gateway.job_proof import prove_job, repeats_a_request
from pipeline.gateway.job_status import TERMINAL
from pipeline.gateway.ratelimit.limiter import CallKind, LimitFeedback
from pipeline.gateway.responses import NoResponse, Response
from pipeline.ledger.queries import LedgerQueries
from pipeline.runner.context import RunContext


@dataclass(frozen=True, slots=True)
class Polled:
    """The answer to a poll, and what it means."""

    answer: Response | NoResponse
    outcome: PollOutcome


async def poll_in_turn(
    context: RunContext, job_set_id: str, send: Callable[[], Awaitable[Response | NoResponse | None]]
) -> Polled | None:
    """Waits for a slot, polls by `send`, and reports to the gate; None when the run stopped before the answer."""
    if await context.gate.slot(CallKind.POLL) is None:
        return None
    in_flight = context.gate.sent(CallKind.POLL)
    feedback, wait_s = LimitFeedback.UNKNOWN, None
    try:
        answer = await send()
        if answer is None:
            feedback = LimitFeedback.OTHER
            return None
        outcome = context.kind.classify_poll(answer, now_unix=context.unix_time(), job_set_id=job_set_id)
        feedback, wait_s = _feedback(outcome), outcome.wait_s
    finally:
        # Also after an unforeseen error: a call that the gate counts as in flight for ever blocks others.
        context.gate.answered(in_flight, feedback, wait_s)
    return Polled(answer, outcome)


def own_outcome(context: RunContext, request_id: str, polled: Polled) -> PollOutcome:
    """The outcome; unclear where an answer that names no job ends one and repeats another request.

    MONEY: on a kept-alive connection it can be another job's, whose video would be saved as this row's.
    """
    outcome, report = polled.outcome, polled.outcome.report
    if report is None or report.status not in TERMINAL or report.job_set_id is not None:
        return outcome
    if not repeats_a_request(polled.answer):  # as most do not: the ledger is not read for nothing
        return outcome
    attempt = LedgerQueries(context.recorder.ledger).attempts_of(request_id)[-1]
    proof = prove_job(polled.answer, outcome, attempt.params)
    if not proof.final:
        return outcome
    reason = f"the answer is about another request: {proof.reason}"
    return PollOutcome(kind=PollOutcomeKind.UNCLEAR, reason=reason, status=outcome.status)


def _feedback(outcome: PollOutcome) -> LimitFeedback:
    if outcome.kind is PollOutcomeKind.THROTTLED:
        return LimitFeedback.THROTTLED
    return LimitFeedback.UNKNOWN if outcome.kind is PollOutcomeKind.UNCLEAR else LimitFeedback.ACCEPTED
