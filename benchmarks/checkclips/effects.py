"""What presets lay over the frames, and how a model changes the picture it was given."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from benchmarks.checkclips.pictures import Random, fractal

Pixels = NDArray[np.float32]
"""height x width x 3, 0..255"""

Effect = Callable[[Pixels, float], Pixels]


def _veil(size: tuple[int, int], random: Random, reach: float) -> Pixels:
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    cx, cy = random.uniform(0.2, 0.8) * width, random.uniform(0.1, 0.7) * height
    veil: Pixels = np.exp(-(((x - cx) ** 2 + (y - cy) ** 2) / (reach * width) ** 2)).astype(np.float32)[:, :, None]
    return veil


def particles(
    size: tuple[int, int], random: Random, amount: float, colour: tuple[int, int, int], fall: float
) -> Effect:
    """Dots that drift."""
    width, height = size
    count = int(20 + 90 * amount)
    at, speed = random.random((count, 2)), random.uniform(0.5, 1.5, count)
    radius = max(1, int(height * 0.008))

    def lay(pixels: Pixels, u: float) -> Pixels:
        shown = int(count * min(1.0, 0.15 + 3 * u))  # a model begins with the picture that it was given
        for (x0, y0), pace in zip(at[:shown], speed[:shown], strict=True):
            x, y = int((x0 + 0.2 * u * pace) % 1 * width), int((y0 + fall * u * pace) % 1 * height)
            pixels[max(0, y - radius) : y + radius, max(0, x - radius) : x + radius] = colour
        return pixels

    return lay


def pulses(size: tuple[int, int], random: Random, amount: float, count: int, decay: float) -> Effect:
    """Flashes of light that die away."""
    moments = np.sort(random.uniform(0.05, 0.9, count))
    veils = [_veil(size, random, 0.6) for _ in moments]

    def lay(pixels: Pixels, u: float) -> Pixels:
        for moment, veil in zip(moments, veils, strict=True):
            if u >= moment:
                pixels = pixels + (255 - pixels) * veil * (amount * math.exp(-decay * (u - moment)))
        return pixels

    return lay


def film(size: tuple[int, int], random: Random, amount: float) -> Effect:
    """Grain, a warm tone and the jitter of an old projector's light."""
    light = random.normal(1, 0.02, 200)

    def lay(pixels: Pixels, u: float) -> Pixels:
        grain = random.normal(0, 8 * amount, pixels.shape[:2]).astype(np.float32)[:, :, None]
        warm: Pixels = pixels * np.array([1.05, 0.98, 0.85], dtype=np.float32) * np.float32(light[int(u * 199)]) + grain
        return warm

    return lay


def tape(size: tuple[int, int], random: Random, amount: float) -> Effect:
    """Shifted colours, lines, a band of torn rows."""
    shift = max(1, round(size[0] * 0.006))

    def lay(pixels: Pixels, u: float) -> Pixels:
        pixels = np.stack(
            [np.roll(pixels[:, :, 0], shift, 1), pixels[:, :, 1], np.roll(pixels[:, :, 2], -shift, 1)], axis=2
        )
        pixels[::2] *= 1 - 0.15 * amount
        top, tall = int((1.6 * u) % 1 * size[1]), size[1] // 14
        for row in range(top, min(size[1], top + tall)):
            pixels[row] = np.roll(pixels[row], int(random.integers(-4, 5)) * shift, axis=0)
        return pixels + random.normal(0, 3, pixels.shape[:2]).astype(np.float32)[:, :, None]

    return lay


def mosh(size: tuple[int, int], random: Random, amount: float) -> Effect:
    """Blocks of an earlier frame that stay and slip."""
    kept: list[Pixels] = []

    def lay(pixels: Pixels, u: float) -> Pixels:
        if not kept or random.random() < 0.04:
            kept[:] = [pixels.copy()]
        block = max(8, size[1] // 12)
        for _ in range(int(25 * amount * u)):
            y, x = int(random.integers(0, size[1] - block)), int(random.integers(0, size[0] - block))
            slip = int(random.integers(0, block // 2))
            pixels[y : y + block, x : x + block] = np.roll(kept[0], slip, 1)[y : y + block, x : x + block]
        return pixels

    return lay


def trail(random: Random, amount: float) -> Effect:
    """A slow shutter: each frame mixed with those before."""
    last: list[Pixels] = []

    def lay(pixels: Pixels, u: float) -> Pixels:
        mixed = pixels if not last else pixels * (1 - 0.7 * amount) + last[0] * (0.7 * amount)
        last[:] = [mixed]
        return mixed

    return lay


def focus(size: tuple[int, int], random: Random, amount: float) -> Effect:
    """A pull of the whole picture's focus, or of one side's while the other gets sharp."""
    kind = int(random.integers(0, 3))
    most = size[1] * 0.02 * (0.4 + 0.6 * amount)
    ramp = np.linspace(0, 1, size[0], dtype=np.float32)[None, :, None]

    def lay(pixels: Pixels, u: float) -> Pixels:
        radius = most * (1 - u if kind == 0 else u if kind == 1 else 0.5 + 0.5 * math.cos(math.tau * u))
        soft = blur(pixels, radius)
        return soft if kind != 2 else soft * ramp + pixels * (1 - ramp)

    return lay


def blur(pixels: Pixels, radius: float) -> Pixels:
    """A Gaussian blur."""
    if radius < 0.2:
        return pixels
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(image, dtype=np.float32)


def daylight(random: Random, amount: float, cycles: float) -> Effect:
    """Light that changes slowly: hours that pass, a candle."""
    phase = random.random()

    def lay(pixels: Pixels, u: float) -> Pixels:
        wave = math.sin(math.tau * (cycles * u + phase)) + 0.4 * math.sin(math.tau * (1.7 * cycles * u + 2 * phase))
        return pixels * (1 + amount * wave)

    return lay


def glow(size: tuple[int, int], random: Random, amount: float) -> Effect:
    """Light that grows from a point."""
    veil = _veil(size, random, 0.35) * np.array([255, 225, 170], dtype=np.float32)
    return lambda pixels, u: pixels + veil * (amount * (0.1 + 0.4 * u))


def flare(size: tuple[int, int], random: Random, amount: float) -> Effect:
    """A spot of light that wanders through."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]

    def lay(pixels: Pixels, u: float) -> Pixels:
        spot = np.exp(-(((x - (1.2 * u - 0.1) * width) ** 2 + (y - 0.25 * height) ** 2) / (0.15 * width) ** 2))
        lit: Pixels = pixels + (200 * amount * spot).astype(np.float32)[:, :, None]
        return lit

    return lay


def ripple(size: tuple[int, int], random: Random, amount: float) -> Effect:
    """Rows that sway."""
    phase = random.random()

    def lay(pixels: Pixels, u: float) -> Pixels:
        rows = np.arange(size[1])
        shift = np.round(
            size[0] * 0.012 * amount * min(1.0, 3 * u) * np.sin(math.tau * (rows / size[1] * 3 - 2 * u + phase))
        )
        columns = (np.arange(size[0])[None, :] + shift[:, None].astype(int)) % size[0]
        return np.take_along_axis(pixels, columns[:, :, None], axis=1)

    return lay


def make_effect(name: str, size: tuple[int, int], random: Random, amount: float) -> Effect | None:
    """The effect of this name, None for none."""
    makers: dict[str, Callable[[], Effect]] = {
        "embers": lambda: particles(size, random, amount, (255, 140, 40), -0.8),
        "snow": lambda: particles(size, random, amount, (250, 250, 255), 0.9),
        "powder": lambda: particles(size, random, amount, (220, 150, 180), -0.3),
        "motes": lambda: particles(size, random, 0.4 * amount, (255, 240, 210), -0.2),
        "blast": lambda: pulses(size, random, 0.9 * amount, 1, 6),
        "lightning": lambda: pulses(size, random, 0.8 * amount, 4, 22),
        "flashes": lambda: pulses(size, random, 0.9 * amount, 8, 40),
        "film": lambda: film(size, random, amount), "tape": lambda: tape(size, random, amount),
        "mosh": lambda: mosh(size, random, amount), "trail": lambda: trail(random, amount),
        "focus": lambda: focus(size, random, amount), "daylight": lambda: daylight(random, 0.12 * amount, 1.5),
        "candle": lambda: daylight(random, 0.02 + 0.04 * amount, random.uniform(3, 6)),
        "glow": lambda: glow(size, random, amount), "flare": lambda: flare(size, random, amount),
        "ripple": lambda: ripple(size, random, amount),
        "rain": lambda: particles(size, random, 1.0, (150, 155, 165), 5.0),
    }  # fmt: skip
    return makers[name]() if name in makers else None


def as_model(picture: Image.Image, random: Random, strength: float) -> Image.Image:
    """The start picture as a model gives it back: a little cropped, softened, each channel shifted by some per cent."""
    width, height = picture.size
    crop = 1 - strength * random.uniform(0, 0.06)
    left, top = (1 - crop) * width * random.random(), (1 - crop) * height * random.random()
    picture = picture.crop((int(left), int(top), int(left + crop * width), int(top + crop * height)))
    pixels = blur(np.asarray(picture, dtype=np.float32), strength * random.uniform(0, 0.9))
    pixels = pixels * (1 + strength * random.uniform(-0.07, 0.07, 3)).astype(np.float32) + strength * random.uniform(
        -5, 5
    )
    pixels = pixels + strength * 2 * fractal(random, picture.size, 1.0).astype(np.float32)[:, :, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
