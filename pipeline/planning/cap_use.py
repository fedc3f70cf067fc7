"""Budgets with what is used of them, when they reset, and how many of the planned purchases fit. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline.ledger.budget import Caps, Spent, cap_reached
from pipeline.ledger.run_registry import Run
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import usd


@dataclass(frozen=True, slots=True, kw_only=True)
class CapUse:
    """One budget: `span` is run, day or month; money in micro-dollars; `resets_at` None for a run's, which does not."""

    span: str
    cap_microusd: int
    used_microusd: int
    resets_at: datetime | None

    @property
    def left_microusd(self) -> int:
        """What may still be spent."""
        return max(0, self.cap_microusd - self.used_microusd)

    def as_json(self) -> dict[str, object]:
        """An entry of `caps` of `dop plan --json`."""
        return {
            "span": self.span,
            "cap_usd": usd(self.cap_microusd),
            "used_usd": usd(self.used_microusd),
            "left_usd": usd(self.left_microusd),
            "resets_at": None if self.resets_at is None else self.resets_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How many of the planned purchases the budgets cover, in the manifest's order; `stopped_by` is the span of the
    budget that ends them, "" where all fit.
    """

    count: int
    price_microusd: int
    stopped_by: str = ""


def spent_now(workspace: OpenLedger | None, run: Run | None, now: float) -> Spent:
    """What the run, this day and this month took so far, micro-dollars."""
    if workspace is None:
        return Spent()
    day, queries = f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d}", workspace.queries
    return Spent(
        run_microusd=queries.totals(run.run_id).worst_microusd if run is not None else 0,
        day_microusd=queries.spent(workspace.gateway, day).worst_microusd,
        month_microusd=queries.spent(workspace.gateway, day[:7]).worst_microusd,
    )


def caps_in_use(caps: Caps, spent: Spent, now: float) -> list[CapUse]:
    """Every budget that is set."""
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    # 32 days after the first of a month are always in the next one.
    next_month = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    spans = (
        ("run", caps.run_microusd, spent.run_microusd, None),
        ("day", caps.day_microusd, spent.day_microusd, today + timedelta(days=1)),
        ("month", caps.month_microusd, spent.month_microusd, next_month),
    )
    return [
        CapUse(span=span, cap_microusd=cap, used_microusd=used, resets_at=resets_at)
        for span, cap, used, resets_at in spans
        if cap is not None
    ]


def fitting(prices_microusd: Iterable[int], caps: Caps, spent: Spent) -> Fit:
    """How many purchases fit, by the same rule that the ledger applies to each of them: the first refusal ends them."""
    count = total = 0
    for price in prices_microusd:
        so_far = Spent(
            run_microusd=spent.run_microusd + total,
            day_microusd=spent.day_microusd + total,
            month_microusd=spent.month_microusd + total,
        )
        reached = cap_reached(price, caps, so_far)
        if reached is not None:
            return Fit(count=count, price_microusd=total, stopped_by=reached.span)
        count, total = count + 1, total + price
    return Fit(count=count, price_microusd=total)


def cap_rows(uses: Sequence[CapUse], now: float) -> list[list[str]]:
    """The budgets as cells of a table: BUDGET, CAP, USED, LEFT, RESETS."""
    return [
        [
            use.span,
            f"${usd(use.cap_microusd)}",
            f"${usd(use.used_microusd)}",
            f"${usd(use.left_microusd)}",
            _reset_text(use.resets_at, now),
        ]
        for use in uses
    ]


def _reset_text(at: datetime | None, now: float) -> str:
    if at is None:
        return "with the next run"
    minutes = max(1, round((at.timestamp() - now) / 60))
    hours = minutes // 60
    left = f"{hours // 24} d {hours % 24} h" if hours >= 24 else f"{hours} h {minutes % 60:02d} min"
    return f"{at:%Y-%m-%d %H:%M} UTC, in {left}"
