"""Line up two pictures by an affine map and a change of light: Gauss-Newton over many pairs at a time.

A map has six numbers `m`: the point (x, y) of the second picture, in widths from its centre, is in the first one at
(m0 + m1 x + m2 y, m3 + m4 x + m5 y).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from pipeline.reports.checks.frames import Luma

Maps = NDArray[np.float64]
IDENTITY = np.array([0.0, 1.0, 0.0, 0.0, 0.0, 1.0])

LEVELS = ((4, 6), (2, 4))
"""(reduction of a 160 px picture, steps): coarse first, so that moves of a tenth of the width are found."""

FINE = ((4, 6), (2, 4), (1, 4))
"""The same with full resolution at the end: a fiftieth of a pixel."""

MIN_OVERLAP = 0.12
"""Share of the picture that must be seen in both for a correlation to count."""

MAX_PAIRS = 64
"""Pairs that are lined up at a time: 64 take 60 MB of working memory."""

NOISE = 2.0
"""Variance of brightness that counts as noise in both pictures, in levels of 255 squared."""
DETAIL_NOISE = 0.5
"""Variance added to both pictures, and to their details, so that flat ones resemble each other whatever their noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aligned:
    """The result for n pairs.

    Args:
        maps: n x 6.
        correlation: of the second picture with the first one seen through the map, -1..1; 0 without enough overlap.
        detail: the same for the pictures without their broad light and shade.
        gain: brightness of the second over that of the first, in what both show.
        move: the way of the picture's corners, mean of the four, in widths.
        overlap: share of the second picture that the first one shows too.
    """

    maps: Maps
    correlation: NDArray[np.float64]
    detail: NDArray[np.float64]
    gain: NDArray[np.float64]
    move: NDArray[np.float64]
    overlap: NDArray[np.float64]


def joined(parts: Sequence[Aligned]) -> Aligned:
    """Results of several calls, one after another."""
    return Aligned(**{one.name: np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Aligned)})


def reduced(pictures: Luma, factor: int) -> Luma:
    """Pictures smaller by a whole factor: the mean of each square."""
    if factor == 1:
        return pictures
    count, height, width = pictures.shape
    height, width = height // factor * factor, width // factor * factor
    squares = pictures[:, :height, :width].reshape(count, height // factor, factor, width // factor, factor)
    result: Luma = squares.mean(axis=(2, 4), dtype=np.float32)
    return result


def blurred(pictures: Luma, radius: int) -> Luma:
    """Pictures under a square mean of (2 radius + 1)^2 pixels, edges repeated."""
    side = 2 * radius + 1
    # One more at the front: a sum over a window is the difference of two running sums.
    padded = np.pad(pictures, ((0, 0), (radius + 1, radius), (radius + 1, radius)), mode="edge")
    total = padded.cumsum(axis=1, dtype=np.float64)
    rows = total[:, side:] - total[:, :-side]
    total = rows.cumsum(axis=2)
    result: Luma = ((total[:, :, side:] - total[:, :, :-side]) / side**2).astype(np.float32)
    return result


def detail_of(pictures: Luma) -> Luma:
    """Pictures without their broad light and shade, for 80 px pictures: what differs from its neighbourhood."""
    radius = max(2, pictures.shape[2] // 14)
    return blurred(pictures, 1) - blurred(pictures, radius)


def align(
    first: Luma, second: Luma, starts: Maps | None = None, levels: tuple[tuple[int, int], ...] = LEVELS
) -> Aligned:
    """Line up each of n pairs (n x height x width); `starts` are maps to begin with."""
    count = len(first)
    if count > MAX_PAIRS:
        at = range(0, count, MAX_PAIRS)
        parts = [
            align(
                first[i : i + MAX_PAIRS],
                second[i : i + MAX_PAIRS],
                None if starts is None else starts[i : i + MAX_PAIRS],
                levels,
            )
            for i in at
        ]
        return joined(parts)
    maps = np.tile(IDENTITY, (count, 1)) if starts is None else starts.copy()
    for factor, steps in levels:
        # Fewer pixels have no slope that could be followed.
        fits = min(first.shape[1:]) // factor >= 8
        if not fits:
            continue
        one, two = reduced(first, factor), reduced(second, factor)
        maps = _refined(blurred(one, 1), blurred(two, 1), maps, steps)
    factor = levels[-1][0] if min(first.shape[1:]) // levels[-1][0] >= 8 else 1
    return compared(reduced(first, factor), reduced(second, factor), maps)


def compared(one: Luma, two: Luma, maps: Maps) -> Aligned:
    """How alike pairs are under given maps."""
    seen, inside = warped(one, maps)
    overlap = inside.mean(axis=(1, 2))
    correlation = _correlation(seen, two, inside, NOISE)
    fine_seen, _ = warped(detail_of(one), maps)
    detail = _correlation(fine_seen, detail_of(two), inside, DETAIL_NOISE)
    enough = overlap >= MIN_OVERLAP
    total = np.maximum(inside.sum(axis=(1, 2)), 1)
    # One level is added to both, so that nearly black pictures have no wild ratio.
    gain = ((two * inside).sum(axis=(1, 2)) / total + 1) / ((seen * inside).sum(axis=(1, 2)) / total + 1)
    return Aligned(
        maps=maps,
        correlation=np.where(enough, correlation, 0.0),
        detail=np.where(enough, detail, 0.0),
        gain=np.where(enough, gain, 1.0),
        move=moves(maps, one.shape[1] / one.shape[2]),
        overlap=overlap,
    )


def scales(maps: Maps) -> tuple[float, float]:
    """How far the first of the maps draws its picture out, across and down; 1 and 1 keep it as it is."""
    m = maps[0]
    return math.hypot(m[1], m[4]), math.hypot(m[2], m[5])


def moves(maps: Maps, aspect: float) -> NDArray[np.float64]:
    """How far the corners of a picture move under each map, mean of the four, in widths."""
    x, y = np.array([-0.5, 0.5, -0.5, 0.5]), np.array([-0.5, -0.5, 0.5, 0.5]) * aspect
    dx = maps[:, 0:1] + maps[:, 1:2] * x + maps[:, 2:3] * y - x
    dy = maps[:, 3:4] + maps[:, 4:5] * x + maps[:, 5:6] * y - y
    return np.asarray(np.hypot(dx, dy).mean(axis=1))


def composed(outer: Maps, inner: Maps) -> Maps:
    """The map that does `inner` first: from the third picture over the second one to the first."""
    a, b = np.moveaxis(outer, -1, 0), np.moveaxis(inner, -1, 0)
    return np.stack(
        [
            a[0] + a[1] * b[0] + a[2] * b[3],
            a[1] * b[1] + a[2] * b[4],
            a[1] * b[2] + a[2] * b[5],
            a[3] + a[4] * b[0] + a[5] * b[3],
            a[4] * b[1] + a[5] * b[4],
            a[4] * b[2] + a[5] * b[5],
        ],
        axis=-1,
    )


def _axes(height: int, width: int) -> tuple[Luma, Luma]:
    x = ((np.arange(width) - (width - 1) / 2) / width).astype(np.float32)
    y = ((np.arange(height) - (height - 1) / 2) / width).astype(np.float32)
    return x, y


def warped(pictures: Luma, maps: Maps) -> tuple[Luma, NDArray[np.bool_]]:
    """Each picture seen through its map, and where that is inside of it."""
    count, height, width = pictures.shape
    x, y = _axes(height, width)
    m = maps.astype(np.float32)[:, :, None, None]
    across = (m[:, 0] + m[:, 1] * x[None, None, :] + m[:, 2] * y[None, :, None]) * width + (width - 1) / 2
    down = (m[:, 3] + m[:, 4] * x[None, None, :] + m[:, 5] * y[None, :, None]) * width + (height - 1) / 2
    inside = (across > -0.5) & (across < width - 0.5) & (down > -0.5) & (down < height - 0.5)
    # Just inside the last pixel: its neighbour to the right and the one below are read too.
    across, down = np.clip(across, 0, width - 1.001), np.clip(down, 0, height - 1.001)
    left, top = across.astype(np.int32), down.astype(np.int32)
    u, v = across - left, down - top
    flat = pictures.reshape(-1)
    at = (np.arange(count, dtype=np.int32) * (height * width))[:, None, None] + top * width + left
    upper = flat[at] * (1 - u) + flat[at + 1] * u
    lower = flat[at + width] * (1 - u) + flat[at + width + 1] * u
    return (upper * (1 - v) + lower * v).astype(np.float32), inside


def _correlation(one: Luma, two: Luma, inside: NDArray[np.bool_], noise: float) -> NDArray[np.float64]:
    weight = inside.astype(np.float32)
    total = np.maximum(weight.sum(axis=(1, 2)), 1)[:, None, None]
    a = (one - (one * weight).sum(axis=(1, 2), keepdims=True) / total) * weight
    b = (two - (two * weight).sum(axis=(1, 2), keepdims=True) / total) * weight
    total = total[:, 0, 0]
    both = (a * b).sum(axis=(1, 2)) / total
    own = (a * a).sum(axis=(1, 2)) / total + noise
    other = (b * b).sum(axis=(1, 2)) / total + noise
    return np.asarray((both + noise) / np.sqrt(own * other), dtype=np.float64)


def _refined(one: Luma, two: Luma, maps: Maps, steps: int) -> Maps:
    """Gauss-Newton steps for every pair at once: six numbers of the map, gain and offset of the light."""
    count, height, width = one.shape
    x, y = _axes(height, width)
    grid_x, grid_y = (
        np.broadcast_to(x[None, :], (height, width)).ravel(),
        np.broadcast_to(y[:, None], (height, width)).ravel(),
    )
    two_y, two_x = np.gradient(two, axis=(1, 2))
    # Levenberg's damping: where a picture has no slope the equations have many solutions, and this prefers no move.
    # Light is hardly damped, because even a flat picture shows it.
    damping = np.diag([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1e-3, 1e-3]) * 1e-2 * height * width
    for _ in range(steps):
        seen, inside = warped(one, maps)
        seen_y, seen_x = np.gradient(seen, axis=(1, 2))
        # The mean slope of both pictures is a step of second order, which converges from further away. Source:
        # Benhimane and Malis, "Real-time image-based tracking of planes using efficient second-order minimization".
        gx = ((seen_x + two_x) * (0.5 * width)).reshape(count, -1)
        gy = ((seen_y + two_y) * (0.5 * width)).reshape(count, -1)
        flat = seen.reshape(count, -1)
        rest = two.reshape(count, -1) - flat
        weight = inside.reshape(count, -1).astype(np.float32)
        scale = np.abs(rest).mean(axis=1, keepdims=True) * 2 + 1
        # Cauchy's weights: things that move while the camera rests must not pull the map along.
        weight = weight / (1 + (rest / scale) ** 2)
        columns = np.stack(
            # The last two are gain and offset of the light, or a flash would be explained by a move.
            [gx, gx * grid_x, gx * grid_y, gy, gy * grid_x, gy * grid_y, flat, np.ones_like(flat)],
            axis=1,
        )
        normal = (columns * weight[:, None, :]) @ columns.transpose(0, 2, 1) + damping
        right = ((columns * weight[:, None, :]) @ rest[:, :, None])[:, :, 0]
        step = np.linalg.solve(normal.astype(np.float64), right.astype(np.float64)[:, :, None])[:, :6, 0]
        # Further away the slopes say nothing; the next step starts from there.
        step = np.clip(step, -0.15, 0.15)
        maps = composed(maps, IDENTITY + step)
    return maps


def shift_between(first: Luma, second: Luma) -> Maps:
    """For each pair the map of the shift at the peak of the phase correlation; finds moves of half a picture."""
    one, two = (detail_of(reduced(pictures, 2)) for pictures in (first, second))
    count, height, width = one.shape
    # Towards the edges nothing: the picture's border is the strongest line in both, and it never moves.
    window = (np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]).astype(np.float32)
    spectrum = np.fft.rfft2(one * window) * np.conj(np.fft.rfft2(two * window))
    # Phases alone, so that one bright thing does not decide.
    surface = np.fft.irfft2(spectrum / (np.abs(spectrum) + 1e-3), s=(height, width))
    peaks = surface.reshape(count, -1).argmax(axis=1)
    down, across = peaks // width, peaks % width
    maps = np.tile(IDENTITY, (count, 1))
    # The spectrum repeats itself: a peak beyond the middle is a move the other way.
    maps[:, 0] = np.where(across > width // 2, across - width, across) / width
    maps[:, 3] = np.where(down > height // 2, down - height, down) / width
    return maps
