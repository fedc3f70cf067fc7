"""`on_unknown: resend`: at the start of a run, submits of unknown outcome are sent once more, up to a sum of money.

It is opt-in because it may pay twice: whoever was charged for the first POST is charged for the second as well, unless
the gateway honours the idempotency key, which stays the same. Never during a run, and never a second time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied
from pipeline.records import Attempt, State, usd
from pipeline.runner.context import RunContext

REASON = "sent again after an unknown outcome (on_unknown.policy is resend)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResendPolicy:
    """What may be sent again in this run. `resent` are requests that were before, by whomever; money in micro-dollars.

    `used_microusd` is the price of what this run has sent again so far, over all its restarts.
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


async def resend_unknowns(doors: RunContext, rule: ResendPolicy, unknowns: Iterable[Attempt]) -> int:
    """Plans the chosen ones again and says so; returns how many. The submitter buys them with the others.

    Pays: what it plans is bought, and may have been paid already.
    """
    chosen, stay = rule.chosen(unknowns, doors.prices_microusd)
    planned: list[Attempt] = []
    for attempt in chosen:
        values = {"resends": attempt.resends + 1, "reason": REASON}
        booked = await doors.recorder.record(
            attempt.request_id, Event.RESEND, values, detail="on_unknown.policy is resend"
        )
        if isinstance(booked, Applied):
            planned.append(attempt)
    if planned:
        price = sum(doors.prices_microusd[attempt.params.model] for attempt in planned)
        doors.notify(
            f"{len(planned)} unknown outcomes are sent again for ${usd(price)}; each may have been paid already"
        )
    if stay:
        doors.notify(f"{stay} stay unknown: sending them again would pass on_unknown.max_cost")
    return len(planned)
