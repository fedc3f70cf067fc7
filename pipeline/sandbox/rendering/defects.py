"""Defects on request: a share of the clips comes out frozen, black, soft or otherwise broken, the same ones each time.

Which clip and which defect follow from the clip's key and the seed alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Frames = list[Image.Image]
Random = np.random.Generator
Defect = Callable[[Frames, int, Random], Frames]
"""(frames, frames per second, random) -> frames"""

DEFAULT_SHARE = 0.4
"""Share of broken clips when only a seed is given."""

IN_FILE = "unreadable"
"""The one defect that is put into the finished file."""


def chosen(clip_key: str, defects: float) -> str:
    """The defect of a clip, "" for none.

    Args:
        defects: 0..1 is the share of broken clips; from 2 on a whole number is a seed, with DEFAULT_SHARE of them.
    """
    if defects <= 0:
        return ""
    share, seed = (defects, 1) if defects <= 1 else (DEFAULT_SHARE, int(defects))
    digest = hashlib.sha256(f"{seed}:{clip_key}".encode()).digest()
    if int.from_bytes(digest[:6], "big") / (1 << 48) >= share:
        return ""
    kinds = (*DEFECTS, IN_FILE)
    return kinds[int.from_bytes(digest[6:10], "big") % len(kinds)]


def spoil(name: str, frames: Frames, fps: int, random: Random) -> Frames:
    """The frames with the defect of this name; unchanged for one that is put into the file."""
    defect = DEFECTS.get(name)
    return frames if defect is None else defect(frames, fps, random)


def spoil_file(content: bytes) -> bytes:
    """A file whose boxes are whole while half of its picture data is lost."""
    start = len(content) * 2 // 5
    length = len(content) * 2 // 5
    return content[:start] + bytes(length) + content[start + length :]


def _frozen(frames: Frames, fps: int, random: Random) -> Frames:
    start, length = int(random.integers(fps, 2 * fps)), math.ceil(1.4 * fps)
    return [*frames[:start], *[frames[start]] * length, *frames[start + length :]]


def _still(frames: Frames, fps: int, _random: Random) -> Frames:
    return [frames[0]] * len(frames)


def _black(frames: Frames, fps: int, random: Random) -> Frames:
    start = int(random.integers(fps, 3 * fps))
    return [*frames[:start], *[Image.new("RGB", frames[0].size)] * 5, *frames[start + 5 :]]


def _flash(frames: Frames, fps: int, random: Random) -> Frames:
    at = int(random.integers(fps, 3 * fps))
    return [*frames[:at], _scaled(frames[at], 1.0, 80.0), *frames[at + 1 :]]


def _cut(frames: Frames, fps: int, random: Random) -> Frames:
    at = int(random.integers(fps, 4 * fps))
    return [*frames[:at], *(_other(frame) for frame in frames[at:])]


def _strobe(frames: Frames, fps: int, _random: Random) -> Frames:
    stills = [frames[0], _other(frames[0]), frames[0].transpose(Image.Transpose.ROTATE_180), _turned(frames[0])]
    return [stills[number // 3 % len(stills)] for number in range(len(frames))]


def _flicker(frames: Frames, _fps: int, _random: Random) -> Frames:
    return [_scaled(frame, 0.92 if number % 2 else 1.0, 0.0) for number, frame in enumerate(frames)]


def _soft(frames: Frames, _fps: int, _random: Random) -> Frames:
    most = frames[0].height / 60
    count = len(frames)
    return [frame.filter(ImageFilter.GaussianBlur(most * number / count)) for number, frame in enumerate(frames)]


def _color_drift(frames: Frames, _fps: int, _random: Random) -> Frames:
    result = []
    for number, frame in enumerate(frames):
        share = min(1.0, 1.4 * number / len(frames))
        gains = np.array([1 + 0.5 * share, 1 - 0.05 * share, 1 - 0.5 * share])
        result.append(_image(np.asarray(frame, dtype=np.float64) * gains))
    return result


def _wrong_start(frames: Frames, _fps: int, _random: Random) -> Frames:
    return [_other(frame) for frame in frames]


def _short(frames: Frames, fps: int, _random: Random) -> Frames:
    return frames[: 2 * fps]


DEFECTS: Mapping[str, Defect] = {
    "frozen": _frozen,
    "still": _still,
    "black": _black,
    "flash": _flash,
    "cut": _cut,
    "strobe": _strobe,
    "flicker": _flicker,
    "soft": _soft,
    "color_drift": _color_drift,
    "wrong_start": _wrong_start,
    "format": _short,
}
"""What is done to the frames, by the word that a check has for it."""


def _image(pixels: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _scaled(frame: Image.Image, gain: float, offset: float) -> Image.Image:
    return _image(np.asarray(frame, dtype=np.float64) * gain + offset)


def _turned(frame: Image.Image) -> Image.Image:
    """The frame upside down with its halves exchanged."""
    pixels = np.asarray(frame)[::-1]
    return Image.fromarray(np.ascontiguousarray(np.roll(pixels, pixels.shape[1] // 2, axis=1)))


def _other(frame: Image.Image) -> Image.Image:
    """Another scene: the parts of the frame in another order, turned."""
    pixels = np.asarray(_turned(frame))
    height = pixels.shape[0]
    order = np.argsort(np.sin(np.arange(5) * 2.4))
    bands = [pixels[height * band // 5 : height * (band + 1) // 5, ::-1] for band in order]
    return Image.fromarray(np.ascontiguousarray(np.concatenate(bands)))
