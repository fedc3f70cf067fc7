"""Find a frame in the picture it was made from: which part, at what scale, how squeezed, how alike."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.reports.checks.alignment import IDENTITY, Aligned, align, blurred, compared, detail_of, scales, warped
from pipeline.reports.checks.findings import Finding, Grade, Kind
from pipeline.reports.checks.frames import Film, Luma, luma_of
from pipeline.reports.checks.reference import Reference

UNLIKE = 0.53
"""Below this likeness a frame does not show the picture."""

FAINT = 6.0
"""Usual spread of brightness, in levels of 255, below which a picture counts as faint."""

FAINT_UNLIKE = 0.28
"""Two pictures of so little contrast (nearly black ones) lose likeness to codec and dust: they need less of it."""

OTHER_LIGHT = 50.0
"""Levels of 255 by which the mean of a bright picture is above that of a nearly black one."""

OTHER_SPREAD = 4.0
"""And the factor between their spreads of brightness: a moderate change of light is one of some ten per cent."""

SURE = 0.85
"""At this likeness the search ends."""

SURE_SHAPE = 0.7
"""Likeness from which the shape of a match can be trusted."""

SQUEEZED = 1.2
"""Ratio of the scales across and down from which a picture counts as squeezed."""

TEMPLATE_PX = 40
"""Longer side of the frame during the search."""

EXACT_PX = 80
"""Longer side of the frame where it is lined up exactly."""

CROPS = (1.0, 0.92, 0.84, 0.76, 0.68, 0.6, 0.52, 0.45, 0.38, 0.32)
"""Shares of the largest part of the frame's shape that fits into the picture."""

SQUEEZES = (1.33, 0.75)
"""Squeezes that are tried besides none, and besides that of the whole picture into the whole frame."""

MAX_PART_SQUEEZE = 1.7
"""Above this squeeze only the whole picture counts: any two pictures resemble each other where one is bent enough."""

CONTRAST = 40.0
"""Every picture is brought to this spread of brightness before it is compared."""

MAX_BEND = 1.12
"""Lining up may change a supposed shape by so much."""

SAME_WHEN_BENT = 0.9
"""Likeness of a picture to its own middle, as much squeezed: level bands have 0.95, every other scene below 0.82."""

AS_ALIKE = 0.05
"""Likeness that two places may differ by and still count as equally good."""

WHOLE = 0.9
"""Share of the picture across and down from which a place is the whole of it."""

MAX_GAIN = 8.0
"""Factor by which the contrast of a faint picture is raised at the most: more would raise noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A part of a picture, in shares of its width and height: its size and its left upper corner."""

    score: float
    across: float
    down: float
    x: float
    y: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The best place of a frame in a picture.

    Args:
        likeness: -1..1, mean of the correlation of light and shade and that of details.
        squeeze: scale across over scale down; 1 for a picture that keeps its shape.
        crop: share of the picture's width that the frame shows.
        bend: the part of `squeeze` that lining up added to what was supposed.
    """

    likeness: float
    squeeze: float
    crop: float
    bend: float = 1.0


def judge(film: Film, index: int, reference: Reference, kind: Kind) -> tuple[list[Finding], Match]:
    """Whether the frame at `index` (0 or -1) shows the picture; and whether it is squeezed."""
    match = best_match(film.rgb[index], (film.width, film.height), reference)
    findings = []
    shown, given = film.luma[index], luma_of(reference.views[0])
    faint = max(_spread(shown), _spread(given)) < FAINT
    if match.likeness < (FAINT_UNLIKE if faint else UNLIKE) or _is_of_other_light(shown, given):
        findings.append(Finding(kind=kind, grade=Grade.BAD, figure=f"{max(0.0, match.likeness):.2f}"))
    elif kind is Kind.WRONG_START and match.likeness > SURE_SHAPE and _is_squeezed(match.squeeze):
        share = abs(1 - (match.squeeze if match.squeeze < 1 else 1 / match.squeeze))
        findings.append(Finding(kind=Kind.FORMAT, grade=Grade.BAD, figure=f"squeezed by {100 * share:.0f} %"))
    return findings, match


def _is_of_other_light(shown: Luma, given: Luma) -> bool:
    """Whether one of two pictures is nearly black and the other bright, whatever their shapes."""
    dark, bright = sorted((shown, given), key=lambda picture: float(picture.mean()))
    return bool(bright.mean() - dark.mean() > OTHER_LIGHT and _spread(bright) > OTHER_SPREAD * max(1, _spread(dark)))


def _spread(picture: Luma) -> float:
    """Standard deviation without the tenths that are brightest and darkest: drops and sparks over a picture."""
    low, high = np.percentile(picture, (10, 90))
    # Of a normal distribution the tenths are 2.56 standard deviations apart.
    return float(high - low) / 2.56


def best_match(frame: NDArray[np.uint8], shown: tuple[int, int], reference: Reference) -> Match:
    """Search every way to see the picture, crops, scales and squeezes; the likeliest place."""
    best = Match(likeness=-1.0, squeeze=1.0, crop=1.0)
    whole = luma_of(frame)
    for part in (whole, without_bars(whole)):
        if part is None:
            continue
        size = (shown[0] * part.shape[1] / whole.shape[1], shown[1] * part.shape[0] / whole.shape[0])
        for view in reference.views:
            match = _search(_levelled(part), size, luma_of(view), reference.width / reference.height)
            best = max(best, match, key=lambda found: found.likeness)
            if best.likeness >= SURE:
                return best
    return best


def without_bars(frame: Luma) -> Luma | None:
    """The frame without black bars at opposite edges; None when it has none."""
    dark_rows = (frame.max(axis=1) < 26) & (frame.std(axis=1) < 4)
    dark_columns = (frame.max(axis=0) < 26) & (frame.std(axis=0) < 4)
    top, low = _edges(dark_rows)
    left, right = _edges(dark_columns)
    cut = frame[top : len(dark_rows) - low, left : len(dark_columns) - right]
    # Smaller, and it was a dark picture and no bars; larger, and there are none to speak of.
    if cut.size < 0.3 * frame.size or cut.size > 0.97 * frame.size or min(cut.shape) < 16:
        return None
    return cut


def _edges(dark: NDArray[np.bool_]) -> tuple[int, int]:
    bright = np.flatnonzero(~dark)
    if not len(bright):
        return 0, 0
    before, after = int(bright[0]), int(len(dark) - 1 - bright[-1])
    # Bars come in pairs: dark at one edge alone is the picture.
    return (before, after) if before and after else (0, 0)


def _levelled(picture: Luma) -> Luma:
    gain = min(MAX_GAIN, CONTRAST / max(1e-3, float(picture.std())))
    levelled: Luma = ((picture - picture.mean()) * np.float32(gain)).astype(np.float32)
    return levelled


def _search(frame: Luma, shown: tuple[float, float], picture: Luma, ratio: float) -> Match:
    """The likeliest place of a frame in one look of the picture.

    A rough search lists the peaks over crops and squeezes; the best of them are lined up exactly.
    """
    found: list[Match] = []
    whole = shown[0] / shown[1] / ratio
    for squeezes in ((1.0,), (whole, *SQUEEZES)):
        peaks = [_peaks(frame, shown, picture, ratio, squeeze) for squeeze in squeezes]
        most = 4 if len(squeezes) == 1 else 2
        places = [place for some in peaks for place in heapq.nlargest(most, some, key=lambda peak: peak.score)]
        found += [_exact(frame, shown, picture, ratio, place) for place in places]
        best = max(found, key=lambda match: match.likeness)
        if best.likeness >= SURE - 0.1 and not _is_squeezed(best.squeeze):
            break
    is_true = _is_confirmed(best, found) and (not _is_squeezed(best.squeeze) or _shows_squeeze(frame, best.squeeze))
    return best if is_true else replace(best, squeeze=1.0)


def _shows_squeeze(frame: Luma, squeeze: float) -> bool:
    """Whether a squeeze of a frame can be seen: level bands of sky, sea and land fit their own at any width."""
    height, width = frame.shape
    scale, share = EXACT_PX / max(frame.shape), min(squeeze, 1 / squeeze)
    size = max(16, round(width * scale)), max(16, round(height * scale))
    whole = resized(frame, *size)
    for wide, tall in ((round(width * share), height), (width, round(height * share))):
        left, top = (width - wide) // 2, (height - tall) // 2
        middle = _levelled(resized(frame[top : top + tall, left : left + wide], *size))
        if _likeness(compared(whole[None], middle[None], IDENTITY[None])) >= SAME_WHEN_BENT:
            return False
    return True


def _is_squeezed(squeeze: float, limit: float = SQUEEZED) -> bool:
    return abs(math.log(squeeze)) > math.log(limit)


def _is_confirmed(best: Match, found: Sequence[Match]) -> bool:
    """Whether a squeeze was supposed and then held, and no place of the true shape is nearly as alike.

    Lining up smooth pictures may bend them as it likes: a squeeze that only comes out of that says nothing.
    """
    if not _is_squeezed(best.squeeze):
        return True
    near = [match for match in found if match.likeness >= best.likeness - AS_ALIKE]
    held = any(_is_squeezed(match.squeeze) and not _is_squeezed(match.bend, MAX_BEND) for match in near)
    return held and all(_is_squeezed(match.squeeze, MAX_BEND) for match in near)


def _peaks(frame: Luma, shown: tuple[float, float], picture: Luma, ratio: float, squeeze: float) -> list[Place]:
    """For each crop the best place."""
    shape = shown[0] / shown[1] / squeeze  # of the part of the picture that the frame shows
    widest = min(1.0, shape / ratio)
    tallest = widest * ratio / shape
    found = []
    scale = TEMPLATE_PX / max(shown)
    height, width = max(8, round(shown[1] * scale)), max(8, round(shown[0] * scale))
    template = _band(resized(frame, width, height))
    for crop in CROPS:
        across, down = widest * crop, tallest * crop
        whole_w, whole_h = round(width / across), round(height / down)
        if whole_w > 4 * picture.shape[1]:
            continue
        field = _band(resized(picture, whole_w, whole_h))
        score, x, y = _peak(template, field)
        found.append(Place(score=score, across=across, down=down, x=x / whole_w, y=y / whole_h))
    return found


def _band(picture: Luma) -> Luma:
    """Light and shade of middle size: without the broadest, which any two pictures may share."""
    band: Luma = picture - np.float32(0.85) * blurred(picture[None], max(4, TEMPLATE_PX // 6))[0]
    return band


def resized(picture: Luma, width: int, height: int) -> Luma:
    """Area mean where it shrinks, linear where it grows."""
    return _along(_along(picture, height, 0), width, 1)


def _along(picture: Luma, size: int, axis: int) -> Luma:
    length = picture.shape[axis]
    edges = np.linspace(0, length, size + 1)
    padded = np.concatenate([np.zeros_like(np.take(picture, [0], axis=axis)), picture], axis=axis).astype(np.float64)
    total = padded.cumsum(axis=axis)
    low = np.clip(np.floor(edges).astype(int), 0, length - 1)
    part = edges - low
    shape = [1, 1]
    shape[axis] = -1
    at = np.take(total, low, axis=axis) + np.take(picture, low, axis=axis) * part.reshape(shape)
    result: Luma = (np.diff(at, axis=axis) * (size / length)).astype(np.float32)
    return result


def _peak(template: Luma, field: Luma) -> tuple[float, int, int]:
    """Highest normalised correlation of a template over all places in a field, and that place."""
    th, tw = template.shape
    fh, fw = field.shape
    if fh < th or fw < tw:
        field = np.pad(field, ((0, max(0, th - fh)), (0, max(0, tw - fw))), mode="edge")
        fh, fw = field.shape
    zero = template - template.mean()
    spectrum = np.fft.rfft2(field) * np.conj(np.fft.rfft2(zero, s=(fh, fw)))
    # Only where the template lies wholly inside: beyond, the product wraps around to the other edge.
    products = np.fft.irfft2(spectrum, s=(fh, fw))[: fh - th + 1, : fw - tw + 1]
    total, squares = _box(field, th, tw), _box(field.astype(np.float64) ** 2, th, tw)
    variance = np.maximum(squares - total**2 / (th * tw), 0) / (th * tw)
    # Normalised cross-correlation. Source: Lewis, "Fast normalized cross-correlation" (1995). 4 is a noise of two
    # levels, without which two flat areas are as alike as can be.
    norm = np.sqrt((variance + 4) * (float(zero.var()) + 4)) * th * tw
    score = products / norm
    at = int(score.argmax())
    return float(score.flat[at]), at % score.shape[1], at // score.shape[1]


def _box(field: NDArray[np.floating], height: int, width: int) -> NDArray[np.float64]:
    total = np.pad(field.astype(np.float64), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    return np.asarray(
        total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    )


def _exact(frame: Luma, shown: tuple[float, float], picture: Luma, ratio: float, place: Place) -> Match:
    """Cut the place out, with a margin, and line it up."""
    scale = EXACT_PX / max(shown)
    width, height = max(16, round(shown[0] * scale)), max(16, round(shown[1] * scale))
    small = resized(frame, width, height)
    cut = _levelled(_sampled(picture, place, width, height))
    across, down = place.across, place.down
    found = align(cut[None], small[None], levels=((2, 6), (1, 5)))
    likeness = max(_likeness(found), _pattern(cut, small, found.maps))
    wide, tall = scales(found.maps)
    pixel = (across * ratio / down) / (shown[0] / shown[1])  # squeeze of the place itself
    if found.overlap[0] < 0.6 or not 0.55 < wide < 1.8 or not 0.55 < tall < 1.8:
        # Bands of sky and sea slide along each other: then the supposed place itself counts, where its shape is true.
        as_supposed = _likeness(compared(cut[None], small[None], IDENTITY[None]))
        is_clear = as_supposed >= SURE and not _is_squeezed(pixel, MAX_BEND)
        return Match(likeness=as_supposed if is_clear else min(0.3, likeness), squeeze=1.0, crop=across)
    squeeze = float(1 / (pixel * wide / tall))
    bent = abs(math.log(squeeze))
    if bent > math.log(SQUEEZED) and (
        likeness < SURE_SHAPE or (bent > math.log(MAX_PART_SQUEEZE) and min(across, down) < WHOLE)
    ):
        likeness = min(likeness, UNLIKE - 0.05)
    return Match(likeness=likeness, squeeze=squeeze, crop=float(across * wide), bend=tall / wide)


def _likeness(aligned: Aligned) -> float:
    """Mean of the correlation of light and shade and that of details of the first pair."""
    return 0.5 * float(aligned.correlation[0]) + 0.5 * float(aligned.detail[0])


def _pattern(one: Luma, two: Luma, maps: NDArray[np.float64]) -> float:
    """Correlation of details with their peaks cut off: drops, sparks and dust over a faint picture count little."""
    seen, inside = warped(detail_of(one[None]), maps)
    first, second = (np.where(inside[0], part, 0.0) for part in (seen[0], detail_of(two[None])[0]))
    first, second = (np.clip(part / max(1e-6, float(np.median(np.abs(part)))), -2, 2) for part in (first, second))
    return float((first * second).mean() / max(1e-6, np.sqrt((first**2).mean() * (second**2).mean())))


def _sampled(picture: Luma, place: Place, width: int, height: int) -> Luma:
    """A part of the picture at a given size."""
    ph, pw = picture.shape
    left, top = min(pw - 2, max(0, round(place.x * pw))), min(ph - 2, max(0, round(place.y * ph)))
    right, low = (
        min(pw, max(left + 2, round((place.x + place.across) * pw))),
        min(ph, max(top + 2, round((place.y + place.down) * ph))),
    )
    return resized(picture[top:low, left:right], width, height)
