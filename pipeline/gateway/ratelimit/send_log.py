"""The calls that count against an allowance, in the order they were sent. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

KEPT = 16_384
"""calls remembered; the oldest half is dropped when there are more"""

LEAST_STEEP, MOST_STEEP = 8, 400
"""calls over which a flow is measured"""


class SendLog:
    """Send times, in seconds, of calls that were let in or are still under way."""

    def __init__(self) -> None:
        self._at: list[float] = []
        self._by: list[float] = []
        self._left: list[float] = []

    def add(self, at: float) -> None:
        """A call was sent."""
        self._at.append(at)
        self._by.append(at)
        insort(self._left, at)
        if len(self._at) > KEPT:
            del self._at[: KEPT // 2], self._by[: KEPT // 2], self._left[: KEPT // 2]

    def arrived(self, at: float, by: float) -> None:
        """The call sent at `at` was at the gateway by then: its answer is here."""
        place = bisect_left(self._at, at)
        if place < len(self._at) and self._at[place] == at:
            self._forget(self._by[place])
            self._by[place] = by
            insort(self._left, by)

    def drop(self, at: float) -> None:
        """The call sent at `at` was refused: it does not count."""
        place = bisect_left(self._at, at)
        if place < len(self._at) and self._at[place] == at:
            self._forget(self._by[place])
            del self._at[place], self._by[place]

    def _forget(self, by: float) -> None:
        place = bisect_left(self._left, by)
        if place < len(self._left) and self._left[place] == by:
            del self._left[place]

    def between(self, after: float, until: float) -> int:
        """How many were sent in (after, until]."""
        return bisect_right(self._at, until) - bisect_right(self._at, after)

    def steepest(self, until: float, burst: float, least: int = 0, most: int = MOST_STEEP) -> float:
        """The flow, in calls a second, that a bucket of `burst` needed at least to let in what was sent by `until`."""
        last = bisect_right(self._at, until)
        steepest = 0.0
        for calls in range(least or int(2 * burst) + LEAST_STEEP, min(last, most, MOST_STEEP)):
            span_s = until - self._at[last - calls]
            steepest = max(steepest, (calls - burst) / span_s if span_s > 0 else 0.0)
        return steepest

    def nth_last(self, n: int) -> float | None:
        """When the n-th call from the end was sent; None when there are fewer."""
        return self._at[-n] if 0 < n <= len(self._at) else None

    def nth_last_by(self, n: int) -> float | None:
        """By when all calls but n - 1 had arrived, whichever overtook which; None when there are fewer than n."""
        return self._left[-n] if 0 < n <= len(self._left) else None

    def last_until(self, at: float) -> float | None:
        """When the last call at or before `at` was sent."""
        place = bisect_right(self._at, at)
        return self._at[place - 1] if place else None
