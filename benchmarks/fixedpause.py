"""The parallel-request script of a well-known cookbook, written again: a fixed pause after each refusal.

A loop starts one call a tick while the allowance it was given (full at first, refilled evenly) lasts. A refused call
goes back to the front of the line. After a refusal nothing is started until 15 s have passed since the last one.
"""

from __future__ import annotations

TICK_S = 0.001
PAUSE_S = 15.0


class FixedPause:
    """When the script would start its next call. Times are seconds of one clock."""

    def __init__(self, *, per_minute: float, now: float) -> None:
        self._most = self._left = per_minute
        self._seen = now
        self._refused_at = float("-inf")

    def ask(self, now: float) -> float:
        """0.0: start a call now. Else the seconds after which to ask again."""
        pause_s = self._refused_at + PAUSE_S - now
        if pause_s > 0:
            return pause_s
        self._left = min(self._most, self._left + (now - self._seen) * self._most / 60)
        self._seen = now
        if self._left < 1:
            return TICK_S
        self._left -= 1
        return 0.0

    def refused(self, now: float) -> None:
        """A call came back with 429."""
        self._refused_at = now
