"""Doubt about a limit that an earlier run measured: it is tested before it is relied upon.

A remembered limit may be wrong in both directions: the plan of the account changed, or the earlier run was disturbed.

Too low: nothing would ever contradict it but a test. So when it first asks to wait, single calls go earlier: at once,
then after parts of the wait. Where all of them are rejected, or two with hints, the limit is confirmed, at the price of
these few rejections. Where enough are admitted, it is refuted within a few round trips or waits, and the limit is
explored as if nothing were known.

Too high: a call within it is rejected after others were admitted. That refutes it at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto

EXCESS_CALLS, EXCESS_PART = 3, 0.15
"""Calls beyond the limit that refute it when all are admitted: so many, and a part of its burst, which is not exact."""

TEST_PARTS = (0.0, 1 / 8, 1 / 2)
"""Parts of a wait after which a call tests it: each that is rejected leads to the next one. The last one finds a limit
that allows twice as much as is remembered."""

HINTED_TESTS = 2
"""So many of these calls go where a rejection costs a hold. With one a wrong memory was confirmed, and nothing reached;
with all of them a right one cost six rejections, not three."""


class Memory(Enum):
    """What became of the doubt."""

    DOUBTED = auto()
    CONFIRMED = auto()
    REFUTED = auto()


@dataclass(slots=True, kw_only=True)
class MemoryTest:
    """The test of one remembered limit, which holds `burst` calls that are not exact (0 for a window)."""

    burst: float
    is_testing: bool = False
    """whether the call in flight is one that the limit does not allow yet"""
    _admitted: int = 0
    _excess: int = 0
    _failed: int = 0
    _last_at: float = float("-inf")

    def test_at(self, ready_at: float) -> float:
        """When a call may go that the remembered limit allows only at `ready_at`."""
        if not self._admitted or self._failed >= len(TEST_PARTS):
            return ready_at
        return self._last_at + TEST_PARTS[self._failed] * (ready_at - self._last_at)

    def taken(self, due_at: float, ready_at: float) -> None:
        """A call will go at `due_at`; the limit allows it at `ready_at`."""
        self.is_testing = self._admitted > 0 and ready_at > due_at + 1e-9
        if not self.is_testing:
            self._last_at = max(self._last_at, due_at)

    def withdrawn(self) -> None:
        """The call was not sent."""
        self.is_testing = False

    def admitted(self, now: float) -> Memory:
        """A call was admitted; while a test is in flight it is the test."""
        self._admitted += 1
        if not self.is_testing:
            return Memory.DOUBTED
        self.is_testing = False
        self._excess += 1
        self._last_at = max(self._last_at, now)
        enough = EXCESS_CALLS + math.ceil(EXCESS_PART * self.burst)
        return Memory.REFUTED if self._excess >= enough else Memory.DOUBTED

    def rejected(self, *, is_hinted: bool) -> Memory:
        """A call was rejected: a test, or one that the limit allows."""
        if not self.is_testing:
            return Memory.REFUTED if self._admitted else Memory.DOUBTED
        self.is_testing = False
        self._failed += 1
        enough = HINTED_TESTS if is_hinted else len(TEST_PARTS)
        return Memory.CONFIRMED if self._failed >= enough else Memory.DOUBTED
