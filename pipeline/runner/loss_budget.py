"""The loss budget: how many submits of unknown outcome a run may have before it buys nothing more.

Each unknown outcome is perhaps paid and lost. The budget counts those of the whole run, over all its restarts, as the
ledger has them now: what is proved or settled later is given back. Whether the gateway answers again is the circuit
breaker's question; this one is how much may be lost at all.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from pipeline.config.loss_limit import LossLimit
from pipeline.records import counted, usd

MIN_ROWS = 5
"""Rows that may be lost in the smallest batch: a few lost connections are no reason to stop."""

MAX_SHARE_PERCENT = 2
"""Share of the batch, in percent of its rows, that may be lost in a larger one."""

MAX_COST_PERCENT = 5
"""Share of the run's cap (max_cost), in percent, that may be lost."""

FAULT_CHARS = 60
"""Characters of a fault's reason that are shown in the block."""

LIMITED = "nothing more is bought: the limit"
"""Part of the reason of a run whose unknown outcomes stopped the buying, and still do."""


def default_limit(rows: int, max_cost_microusd: int | None) -> LossLimit:
    """The limit of a run of so many rows where none is configured."""
    money = None if max_cost_microusd is None else max_cost_microusd * MAX_COST_PERCENT // 100
    return LossLimit(rows=max(MIN_ROWS, rows * MAX_SHARE_PERCENT // 100), microusd=money)


class LossBudget:
    """The unknown outcomes of one run: request id -> price in micro-dollars and reason."""

    def __init__(self, limit: LossLimit) -> None:
        self._limit = limit
        self._unknown: dict[str, tuple[int, str]] = {}
        self._known_submits = 0

    def lose(self, request_id: str, price_microusd: int, reason: str) -> None:
        """A submit is unknown."""
        self._unknown[request_id] = (price_microusd, reason)

    def give_back(self, request_id: str) -> None:
        """A submit is not unknown (any more)."""
        self._unknown.pop(request_id, None)

    def recount(self, unknown: Mapping[str, tuple[int, str]]) -> None:
        """These submits are unknown, and no others: request id -> price in micro-dollars and reason."""
        self._unknown = dict(unknown)

    @property
    def price_microusd(self) -> int:
        """The highest price among the unknown ones; 0 without any."""
        return max((price for price, _ in self._unknown.values()), default=0)

    def count_known(self) -> None:
        """A submit was accepted: for the share of those that are lost."""
        self._known_submits += 1

    @property
    def lost_microusd(self) -> int:
        """What may be lost."""
        return sum(price for price, _ in self._unknown.values())

    @property
    def is_used_up(self) -> bool:
        """Whether one more unknown outcome would pass the limit."""
        if not self._unknown:
            return False
        # Asked before the next submit, so the limit must still hold if that one is lost too: hence `>=`, and the
        # highest price on top of what is lost.
        rows, money = self._limit.rows, self._limit.microusd
        return (rows is not None and len(self._unknown) >= rows) or (
            money is not None and self.lost_microusd + self.price_microusd > money
        )

    def block(self, planned: int, price_microusd: int) -> str:
        """What the user needs to decide how to continue, as several lines.

        Args:
            planned: rows that are not bought; `price_microusd`: the price of one of them.
        """
        count = len(self._unknown)
        share = count / max(1, count + self._known_submits)
        faults = Counter(_fault(reason) for _, reason in self._unknown.values())
        causes = ", ".join(f"{fault} ({times} x)" for fault, times in faults.most_common(3))
        expected = round(planned * share) * price_microusd
        verb = "is" if count == 1 else "are"
        return "\n".join(
            (
                f"{counted(count, 'outcome')} {verb} unknown, and perhaps paid: ${usd(self.lost_microusd)} may be lost",
                f"  cause: {causes}",
                f"  {LIMITED} ({self._limit_text()}; --max-unknown, on_unknown.max) is reached",
                f"  {counted(planned, 'row')} left to buy; if as many are lost as so far, about ${usd(expected)} more",
                "  settle the unknown ones with `dop resolve`, then run again; or allow more with --max-unknown",
            )
        )

    def given_back_text(self, planned: int) -> str:
        """What the user reads where the limit was reached, and enough was proved since to go below it."""
        left = f"; {counted(planned, 'row')} left to buy: run the same command again" if planned else ""
        return (
            f"the buying stopped at the limit of unknown outcomes ({self._limit_text()}); what they came to "
            f"is known since, or enough of it{left}"
        )

    def _limit_text(self) -> str:
        rows = [] if self._limit.rows is None else [counted(self._limit.rows, "row")]
        money = [] if self._limit.microusd is None else [f"${usd(self._limit.microusd)}"]
        return " or ".join((*rows, *money))


def _fault(reason: str) -> str:
    """The kind of a fault: what differs from row to row is left out, so that equal ones are counted together."""
    return re.sub(r"[0-9a-f]{8,}[0-9a-f-]*", "..", reason)[:FAULT_CHARS]


def price_of(row: Mapping[str, object]) -> int:
    """The price of a ledger's row, micro-dollars."""
    return int(str(row["price_microusd"]))
