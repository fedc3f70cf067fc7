"""The start or end picture of a request, read as people see it: upright, in RGB, over whatever is behind it."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

MAX_PIXELS = 100_000_000
"""Larger pictures are not read: they would take 300 MB."""

SIDE_PX = 400
"""Longer side kept: a clip may begin with a third of the picture, and 130 px say enough."""

BACKDROPS = ((255, 255, 255), (0, 0, 0), (128, 128, 128))
"""What may lie behind a transparent picture: viewers show white, most models black, some grey."""


class UnreadablePictureError(Exception):
    """The picture cannot be had; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A picture to compare frames with.

    Args:
        width, height: pixels of the picture when upright.
        views: one or more ways to see it, each height x width x 3, longer side SIDE_PX.
    """

    width: int
    height: int
    views: tuple[NDArray[np.uint8], ...]


def read_reference(source: Path | bytes) -> Reference:
    """Read a picture file or its bytes.

    Raises:
        UnreadablePictureError: it is no picture, broken, or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise UnreadablePictureError(f"{opened.width}x{opened.height} px is too large")
                # A JPEG is decoded at a fraction of its size, in a fraction of the time.
                opened.draft("RGB", (SIDE_PX * 2, SIDE_PX * 2))
                ratio = opened.width / opened.height
                upright = ImageOps.exif_transpose(_shrunk(opened))
                turned = (upright.width > upright.height) != (opened.width > opened.height) and ratio != 1
                size = (opened.height, opened.width) if turned else (opened.width, opened.height)
                views = tuple(np.asarray(view) for view in _views(upright))
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError) as error:
        raise UnreadablePictureError(str(error)[:80] or type(error).__name__) from None
    return Reference(width=size[0], height=size[1], views=views)


def _shrunk(opened: Image.Image) -> Image.Image:
    """The picture small, in a mode that can be averaged; keeps its orientation mark."""
    mark = opened.getexif()
    if opened.mode.startswith(("I", "F")):
        pixels = np.asarray(opened, dtype=np.float64)
        top = 65535.0 if pixels.max() > 255 else 255.0
        picture = Image.fromarray(np.clip(pixels * (255 / top), 0, 255).astype(np.uint8))
    elif opened.mode == "P" or "transparency" in opened.info or opened.mode in ("LA", "PA", "La", "RGBa"):
        picture = opened.convert("RGBA")
    else:
        picture = opened if opened.mode == "RGBA" else opened.convert("RGB")
    picture = picture.copy() if picture is opened else picture
    picture.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.BOX, reducing_gap=2.0)
    if 0x0112 in mark:
        picture.getexif()[0x0112] = mark[0x0112]
    return picture


def _views(picture: Image.Image) -> list[Image.Image]:
    if picture.mode != "RGBA" or picture.getchannel("A").getextrema() == (255, 255):
        return [picture.convert("RGB")]
    seen = []
    for backdrop in BACKDROPS:
        behind = Image.new("RGBA", picture.size, (*backdrop, 255))
        behind.alpha_composite(picture)
        seen.append(behind.convert("RGB"))
    return [*seen, picture.convert("RGB")]  # the last one: the colours under the transparency
