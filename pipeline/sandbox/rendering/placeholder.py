"""A placeholder scene for an image URL that cannot be had: sky, sun, hills and water, drawn from the URL alone."""

from __future__ import annotations

import hashlib
import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH_PX, HEIGHT_PX = 960, 540

Canvas = NDArray[np.float64]
Colour = tuple[int, int, int]

PALETTES: tuple[tuple[Colour, Colour, Colour, Colour], ...] = (
    ((38, 62, 120), (250, 178, 120), (255, 226, 170), (28, 34, 58)),
    ((92, 150, 205), (222, 236, 242), (255, 250, 225), (38, 74, 66)),
    ((22, 24, 60), (150, 90, 140), (250, 220, 235), (18, 16, 40)),
    ((120, 84, 110), (255, 205, 160), (255, 240, 200), (66, 40, 52)),
    ((70, 120, 130), (235, 225, 195), (255, 246, 214), (30, 60, 62)),
)
"""Top of the sky, horizon, sun, nearest hill."""


@lru_cache(maxsize=32)
def draw_scene(url: str) -> bytes:
    """PNG bytes of a 960x540 picture; the same URL, the same bytes."""
    digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    top, horizon, sun, near = (np.array(colour, dtype=float) for colour in PALETTES[digest[8] % len(PALETTES)])
    shore = int(HEIGHT_PX * random.uniform(0.62, 0.72))
    canvas = _sky(top, horizon, shore)
    _shine(canvas, sun, random.uniform(0.2, 0.8), random.uniform(0.15, 0.42))
    for layer in range(4):
        depth = layer / 3
        _hill(canvas, horizon * (1 - 0.35 - 0.65 * depth) + near * (0.35 + 0.65 * depth), shore, depth, random)
    _water(canvas, shore, random)
    canvas += random.normal(0, 2.2, (HEIGHT_PX, WIDTH_PX, 1))
    stream = io.BytesIO()
    Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _sky(top: Canvas, horizon: Canvas, shore: int) -> Canvas:
    share = np.clip(np.arange(HEIGHT_PX) / shore, 0, 1)[:, None, None] ** 1.3
    return np.repeat(top * (1 - share) + horizon * share, WIDTH_PX, axis=1)


def _shine(canvas: Canvas, sun: Canvas, x: float, y: float) -> None:
    across = (np.arange(WIDTH_PX) / WIDTH_PX - x) * WIDTH_PX / HEIGHT_PX
    down = np.arange(HEIGHT_PX) / HEIGHT_PX - y
    distance = np.hypot(across[None, :], down[:, None])
    light = np.clip((0.055 - distance) * 90, 0, 1) + 0.55 * np.exp(-distance * 5)
    canvas += np.clip(light, 0, 1)[:, :, None] * (sun - canvas)


def _hill(canvas: Canvas, colour: Canvas, shore: int, depth: float, random: np.random.Generator) -> None:
    x = np.linspace(0, 1, WIDTH_PX)
    ridge = np.full(WIDTH_PX, 0.30 - 0.22 * depth)
    for octave in range(6):
        cycles = (1.2 + 1.5 * depth) * 1.9**octave
        ridge += 0.085 * 0.52**octave * np.sin(2 * np.pi * (cycles * x + random.random()))
    tops = shore - np.maximum(ridge, 0) * HEIGHT_PX
    rows = np.arange(HEIGHT_PX)[:, None]
    cover = np.clip(rows - tops[None, :], 0, 1) * (rows < shore)
    canvas += cover[:, :, None] * (colour - canvas)


def _water(canvas: Canvas, shore: int, random: np.random.Generator) -> None:
    rows = np.arange(shore, HEIGHT_PX)
    depth = (rows - shore) / (HEIGHT_PX - shore)
    wave = np.sin(rows[:, None] * (1.9 - 1.2 * depth[:, None]) + random.random() * 6) * (1 + 7 * depth[:, None])
    columns = (np.arange(WIDTH_PX)[None, :] + wave).round().astype(int).clip(0, WIDTH_PX - 1)
    mirrored = np.clip(2 * shore - rows - 1 - (wave[:, 0] * 0.8).round().astype(int), 0, shore - 1)
    canvas[shore:] = canvas[mirrored[:, None], columns] * (0.82 - 0.25 * depth[:, None, None])
