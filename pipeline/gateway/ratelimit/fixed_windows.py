"""Which fixed windows of one span explain an allowance's answers: their phase is a second unknown. Pure.

For each phase the window of a rejection is known: it admitted at least the limit before the rejection, no window beside
it admitted more, and it ends when the hint says.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.gateway.ratelimit.fits import max_wait_s, min_wait_s
from pipeline.gateway.ratelimit.history import Rejection

Floats = NDArray[np.floating]
Counts = NDArray[np.integer]

PHASES, FINE_PHASES = 48, 32
"""Phases tried at first, and between those that are left."""
MAX_FIXED_REJECTIONS = 8
"""Newest rejections that are explained: each adds its window and the two beside it."""
LATE_END_MISFIT = 2.0
"""Misfit (calls) of a window that does not end when a hint says."""


def fit_fixed(
    arrivals: Floats, rejections: Sequence[Rejection], span_s: float, tolerance_s: float
) -> tuple[int, float]:
    """(calls that the best phase admits in a window, its misfit in calls)."""
    rejections = rejections[-MAX_FIXED_REJECTIONS:]
    step_s = span_s / PHASES
    phases = np.arange(PHASES) * step_s
    _, misfit = _explain(arrivals, rejections, span_s, phases, tolerance_s + step_s / 2)
    left = phases[misfit < misfit.min() + 0.5]
    shares = max(FINE_PHASES // len(left), 1)
    fine = (left[:, None] + ((np.arange(shares) + 0.5) / shares - 0.5) * step_s).ravel()
    count, misfit = _explain(arrivals, rejections, span_s, fine, tolerance_s + step_s / shares / 2)
    best = int(misfit.argmin())
    return int(count[best]), float(misfit[best])


def _explain(
    arrivals: Floats, rejections: Sequence[Rejection], span_s: float, phases: Floats, tolerance_s: float
) -> tuple[Counts, Floats]:
    """For each phase (most calls of a window, misfit in calls); the tolerance includes that of the phase."""
    at, half_s = (np.array([getattr(it, name) for it in rejections])[:, None] for name in ("at", "half_s"))
    # For each phase the begin of the window that the rejection fell into.
    begin = phases + np.floor((at - phases) / span_s) * span_s

    def count(after: Floats, until: Floats) -> Counts:
        found: Counts = np.searchsorted(arrivals, until) - np.searchsorted(arrivals, after)
        return np.maximum(found, 0)

    before_it = count(begin - tolerance_s, at + half_s + tolerance_s)
    edges = [begin + place * span_s for place in (-1, 0, 1, 2)]
    whole = np.stack([count(a + tolerance_s, b - tolerance_s) for a, b in itertools.pairwise(edges)])
    least, most = whole.max(axis=(0, 1)), before_it.min(axis=0)
    wait_s = begin + span_s - at
    longest = np.array([max_wait_s(it.retry_after_s) for it in rejections])[:, None]
    shortest = np.array([min_wait_s(it.retry_after_s) for it in rejections])[:, None]
    slack_s = half_s + tolerance_s
    wrong = (wait_s < shortest - slack_s) | (wait_s > longest + slack_s)
    return most, np.maximum(least - most, 0) + LATE_END_MISFIT * wrong.sum(axis=0)
