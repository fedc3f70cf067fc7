"""How many calls may be open while no limit was met: as many are rejected when it is met, whatever it is."""

from __future__ import annotations

QUICK_OPEN = 6.0
"""Open calls up to which the start is quick: as many may be rejected when the limit is met."""
QUICK_GROWTH_PER_S, GROWTH_PER_S = 14.0, 1.0
"""Open calls gained for each admitted one, by second of latency: at the quick start, and after it."""
MIN_GROWTH, MAX_QUICK_GROWTH, MAX_GROWTH = 1 / 32, 1.0, 0.25
"""Bounds, in open calls, of what one admitted call gains: the least, at the quick start, and after it."""


class Exploration:
    """The number of open calls, which grows with each admitted one: quickly at first, then slowly."""

    def __init__(self, open_at_first: float) -> None:
        self._allowed = open_at_first

    @property
    def open(self) -> int:
        """Calls that may be open now."""
        return int(self._allowed)

    def admitted(self, latency_s: float, max_open: float) -> None:
        """A call was admitted; with a longer latency each counts for more."""
        quick = self._allowed < QUICK_OPEN
        per_s, most = (QUICK_GROWTH_PER_S, MAX_QUICK_GROWTH) if quick else (GROWTH_PER_S, MAX_GROWTH)
        self._allowed = min(self._allowed + min(most, max(MIN_GROWTH, per_s * latency_s)), max_open)
