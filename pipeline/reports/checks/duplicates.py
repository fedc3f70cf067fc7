"""Find clips that show the same pictures, also re-encoded or at another size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.reports.checks.alignment import reduced
from pipeline.reports.checks.frames import Film
from pipeline.reports.checks.framing import resized
from pipeline.reports.checks.jobs import Taken

WIDTH, HEIGHT, MOMENTS = 32, 18, 10
"""A fingerprint: so many small pictures, evenly over the clip; 5.8 kB."""

SAME = 2.0
"""Mean difference, of 255 at equal light, between two encodings of one clip at most; 36 twins had up to 1.1."""

SAME_ANYWHERE = 15.0
"""The largest difference, likewise: twins had up to 9, clips of one picture with other seeds mostly from 30 on."""

MOTION_ALIKE = 0.9
"""What moves in both clips must move alike: correlation of each clip's changes against its own mean picture."""

STILL_SAME = 0.15
"""Clips in which nothing moves are the same only if they are this close: those of one picture resemble each other."""

MOVES = 1.0
"""Spread of a clip's changes from which it moves."""


def fingerprint(film: Film) -> bytes:
    """Small pictures of the clip at even moments."""
    moments = np.linspace(0.02, 0.98, MOMENTS) * film.times[-1]
    picks = np.clip(np.searchsorted(film.times, moments), 0, film.count - 1)
    pictures = np.stack([resized(film.luma[pick], WIDTH, HEIGHT) for pick in picks])
    return np.clip(np.round(pictures), 0, 255).astype(np.uint8).tobytes()


def duplicates(clips: Sequence[Taken]) -> Mapping[int, int]:
    """Index of a clip -> index of the first clip that it repeats, for clips with other parameters."""
    found: dict[int, int] = {}
    prints = [_parsed(clip.fingerprint) for clip in clips]
    means = (
        np.stack([np.zeros((MOMENTS, 6)) if p is None else _coarse(p) for p in prints])
        if clips
        else np.zeros((0, MOMENTS, 6))
    )
    for later in range(1, len(clips)):
        # A coarse look first: a run of thousands of clips has millions of pairs.
        near = np.flatnonzero(np.abs(means[:later] - means[later]).mean(axis=(1, 2)) < 2 * SAME)
        same_bytes = [n for n in range(later) if clips[later].sha256 and clips[n].sha256 == clips[later].sha256]
        for earlier in sorted({*near.tolist(), *same_bytes}):
            if earlier in found or clips[earlier].params == clips[later].params:
                continue
            one, two = prints[earlier], prints[later]
            if earlier in same_bytes or (one is not None and two is not None and are_same(one, two)):
                found[later] = earlier
                break
    return found


def are_same(one: NDArray[np.float64], two: NDArray[np.float64]) -> bool:
    """Whether two fingerprints are of the same pictures."""
    off = np.abs((one - one.mean()) - (two - two.mean()))
    difference = float(off.mean())
    if difference > SAME or float(off.max()) > SAME_ANYWHERE:
        return False
    own, other = one - one.mean(axis=0), two - two.mean(axis=0)
    moved = min(float(own.std()), float(other.std()))
    if moved < MOVES:
        return difference < STILL_SAME
    alike = float((own * other).mean() / (own.std() * other.std()))
    return alike > MOTION_ALIKE and difference < 0.35 * moved + 0.5


def _parsed(content: bytes) -> NDArray[np.float64] | None:
    if len(content) != WIDTH * HEIGHT * MOMENTS:
        return None
    return np.frombuffer(content, dtype=np.uint8).reshape(MOMENTS, HEIGHT, WIDTH).astype(np.float64)


def _coarse(pictures: NDArray[np.float64]) -> NDArray[np.float64]:
    return reduced((pictures - pictures.mean()).astype(np.float32), 9)[:, :, :3].reshape(MOMENTS, -1).astype(np.float64)
