"""Colour that drifts away from the start, in what both ends of the clip show."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.reports.checks.alignment import blurred, reduced, warped
from pipeline.reports.checks.allowances import Allowance
from pipeline.reports.checks.findings import Finding, Grade, Kind
from pipeline.reports.checks.frames import Luma
from pipeline.reports.checks.signals import Signals

DRIFT = 7.5
"""Levels of 255 that the mean colour moves by: a drift of ten loses up to a quarter of it to the codec and to what the
ends do not share; 120 good clips had up to 5.7."""

UNLINED_DRIFT = 22.0
"""The same where start and end show different things: two parts of one photograph differ by up to 17."""

STAYS_S = (0.0, 0.25, 0.5)
"""Seconds before the end at which the drift must be there."""

SMOOTH_PX = 5
"""Colours are averaged over so many pixels around, of 80 across: colour noise that a blur takes away is no drift."""

MIN_SHARED = 0.04
"""Share of the picture that start and end must both show, its edge left out."""

ENOUGH = 0.5
"""Share of the picture that both ends show from which `DRIFT` holds. In less, a thing that passes in front moves the
mean, and the limit rises by the share that is missing."""

MAX_LIGHT = 2.5
"""A change of brightness by more than this factor leaves no colour to compare."""


def color_drift(signals: Signals, allowance: Allowance) -> tuple[list[Finding], float]:
    """Mean colour or saturation that moves at equal brightness and stays; also by how many levels."""
    times = signals.film.times
    if times[-1] < 1.0:
        return [], 0.0
    picks = sorted({int(np.searchsorted(times, times[-1] - back - 1e-3)) for back in STAYS_S})
    value = np.inf
    for pick in picks:
        size, limit = _drift(signals, min(pick, len(times) - 1))
        # The smallest of all moments counts: a colour that comes back was a light that passed.
        value = min(value, size / (limit * allowance.recolors) * DRIFT)
        if value < DRIFT:
            return [], value
    return [Finding(kind=Kind.COLOR_DRIFT, grade=Grade.WARN, figure=f"{value:.0f} levels")], value


def _drift(signals: Signals, index: int) -> tuple[float, float]:
    """How far colour is off the start at one frame, and the limit that holds there."""
    found = signals.back_to_start(index)
    is_lined_up = found.detail[0] > 0.6 and found.overlap[0] > 0.15
    one, two = (_channels(signals.film.rgb[number]) for number in (0, index))
    mask = np.ones(one.shape[1:], dtype=bool)
    if is_lined_up:
        one, inside = warped(one, np.repeat(found.maps, len(one), axis=0))
        # As smooth as the colours: those beside the edge have something in them that the other frame does not show.
        mask = blurred(inside[:1].astype(np.float32), SMOOTH_PX)[0] > 0.99
        if mask.mean() < MIN_SHARED:
            return 0.0, DRIFT
    one, two = _planes(one), _planes(two)
    light = (float(two[0][mask].mean()) + 4) / (float(one[0][mask].mean()) + 4)
    if not 1 / MAX_LIGHT < light < MAX_LIGHT:
        return 0.0, DRIFT
    off = [float(two[n][mask].mean() - light * one[n][mask].mean()) for n in (1, 2, 3)]
    size = max(float(np.hypot(off[0], off[1])) * 0.9, abs(off[2]))
    if not is_lined_up:
        return size, UNLINED_DRIFT
    return size, DRIFT * (1 + max(0.0, ENOUGH - float(found.overlap[0])))


def _channels(rgb: NDArray[np.uint8]) -> Luma:
    """3 x height x width: red, green and blue at half size."""
    return reduced(np.moveaxis(rgb, -1, 0).astype(np.float32), 2)


def _planes(channels: Luma) -> Luma:
    """4 x height x width: brightness, Cb, Cr, saturation (largest less smallest channel), all smoothed."""
    smooth = blurred(channels, SMOOTH_PX)
    red, green, blue = smooth
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    # Cb and Cr. Source: ITU-R BT.601.
    return np.stack([luma, 0.564 * (blue - luma), 0.713 * (red - luma), smooth.max(axis=0) - smooth.min(axis=0)])
