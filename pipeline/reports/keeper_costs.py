"""What a usable clip costs: purchases by model, motion, strength and tag, and dollars per kept clip.

The share of kept clips is estimated with Wilson's interval; the money is exact. A clip is kept when the user kept it,
or, as long as it was not reviewed, when it passed the checks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.ledger.keepers import CandidateStatus
from pipeline.ledger.purchase_outcomes import PurchaseOutcome
from pipeline.records import MICROUSD, STRENGTH_STEPS

Z_95 = 1.959963984540054
"""Standard normal quantile of 0.975: 95 % of a normal distribution lie within it."""

NO_TAG = "(no tag)"
NO_MOTION = "(not in the catalogue)"


def wilson(hits: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a share; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    share, squared = hits / trials, z * z
    middle = share + squared / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + squared / (4 * trials * trials))
    scale = 1 + squared / trials
    low = 0.0 if hits == 0 else max(0.0, (middle - spread) / scale)
    return low, 1.0 if hits == trials else min(1.0, (middle + spread) / scale)


@dataclass(slots=True)
class KeeperCosts:
    """The purchases of one group. Money in micro-dollars.

    `cost_microusd` is all that is recorded, as in the spend sums; `open` purchases have not come out yet, and are left
    out of what a kept clip costs.
    """

    bought: int = 0
    open: int = 0
    delivered: int = 0
    passed: int = 0
    picked: int = 0
    kept: int = 0
    cost_microusd: int = 0
    open_microusd: int = 0

    def add(self, one: PurchaseOutcome, times: int = 1) -> None:
        """Count a purchase, or so many that came out the same."""
        self.bought += times
        self.delivered += times * one.delivered
        self.passed += times * one.passed
        self.picked += times * one.picked
        self.kept += times * (one.status is CandidateStatus.KEPT)
        self.cost_microusd += times * one.price_microusd
        if one.status is CandidateStatus.OPEN:
            self.open += times
            self.open_microusd += times * one.price_microusd

    @property
    def decided(self) -> int:
        """Purchases that have come out."""
        return self.bought - self.open

    @property
    def per_kept_microusd(self) -> int | None:
        """What one kept clip cost, rounded to a micro-dollar; None while none is kept."""
        spent = self.cost_microusd - self.open_microusd
        return (2 * spent + self.kept) // (2 * self.kept) if self.kept else None  # in integers: exact for any sum

    @property
    def interval_microusd(self) -> tuple[int, int | None]:
        """The 95 % interval of what a kept clip costs; None where nothing bounds it above."""
        if not self.decided:
            return 0, None
        low, high = wilson(self.kept, self.decided)
        each = (self.cost_microusd - self.open_microusd) / self.decided
        return round(each / high), round(each / low) if low else None

    def as_json(self) -> dict[str, object]:
        """Counts, and money as strings with six decimals: whole micro-dollars."""
        low, high = self.interval_microusd
        return {
            "bought": self.bought,
            "open": self.open,
            "delivered": self.delivered,
            "passed": self.passed,
            "picked": self.picked,
            "kept": self.kept,
            "cost_usd": exact_usd(self.cost_microusd),
            "per_kept_usd": exact_usd(self.per_kept_microusd),
            "per_kept_low_usd": exact_usd(low),
            "per_kept_high_usd": exact_usd(high),
        }


def exact_usd(microusd: int | None) -> str | None:
    """Dollars with all six decimals."""
    return None if microusd is None else f"{microusd // MICROUSD}.{microusd % MICROUSD:06d}"


_GROUPS: Mapping[str, Callable[[PurchaseOutcome], tuple[str, ...]]] = {
    "by_model": lambda one: (one.model,),
    "by_motion": lambda one: (one.motion or NO_MOTION,),
    "by_strength": lambda one: (f"{one.strength_hundredths / STRENGTH_STEPS:.2f}",),
    "by_tag": lambda one: one.tags or (NO_TAG,),
}


@dataclass(slots=True)
class KeeperTable:
    """All purchases of one gateway and their groups; a clip with several tags counts under each of them."""

    total: KeeperCosts = field(default_factory=KeeperCosts)
    groups: dict[str, dict[str, KeeperCosts]] = field(default_factory=lambda: {name: {} for name in _GROUPS})

    def add(self, one: PurchaseOutcome, times: int = 1) -> None:
        """Count a purchase, or so many that came out the same, everywhere it belongs."""
        self.total.add(one, times)
        for name, keys_of in _GROUPS.items():
            for key in dict.fromkeys(keys_of(one)):
                self.groups[name].setdefault(key, KeeperCosts()).add(one, times)

    def as_json(self) -> dict[str, object]:
        """The total, and each group by name."""
        groups = {
            name: {key: costs.as_json() for key, costs in sorted(found.items())} for name, found in self.groups.items()
        }
        return {**self.total.as_json(), **groups}


def keeper_table(outcomes: Iterable[PurchaseOutcome]) -> dict[str, KeeperTable]:
    """Gateway -> what its purchases came to; the same purchases as the spend book."""
    found: dict[str, KeeperTable] = {}
    for one in outcomes:
        found.setdefault(one.gateway, KeeperTable()).add(one)
    return dict(sorted(found.items()))
