"""May this purchase be made under these caps? The ledger asks inside the transaction that records the intent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.records import usd


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """The most that may be spent, in micro-dollars; None is no cap. Days and months are UTC and per gateway."""

    run_microusd: int | None = None
    day_microusd: int | None = None
    month_microusd: int | None = None

    @property
    def any(self) -> bool:
        """Whether anything is capped at all."""
        return (self.run_microusd, self.day_microusd, self.month_microusd) != (None, None, None)


NO_CAPS = Caps()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Worst-case money so far (confirmed + disputed + reserved), micro-dollars, for each span that a cap names."""

    run_microusd: int = 0
    day_microusd: int = 0
    month_microusd: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CapReached:
    """The refusal of one purchase: which cap, how much of it is taken, and what the purchase would have cost."""

    span: str
    cap_microusd: int
    spent_microusd: int
    price_microusd: int

    def __str__(self) -> str:
        return (
            f"the {self.span} budget of ${usd(self.cap_microusd)} has ${usd(self.spent_microusd)} taken; "
            f"one more at ${usd(self.price_microusd)} would pass it"
        )


def cap_reached(price_microusd: int, caps: Caps, spent: Spent) -> CapReached | None:
    """The first cap that `price_microusd` more would pass, or None when the purchase may be made."""
    spans = (
        ("run", caps.run_microusd, spent.run_microusd),
        ("day", caps.day_microusd, spent.day_microusd),
        ("month", caps.month_microusd, spent.month_microusd),
    )
    for span, cap, taken in spans:
        if cap is not None and taken + price_microusd > cap:
            return CapReached(span=span, cap_microusd=cap, spent_microusd=taken, price_microusd=price_microusd)
    return None


def lowest(caps: Iterable[Caps]) -> Caps:
    """The caps that hold where several places name one: the lowest of each span."""
    listed = list(caps)

    def least(values: Iterable[int | None]) -> int | None:
        return min((value for value in values if value is not None), default=None)

    return Caps(
        run_microusd=least(caps.run_microusd for caps in listed),
        day_microusd=least(caps.day_microusd for caps in listed),
        month_microusd=least(caps.month_microusd for caps in listed),
    )
