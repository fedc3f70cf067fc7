"""Which submits of unknown outcome are sent once more: one rule, for the plan and for the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar


class _HasId(Protocol):
    @property
    def request_id(self) -> str: ...


T = TypeVar("T", bound=_HasId)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResendPolicy:
    """`on_unknown: resend`: at the start of a run, unknown outcomes are sent once more, up to a sum of money.

    It is opt-in because it may pay twice: an account that was charged for the first POST is charged for the second as
    well, unless the gateway honours the idempotency key, which stays the same. Never during a run, and never a second
    time. `resent` are requests that were sent again before, by any run; money in micro-dollars. `used_microusd` is the
    price of what this run has sent again so far, over all its restarts.
    """

    max_cost_microusd: int
    used_microusd: int
    resent: frozenset[str]

    def chosen(self, unknowns: Iterable[T], price_of: Callable[[T], int | None]) -> tuple[list[T], int]:
        """Which of `unknowns` are sent again, in their order, and how many stay because the money is used up.

        Args:
            price_of: micro-dollars; None for a model without a price, which stays.
        """
        left = self.max_cost_microusd - self.used_microusd
        chosen: list[T] = []
        stay = 0
        for unknown in unknowns:
            if unknown.request_id in self.resent:
                continue
            price = price_of(unknown)
            if price is None or price > left:
                stay += 1
                continue
            left -= price
            chosen.append(unknown)
        return chosen, stay
