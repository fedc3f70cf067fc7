"""Changes of scene: a hard cut, a row of unrelated stills, the seam of a loop."""

from __future__ import annotations

import numpy as np

from pipeline.reports.checks.alignment import Aligned, align, reduced, scales, shift_between
from pipeline.reports.checks.allowances import Allowance
from pipeline.reports.checks.findings import Finding, Grade, Kind
from pipeline.reports.checks.signals import Numbers, Signals

UNRELATED = 0.45
"""Below this correlation of details, lined up as well as can be, two frames show different things."""

MAX_FLASH_STEP = 25.0
"""Rise of brightness, of 255, that a preset's flash explains, and from which two pictures of little detail differ."""

SHARP_DROP = 0.35
"""The same for frames that resemble each other a little, as two scenes of one kind do."""

TURNING_DROP = 0.6
"""The same for presets that turn or rush through the scene: their own frames resemble each other little."""

MIN_SHARED = 0.3
"""Share of the picture that neighbours have in common, also in the fastest pan."""

RETURNED = 0.6
"""From this correlation on, at two moments, the picture from before a break is back; two scenes of one kind that are
bent into each other reach 0.62 at one."""

SURELY_RETURNED = 0.75
"""The same at a single moment."""

MAX_STRETCH = 1.5
"""Scale across over scale down, or the reverse, that a camera's way around a scene explains. Bands of sky, sea and
land of two scenes resemble each other where one is drawn out to twice its width."""

RETURNS_INSIDE = 3
"""Moments of eight within a row of breaks at which the picture from before it is there: flashes of light over it."""

CALM = 0.2
"""A cut is lonely: so much better do the frames beside it resemble their neighbours."""

RETURNS_S = (0.05, 0.12, 0.25, 0.5, 1.0, 1.5, 2.2)
"""Moments after a break, seconds, at which the picture from before it may be back: an explosion that clears."""

EVEN_S = 0.5
"""Seconds for which the light of another scene stays the same, and that of a flash or a fireball does not."""

BEFORES_S = (0.0, 0.25, 0.6, 1.0)
"""Moments before a break, seconds, whose picture may come back: a flash hides what was there until a moment ago."""

STROBE_S = 2.0
"""Seconds that breaks must follow each other to count as a strobe, and not as several cuts."""
COARSE_PX = 10
"""Side of the squares, in pixels of a 160 px picture, whose means are the broad shapes: drops and dust vanish in it."""

COARSE_SHARE = 0.4
"""Change of the broad shapes between two scenes, as a share of their contrast; two scenes have about 1."""

MIN_COARSE = 2.5
"""The same in levels of 255: drops over a nearly black picture change its squares by less."""

STILL_STEP = 15.0
"""Mean change, of 255, from one still to the next, which rests before or after."""

STILL_ALIKE = 0.8
"""Correlation of details that two stills of a strobe may have; a cadence in a fast move has 0.9."""

STROBE_MAX_FRAMES = 6
"""Frames between two breaks of a strobe at the most; further apart they are cuts."""


SEAM_STEPS = 2.5
"""Usual steps between neighbours that the seam of a loop may be."""


def likeness(signals: Signals) -> Numbers:
    """How alike neighbours are, -1..1, lined up; details decide, and broad shapes where a picture has no detail."""
    return np.where(signals.steps.overlap >= MIN_SHARED, signals.steps.detail, 0.0)


def _pair(signals: Signals, one: int, two: int) -> float:
    first, second = signals.half[one][None], signals.half[two][None]
    here = align(first, second)
    # A second start, because lining up alone finds a tenth of the width, and a fast pan goes half of it.
    there = align(first, second, shift_between(first, second))
    return max([float(one.detail[0]) for one in (here, there) if _is_possible(one)], default=0.0)


def _is_possible(aligned: Aligned) -> bool:
    """Whether a camera's way leads from the first picture to the second: they share enough, and keep their shape."""
    short, long = sorted(scales(aligned.maps))
    return bool(aligned.overlap[0] >= MIN_SHARED) and long <= MAX_STRETCH * short


def cut(signals: Signals, allowance: Allowance, blank: np.ndarray) -> tuple[list[Finding], float]:
    """A change of scene between two frames; also how sure it is, 0..1."""
    alike = likeness(signals)
    found: tuple[float, int] | None = None
    for at in np.flatnonzero(alike < RETURNED).tolist():
        if blank[max(0, at - 1) : at + 3].any():
            continue
        before, after = alike[max(0, at - 3) : at], alike[at + 1 : at + 4]
        if not len(before) or not len(after):
            continue
        calm = min(float(np.median(before)), float(np.median(after)))
        if allowance.flashes > 1 and _is_flash(signals, at):
            continue
        left_s = signals.film.times[-1] - signals.film.times[at + 1]
        if allowance.flashes > 1 and left_s < RETURNS_S[-1] / 2:
            continue  # the flash or the fireball has no time to clear
        least = CALM if alike[at] < UNRELATED else SHARP_DROP
        least = max(least, TURNING_DROP) if allowance.is_transition else least
        befores = BEFORES_S if allowance.flashes > 1 else BEFORES_S[:1]
        if calm - alike[at] < least or not _is_new_scene(signals, at, befores):
            continue
        if found is None or alike[at] < found[0]:
            found = (float(alike[at]), at)
    if found is None:
        return [], 0.0
    grade = Grade.WARN if allowance.is_transition else Grade.BAD
    figure = f"at {signals.film.times[found[1] + 1]:.1f} s"
    return [Finding(kind=Kind.CUT, grade=grade, figure=figure)], 1 - found[0]


def _is_flash(signals: Signals, at: int) -> bool:
    """Whether it gets brighter at once, and then darker or brighter still: another scene is lit evenly."""
    mean, times = signals.mean, signals.film.times
    rise = float(mean[at + 1] - mean[at])
    after = mean[at + 1 : int(np.searchsorted(times, times[at + 1] + EVEN_S))]
    return rise > MAX_FLASH_STEP and (times[-1] < times[at + 1] + EVEN_S or float(np.ptp(after)) > 0.2 * rise)


def _is_new_scene(signals: Signals, at: int, befores_s: tuple[float, ...]) -> bool:
    """Whether the picture from before a break does not come back after it."""
    times, last = signals.film.times, signals.film.count - 1
    later = np.searchsorted(times, times[at + 1] + np.array(RETURNS_S))
    before = np.searchsorted(times, times[max(0, at - 1)] - np.array(befores_s))
    for one in dict.fromkeys(before.tolist()):
        back = 0
        for two in dict.fromkeys(later.tolist()):
            found = _pair(signals, one, min(last, two))
            back += found >= RETURNED
            if found >= SURELY_RETURNED or back > 1:
                return False
    return True


def strobe(signals: Signals, allowance: Allowance) -> tuple[list[Finding], float]:
    """Unrelated stills every 1 to 6 frames for 2 s; also the longest such stretch in seconds."""
    times = signals.film.times
    breaks = np.flatnonzero(_breaks(signals))
    longest, first, last, start = 0.0, 0, 0, 0
    for number in range(1, len(breaks) + 1):
        if number < len(breaks) and breaks[number] - breaks[number - 1] <= 2 * STROBE_MAX_FRAMES + 1:
            continue  # one of the stills may resemble the one before it
        length = float(times[breaks[number - 1] + 1] - times[breaks[start]])
        frames = breaks[number - 1] - breaks[start] + 1
        if length > longest and number - start >= frames / (1.4 * STROBE_MAX_FRAMES):
            longest, first, last = length, int(breaks[start]), int(breaks[number - 1])
        start = number
    if longest < STROBE_S * 0.8 or allowance.jumps:
        return [], longest
    if allowance.flashes > 1 and _is_one_scene(signals, first, last):
        return [], longest
    return [Finding(kind=Kind.STROBE, grade=Grade.BAD, figure=f"{longest:.1f} s from {times[first]:.1f} s")], longest


def _is_one_scene(signals: Signals, first: int, last: int) -> bool:
    """Whether the picture from before a row of breaks shows again within it, as between the flashes of a preset."""
    inside = np.linspace(first + 1, last, 8).round().astype(int)
    return sum(_pair(signals, first, at) >= RETURNED for at in inside.tolist()) >= RETURNS_INSIDE


def _breaks(signals: Signals) -> np.ndarray:
    """Pairs of which the second shows something else, in its broad shapes too: rain before fog is no break."""
    alike, jump, change = likeness(signals), np.abs(np.diff(signals.mean)), signals.change
    coarse = reduced(signals.film.luma, min(COARSE_PX, *signals.film.luma.shape[1:]))
    differs = np.abs(np.diff(coarse, axis=0)).mean(axis=(1, 2))
    spread = np.minimum(coarse.std(axis=(1, 2))[:-1], coarse.std(axis=(1, 2))[1:])
    rests = np.minimum(np.append(change[1:], np.inf), np.insert(change[:-1], 0, np.inf))
    stills = (change > STILL_STEP) & (rests < 0.1 * change)  # one that is mirrored may resemble the one before
    found = (alike < UNRELATED) | ((alike < RETURNED) & (jump > MAX_FLASH_STEP)) | ((alike < STILL_ALIKE) & stills)
    return np.asarray(found & (differs > np.maximum(MIN_COARSE, COARSE_SHARE * spread)))


def loop_seam(signals: Signals) -> tuple[list[Finding], float]:
    """Whether the last frame leads on to the first; also by how many usual steps it misses."""
    luma = signals.film.luma
    if len(luma) < 4:
        return [], 0.0
    seam = float(np.abs(luma[-1] - luma[0]).mean())
    value = seam / max(0.6, float(np.percentile(signals.change, 90)))
    found = align(signals.half[-1][None], signals.half[0][None])
    way = float(found.move[0]) / max(0.002, float(np.percentile(signals.steps.move, 90)))
    value = max(value if seam >= 2.0 else 0.0, way if found.detail[0] > 0.5 else 0.0)
    if value < SEAM_STEPS and found.detail[0] > UNRELATED:
        return [], value
    return [Finding(kind=Kind.LOOP_SEAM, grade=Grade.WARN, figure=f"{value:.1f} usual steps")], value
