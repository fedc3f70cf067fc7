"""The round lengths that windows have: a second, a minute, an hour. Pure."""

from __future__ import annotations

ROUND_SPANS_S = (
    1.0,
    2.0,
    5.0,
    10.0,
    15.0,
    20.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
    900.0,
    1800.0,
    3600.0,
)


def span_above(least_s: float) -> float | None:
    """The shortest round span longer than `least_s`."""
    return next((span for span in ROUND_SPANS_S if span > least_s), None)


def span_below(most_s: float) -> float | None:
    """The longest round span shorter than `most_s`."""
    return next((span for span in reversed(ROUND_SPANS_S) if span < most_s), None)
