"""What a caller who knows the limiter could do at best: the measure of every benchmark with a limit.

The formulas follow from the limiters' definitions (pipeline/sandbox/rate_limiters.py). The first call is at time 0:

    bucket of B tokens, r a second      the n-th call is let in at max(0, (n - B) / r)
    fixed window of L in p seconds      at max(0, (ceil(n / L) - 1) p - f), the first call f seconds into its window
    sliding window of L in p seconds    at floor((n - 1) / L) p
    one limiter after another           each offers what it lets in during its time; the last call falls into the first
                                        stage at whose end the offers reach n
    polls and submits in one bucket     two calls a job, and no job ends sooner than it was let in plus its generation
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["bucket", "fixed", "sliding"]
_HAIR = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limiter that knows nothing yet: `limit` calls in `period_s`; `burst` None is a bucket of `limit` tokens."""

    kind: Kind
    limit: int
    period_s: float = 1.0
    burst: int | None = None

    @property
    def per_s(self) -> float:
        """The sustained rate."""
        return self.limit / self.period_s

    def last_s(self, count: int, phase_s: float = 0.0) -> float:
        """When the last of `count` calls is let in, the first one being sent at 0, `phase_s` into a fixed window."""
        if count <= 0:
            return 0.0
        if self.kind == "bucket":
            return max(0.0, (count - (self.burst or self.limit)) / self.per_s)
        if self.kind == "fixed":
            return max(0.0, (math.ceil(count / self.limit) - 1) * self.period_s - phase_s)
        return (count - 1) // self.limit * self.period_s

    def offered(self, span_s: float, phase_s: float = 0.0) -> int:
        """The most calls that are let in during [0, span_s)."""
        if span_s <= 0:
            return 0
        if self.kind == "bucket":
            return (self.burst or self.limit) + max(0, math.ceil(span_s * self.per_s - _HAIR) - 1)
        started_s = span_s + (phase_s if self.kind == "fixed" else 0.0)
        return self.limit * math.ceil(started_s / self.period_s - _HAIR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """From `from_s` on (0 is the first call) a fresh limiter holds."""

    from_s: float
    limit: Limit


def last_s(stages: Sequence[Stage], count: int, start_s: float = 0.0) -> float:
    """When the last of `count` calls is let in at best.

    Args:
        start_s: the first call on the limiter's own clock, from whose zero fixed windows are counted.
    """
    left = count
    for stage, following in zip(stages, [*stages[1:], None], strict=True):
        phase_s = (start_s + stage.from_s) % stage.limit.period_s
        offered = left if following is None else stage.limit.offered(following.from_s - stage.from_s, phase_s)
        if left <= offered:
            return stage.from_s + stage.limit.last_s(left, phase_s) if left > 0 else 0.0
        left -= offered
    return 0.0


def shared_s(generations_s: Sequence[float], *, per_s: float, burst: int) -> float:
    """A lower bound of the makespan with polls and submits in one bucket.

    Two calls a job (one submit, one poll that finds it done); and the n-th submit is let in at (n - burst) / per_s at
    the soonest, so that with the longest generations first no job can end before its place in the line allows.
    """
    calls_s = max(0.0, (2 * len(generations_s) - burst) / per_s)
    longest_first = sorted(generations_s, reverse=True)
    ends_s = [max(0.0, (place - burst) / per_s) + one for place, one in enumerate(longest_first, start=1)]
    return max([calls_s, *ends_s])
