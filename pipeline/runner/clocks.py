"""The run's wall clock, which never raises."""

from __future__ import annotations

import time
from collections.abc import Callable


class GuardedClock:
    """Unix seconds from `wall`; where that raises, the last reading and the seconds since then.

    MONEY: the time is read while the outcome of a POST is recorded; an error there would make a paid job unknown.
    """

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._read, self._read_at = wall(), monotonic()

    def __call__(self) -> float:
        """Unix seconds."""
        try:
            self._read, self._read_at = self._wall(), self._monotonic()
        except BaseException:  # noqa: BLE001 - see above
            return self._read + self._monotonic() - self._read_at
        return self._read
