"""Sums of the spend table, grouped by day, month and model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.ledger.attempt_rows import SpendLine
from pipeline.records import usd


@dataclass(slots=True)
class SpendTotals:
    """The three sums of some part of the spend book, micro-dollars."""

    confirmed: int = 0
    disputed: int = 0
    reserved: int = 0

    def add(self, line: SpendLine) -> None:
        """Adds one line of the book."""
        self.confirmed += line.confirmed
        self.disputed += line.disputed
        self.reserved += line.reserved

    def as_json(self) -> dict[str, str]:
        """Three decimals each, and the worst case."""
        worst = self.confirmed + self.disputed + self.reserved
        return {
            "confirmed_usd": usd(self.confirmed),
            "disputed_usd": usd(self.disputed),
            "reserved_usd": usd(self.reserved),
            "worst_usd": usd(worst),
        }


def group_spend(lines: Iterable[SpendLine]) -> dict[str, dict[str, object]]:
    """Gateway -> its sums as text, and the same `by_day`, `by_month`, `by_model` and `by_run`."""
    found: dict[str, dict[str, dict[str, SpendTotals]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(SpendTotals))
    )
    for line in lines:
        gateway = found[line.gateway]
        gateway["total"][""].add(line)
        gateway["by_day"][line.day].add(line)
        gateway["by_month"][line.day[:7]].add(line)
        gateway["by_model"][line.model].add(line)
        gateway["by_run"][line.run_id].add(line)
    return {
        gateway: {
            **groups["total"][""].as_json(),
            **{
                name: {key: sums.as_json() for key, sums in sorted(groups[name].items())}
                for name in ("by_day", "by_month", "by_model", "by_run")
            },
        }
        for gateway, groups in sorted(found.items())
    }
