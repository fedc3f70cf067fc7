"""Submits of unknown outcome that may be sent again: which, and planning them once more. Nothing here sends a submit.

How one is proved to be accepted instead is in `job_recovery`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied
from pipeline.records import Attempt, State, usd
from pipeline.runner.context import RunContext

RESEND_REASON = "sent again after an unknown outcome (on_unknown.policy is resend)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResendPolicy:
    """`on_unknown: resend`: at the start of a run, unknown outcomes are sent once more, up to a sum of money.

    It is opt-in because it may pay twice: an account that was charged for the first POST is charged for the second as
    well, unless the gateway honours the idempotency key, which stays the same. Never during a run, and never a second
    time. `resent` are requests that were sent again before, by any run; money in micro-dollars. `used_microusd` is the
    price of what this run has sent again so far, over all its restarts.
    """

    max_cost_microusd: int
    used_microusd: int
    resent: frozenset[str]

    def chosen(self, unknowns: Iterable[Attempt], prices_microusd: Mapping[str, int]) -> tuple[list[Attempt], int]:
        """Which of `unknowns` are sent again, in their order, and how many stay because the money is used up."""
        left = self.max_cost_microusd - self.used_microusd
        chosen: list[Attempt] = []
        stay = 0
        for attempt in unknowns:
            if attempt.state is not State.UNKNOWN or attempt.request_id in self.resent:
                continue
            price = prices_microusd.get(attempt.params.model)
            if price is None or price > left:
                stay += 1
                continue
            left -= price
            chosen.append(attempt)
        return chosen, stay


async def resend_unknowns(context: RunContext, policy: ResendPolicy, unknowns: Iterable[Attempt]) -> int:
    """Plan the chosen ones again and notify; returns how many. The submitter buys them with the others.

    Pays: what it plans is bought, and may have been paid already.
    """
    chosen, stay = policy.chosen(unknowns, context.prices_microusd)
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
