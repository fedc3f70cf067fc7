"""Stops the buying of a run when its loss budget is used up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied
from pipeline.records import Attempt, State
from pipeline.runner.context import RunContext
from pipeline.runner.events import EventRecorded
from pipeline.runner.loss_budget import LossBudget, price_of
from pipeline.runner.stop import StopReason, StopScope

EXIT_CODE = 3
"""Outcomes are unknown. Source: the list of exit codes."""


class LossGuard:
    """Keeps the budget up to date from the run's events. `unknowns` are those of earlier runs."""

    def __init__(self, context: RunContext, budget: LossBudget, unknowns: Iterable[Attempt]) -> None:
        self._context = context
        self._budget = budget
        self._price_microusd = 0
        self._is_buying = False
        self._stop_text: str | None = None
        for attempt in unknowns:
            self._budget.lose(attempt.request_id, attempt.price_microusd, attempt.reason or "unknown")
            self._price_microusd = attempt.price_microusd
        context.events.subscribe(EventRecorded, self._recorded)

    def start(self) -> None:
        """Submits begin; none does where the runs before used the budget up."""
        self._is_buying = True
        self._check()

    def recount(self, unknowns: Iterable[Attempt]) -> None:
        """The run's unknown outcomes as the ledger has them, those of other processes included."""
        self._budget.recount({one.request_id: (one.price_microusd, one.reason or "unknown") for one in unknowns})
        self._price_microusd = self._price_microusd or self._budget.price_microusd
        if self._is_buying:
            self._check()

    def _recorded(self, recorded: EventRecorded) -> None:
        result = recorded.result
        if not isinstance(result, Applied):
            return
        if result.state is State.UNKNOWN:
            self._price_microusd = price_of(result.row)
            self._budget.lose(recorded.request_id, self._price_microusd, str(result.row["reason"] or "unknown"))
        elif result.before is State.UNKNOWN:
            self._budget.give_back(recorded.request_id)
        if recorded.event is Event.ACCEPT:
            self._budget.count_known()
        if self._is_buying:
            self._check()

    def _check(self) -> None:
        if self._budget.is_used_up:
            text = self._budget.block(self._planned, self._price_microusd)
            if self._context.stop.request(text, exit_code=EXIT_CODE, reach=StopScope.SUBMITS):
                self._stop_text = text

    @property
    def _planned(self) -> int:
        return self._context.recorder.totals.count(State.PLANNED)

    def final(self, reasons: Sequence[StopReason]) -> tuple[StopReason, ...]:
        """The reasons of a run that has ended: what was unknown when it stopped buying may be known since."""
        if self._budget.is_used_up:
            text = self._budget.block(self._planned, self._price_microusd)
        else:
            text = self._budget.given_back_text(self._planned)
        return tuple(replace(one, text=text) if one.text == self._stop_text else one for one in reasons)
