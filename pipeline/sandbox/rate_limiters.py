"""Rate limiters of three kinds, each exactly defined. Pure: `now` (seconds, never falling) is an argument.

`admit(now)` returns 0.0 and counts the call, or the seconds until an equal call would be admitted if nothing else came
in between, and counts nothing: a refused call costs no allowance in any kind.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

from pipeline.sandbox.settings import LimiterKind, Rate


class Limiter(Protocol):
    """One allowance for all callers."""

    def admit(self, now: float) -> float:
        """0.0 = admitted; else seconds to wait."""
        ...


class TokenBucket:
    """Holds at most `burst` tokens, starts full, gains limit/period_s tokens a second, one token admits one call."""

    def __init__(self, rate: Rate, burst: int | None = None) -> None:
        self._capacity = float(burst if burst is not None else rate.limit)
        self._per_s = rate.limit / rate.period_s
        self._tokens = self._capacity
        self._seen = -math.inf

    def admit(self, now: float) -> float:
        """See the module's docstring."""
        if now > self._seen:
            self._tokens = min(self._capacity, self._tokens + (now - self._seen) * self._per_s)
            self._seen = now
        # Sums of floats: a token that is full but for rounding counts as one.
        if self._tokens >= 1 - 1e-9:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._per_s


class FixedWindow:
    """At most `limit` calls in each window [k * period_s, (k + 1) * period_s), counted from time 0."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._window = -1
        self._count = 0

    def admit(self, now: float) -> float:
        """See the module's docstring."""
        window = math.floor(now / self._rate.period_s)
        # Only forward: a clock that goes back must not give a window's calls a second time.
        if window > self._window:
            self._window, self._count = window, 0
        if self._count < self._rate.limit:
            self._count += 1
            return 0.0
        return max((self._window + 1) * self._rate.period_s - now, 1e-6)


class SlidingWindow:
    """At most `limit` admitted calls in any half-open interval (now - period_s, now]."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._admitted: deque[float] = deque()

    def admit(self, now: float) -> float:
        """See the module's docstring."""
        while self._admitted and self._admitted[0] <= now - self._rate.period_s:
            self._admitted.popleft()
        if len(self._admitted) < self._rate.limit:
            self._admitted.append(now)
            return 0.0
        return max(self._admitted[0] + self._rate.period_s - now, 1e-6)


def make_limiter(kind: LimiterKind, rate: Rate, burst: int | None = None) -> Limiter:
    """A fresh limiter of the given kind; `burst` matters to the bucket alone."""
    if kind == "bucket":
        return TokenBucket(rate, burst)
    return FixedWindow(rate) if kind == "fixed" else SlidingWindow(rate)
