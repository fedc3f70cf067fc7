"""Records events in the ledger and keeps the run's running totals. Every change of every step goes through here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from pipeline.errors import InvariantError
from pipeline.ledger.agreement import Agreement
from pipeline.ledger.budget import Caps
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied, ChangeResult, LedgerChange
from pipeline.ledger.writer import LedgerWriter
from pipeline.records import COST_STATE, CostState, State, Totals, usd
from pipeline.runner.events import EventRecorded, EventSink


class EventRecorder:
    """Writes for one run and reports each result to `events`.

    `wall` gives Unix seconds; `reach` is called with a fail point's name before and after each change.
    """

    def __init__(
        self,
        ledger: LedgerWriter,
        *,
        run_id: str,
        caps: Caps,
        totals: Totals,
        wall: Callable[[], float],
        reach: Callable[[str], None],
        events: EventSink,
        agreement: Agreement | None = None,
    ) -> None:
        self.ledger = ledger
        self.run_id = run_id
        self.caps = caps
        self.totals = totals
        self.wall = wall
        self.reach = reach
        self.events = events
        self._agreement = agreement
        self._agreed_left_microusd = agreement.price_microusd if agreement is not None else 0
        self._agreed_purchases = 0
        self._unawaited: set[str | None] = set()  # intents whose caller was cancelled; released, both are not counted

    async def record(
        self,
        request_id: str,
        event: Event,
        values: Mapping[str, object] | None = None,
        *,
        token: str | None = None,
        detail: str = "",
    ) -> ChangeResult:
        """Record one event with the columns it sets, durable when it returns, and count it.

        Raises:
            InvariantError: the state forbids it, or it would buy what was not agreed.
            LedgerError: it could not be written.
        """
        if event in (Event.RESERVE, Event.RESEND):
            self._check_agreed(request_id, event, values or {})
        change = LedgerChange(
            request_id=request_id,
            event=event,
            at=self.wall(),
            token=token,
            values=values or {},
            # Only a purchase gives a row to this run; what an earlier run bought stays that run's money.
            run_id=self.run_id if event is Event.RESERVE else None,
            caps=self.caps,
            detail=detail,
        )
        self.reach(f"before-{event}")
        try:
            outcome = await self.ledger.apply(change)
        except asyncio.CancelledError:
            if event is Event.RESERVE:
                # MONEY: the writer has the change already and may commit it. The RELEASE that follows would then be
                # counted without its RESERVE: the totals would be wrong by a row, and one more could be bought than
                # was agreed.
                self._unawaited.add(token)
            raise
        self.reach(f"after-{event}")
        if isinstance(outcome, Applied) and not (event is Event.RELEASE and token in self._unawaited):
            self._count_agreed(event, outcome)
            self._count(outcome)
        self.events.emit(EventRecorded(request_id=request_id, event=event, result=outcome, totals=self.totals))
        return outcome

    def _check_agreed(self, request_id: str, event: Event, values: Mapping[str, object]) -> None:
        """MONEY: nothing outside the agreement is reserved, whichever step asks for it, and no more than its price.

        The steps choose their rows from the agreement already, so this never refuses unless one of them is wrong.
        """
        agreement = self._agreement
        if agreement is None:
            return  # a cluster's worker: its order was agreed to, and bounds the money in the ledger itself
        named = agreement.resends if event is Event.RESEND else agreement
        if request_id not in named:
            raise InvariantError(f"{request_id} is not part of what was agreed to buy")
        price = values.get("price_microusd", 0)
        if isinstance(price, int) and price > self._agreed_left_microusd:
            raise InvariantError(f"{request_id} would cost more than the agreed ${usd(agreement.price_microusd)}")
        if agreement.max_purchases is not None and self._agreed_purchases >= agreement.max_purchases:
            raise InvariantError(f"{request_id} would be more than the {agreement.max_purchases} purchases agreed")

    def _count_agreed(self, event: Event, applied: Applied) -> None:
        price = int(str(applied.row["price_microusd"]))
        if event is Event.RESERVE:
            self._agreed_left_microusd -= price
            self._agreed_purchases += 1
        # A submit that proved to cost nothing gives its price and its place in the agreement back.
        elif applied.before is State.SUBMITTING and COST_STATE[applied.state] is CostState.NONE:
            self._agreed_left_microusd += price
            self._agreed_purchases -= 1

    def want(self, count: int) -> None:
        """So many spare candidates are wanted now; fewer than 0: some are no longer."""
        counts = dict(self.totals.counts)
        counts[State.PLANNED] = counts.get(State.PLANNED, 0) + count
        self.totals = replace(self.totals, counts=counts, spare=self.totals.spare - count)

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
        # A row that is listed here and was bought by another run counts in the states, not in the money.
        if applied.row["run_id"] == self.run_id:
            price = int(str(applied.row["price_microusd"]))
            sums[COST_STATE[before]] -= applied.price_before_microusd
            sums[COST_STATE[after]] += price
        self.totals = Totals(
            counts=counts,
            spare=totals.spare,
            confirmed_microusd=sums[CostState.CONFIRMED],
            disputed_microusd=sums[CostState.DISPUTED],
            reserved_microusd=sums[CostState.RESERVED],
        )
