"""The first fill of an allowance nobody knows: what it held when it was full, and what that says of its kind. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from pipeline.gateway.ratelimit.window_spans import span_above

MANY_CALLS = 20
BUCKET_S, BUCKET_OFF = 1.0, 1.5
"""of its flow such a bucket holds, as N a second with N at once has it; and calls by which it may seem to differ"""
SURE_CALLS = 3.0
"""that a bucket would have let in less: it is none"""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialBurst:
    """`count` calls let in within `took_s`, at last `per_s` a second, until one was refused with a hint of `hold_s`."""

    count: int = 0
    took_s: float = 0.0
    per_s: float = 0.0
    hold_s: float = 0.0

    def may_be_window(self, least_s: float, *, long_shut: bool) -> bool:
        """Whether it was faster than the shortest window that could explain it, one longer than `least_s`.

        `long_shut`: several probes were refused since.
        """
        span_s = span_above(least_s)
        if span_s is None:
            return False
        if 0 < self.hold_s <= 2:  # a second fill costs no more than the hold that was obeyed anyway
            return self.took_s <= span_s <= 1.5 * (self.took_s + self.hold_s)
        return (1.2 if long_shut else 2.0) * self.took_s <= span_s

    @property
    def is_all_back(self) -> bool:
        """Whether even a sliding window has every call back after the hold: its hints are whole seconds, rounded up.

        Few calls are back soon anyway, and a small bucket is better told from a window by taking its time.
        """
        return self.count >= MANY_CALLS and self.hold_s > 0 and self.hold_s.is_integer() and self.took_s < 1.0

    def excludes_bucket(self, back_s: float, again_s: float) -> bool:
        """Whether no bucket would let in as many again within `again_s`, `back_s` after it was empty.

        What flowed into a bucket while it was emptied came on top of what it held: emptied faster, it holds less.
        """
        return (self.count - 1) / max(back_s, 1e-3) * (self.took_s - again_s) >= SURE_CALLS

    def as_bucket_per_s(self, count: int, took_s: float) -> float | None:
        """The flow of the bucket that holds one second of it, if that would let in both this fill and one of `count`.

        The slower fill took in more, by what flowed in meanwhile; a window would have let in as many each time.
        """
        if not self.hold_s or abs(self.count - count) < SURE_CALLS:
            return None
        rate = (self.count + count) / (2 * BUCKET_S + self.took_s + took_s)
        off = max(abs(self.count - rate * (BUCKET_S + self.took_s)), abs(count - rate * (BUCKET_S + took_s)))
        return rate if off <= BUCKET_OFF else None

    def guess_per_s(self, back_s: float) -> float:
        """A first rate, when one call was let in again `back_s` after the last."""
        rate = min(self.per_s, 1.2 * self.count / self.took_s)
        back_per_s = 1 / max(back_s, 1e-3)
        if not self.hold_s and back_per_s < min(1.0, rate):
            return sqrt(rate * back_per_s)
        return rate
