"""The steps' pen: books events in the ledger and keeps the run's running totals. Every change goes through here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from pipeline.ledger.budget import Caps
from pipeline.ledger.judge import Applied, Change, Outcome
from pipeline.ledger.lifecycle import Event
from pipeline.ledger.writer import LedgerWriter
from pipeline.records import COST_STATE, CostState, State, Totals


class Scribe:
    """Writes for one run. `wall` gives Unix seconds; `reach` hears a fail point's name before and after a booking."""

    def __init__(
        self,
        ledger: LedgerWriter,
        *,
        run_id: str,
        caps: Caps,
        totals: Totals,
        wall: Callable[[], float],
        reach: Callable[[str], None],
    ) -> None:
        self.ledger = ledger
        self.run_id = run_id
        self.caps = caps
        self.totals = totals
        self.wall = wall
        self.reach = reach
        self.counted: Callable[[Totals], None] = lambda totals: None
        """is told the totals after each change"""

    async def book(
        self,
        request_id: str,
        event: Event,
        values: Mapping[str, object] | None = None,
        *,
        token: str | None = None,
        detail: str = "",
    ) -> Outcome:
        """Books one event with the columns it sets, durable when it returns, and counts it.

        Raises:
            InvariantError: the state forbids it.
            LedgerError: it could not be written.
        """
        change = Change(
            request_id=request_id,
            event=event,
            at=self.wall(),
            token=token,
            values=values or {},
            run_id=self.run_id if event is Event.RESERVE else None,
            caps=self.caps,
            detail=detail,
        )
        self.reach(f"before-{event}")
        outcome = await self.ledger.apply(change)
        self.reach(f"after-{event}")
        if isinstance(outcome, Applied):
            self._count(outcome)
        return outcome

    def _count(self, applied: Applied) -> None:
        before, after = applied.before, applied.state
        counts = dict(self.totals.counts)
        if before is not after:
            counts[before] = counts.get(before, 0) - 1
            counts[after] = counts.get(after, 0) + 1
        self.totals = replace(self.totals, counts=counts)
        if applied.row["run_id"] == self.run_id:
            self._add(before, -int(str(applied.row["price_microusd"])))
            self._add(after, int(str(applied.row["price_microusd"])))
        self.counted(self.totals)

    def _add(self, state: State, microusd: int) -> None:
        kind = COST_STATE[state]
        if kind is CostState.NONE:
            return
        name = f"{kind}_microusd"
        self.totals = replace(self.totals, **{name: getattr(self.totals, name) + microusd})
