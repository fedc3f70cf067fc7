"""What a run's attempts cost by model, as a table of the sheet."""

from __future__ import annotations

from pipeline.records import Attempt, State, usd
from pipeline.reports.sheet.run_view import RunView


def money_by_model(view: RunView) -> list[tuple[str, ...]]:
    """Per model and price: attempts, done, price of one, what it adds to the sums."""
    groups: dict[tuple[str, int], list[Attempt]] = {}
    for attempt in view.attempts():
        groups.setdefault((attempt.params.model, attempt.price_microusd), []).append(attempt)
    return [
        (
            model,
            str(len(attempts)),
            str(sum(attempt.state is State.DONE for attempt in attempts)),
            f"${usd(price)}",
            f"${usd(sum(attempt.cost_microusd for attempt in attempts))}",
        )
        for (model, price), attempts in sorted(groups.items())
    ]
