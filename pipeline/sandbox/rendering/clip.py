"""Real clips: a still image, seen by a moving camera, as an H.264 MP4 of 5 seconds. The same request, the same bytes.

Writes one file and touches nothing else. Slow (tenths of a second to several seconds): call it off the event loop.
"""

from __future__ import annotations

import io
import itertools
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps

from pipeline.sandbox.rendering.camera import cover, framed, shoot
from pipeline.sandbox.rendering.defects import IN_FILE, spoil, spoil_file
from pipeline.sandbox.rendering.effects import make_effect
from pipeline.sandbox.rendering.motion import CameraPose, ease, motion_style, poses
from pipeline.sandbox.settings import LONG_SIDES_PX

DURATION_S = 5
DRIFT = 0.02
"""Way of a seed's own drift over the clip, in widths and heights."""

GOLDEN_TURN = 0.381966
"""The golden angle as a part of a turn: its multiples never come close to each other soon."""

_CRF = "20"
_PRESET = "veryfast"
_X264 = "threads=1:lookahead-threads=1:sliced-threads=0:cpu-independent=1:deterministic=1"

GRADES: tuple[tuple[tuple[str, ...], tuple[float, float, float]], ...] = (
    (("sunset", "golden", "sunrise", "dawn", "warm", "autumn"), (1.10, 1.0, 0.86)),
    (("night", "midnight", "dark", "storm"), (0.72, 0.78, 0.92)),
    (("winter", "snow", "ice", "cold", "moonlight"), (0.92, 1.0, 1.10)),
    (("misty", "mist", "fog", "pale"), (1.06, 1.06, 1.08)),
)
"""Words of a prompt that tint the picture: factors for red, green and blue. The first group that matches wins."""


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
    model: str = ""
    defect: str = ""


def render(plan: ClipPlan, target: Path) -> None:
    """Write the clip, whole or not at all.

    Raises:
        OSError: the image cannot be read (PIL's UnidentifiedImageError is one), or the file not written.
        ValueError: the image is too large or broken.
    """
    part = target.with_suffix(".part.mp4")
    fps, frames = fps_of(plan.long_side_px), draw(plan)
    if plan.defect:
        frames = iter(spoil(plan.defect, list(frames), fps, np.random.default_rng(plan.seed)))
    encode(frames, fps, part)
    if plan.defect == IN_FILE:
        part.write_bytes(spoil_file(part.read_bytes()))
    os.replace(part, target)


def open_still(image: bytes) -> Image.Image:
    """The picture upright and in RGB."""
    with Image.open(io.BytesIO(image)) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB")


def frame_size(image_px: tuple[int, int], long_side_px: int) -> tuple[int, int]:
    """Width and height of the clip: the image's aspect (at most 3:1), even numbers, the longer side as configured."""
    width, height = image_px
    ratio = min(max(width / height, 1 / 3), 3.0)
    if ratio >= 1:
        return long_side_px, max(2, round(long_side_px / ratio / 2) * 2)
    return max(2, round(long_side_px * ratio / 2) * 2), long_side_px


def draw(plan: ClipPlan) -> Iterator[Image.Image]:
    """The frames of a clip, in order; the same plan, the same pixels."""
    still, fps = open_still(plan.image), fps_of(plan.long_side_px)
    size = frame_size(still.size, plan.long_side_px)
    look, random = motion_style(plan.motion), _random_of(plan)
    side, phase = (-1.0 if random.random() < 0.5 else 1.0), float(random.random())
    # A seed that only chose side and phase would leave moves that know neither the same for every seed.
    strength = min(1.0, plan.strength * (0.8 + 0.4 * float(random.random())))
    wanted = poses(look, frames=DURATION_S * fps, strength=strength, side=side, phase=phase)
    if look.path != "static":
        wanted = _drifting(wanted, plan.seed, random)
    moves = framed(wanted, size)
    source = cover(graded(still, plan.prompt), size, moves)
    end = None if plan.end_image is None else cover(graded(open_still(plan.end_image), plan.prompt), size, moves)
    effect = make_effect(look.effect, size, amount=0.25 + 0.75 * plan.strength, random=random)
    for number, pose in enumerate(moves):
        u = number / (len(moves) - 1)
        frame = _morphed(source, end, pose, size, ease((u - 0.25) / 0.6))
        yield frame if effect is None else effect(frame, u)


def _drifting(moves: list[CameraPose], seed: int, random: np.random.Generator) -> list[CameraPose]:
    """The same move with a slow drift of its own, so that no two seeds give the same pictures.

    The directions of seeds that follow each other are far apart, as the golden angle parts them.
    """
    angle = math.tau * (seed * GOLDEN_TURN + 0.05 * float(random.random()))
    last = max(1, len(moves) - 1)
    dx, dy = DRIFT * math.cos(angle), DRIFT * math.sin(angle)
    return [replace(pose, x=pose.x + dx * at / last, y=pose.y + dy * at / last) for at, pose in enumerate(moves)]


def _random_of(plan: ClipPlan) -> np.random.Generator:
    """The same request, the same numbers; another model or seed, others."""
    return np.random.default_rng([plan.seed, zlib.crc32(plan.motion.encode()), zlib.crc32(plan.model.encode())])


def _morphed(
    source: Image.Image, end: Image.Image | None, pose: CameraPose, size: tuple[int, int], share: float
) -> Image.Image:
    """The start frame, the end frame, or a mixture on the way from one to the other."""
    if end is None or share <= 0:
        return shoot(source, pose, size)
    if share >= 1:
        return shoot(end, pose, size)
    return Image.blend(shoot(source, pose, size), shoot(end, pose, size), share)


def graded(still: Image.Image, prompt: str) -> Image.Image:
    """The image in the light its prompt speaks of: warm, cold, dark, pale; unchanged without such a word."""
    words = prompt.lower()
    for group, (red, green, blue) in GRADES:
        if any(word in words for word in group):
            bands = zip(still.split(), (red, green, blue), strict=True)
            return Image.merge("RGB", [band.point(_gain(gain)) for band, gain in bands])
    return still


def _gain(gain: float) -> list[int]:
    return [min(255, round(value * gain)) for value in range(256)]


def fps_of(long_side_px: int) -> int:
    """Frames a second: fewer for the two sizes that are for rehearsals."""
    return 12 if long_side_px <= LONG_SIDES_PX["180p"] else 15 if long_side_px <= LONG_SIDES_PX["240p"] else 24


def encode(frames: Iterator[Image.Image], fps: int, target: Path) -> None:
    """Write frames as an MP4 that streams from its first byte; the bytes depend on the frames alone."""
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    first = next(frames)
    with av.open(str(target), "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height = first.size
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, fps)
        stream.thread_count = 1  # with more the bytes depend on how the threads meet
        stream.options = {"preset": _PRESET, "crf": _CRF, "x264-params": _X264, "flags": "+bitexact"}
        for frame in itertools.chain([first], frames):
            picture = av.VideoFrame.from_ndarray(np.asarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
