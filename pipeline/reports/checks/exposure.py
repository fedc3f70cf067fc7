"""Light: frames without a picture, flashes, flicker. Pure."""

from __future__ import annotations

import numpy as np

from pipeline.reports.checks.alignment import align, reduced
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

FLICKER_WARN = 0.02
"""Flicker from which the check warns, in the measure that FLICKER_BAD describes."""
FLICKER_BAD = 0.05
"""Root mean square of the second difference of brightness, relative to brightness."""

MIN_FLICKER = 0.5
"""Least second difference of brightness, in levels of 255: in a dark picture 2 % are less than what one level shows.
A star field of 18 levels had 0.38 from points of light that pass between pixels; nothing of it is seen."""

FLICKER_S = 1.0
"""Seconds of the window over which flicker is measured: the eye sees it within one."""

MIN_HERTZ = 2.8
"""Slower changes of light are a candle, a cloud, a lamp that swings."""

TOO_DARK = 8.0
"""Usual brightness, of 255, of a clip in which no eye sees a flicker of some per cent."""

UNISON = 0.5
"""The whole frame oscillates as one: what blocks differ by counts against it, in so many medians."""

SAME_FRAME = 0.02
"""Change in levels of brightness below which a frame repeats the one before, whatever moves around it."""
CADENCE = 0.35
"""A pair repeats a picture below this change, or below this share of the change around it."""

DARK = 30.0
"""Brightness, of 255, below which a change is measured against this: one level of a dark picture is no flicker."""


def black(signals: Signals, *, picture_contrast: float | None) -> tuple[list[Finding], np.ndarray]:
    """Frames without a picture; also the mask of those frames, which other checks leave out."""
    contrast, times = signals.contrast, signals.film.times
    usual = float(np.median(contrast))
    known = max(usual, picture_contrast or 0.0)
    off = np.abs(signals.mean - np.median(signals.mean))
    flat = contrast < min(FLAT, FAINT_SHARE * known**2)
    flat |= (contrast < min(FLAT, 0.3 * known)) & (off > JUMP)
    flat |= _residues(signals, usual, off)
    mask = np.zeros(len(contrast), dtype=bool)
    found = []
    for start, stop in runs(flat):
        if stop - start < MIN_BLACK_FRAMES:
            continue
        mask[start:stop] = True
        nothing = contrast[start:stop].max() < NOTHING and times[stop - 1] - times[start] > MAX_FADED_S
        if nothing or _is_sudden(contrast, start, stop, min(known, usual) if usual > FLAT else known):
            found.append((start, stop))
    if not found:
        return [], mask
    start, stop = max(found, key=lambda run: run[1] - run[0])
    figure = f"{sum(b - a for a, b in found)} frames from {times[start]:.1f} s"
    return [Finding(kind=Kind.BLACK, grade=Grade.BAD, figure=figure)], mask


def _residues(signals: Signals, usual: float, off: Numbers) -> np.ndarray:
    """Short stretches that lost picture and brightness at once, with remains of the picture that the codec left."""
    low = (signals.contrast < RESIDUE * usual) & (off > JUMP)
    plain = (signals.contrast < FLAT) & (off > JUMP)
    for at in np.flatnonzero(plain[:-1] & ~low[1:]) + 1:  # the codec brings the picture back too early
        like_it = abs(signals.mean[at] - signals.mean[at - 1]) < 4
        low[at] = like_it and signals.contrast[at] < 0.7 * usual and off[at] > JUMP
    mask = np.zeros(len(low), dtype=bool)
    for start, stop in runs(low):
        if start > 0 and stop < len(low) and stop - start <= signals.film.fps:
            sides = min(signals.contrast[start - 1], signals.contrast[stop])
            mask[start:stop] = sides > 0.8 * usual and signals.steps.detail[start - 1] < 0.35
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
            around = np.concatenate([steps[max(0, start - 9) : start - 1], steps[stop : stop + 8]])
            usual = float(np.percentile(around.max(axis=1), 75)) if len(around) else 0.0
            if off > 3 * usual and _alike(signals, start - 1, stop):
                best, at, length = off, start, size
    if not best:
        return [], 0.0
    figure = f"{best:.0f} levels, {length} frame{'s' * (length > 1)} at {signals.film.times[at]:.1f} s"
    return [Finding(kind=Kind.FLASH, grade=Grade.BAD, figure=figure)], best


def _off(series: Numbers, start: int, stop: int) -> float:
    """How far the frames start..stop are off both neighbours in the same direction, in brightness or in a channel."""
    before, after, inside = series[start - 1], series[stop], series[start:stop]
    up = np.minimum(inside.min(axis=0) - before, inside.min(axis=0) - after)
    down = np.minimum(before - inside.max(axis=0), after - inside.max(axis=0))
    off = np.maximum(up, down)
    return float(np.where(np.abs(before - after) <= 0.5 * off, off, 0).max())


def _alike(signals: Signals, one: int, two: int) -> bool:
    found = align(signals.half[one][None], signals.half[two][None])
    return bool(found.detail[0] > 0.5 or found.correlation[0] > 0.8)


def flicker(signals: Signals, allowance: Allowance, blank: np.ndarray) -> tuple[list[Finding], float]:
    """Brightness of the whole frame that oscillates; also the largest value over a second."""
    times = signals.film.times
    if len(times) < 8 or float(np.median(signals.mean)) < TOO_DARK:
        return [], 0.0
    relative = _relative_second_difference(signals, blank)
    fps = len(relative) / max(1e-6, float(times[-1]))  # without repeated frames
    window = max(6, int(np.ceil(FLICKER_S * fps)))
    value, at = 0.0, 0
    for start in range(0, max(1, len(relative) - window + 1), 2):
        part = relative[start : start + window]
        highest = 3 * float(np.median(np.abs(part)))  # single flashes and cuts are judged elsewhere
        rms = float(np.sqrt(np.mean(np.clip(part, -highest, highest) ** 2)))
        if rms > value and _hertz(part, fps) >= MIN_HERTZ:
            value, at = rms, start
    if value < FLICKER_WARN * allowance.flicker or value * float(np.median(signals.mean)) < MIN_FLICKER:
        return [], value
    grade = Grade.BAD if value >= FLICKER_BAD * allowance.flicker else Grade.WARN
    figure = f"{100 * value:.1f} % from {at / fps:.1f} s"
    return [Finding(kind=Kind.FLICKER, grade=grade, figure=figure)], value


def repeated(change: Numbers) -> np.ndarray:
    """Pairs of frames that repeat a picture: 12 pictures in 24 frames, encoded again."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(change, 3, mode="edge"), 7)
    return np.asarray(change < np.maximum(SAME_FRAME, CADENCE * np.median(around, axis=1)))


def _hertz(second: Numbers, fps: float) -> float:
    """Usual frequency of what oscillates: the ratio of its second to its first differences is 2 sin(w / 2)."""
    first = np.cumsum(second)
    size = float(np.std(first))
    if size == 0 or len(second) < 4:
        return 0.0
    ratio = float(np.sqrt(np.mean(second**2))) / size
    return float(2 * np.arcsin(min(1.0, ratio / 2)) / (2 * np.pi) * fps)


def _relative_second_difference(signals: Signals, blank: np.ndarray) -> Numbers:
    """Second difference of brightness over brightness: the smaller of the whole frame's and the typical block's.

    Repeated frames (12 pictures in 24 frames) are left out, for each would count as a rest between two jumps.
    """
    luma = signals.film.luma
    new = np.concatenate([[True], ~repeated(signals.change)]) & ~blank
    blocks = reduced(luma[new], max(8, min(luma.shape[1:]) // 4)).astype(np.float64)
    blocks = blocks.reshape(len(blocks), -1)
    if len(blocks) < 8:
        return np.zeros(1)
    base = np.maximum(DARK, (blocks[:-2] + 2 * blocks[1:-1] + blocks[2:]) / 4)
    second = (blocks[:-2] - 2 * blocks[1:-1] + blocks[2:]) / base
    usual = np.median(second, axis=1)
    apart = np.median(np.abs(second - usual[:, None]), axis=1)
    return np.asarray(np.sign(usual) * np.maximum(0.0, np.abs(usual) - UNISON * apart))
