"""Notices that this process stood still: SIGSTOP, a debugger, a paused container, a laptop's lid.

Two clocks tell: the loop's clock jumps between two ticks while the process is stopped, and the machine's clock that
counts suspends runs ahead of the one that does not. What was measured across such a pause says nothing of the gateway.
"""

from __future__ import annotations

import time
from collections.abc import Callable

TICK_S = 0.5
"""Seconds between two ticks of the watch."""

MIN_PAUSE_S = 2.0
"""A pause of so many seconds counts. Shorter ones are of the same kind as slow disks and networks, which the rate law
allows for."""


def suspended_s() -> float:
    """Seconds for which this machine was suspended since it started; 0.0 where no clock counts them."""
    boot_clock = getattr(time, "CLOCK_BOOTTIME", None)
    if boot_clock is None:
        return 0.0
    return time.clock_gettime(boot_clock) - time.monotonic()


class PauseDetector:
    """Compares the ticks of one event loop with its clock. Without ticks it notices nothing."""

    def __init__(self, suspended: Callable[[], float] = suspended_s) -> None:
        self._suspended = suspended
        self._ticked_at: float | None = None
        self._suspended_s = suspended()

    def tick(self, now: float) -> None:
        """The process is alive at `now`, in the loop's seconds."""
        self._ticked_at, self._suspended_s = now, self._suspended()

    def stood_still(self, now: float) -> float | None:
        """For how long of the loop's time the process stood still since the last tick, 0.0 if only the machine's other
        clock tells; None when it did not. Says so once, and counts as a tick then."""
        if self._ticked_at is None:
            return None
        late_s = now - self._ticked_at - TICK_S
        if late_s <= MIN_PAUSE_S and self._suspended() - self._suspended_s <= MIN_PAUSE_S:
            return None
        self.tick(now)
        return max(late_s, 0.0)
