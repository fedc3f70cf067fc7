"""Light: frames without a picture, flashes, flicker."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.reports.checks.alignment import MAX_PAIRS, align, reduced, warped
from pipeline.reports.checks.allowances import Allowance
from pipeline.reports.checks.findings import Finding, Grade, Kind
from pipeline.reports.checks.signals import Numbers, Signals, runs

FLAT = 3.0
"""Spread of brightness of a frame without a picture, of 255; a blank frame has below 1 in every codec."""

FAINT_SHARE = 0.03
"""Factor on the square of the clip's own contrast: a faint picture (contrast 5) is missing only below 0.75."""

JUMP = 25.0
"""Levels of brightness by which a plain colour differs from the clip."""

RESIDUE = 0.22
"""Share of the usual contrast that a codec may leave of the picture in frames that replace it."""

ONE_COLOUR = 0.85
"""Share of a frame's pixels that have its one colour, where a codec left blocks of the picture before."""

REPLACED = 0.45
"""Correlation of details below which a frame does not show what the one before did."""

MIN_BLACK_FRAMES = 2
"""Frames without a picture that make a finding; one alone is nearly invisible."""

SUDDEN = 0.5
"""Share of the usual contrast that is there within two frames of a stretch without a picture."""

NOTHING = 0.8
"""Contrast, of 255, of a frame with nothing in it: however it came, more of them than a fade needs are black."""

MAX_FADED_S = 0.6
"""So many seconds of nothing may lie behind a fade."""

FLASH_OFF = 16.0
"""Levels of 255 that a flash differs from both neighbours by: 18, less what a codec takes off the peak."""

MAX_FLASH_FRAMES = 3
"""Frames of the longest flash; what stays bright for longer is a scene."""

STRONG_FLASH = 48.0
"""Levels of 255 from which a flash is one by its light alone: three times the least one."""

SAME_LIGHT_AFTER = 0.1
"""Share of such a flash that light and tint before and after it may differ by; two scenes differ by more."""

SAME_CONTRAST = 1.15
"""And the factor between their spreads of brightness."""

SLOPE = 6.0
"""Levels by which slowly changing light may bring one of both neighbours nearer to a flash."""

FLICKER_WARN = 0.015
"""Flicker from which the check warns, in the measure that FLICKER_BAD describes: two per cent, less what a codec takes.
Of 120 good clips none had more than 0.0124."""

FLICKER_BAD = 0.045
"""Root mean square of the second difference of brightness, relative to brightness."""

FLICKER_S = 1.0
"""Seconds of the window over which flicker is measured: the eye sees it within one."""

MIN_FLICKER_FRAMES = 5
"""Changes of light in a window, fewer say nothing of an oscillation."""

MIN_HERTZ = 2.8
"""Slower changes of light are a candle, a cloud, a lamp that swings."""

TOO_DARK = 22.0
"""Usual brightness, of 255, of a second in which no eye sees a flicker of some per cent: it is below half a level.
Star fields of 18 levels have 0.6 from points of light that pass between pixels."""

RIPPLE = 0.6
"""Share of a steady change of light that a codec's ripple on it may reach, and that is no flicker."""

ONE_WAY = 0.15
"""Share of all changes of light that go the other way, below which nothing oscillates."""

TREND_FRAMES = 5
"""Frames over which a change of light is steady: a fifth of a second, longer than the period of a flicker."""

UNISON = 0.25
"""The whole frame oscillates as one: what blocks differ by counts against it, in so many medians."""

SAME_FRAME = 0.02
"""Change in levels of brightness below which a frame repeats the one before, whatever moves around it."""
CADENCE = 0.35
"""A pair repeats a picture below this change, or below this share of the change around it."""

SAME_LIGHT = 0.15
"""And its brightness is the same within so many levels of 255, which a codec may be off by."""

SAME_LIGHT_SHARE = 0.4
"""Or within this share of what brightness changes by around it."""

DARK = 40.0
"""Brightness, of 255, below which a change is measured against this: one level of a dark picture is no flicker."""


def black(signals: Signals, *, picture_contrast: float | None) -> tuple[list[Finding], np.ndarray]:
    """Frames without a picture; also the mask of those frames, which other checks leave out."""
    contrast, times = signals.contrast, signals.film.times
    usual = float(np.median(contrast))
    known = max(usual, picture_contrast or 0.0)
    off = np.abs(signals.mean - np.median(signals.mean))
    flat = contrast < min(FLAT, FAINT_SHARE * known**2)
    flat |= (contrast < min(FLAT, 0.3 * known)) & (off > JUMP)
    flat |= (replaced := _residues(signals, usual, off))
    mask = np.zeros(len(contrast), dtype=bool)
    found = []
    for start, stop in runs(flat):
        if stop - start < MIN_BLACK_FRAMES:
            continue
        mask[start:stop] = True
        nothing = contrast[start:stop].max() < NOTHING and times[stop - 1] - times[start] > MAX_FADED_S
        expected = max(min(known, usual) if usual > FLAT else known, _contrast_beside(signals, start, stop))
        if nothing or replaced[start:stop].any() or _is_sudden(contrast, start, stop, expected):
            found.append((start, stop))
    if not found:
        return [], mask
    start, stop = max(found, key=lambda run: run[1] - run[0])
    figure = f"{sum(b - a for a, b in found)} frames from {times[start]:.1f} s"
    return [Finding(kind=Kind.BLACK, grade=Grade.BAD, figure=figure)], mask


def _contrast_beside(signals: Signals, start: int, stop: int) -> float:
    """Usual contrast within a second of a stretch."""
    times, contrast = signals.film.times, signals.contrast
    near = (times >= times[start] - 1.0) & (times <= times[stop - 1] + 1.0)
    near[start:stop] = False
    return float(np.median(contrast[near])) if near.any() else 0.0


def _residues(signals: Signals, usual: float, off: Numbers) -> np.ndarray:
    """Short stretches that lost picture and brightness at once, with remains of the picture that the codec left."""
    low = (signals.contrast < RESIDUE * usual) & (off > JUMP)
    plain = (signals.contrast < FLAT) & (off > JUMP)
    for at in np.flatnonzero(plain[:-1] & ~low[1:]) + 1:  # the codec brings the picture back too early
        like_it = abs(signals.mean[at] - signals.mean[at - 1]) < 4
        low[at] = like_it and signals.contrast[at] < 0.7 * usual and off[at] > JUMP
    luma = signals.film.luma
    middle = np.median(luma, axis=(1, 2))
    one_colour = (np.abs(luma - middle[:, None, None]) < FLAT).mean(axis=(1, 2)) > ONE_COLOUR
    low |= one_colour & (np.abs(middle - np.median(middle)) > JUMP)  # with blocks of the picture that the codec kept
    mask = np.zeros(len(low), dtype=bool)
    for start, stop in runs(low):
        if start > 0 and stop < len(low) and stop - start <= signals.film.fps:
            sides = min(signals.contrast[start - 1], signals.contrast[stop])
            mask[start:stop] = sides > 0.8 * usual and signals.steps.detail[start - 1] < REPLACED
    return mask


def _is_sudden(contrast: Numbers, start: int, stop: int, known: float) -> bool:
    """Whether the picture vanishes or comes back within two frames: what fades slowly was faded on purpose."""
    inside = float(contrast[start:stop].min())
    sides = [contrast[max(0, start - 2) : start], contrast[stop : stop + 2]]
    return any(len(side) > 0 and side.max() > max(3 * inside, SUDDEN * known) for side in sides)


def flash(signals: Signals, allowance: Allowance, blank: np.ndarray) -> tuple[list[Finding], float]:
    """One to three frames whose light or tint is off both neighbours; also the largest such difference."""
    rgb = signals.film.rgb.mean(axis=(1, 2), dtype=np.float64)
    series = np.column_stack([signals.mean, rgb])
    steps = np.abs(np.diff(series, axis=0))
    best, at, length = 0.0, 0, 0
    least = FLASH_OFF * allowance.flashes
    for size in range(1, MAX_FLASH_FRAMES + 1):
        for start in range(1, len(series) - size):
            stop = start + size
            if blank[start:stop].all() and size >= MIN_BLACK_FRAMES:
                continue
            off = _off(series, start, stop)
            if off <= max(best, least):
                continue
            # Without the steps into the flash and out of it, which would make it usual.
            around = np.concatenate([steps[max(0, start - 9) : start - 1], steps[stop : stop + 8]])
            usual = float(np.percentile(around.max(axis=1), 75)) if len(around) else 0.0
            # Unlike on both sides it is a change of scene, which `cut` judges.
            if off > 3 * usual and (_alike(signals, start - 1, stop) or _is_same_light(signals, start - 1, stop, off)):
                best, at, length = off, start, size
    if not best:
        return [], 0.0
    figure = f"{best:.0f} levels, {length} frame{'s' * (length > 1)} at {signals.film.times[at]:.1f} s"
    return [Finding(kind=Kind.FLASH, grade=Grade.BAD, figure=figure)], best


def _off(series: Numbers, start: int, stop: int) -> float:
    """How far the frames start..stop are off both neighbours in the same direction, in brightness or in a channel."""
    before, after, inside = series[start - 1], series[stop], series[start:stop]
    share = (np.arange(1, len(inside) + 1) / (len(inside) + 1))[:, None]
    expected = before + (after - before) * share  # the light may change slowly meanwhile
    up = np.minimum((inside - expected).min(axis=0), inside.min(axis=0) - np.maximum(before, after) + SLOPE)
    down = np.minimum((expected - inside).min(axis=0), np.minimum(before, after) - inside.max(axis=0) + SLOPE)
    off = np.maximum(up, down)
    return float(np.where(np.abs(before - after) <= 0.6 * off, off, 0).max())


def _alike(signals: Signals, one: int, two: int) -> bool:
    found = align(signals.half[one][None], signals.half[two][None])
    return bool(found.detail[0] > 0.5 or found.correlation[0] > 0.8)


def _is_same_light(signals: Signals, one: int, two: int, off: float) -> bool:
    """Whether light and contrast are what they were before a strong flash: fast rows of letters line up badly."""
    before, after = signals.film.rgb[[one, two]].mean(axis=(1, 2), dtype=np.float64)
    contrasts = sorted((float(signals.contrast[one]), float(signals.contrast[two])))
    is_lit_alike = float(np.abs(before - after).max()) < SAME_LIGHT_AFTER * off
    return off > STRONG_FLASH and is_lit_alike and contrasts[1] < SAME_CONTRAST * contrasts[0]


def flicker(signals: Signals, allowance: Allowance, blank: np.ndarray) -> tuple[list[Finding], float]:
    """Brightness of the whole frame that oscillates; also the largest value over a second."""
    times = signals.film.times
    if len(times) < 8:
        return [], 0.0
    moments, light = _light_steps(signals, blank)
    if len(light) < MIN_FLICKER_FRAMES:
        return [], 0.0
    slow = np.convolve(light, np.full(TREND_FRAMES, 1 / TREND_FRAMES), mode="same")
    value, at_s = 0.0, 0.0
    for start in range(0, len(light) - 1, 2):
        stop = int(np.searchsorted(moments, moments[start] + FLICKER_S - 1e-3))
        part = np.diff(light[start:stop])
        # Less than a whole window is left. Only a clip that is shorter than one is judged by what it has.
        if stop == len(light) and start > 0:
            break
        if len(part) < MIN_FLICKER_FRAMES:
            continue
        inside = (times >= moments[start]) & (times <= moments[stop - 1])
        if float(np.median(signals.mean[inside])) < TOO_DARK or _rises_or_falls(light[start:stop]):
            continue
        highest = 3 * float(np.median(np.abs(part)))  # single flashes and cuts are judged elsewhere
        trend = float(np.sqrt(np.mean(slow[start:stop] ** 2)))
        rms = float(np.sqrt(np.mean(np.clip(part, -highest, highest) ** 2))) - RIPPLE * trend
        fps = len(part) / float(moments[stop - 1] - moments[start])
        if rms > value and _hertz(part, fps) >= MIN_HERTZ:
            value, at_s = rms, float(moments[start])
    if value < FLICKER_WARN * allowance.flicker:
        return [], value
    grade = Grade.BAD if value >= FLICKER_BAD * allowance.flicker else Grade.WARN
    figure = f"{100 * value:.1f} % from {at_s:.1f} s"
    return [Finding(kind=Kind.FLICKER, grade=grade, figure=figure)], value


def _rises_or_falls(light: Numbers) -> bool:
    """Whether light only gets brighter, or only darker, in whatever steps a codec gives it."""
    up, down = float(light[light > 0].sum()), float(-light[light < 0].sum())
    return min(up, down) < ONE_WAY * (up + down)


def repeated(signals: Signals) -> np.ndarray:
    """Pairs of frames that repeat a picture in the same light: 12 pictures in 24 frames, encoded again."""
    change, light = signals.change, np.abs(np.diff(signals.mean))
    is_small = change < np.maximum(SAME_FRAME, CADENCE * _around(change))
    return np.asarray(is_small & (light < np.maximum(SAME_LIGHT, SAME_LIGHT_SHARE * _around(light))))


def _around(series: Numbers) -> Numbers:
    """Median of each value and its three neighbours on both sides."""
    padded = np.pad(series, 3, mode="edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, 7), axis=1))


def _hertz(second: Numbers, fps: float) -> float:
    """Usual frequency of what oscillates: the ratio of its second to its first differences is 2 sin(w / 2)."""
    first = np.cumsum(second)
    size = float(np.std(first))
    if size == 0 or len(second) < 4:
        return 0.0
    ratio = float(np.sqrt(np.mean(second**2))) / size
    return float(2 * np.arcsin(min(1.0, ratio / 2)) / (2 * np.pi) * fps)


def _light_steps(signals: Signals, blank: np.ndarray) -> tuple[Numbers, Numbers]:
    """Moments, and by what share the whole frame got brighter since the one before, in what both show.

    Repeated frames (12 pictures in 24 frames) are left out, for each would count as a rest between two jumps.
    """
    new = ~repeated(signals) & ~blank[1:] & ~blank[:-1]
    pairs = np.flatnonzero(new)
    if len(pairs) < 8:
        return np.zeros(0), np.zeros(0)
    parts = [_block_steps(signals, pairs[at : at + MAX_PAIRS]) for at in range(0, len(pairs), MAX_PAIRS)]
    steps = np.concatenate(parts)
    steps[np.isnan(steps).all(axis=1)] = 0.0  # frames that show nothing in common say nothing of the light
    usual = np.nanmedian(steps, axis=1)
    apart = np.nanmedian(np.abs(steps - usual[:, None]), axis=1) * UNISON
    light = np.nan_to_num(np.sign(usual) * np.maximum(0.0, np.abs(usual) - apart))
    return signals.film.times[pairs + 1], light


def _block_steps(signals: Signals, pairs: NDArray[np.int64]) -> Numbers:
    """pairs x blocks: by what share a block got brighter since the frame before; NaN where that does not show it."""
    first, second = signals.half[pairs], signals.half[pairs + 1]
    seen, inside = warped(first, signals.steps.maps[pairs])
    side = max(4, min(first.shape[1:]) // 4)
    shown = reduced(inside.astype(np.float32), side)
    one, two = (reduced(picture * inside, side) / np.maximum(shown, 0.1) for picture in (seen, second))
    share = np.where(shown > 0.6, (two - one) / np.maximum(DARK, (one + two) / 2), np.nan)
    return share.reshape(len(pairs), -1).astype(np.float64)
