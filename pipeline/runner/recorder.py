"""The steps' pen: books events in the ledger and keeps the run's running totals. Every change goes through here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from pipeline.ledger.budget import Caps
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied, ChangeResult, LedgerChange
from pipeline.ledger.writer import LedgerWriter
from pipeline.records import COST_STATE, CostState, Totals


class EventRecorder:
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
        self._unheard: set[str | None] = set()  # intents nobody waited for; taken back, both are not counted

    async def record(
        self,
        request_id: str,
        event: Event,
        values: Mapping[str, object] | None = None,
        *,
        token: str | None = None,
        detail: str = "",
    ) -> ChangeResult:
        """Books one event with the columns it sets, durable when it returns, and counts it.

        Raises:
            InvariantError: the state forbids it.
            LedgerError: it could not be written.
        """
        change = LedgerChange(
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
        try:
            outcome = await self.ledger.apply(change)
        except asyncio.CancelledError:
            if event is Event.RESERVE:
                self._unheard.add(token)
            raise
        self.reach(f"after-{event}")
        if isinstance(outcome, Applied) and not (event is Event.RELEASE and token in self._unheard):
            self._count(outcome)
        return outcome

    def _count(self, applied: Applied) -> None:
        """Called for every event of a run, so the totals are built once, not by `replace` for each figure."""
        before, after, totals = applied.before, applied.state, self.totals
        counts = dict(totals.counts)
        if before is not after:
            counts[before] = counts.get(before, 0) - 1
            counts[after] = counts.get(after, 0) + 1
        sums = {
            CostState.CONFIRMED: totals.confirmed_microusd,
            CostState.DISPUTED: totals.disputed_microusd,
            CostState.RESERVED: totals.reserved_microusd,
            CostState.NONE: 0,
        }
        if applied.row["run_id"] == self.run_id:
            price = int(str(applied.row["price_microusd"]))
            sums[COST_STATE[before]] -= price
            sums[COST_STATE[after]] += price
        self.totals = Totals(
            counts=counts,
            confirmed_microusd=sums[CostState.CONFIRMED],
            disputed_microusd=sums[CostState.DISPUTED],
            reserved_microusd=sums[CostState.RESERVED],
        )
        self.counted(self.totals)
