"""Fine detail at the end of a clip against its start, through the way the camera went."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.reports.checks.alignment import reduced
from pipeline.reports.checks.allowances import Allowance
from pipeline.reports.checks.findings import Finding, Grade, Kind
from pipeline.reports.checks.frames import Luma
from pipeline.reports.checks.signals import Signals

SCALES = ((1, 0.70), (2, 0.62), (4, 0.66))
"""(reduction of the detailed picture, share of the start's detail that must be left): the finest scale on which the
start has detail decides. Of 120 good clips the share was at least 0.77, 0.86 and 0.9, and of 20 blurred ones one had
more than 0.6 on the finest scale: a codec that softens the start as well hides a part of the loss. Where only coarse
detail is there, it is faint, and a codec alone takes up to a third of it."""

SOFT_BAD = 0.2
"""Share of the start picture's detail below which the end of a clip is bad, and not only soft."""
UNLINED_WARN = 0.2
"""Limit where start and end cannot be lined up: other things are in the picture, and they may have less detail."""

COLUMNS, ROWS = 8, 5
"""Blocks that are compared, those with detail that both ends of the clip show."""

NOISE_SIGMA = 2.0
"""Detail, of 255, that rounding and the codec put into a picture without any."""

CLEAR = 5.0
"""Blocks are compared whose start has this much detail, of 255: fainter detail is what a codec saves first."""

FAINT = 3.0
"""A whole picture of less than twice this detail says nothing."""

MIN_BLOCKS = 6
"""Blocks with clear detail, across or down; fewer are a single thing that may have left the picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharpness:
    """Share of fine detail that is left at the end, and the share from which that is too little."""

    share: float
    limit: float


MIN_LIGHT = 0.4
"""A picture that is faded has less detail in proportion; below this brightness against its start it says nothing."""

NEARER = 0.9
"""Scale below which the camera came nearer: an enlargement loses detail, a model draws more; expect a mean."""

LINED_UP = 0.6
"""Correlation of details from which start and end show the same things in the same places."""

ALIKE = 0.85
"""And that of light and shade: a pattern that repeats may be lined up with its neighbour."""

FADED = 0.8
"""Brightness against that of a second before from which a clip fades out: the codec saves its detail first."""

FADE_OUT = 0.6
"""Factor on the limits there."""

DIMMED = 0.6
"""Brightness against the start from which a clip got much darker, however slowly."""

DIM = 0.68
"""Factor on the limits there: at half the light a codec takes up to a third more of the detail."""

WHOLE_WEIGHT = 0.25
"""Weight in that mean of the whole picture's detail: a crash zoom ends on a plain part of a photograph."""


def soft(signals: Signals, allowance: Allowance) -> tuple[list[Finding], Sharpness | None]:
    """Whether the last half second has lost its fine detail; None when the start had none."""
    sharpness = measure(signals)
    if sharpness is None:
        return [], None
    if sharpness.share >= sharpness.limit * allowance.blurs:
        return [], sharpness
    grade = Grade.BAD if sharpness.share < SOFT_BAD else Grade.WARN
    return [Finding(kind=Kind.SOFT, grade=grade, figure=f"{sharpness.share:.2f}")], sharpness


def measure(signals: Signals) -> Sharpness | None:
    """The share of detail left, by block where start and end line up."""
    film = signals.film
    start = sorted(film.start_detail, key=_fine)[len(film.start_detail) // 2]  # a key frame may keep more grain
    # The sharpest one: a frame blurred by a move, or by a codec before its next key frame, is no loss of detail.
    best = max(range(len(film.end_detail)), key=lambda number: _fine(film.end_detail[number]))
    end, index = film.end_detail[best], film.end_indices[best]
    found = signals.back_to_start(index)
    light = min(1.0, float((signals.mean[index] + 2) / (signals.mean[0] + 2)))
    if light < MIN_LIGHT:
        return None
    if found.detail[0] > LINED_UP and found.correlation[0] > ALIKE and found.overlap[0] > 0.12:
        light = min(1.0, max(MIN_LIGHT, float(found.gain[0])))
        expected = _seen(start, found.maps[0])
        nearer = np.sqrt(abs(found.maps[0, 1] * found.maps[0, 5])) < NEARER
        for factor, limit in SCALES:
            share = _by_block(_smaller(expected, factor), _smaller(end, factor), light, CLEAR / factor**0.5)
            if share is None:
                continue
            had = _fine(_smaller(start, factor)) * light
            if nearer and had > CLEAR:
                whole = _fine(_smaller(end, factor)) / had
                share = float(share ** (1 - WHOLE_WEIGHT) * min(share, whole) ** WHOLE_WEIGHT)
            darker = FADE_OUT if _fades_out(signals, index) else DIM if light < DIMMED else 1.0
            return Sharpness(share=share, limit=limit * darker)
        if found.overlap[0] > 0.5:
            return None
    if _fine(start) < 2 * FAINT:
        return None
    return Sharpness(share=_fine(end) / _fine(start) / light, limit=UNLINED_WARN)


def _fades_out(signals: Signals, index: int) -> bool:
    """Whether it got much darker within the second before a frame."""
    before = int(np.searchsorted(signals.film.times, signals.film.times[index] - 1.0))
    return bool(signals.mean[index] < FADED * signals.mean[before])


def _curvature(picture: Luma) -> tuple[Luma, Luma]:
    """Second differences across and down."""
    inner = picture[1:-1, 1:-1]
    return (2 * inner - picture[1:-1, :-2] - picture[1:-1, 2:], 2 * inner - picture[:-2, 1:-1] - picture[2:, 1:-1])


def _fine(picture: Luma) -> float:
    return float(sum(max(0.0, float(part.var()) - NOISE_SIGMA**2) ** 0.5 for part in _curvature(picture)))


def _blocks(picture: Luma) -> NDArray[np.float64]:
    """2 x ROWS x COLUMNS: detail across and down in each block."""
    result = np.zeros((2, ROWS, COLUMNS))
    for number, part in enumerate(_curvature(picture)):
        squares = part.astype(np.float64) ** 2
        high, wide = squares.shape[0] // ROWS, squares.shape[1] // COLUMNS
        if not high or not wide:
            break
        blocks = squares[: high * ROWS, : wide * COLUMNS].reshape(ROWS, high, COLUMNS, wide)
        result[number] = np.sqrt(np.maximum(blocks.mean(axis=(1, 3)) - NOISE_SIGMA**2, 0))
    return result


def _by_block(expected: Luma, end: Luma, light: float, clear: float) -> float | None:
    """The share of detail left, over the blocks that had clear detail; the strongest ones count most."""
    had, left = _blocks(np.nan_to_num(expected)) * light, _blocks(end)
    seen = np.isfinite(_blocks(expected)).all(axis=0)
    known = (had > clear) & seen
    if known.sum() < MIN_BLOCKS:
        return None
    return float(np.sqrt((left[known] ** 2).sum() / (had[known] ** 2).sum()))


def _smaller(picture: Luma, factor: int) -> Luma:
    small: Luma = reduced(picture[None], factor)[0]
    return small


def _seen(start: Luma, way: NDArray[np.float64]) -> Luma:
    """The start as the camera would show it at the end; NaN where it did not see."""
    height, width = start.shape
    shrink = float(np.sqrt(abs(way[1] * way[5] - way[2] * way[4])))
    if shrink > 1.15:  # seen from further away: average first, or fine detail turns into noise
        factor = shrink
        small = Image.fromarray(start).resize(
            (max(16, round(width / factor)), max(16, round(height / factor))), Image.Resampling.BOX
        )
        way = way / factor
        way[0], way[3] = way[0] * factor, way[3] * factor
        return _through(small, way, (width, height))
    return _through(Image.fromarray(start), way, (width, height))


def _through(picture: Image.Image, way: NDArray[np.float64], size: tuple[int, int]) -> Luma:
    width, height = size
    cx, cy = (width - 1) / 2, (height - 1) / 2
    px, py = (picture.width - 1) / 2, (picture.height - 1) / 2
    a, b, d, e = way[1], way[2], way[4], way[5]
    c = way[0] * picture.width + px - a * cx - b * cy
    f = way[3] * picture.width + py - d * cx - e * cy
    seen = picture.transform(
        size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BICUBIC, fillcolor=float("nan")
    )
    return np.asarray(seen, dtype=np.float32)
