"""Real clips: a still image, seen by a moving camera, as an H.264 MP4 of 5 seconds. The same request, the same bytes.

Writes one file and touches nothing else. Slow (tenths of a second to several seconds): call it off the event loop.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.sandbox.jobs import share
from pipeline.sandbox.motion import PATHS, Beat, Pose

DURATION_S = 5
FPS = 24
_CRF = "20"
_X264 = "threads=1:lookahead-threads=1:sliced-threads=0:cpu-independent=1:deterministic=1"

Pixels = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPlan:
    """What to draw. `image` and `end_image` are the bytes of JPEG, PNG or WebP files."""

    image: bytes
    end_image: bytes | None = None
    motion: str = "General"
    strength: float = 0.5
    seed: int = 1
    prompt: str = ""
    long_side_px: int = 640


def render(plan: ClipPlan, target: Path) -> None:
    """Write the clip, whole or not at all.

    Raises:
        OSError: the image cannot be read (PIL's UnidentifiedImageError is one), or the file not written.
        ValueError: the image is too large or broken.
    """
    part = target.with_suffix(".part.mp4")
    still = open_still(plan.image)
    size = frame_size(still.size, plan.long_side_px)
    end = None if plan.end_image is None else open_still(plan.end_image)
    encode(_frames(plan, still, end, size), size, part)
    os.replace(part, target)


def open_still(image: bytes) -> Image.Image:
    """The picture upright and in RGB."""
    with Image.open(io.BytesIO(image)) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB")


def frame_size(image_px: tuple[int, int], long_side_px: int) -> tuple[int, int]:
    """Width and height of the clip: the image's aspect (at most 3:1), even numbers, the longer side as told."""
    width, height = image_px
    ratio = min(max(width / height, 1 / 3), 3.0)
    if ratio >= 1:
        return long_side_px, max(2, round(long_side_px / ratio / 2) * 2)
    return max(2, round(long_side_px * ratio / 2) * 2), long_side_px


def _frames(
    plan: ClipPlan, still: Image.Image, end: Image.Image | None, size: tuple[int, int]
) -> Iterator[Image.Image]:
    poses = [PATHS["general"](beat) for beat in beats(plan)]
    source = fit(still, size)
    for pose in poses:
        yield shoot(source, pose, size)


def beats(plan: ClipPlan) -> list[Beat]:
    """One beat a frame."""
    last = DURATION_S * FPS - 1
    side = -1.0 if share("side", plan.seed) < 0.5 else 1.0
    return [
        Beat(u=frame / last, amount=0.15 + 0.85 * plan.strength, side=side, phase=share("phase", plan.seed))
        for frame in range(last + 1)
    ]


def fit(still: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image scaled so that it covers the frame, a little finer than the frame for zooming in."""
    scale = 1.4
    return ImageOps.fit(still, (round(size[0] * scale), round(size[1] * scale)), Image.Resampling.LANCZOS)


def shoot(source: Image.Image, pose: Pose, size: tuple[int, int]) -> Image.Image:
    """The frame that the camera sees."""
    matrix = homography(pose, size, source.size)
    return source.transform(size, Image.Transform.PERSPECTIVE, tuple(matrix.ravel()[:8]), Image.Resampling.BICUBIC)


def homography(pose: Pose, size: tuple[int, int], source_px: tuple[int, int]) -> Pixels:
    """3x3 matrix from frame pixels to source pixels, its last entry 1."""
    width, height = size
    focal = 1.2 * max(width, height)
    centre = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    lens = np.diag([focal, focal, 1.0])
    turn = _turn(pose)
    plane = lens @ turn @ np.linalg.inv(lens) @ np.diag([1 / pose.zoom, 1 / pose.zoom, 1.0]) @ centre
    place = np.array(
        [
            [source_px[0] / width, 0, source_px[0] * (0.5 + pose.x)],
            [0, source_px[1] / height, source_px[1] * (0.5 + pose.y)],
            [0, 0, 1],
        ]
    )
    matrix = place @ plane
    scaled: Pixels = matrix / matrix[2, 2]
    return scaled


def _turn(pose: Pose) -> Pixels:
    (cr, sr), (cy, sy), (cp, sp) = ((np.cos(a), np.sin(a)) for a in (pose.roll, pose.yaw, pose.pitch))
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    turned: Pixels = yaw @ pitch @ roll
    return turned


def encode(frames: Iterator[Image.Image], size: tuple[int, int], target: Path) -> None:
    """Write frames as an MP4 that streams from its first byte; the bytes depend on the frames alone."""
    with av.open(
        str(target), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}
    ) as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, FPS)
        stream.thread_count = 1
        stream.options = {"preset": "veryfast", "crf": _CRF, "x264-params": _X264, "flags": "+bitexact"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
