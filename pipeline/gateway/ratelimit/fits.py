"""The two kinds of limiters that a fit finds, as plain values, and what a wait hint says. Pure; needs no numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass

SPANS_S = (
    *(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 15.0, 20.0, 30.0, 40.0, 45.0),
    *(60.0, 90.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0),
)
"""Lengths (seconds) that windows usually have."""
USUAL_COUNTS = frozenset(
    (
        *(1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90, 100, 120, 150, 200, 250, 300),
        *(400, 500, 600, 750, 800, 900, 1000, 1200, 1500, 2000, 2500, 3000, 5000, 6000, 10_000),
    )
)
"""Calls that windows usually admit."""
MIN_TELLING_S = 0.5
"""A hint of so much (seconds), less its rounding, is a window's."""
ROUNDING_S = 1e-3
"""By which a hint that is no whole number of seconds may be rounded up; a whole one may be by a second."""


@dataclass(frozen=True, slots=True)
class WindowFit:
    """A window and how badly (calls) it explains what happened."""

    count: int
    span_s: float
    misfit: float


@dataclass(frozen=True, slots=True)
class BucketFit:
    """A bucket, how badly (calls) it explains what happened, and between which rates it may be."""

    rate: float
    burst: float
    misfit: float
    min_rate: float
    max_rate: float


def min_wait_s(hint_s: float | None) -> float:
    """The shortest true wait (seconds) that a gateway would round up to this hint."""
    if hint_s is None:
        return 0.0
    return max(0.0, hint_s - (1.0 if is_whole(hint_s) else ROUNDING_S))


def max_wait_s(hint_s: float | None) -> float:
    """The longest true wait (seconds) of an answer with this hint."""
    return math.inf if hint_s is None else hint_s


def is_telling(hint_s: float | None) -> bool:
    """Whether only a window asks for such a wait: a bucket that is used at all has its next call sooner."""
    return min_wait_s(hint_s) >= MIN_TELLING_S


def is_whole(hint_s: float) -> bool:
    """Whether a hint is a whole number of seconds, as the Retry-After header has it."""
    return abs(hint_s - round(hint_s)) < 1e-6
