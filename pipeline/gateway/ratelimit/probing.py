"""What the first fill of an unknown limit tells: which window may have admitted it, and when to try again.

Pure functions of `InitialFill`: the calls that were admitted until the limit was met.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.gateway.ratelimit.fits import SPANS_S, USUAL_COUNTS, WindowFit, is_whole
from pipeline.gateway.ratelimit.history import Rejection

PROBED_SPANS_S = (
    *(1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 45.0),
    *(60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0),
)
"""Spans (seconds) at whose end a probe without hints is made: each costs one rejection, so they are fewer."""
MIN_PROBE_S, MAX_PROBE_S = 0.08, 900.0
"""Bounds (seconds) of the time from the first rejection to a probe; in between it doubles (Kleinberg and Leighton
2003: the number of costly failures is logarithmic)."""
PROBE_MARGIN_S = 0.004
"""Seconds after a span's end that a probe is made, beside four standard deviations of its arrival."""
LATE_SPAN_S, LATE = 10.0, 1.01
"""A span of so many seconds or more is also probed so much later: the gateway's clock may be coarse."""
MIN_WINDOW = 4
"""Below so many calls a hint of one second rather means a bucket."""
SHORT_HINT_S = 1.5
"""Whole hints up to so many seconds fit windows of two seconds at most."""
EARLY_PART = 0.4
"""Part of the first fill by which a hint is later where rejected calls count: as many as were in flight."""
AGE_TOLERANCE = 0.995
"""Part of the age at which the last probe failed: the span is longer."""


@dataclass(frozen=True, slots=True)
class InitialFill:
    """`count` calls admitted from `begin` on, until one was rejected at `rejected_at`."""

    count: int
    begin: float
    rejected_at: float

    @property
    def took_s(self) -> float:
        """Seconds from the first arrival to the rejection."""
        return max(self.rejected_at - self.begin, 1e-3)

    @property
    def max_rate(self) -> float:
        """A rate (calls a second) that no bucket exceeds that rejected one of them."""
        return 2 * self.count / self.took_s


def window_by_hint(fill: InitialFill, it: Rejection, noise_s: float) -> WindowFit | None:
    """The window that began with the first call and ends when the hint says; None where no usual one does."""
    hint = it.retry_after_s
    if hint is None or (hint <= 1 and fill.count < MIN_WINDOW):
        return None
    max_s = it.at + hint - fill.begin + 2 * noise_s + 0.002
    min_s = max_s - (1.0 if is_whole(hint) else 0.0) - 4 * noise_s - 0.004
    usual = [span for span in SPANS_S if 0.985 * min_s < span <= max_s]
    usual = usual or [span for span in SPANS_S if min_s - EARLY_PART * fill.took_s < span <= max_s]
    if usual:
        # A first fill of an unusual number rather was a bucket's, which a slower second fill measures at the price of
        # one hold less (0.02 of 40/s that holds 10).
        fits = hint > SHORT_HINT_S or not is_whole(hint) or (usual[0] <= 2 and fill.count in USUAL_COUNTS)
        return WindowFit(fill.count, usual[0], 0.0) if fits else None  # too short a span is corrected by one hint
    return None


def spans_between(failed_age_s: float, age_s: float, noise_s: float) -> list[float]:
    """The usual spans of a window that was shut at the first age (seconds) and open at the second."""
    return [span for span in SPANS_S if AGE_TOLERANCE * failed_age_s - 4 * noise_s < span <= age_s + 2 * noise_s]


def next_probe_at(fill: InitialFill, now: float, half_s: float, noise_s: float) -> float:
    """When to probe next without a hint: twice as long after the first rejection, rather where a window would end."""
    reach_s = max(2 * (now + half_s - fill.rejected_at), MIN_PROBE_S)
    for span_s in PROBED_SPANS_S:
        for end_s in (span_s, LATE * span_s) if span_s >= LATE_SPAN_S else (span_s,):
            end = fill.begin + end_s + PROBE_MARGIN_S + 4 * noise_s
            if now + half_s < end <= fill.rejected_at + 1.6 * reach_s:
                return min(end - half_s, now + MAX_PROBE_S)
    return min(fill.rejected_at + reach_s - half_s, now + MAX_PROBE_S)


def second_fill_rate(fill: InitialFill, span_s: float) -> float:
    """The rate (calls a second) of a fill of another duration.

    A bucket admits burst + rate * t calls in t seconds, a window as many in any: two fills of unlike durations tell
    them apart, and the rate by their difference.
    """
    if fill.count <= 2:
        return max(2.0 * fill.count, 1.0)
    span_s = max(1.0, math.ceil(fill.took_s + 1e-9)) if fill.took_s < 2 else span_s
    if fill.took_s > 0.35 and fill.count > 20:
        return fill.count / (0.5 * fill.took_s)
    return fill.count / min(0.75 * span_s, fill.took_s + 8 / fill.count)
