"""Submits of unknown outcome that may be sent again: which, and planning them once more. Nothing here sends a submit.

How one is proved to be accepted instead is in `job_recovery`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipeline.ledger.resend_policy import ResendPolicy
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied
from pipeline.records import Attempt, State, usd
from pipeline.runner.context import RunContext

RESEND_REASON = "sent again after an unknown outcome (on_unknown.policy is resend)"


def to_send_again(
    policy: ResendPolicy, unknowns: Iterable[Attempt], prices_microusd: Mapping[str, int]
) -> tuple[list[Attempt], int]:
    """Which attempts the policy sends again, of those that are still unknown, and how many the money leaves out."""
    still = (attempt for attempt in unknowns if attempt.state is State.UNKNOWN)
    return policy.chosen(still, lambda attempt: prices_microusd.get(attempt.params.model))


async def resend_unknowns(context: RunContext, policy: ResendPolicy, unknowns: Iterable[Attempt]) -> int:
    """Plan the chosen ones again and notify; returns how many. The submitter buys them with the others.

    Pays: what it plans is bought, and may have been paid already.
    """
    chosen, stay = to_send_again(policy, unknowns, context.prices_microusd)
    planned: list[Attempt] = []
    for attempt in chosen:
        values = {"resends": attempt.resends + 1, "reason": RESEND_REASON}
        recorded = await context.recorder.record(
            attempt.request_id, Event.RESEND, values, detail="on_unknown.policy is resend"
        )
        if isinstance(recorded, Applied):
            planned.append(attempt)
    if planned:
        price = sum(context.prices_microusd[attempt.params.model] for attempt in planned)
        context.notify(
            f"{len(planned)} unknown outcomes are sent again for ${usd(price)}; each may have been paid already"
        )
    if stay:
        context.notify(f"{stay} stay unknown: sending them again would pass on_unknown.max_cost")
    return len(planned)
