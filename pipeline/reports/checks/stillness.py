"""Frames that repeat, and clips in which nothing moves."""

from __future__ import annotations

import numpy as np

from pipeline.reports.checks.alignment import FINE, align, blurred, reduced, warped
from pipeline.reports.checks.allowances import Allowance
from pipeline.reports.checks.findings import Finding, Grade, Kind
from pipeline.reports.checks.signals import BLOCK_PX, Signals, runs

MIN_FROZEN_S = 0.5
"""Seconds without any motion from which the check warns."""
BAD_FROZEN_S = 0.8
"""Seconds without any motion from which a clip is bad."""
MIN_PAUSE_S = 3.2
"""Rest that a preset with pauses may have: a crash zoom that comes late rests for three seconds before."""

QUIET = 0.4
"""Mean change between neighbours, of 255, that a codec makes of a repeated frame at most."""

QUIET_SHARE = 0.16
"""And at most this share of the change where the clip moves, so that slow clips are no freeze."""

LOOSE = 1.2
"""The same for a codec that adds detail to a repeated picture bit by bit; first and last frame are lined up."""

LOOSE_SHARE = 0.4
"""And at most this share of the change where the clip moves."""

QUIET_MIN = 0.05
"""Below this change two frames are the same whatever the clip does."""

STEADY_PX = 0.06
"""Way of the camera, in pixels of 160, over a whole freeze: what lining up two encodings of one picture yields."""

STILL_WAY = 0.005
"""Way of the camera over the clip, in widths."""

STILL_BLOCK = 2.0
"""Change of a block's mean brightness, of 255, that grain and codec make; anything that moves makes more."""

EDGE_SHARE = 0.15
"""The same as a share of the block's contrast: a hard edge between two pixels is never lined up exactly. A thing that
moves by its own size changes its blocks by their contrast."""

GRAIN_BLOCKS = 7.0
"""With strong grain all blocks change: the largest is then at most so many times the usual one."""

FROZEN_BLOCK = 0.6
"""Change of a block over the inner part of a freeze, of 255; a slow camera makes more."""

PULSE = 0.5
"""A key frame within a freeze changes the picture by at most this share of the change where the clip moves."""

BETWEEN_PULSES = 4
"""Key frames are at least so many pairs apart; 12 pictures in 24 frames, which also alternate, are not."""

MIN_LEVEL = 0.12
"""Change of neighbours in a clip that moves, of 255: below it no stretch differs clearly from the rest."""

NO_CHANGE = 0.012
"""Mean change of a pair of which a codec says that it is the same."""

REST_SHARE = 0.2
"""Pairs of a clip in which the camera rests: so much of the largest changes."""

FULL_CONTRAST = 20.0
"""Spread of brightness, of 255, from which the limits above hold in full."""

HELD_STEPS = 4
"""Usual steps between frames that one frame of a freeze is shown for at least, where a file leaves repeats out."""

DIM = 5.0
"""Spread of brightness, of 255, below which a codec keeps a slowly moving picture as it is: nearly black ones."""

SURE_S = 0.54
"""Seconds from which a stretch without a sudden start or end is a freeze: a slow turn of the camera rests as long."""

SETTLING = 5
"""Pairs at the start of a freeze in which a codec still adds detail to the repeated picture."""


def frozen(signals: Signals, allowance: Allowance, blank: np.ndarray) -> tuple[list[Finding], float]:
    """The longest stretch of repeated frames; also its length in seconds."""
    times, change = signals.film.times, signals.change
    if len(change) < 2:
        return [], 0.0
    level = min(float(np.percentile(change, 85)), 6 * max(QUIET_MIN, float(np.median(change))))  # flashes apart
    faint = _faintness(signals)
    limit = max(QUIET_MIN * faint, min(QUIET, QUIET_SHARE * level))
    quiet = change <= limit
    moved = change - np.abs(np.diff(signals.mean))  # light alone, as in a timelapse, is no motion that could stop
    step_s = float(np.median(np.diff(times)))
    loose = change <= max(limit, min(LOOSE, LOOSE_SHARE * level))
    longest, begin = _held(times, step_s)
    for found_start, stop in dict.fromkeys([*_joined(runs(quiet), change, level), *runs(loose)]):
        start = _settled(change, found_start, 0.5 * level)
        # The last of the frames is shown for a step as well.
        length = float(times[stop] - times[start]) + step_s
        # A little less, because times in a file are rounded.
        if length < MIN_FROZEN_S - 0.02 or length <= longest or blank[start : stop + 1].mean() > 0.5:
            continue
        if allowance.pauses and length < MIN_PAUSE_S and not _is_stiller(change, start, stop, MIN_FROZEN_S / step_s):
            continue
        whole = stop - start >= 0.97 * len(change)
        if whole and allowance.is_static:
            continue
        if not whole and level < (3 * QUIET_MIN if allowance.is_static else MIN_LEVEL):
            continue
        if allowance.is_static and not _is_beside(moved, found_start, stop, 0.5 * level):
            continue
        is_dim = float(np.median(signals.contrast[start : stop + 1])) < DIM
        is_repeat = length >= SURE_S and not is_dim and _repeats(signals, start, stop, faint)
        is_quiet = float(np.percentile(change[found_start:stop], 90)) <= limit
        is_sudden = is_quiet and _is_sudden_rest(change, moved, start, stop, level)
        if is_repeat or is_sudden or (is_quiet and _is_cut_out(signals, moved, start, stop, level)):
            longest, begin = length, float(times[start])
    if not longest:
        return [], 0.0
    grade = Grade.BAD if longest >= BAD_FROZEN_S - 0.02 else Grade.WARN
    return [Finding(kind=Kind.FROZEN, grade=grade, figure=f"{longest:.1f} s from {begin:.1f} s")], longest


def _held(times: np.ndarray, step_s: float) -> tuple[float, float]:
    """How long the longest single frame is shown, and from when; 0 where that is no freeze."""
    gaps = np.diff(times)
    at = int(gaps.argmax())
    return (float(gaps[at]), float(times[at])) if gaps[at] >= max(MIN_FROZEN_S, HELD_STEPS * step_s) else (0.0, 0.0)


def _joined(found: list[tuple[int, int]], change: np.ndarray, level: float) -> list[tuple[int, int]]:
    """Stretches with single pairs between them joined: a key frame within a freeze differs by its coding."""
    joined: list[tuple[int, int]] = []
    last = 0
    for start, stop in found:
        is_long = bool(joined) and min(last, stop - start) >= BETWEEN_PULSES
        last = stop - start
        if is_long and start - joined[-1][1] <= 1 and change[joined[-1][1]] < max(1.0, PULSE * level):
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined


def _settled(change: np.ndarray, start: int, limit: float) -> int:
    """The start of a stretch, moved back over pairs whose change dies away."""
    first = start
    while start > max(0, first - SETTLING) and change[start] * 0.9 <= change[start - 1] < limit:
        start -= 1
    return start


def _is_stiller(change: np.ndarray, start: int, stop: int, count: float) -> bool:
    """Whether nothing at all changes, while the clip's other rests, `count` pairs at least, have tremor or grain."""
    if float(np.median(change[start:stop])) > NO_CHANGE:
        return False
    others = np.concatenate([change[: max(0, start - SETTLING)], change[stop + SETTLING :]])
    rests = others[others < REST_SHARE * float(np.percentile(change, 95))]
    return len(rests) >= count and float(np.percentile(rests, 10)) > 3 * NO_CHANGE


def _faintness(signals: Signals) -> float:
    """1 for a picture of usual contrast, less for a faint one, in which motion changes little."""
    return min(1.0, max(0.1, float(np.median(signals.contrast)) / FULL_CONTRAST))


def _is_sudden_rest(change: np.ndarray, moved: np.ndarray, start: int, stop: int, level: float) -> bool:
    """Whether pairs without any change begin or end in full motion: a camera that slows down does neither."""
    if float(np.median(change[start:stop])) > max(NO_CHANGE, 0.02 * level):
        return False
    return _is_beside(moved, start, stop, 0.4 * level)


def _is_cut_out(signals: Signals, moved: np.ndarray, start: int, stop: int, level: float) -> bool:
    """Whether full motion ends and begins at once, and the camera has no way between: a codec may still add detail."""
    both = all(0 <= at < len(moved) and moved[at] >= 0.5 * level for at in (start - 1, stop))
    if not both:
        return False
    found = align(signals.film.luma[start + 1][None], signals.film.luma[stop][None], levels=FINE)
    return bool(found.move[0] * signals.film.luma.shape[2] < STEADY_PX)


def _is_beside(change: np.ndarray, start: int, stop: int, limit: float) -> bool:
    """Whether the pair before or after a stretch changes that much."""
    return any(change[at] >= limit for at in (start - 1, stop) if 0 <= at < len(change))


def _repeats(signals: Signals, start: int, stop: int, faint: float) -> bool:
    """Whether the first and the last frame of a stretch are the same picture: no way of the camera, nothing moved."""
    luma = signals.film.luma
    length = stop - start  # its first frames may be coded worse, its last ones belong to a slow move
    inner = (start + round(0.25 * length), start + round(0.85 * length))
    first, last = luma[inner[0]][None], luma[inner[1]][None]
    found = align(first, last, levels=FINE)
    side = min(BLOCK_PX, *luma.shape[1:])
    block = float(np.abs(reduced(last - first, side)).max())
    moved_px = float(found.move[0]) * luma.shape[2]
    if block < FROZEN_BLOCK * faint / 4 and moved_px < 5 * STEADY_PX:
        return True
    return moved_px < STEADY_PX and block < FROZEN_BLOCK * faint


def still(signals: Signals, allowance: Allowance) -> tuple[list[Finding], float]:
    """A clip whose camera rests while nothing moves in it; also the way of the camera in widths."""
    luma = signals.film.luma
    if len(luma) < 8:
        return [], 0.0
    picks = np.unique(np.linspace(0, len(luma) - 1, 9).round().astype(int))
    # Means of three, in which grain is weaker: over a clip in which nothing moves it is all that changes.
    pictures = np.stack([luma[max(0, i - 1) : i + 2].mean(axis=0) for i in picks])
    first = np.repeat(pictures[:1], len(picks) - 1, axis=0)
    rough = align(first, pictures[1:])
    if float(rough.move.max()) > 2 * STILL_WAY:
        return [], float(rough.move.max())
    found = align(first, pictures[1:], rough.maps, levels=FINE[2:])
    way = float(found.move.max())
    if allowance.is_static or way > STILL_WAY or float(found.detail.min()) < 0.6:
        return [], way
    seen, inside = warped(blurred(first, 1), found.maps)
    rest = (blurred(pictures[1:], 1) - seen * found.gain[:, None, None].astype(np.float32)) * inside
    edges = reduced(first[:1] ** 2, BLOCK_PX) - reduced(first[:1], BLOCK_PX) ** 2
    limits = np.maximum(STILL_BLOCK, EDGE_SHARE * np.sqrt(np.maximum(edges, 0)))
    blocks = np.abs(reduced(rest.astype(np.float32), BLOCK_PX)) * (STILL_BLOCK / limits)
    if float(blocks.max()) > max(STILL_BLOCK, GRAIN_BLOCKS * float(np.median(blocks))):
        return [], way
    return [Finding(kind=Kind.STILL, grade=Grade.WARN, figure=f"{100 * way:.1f} % of the width")], way
