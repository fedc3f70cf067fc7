"""Procedural start pictures: scenes with the statistics of photographs, drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Random = np.random.Generator
Plane = NDArray[np.float64]


def fractal(random: Random, size: tuple[int, int], slope: float = 1.0) -> Plane:
    """Noise whose amplitude falls as 1 / frequency^slope, mean 0, standard deviation 1."""
    width, height = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(random.normal(size=(height, width))) / frequency**slope
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(height, width))
    result: Plane = field / field.std()
    return result


def _image(pixels: Plane) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _colour(random: Random, low: float = 0.0, high: float = 255.0) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in random.uniform(low, high, 3))
    return red, green, blue


def _textured(random: Random, base: Image.Image, amount: float, slope: float = 1.2) -> Image.Image:
    pixels = np.asarray(base, dtype=float)
    return _image(pixels * (1 + amount * fractal(random, base.size, slope)[:, :, None]))


def landscape(random: Random, size: tuple[int, int]) -> Image.Image:
    """Sky, sun, rows of hills with texture."""
    width, height = size
    y = np.linspace(0, 1, height)[:, None, None]
    top, low = np.array(_colour(random, 40, 200)), np.array(_colour(random, 120, 250))
    pixels = np.broadcast_to(top * (1 - y) + low * y, (height, width, 3)).copy()
    pixels += 14 * fractal(random, size, 1.7)[:, :, None]
    for row in range(3):
        ridge = fractal(random, (width, 64), 1.6)[0]
        edge = height * (0.42 + 0.17 * row) + ridge * height * 0.06
        mask = np.arange(height)[:, None] > edge[None, :]
        shade = np.array(_colour(random, 20, 150)) * (1 + 0.3 * fractal(random, size, 0.9)[:, :, None])
        pixels = np.where(mask[:, :, None], shade, pixels)
    return _image(pixels)


def portrait(random: Random, size: tuple[int, int]) -> Image.Image:
    """A face-like shape before a blurred background with discs of light."""
    width, height = size
    image = Image.new("RGB", size, _colour(random, 20, 160))
    draw = ImageDraw.Draw(image)
    for _ in range(25):
        x, y, r = random.uniform(0, width), random.uniform(0, height), random.uniform(0.02, 0.08) * height
        draw.ellipse((x - r, y - r, x + r, y + r), fill=_colour(random, 40, 230))
    image = image.filter(ImageFilter.GaussianBlur(height * 0.02))
    draw = ImageDraw.Draw(image)
    x, y, r = width * random.uniform(0.35, 0.65), height * random.uniform(0.42, 0.55), height * random.uniform(0.2, 0.3)
    skin = tuple(int(v) for v in np.array([224, 172, 138]) * random.uniform(0.45, 1.1))
    hair = _colour(random, 10, 110)
    draw.ellipse((x - r * 0.95, y - r * 1.4, x + r * 0.95, y + r * 0.7), fill=hair)
    draw.rectangle((x - r * 1.5, y + r * 1.25, x + r * 1.5, height), fill=_colour(random, 20, 200))
    draw.ellipse((x - r * 0.75, y - r * 1.1, x + r * 0.75, y + r * 1.2), fill=skin)
    for side in (-1, 1):
        at = x + side * r * 0.32
        draw.ellipse((at - r * 0.14, y - r * 0.2, at + r * 0.14, y - r * 0.04), fill=(240, 240, 240))
        draw.ellipse((at - r * 0.06, y - r * 0.18, at + r * 0.06, y - r * 0.05), fill=(30, 40, 50))
        draw.line((at - r * 0.2, y - r * 0.33, at + r * 0.2, y - r * 0.36), fill=hair, width=max(2, int(r * 0.06)))
    draw.ellipse((x - r * 0.25, y + r * 0.5, x + r * 0.25, y + r * 0.66), fill=(150, 60, 60))
    for _ in range(120):
        start = x + random.uniform(-0.9, 0.9) * r
        draw.line(
            (start, y - r * 1.3, start + random.uniform(-0.3, 0.3) * r, y - r * 0.8), fill=_colour(random, 10, 120)
        )
    return _textured(random, image, 0.05, 0.7)


def night(random: Random, size: tuple[int, int]) -> Image.Image:
    """Dark, with lights."""
    width, height = size
    pixels = 14 + 5 * fractal(random, size, 1.4)[:, :, None] * np.array([0.7, 0.8, 1.2])
    image = _image(pixels)
    draw = ImageDraw.Draw(image)
    for _ in range(int(random.integers(25, 90))):
        x, y, r = random.uniform(0, width), random.uniform(0.2, 1) * height, random.uniform(0.002, 0.012) * height
        draw.ellipse((x - r, y - r, x + r, y + r), fill=_colour(random, 130, 255))
    glow = image.filter(ImageFilter.GaussianBlur(height * 0.02))
    return _image(np.asarray(image, dtype=float) + 1.5 * np.asarray(glow, dtype=float))


def city(random: Random, size: tuple[int, int]) -> Image.Image:
    """Fronts with windows."""
    width, height = size
    image = Image.new("RGB", size, _colour(random, 120, 230))
    draw = ImageDraw.Draw(image)
    left = -10.0
    while left < width:
        wide, tall = random.uniform(0.06, 0.2) * width, random.uniform(0.35, 0.95) * height
        wall, pane = _colour(random, 40, 190), _colour(random, 20, 250)
        draw.rectangle((left, height - tall, left + wide, height), fill=wall)
        step = max(6.0, height * random.uniform(0.03, 0.06))
        for y in np.arange(height - tall + step, height, step * 1.6):
            for x in np.arange(left + step * 0.6, left + wide - step * 0.6, step * 1.3):
                if random.random() < 0.8:
                    draw.rectangle((x, y, x + step * 0.6, y + step * 0.9), fill=pane)
        left += wide
    return _textured(random, image, 0.08)


def snow(random: Random, size: tuple[int, int]) -> Image.Image:
    """Bright and pale, a few dark trunks."""
    width, height = size
    image = _image(225 + 7 * fractal(random, size, 1.3)[:, :, None] + np.array([-2.0, 0.0, 5.0]))
    draw = ImageDraw.Draw(image)
    for _ in range(int(random.integers(3, 12))):
        x, y, tall = random.uniform(0, width), random.uniform(0.4, 0.9) * height, random.uniform(0.1, 0.5) * height
        draw.line(
            (x, y, x + random.uniform(-9, 9), y - tall), fill=_colour(random, 30, 120), width=int(random.integers(2, 9))
        )
        for branch in np.linspace(0.2, 0.9, 6):
            draw.line(
                (x, y - tall * branch, x + random.uniform(-40, 40), y - tall * branch - 12), fill=(90, 90, 95), width=2
            )
    return image


def text(random: Random, size: tuple[int, int]) -> Image.Image:
    """A page with lines of letters."""
    width, height = size
    paper, ink = ((245, 243, 235), (25, 25, 35)) if random.random() < 0.6 else ((18, 20, 30), (230, 225, 190))
    image = Image.new("RGB", size, paper)
    draw = ImageDraw.Draw(image)
    y = height * 0.06
    while y < height * 0.94:
        x = width * 0.06
        tall = height * random.uniform(0.02, 0.05)
        while x < width * random.uniform(0.6, 0.95):
            wide = tall * random.uniform(0.3, 0.8)
            draw.arc(
                (x, y, x + wide, y + tall),
                float(random.integers(0, 180)),
                float(random.integers(200, 360)),
                fill=ink,
                width=max(2, int(tall / 6)),
            )
            draw.line((x, y, x + wide * random.uniform(0, 1), y + tall), fill=ink, width=max(1, int(tall / 7)))
            x += wide * 1.5
        y += tall * 1.8
    return image


def foliage(random: Random, size: tuple[int, int]) -> Image.Image:
    """Many leaves over each other."""
    width, height = size
    image = Image.new("RGB", size, (30, 50, 25))
    draw = ImageDraw.Draw(image)
    tone = np.array(_colour(random, 60, 200))
    for _ in range(900):
        x, y, r = random.uniform(0, width), random.uniform(0, height), random.uniform(0.01, 0.05) * height
        fill = tuple(int(v) for v in np.clip(tone * random.uniform(0.3, 1.4), 0, 255))
        draw.ellipse((x - r, y - r * 0.5, x + r, y + r * 0.5), fill=fill)
    return image


def minimal(random: Random, size: tuple[int, int]) -> Image.Image:
    """A plain backdrop with one thing before it: little texture."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    light = 1 - 0.5 * np.hypot(x / width - random.uniform(0.2, 0.8), y / height - random.uniform(0.2, 0.8))
    image = _image(np.array(_colour(random, 90, 240)) * light[:, :, None])
    draw = ImageDraw.Draw(image)
    x0, y0, r = (
        width * random.uniform(0.3, 0.7),
        height * random.uniform(0.35, 0.65),
        height * random.uniform(0.12, 0.3),
    )
    draw.ellipse((x0 - r, y0 - r, x0 + r, y0 + r), fill=_colour(random))
    draw.polygon([(x0 - r, y0 + r), (x0, y0 - r * 0.6), (x0 + r, y0 + r)], fill=_colour(random))
    return _textured(random, image, 0.015, 0.5)


def dark(random: Random, size: tuple[int, int]) -> Image.Image:
    """So dark that little is seen."""
    scene = np.asarray(landscape(random, size), dtype=float)
    return _image(scene * random.uniform(0.06, 0.14) + 3)


def marble(random: Random, size: tuple[int, int]) -> Image.Image:
    """Veins and clouds of colour."""
    one, two = fractal(random, size, 1.5), fractal(random, size, 1.1)
    mix = 0.5 + 0.5 * np.sin(2.2 * one + 0.6 * two)
    low, high = np.array(_colour(random, 0, 130)), np.array(_colour(random, 100, 255))
    return _image(low * (1 - mix[:, :, None]) + high * mix[:, :, None] + 8 * two[:, :, None])


def mosaic(random: Random, size: tuple[int, int]) -> Image.Image:
    """Cells of colour with edges, each with its own texture."""
    width, height = size
    points = random.uniform(0, 1, (60, 2)) * np.array([width, height])
    y, x = np.mgrid[0:height:2, 0:width:2]
    nearest = np.argmin([(x - px) ** 2 + (y - py) ** 2 for px, py in points], axis=0)
    colours = random.uniform(10, 245, (60, 3))
    cells = _image(colours[nearest]).resize(size, Image.Resampling.NEAREST)
    return _textured(random, cells, 0.14, 0.8)


def beach(random: Random, size: tuple[int, int]) -> Image.Image:
    """Three bands: sky, water with waves, sand with grain."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    waves = np.sin(y**1.25 / random.uniform(3, 7) + 3 * fractal(random, size, 1.6)) * 18
    sky = np.array(_colour(random, 130, 230)) + (10 * fractal(random, size, 1.8))[:, :, None]
    sea = np.array([40, 100, 130]) * random.uniform(0.6, 1.4) + waves[:, :, None]
    sand = np.array([200, 180, 140]) * random.uniform(0.6, 1.1) * (1 + 0.12 * fractal(random, size, 0.4)[:, :, None])
    level, shore = height * random.uniform(0.25, 0.45), height * random.uniform(0.6, 0.8) + 0.05 * x
    return _image(np.where((y < level)[:, :, None], sky, np.where((y < shore)[:, :, None], sea, sand)))


def crowd(random: Random, size: tuple[int, int]) -> Image.Image:
    """Many small people-like shapes over a textured ground."""
    width, height = size
    image = _textured(random, Image.new("RGB", size, _colour(random, 60, 180)), 0.2, 1.3)
    draw = ImageDraw.Draw(image)
    for y in np.sort(random.uniform(0.3, 1.0, 70)) * height:
        x, r = random.uniform(0, width), height * 0.02 * (0.5 + y / height)
        draw.rounded_rectangle((x - r, y - 3 * r, x + r, y + r), radius=r / 2, fill=_colour(random, 10, 240))
        draw.ellipse((x - 0.7 * r, y - 4.5 * r, x + 0.7 * r, y - 3 * r), fill=_colour(random, 60, 230))
    return image


def bricks(random: Random, size: tuple[int, int]) -> Image.Image:
    """A wall with mortar, lit from one side."""
    width, height = size
    tall = height * random.uniform(0.05, 0.1)
    wide, mortar = tall * random.uniform(2, 3), max(2, round(tall * 0.12))
    image = Image.new("RGB", size, _colour(random, 120, 210))
    draw = ImageDraw.Draw(image)
    tone = np.array(_colour(random, 50, 200))
    for row in range(int(height / tall) + 1):
        for column in range(-1, int(width / wide) + 1):
            x, y = (column + 0.5 * (row % 2)) * wide, row * tall
            fill = tuple(int(v) for v in np.clip(tone * random.uniform(0.7, 1.2), 0, 255))
            draw.rectangle((x, y, x + wide - mortar, y + tall - mortar), fill=fill)
    light = np.linspace(random.uniform(0.5, 1), random.uniform(0.7, 1.2), width)[None, :, None]
    return _image(np.asarray(_textured(random, image, 0.1, 0.7), dtype=float) * light)


def clouds(random: Random, size: tuple[int, int]) -> Image.Image:
    """Sky with clouds and a flock of birds: soft shapes, a few small things."""
    width, height = size
    cover = np.clip(0.5 + 0.6 * fractal(random, size, 1.5), 0, 1)[:, :, None]
    sky, cloud = np.array(_colour(random, 40, 170)), np.array(_colour(random, 190, 255))
    image = _image(sky * (1 - cover) + cloud * cover * (1 + 0.04 * fractal(random, size, 0.8)[:, :, None]))
    draw = ImageDraw.Draw(image)
    for _ in range(int(random.integers(15, 50))):
        x, y, r = random.uniform(0, width), random.uniform(0, height), random.uniform(0.006, 0.02) * height
        draw.line((x - r, y - r / 2, x, y, x + r, y - r / 2), fill=(30, 30, 40), width=max(2, int(r / 3)))
    return image


def corridor(random: Random, size: tuple[int, int]) -> Image.Image:
    """A passage in perspective with frames and lamps that get smaller."""
    width, height = size
    image = Image.new("RGB", size, _colour(random, 30, 120))
    draw = ImageDraw.Draw(image)
    cx, cy = width * random.uniform(0.4, 0.6), height * random.uniform(0.4, 0.6)
    one, two = _colour(random, 40, 220), _colour(random, 20, 160)
    for number, scale in enumerate(np.geomspace(1.1, 0.06, 14)):
        box = (cx - cx * scale, cy - cy * scale, cx + (width - cx) * scale, cy + (height - cy) * scale)
        fill = tuple(int(v * (0.35 + 0.65 * scale)) for v in (one if number % 2 else two))
        draw.rectangle(box, fill=fill, outline=(15, 15, 20), width=max(1, int(6 * scale)))
        lamp = height * 0.04 * scale
        draw.ellipse((cx - lamp, box[1] + lamp, cx + lamp, box[1] + 3 * lamp), fill=(250, 240, 200))
    return _textured(random, image, 0.12, 0.8)


def fruit(random: Random, size: tuple[int, int]) -> Image.Image:
    """Shaded balls with highlights on a table."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(float)
    pixels = np.where((y > height * 0.55)[:, :, None], np.array(_colour(random, 60, 190)), _colour(random, 20, 150))
    pixels = pixels * (1 + 0.08 * fractal(random, size, 0.9)[:, :, None])
    for _ in range(int(random.integers(5, 14))):
        cx, cy = random.uniform(0, width), random.uniform(0.35, 0.95) * height
        r = random.uniform(0.06, 0.2) * height
        away = np.hypot(x - cx, y - cy) / r
        shade = np.clip(1.2 - 0.9 * np.hypot(x - cx + 0.35 * r, y - cy + 0.4 * r) / r, 0.1, 1)[:, :, None]
        shine = np.exp(-(((x - cx + 0.4 * r) ** 2 + (y - cy + 0.45 * r) ** 2) / (0.12 * r) ** 2))[:, :, None]
        pixels = np.where((away < 1)[:, :, None], np.array(_colour(random, 40, 255)) * shade + 200 * shine, pixels)
    return _image(pixels + 3 * fractal(random, size, 0.5)[:, :, None])


def fabric(random: Random, size: tuple[int, int]) -> Image.Image:
    """Checked cloth with folds."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(float)
    fold = fractal(random, size, 1.8)
    x, y = x + 0.03 * width * fold, y + 0.02 * height * fold
    across = np.sin(x / width * random.uniform(30, 90)) + 0.5 * np.sin(x / width * random.uniform(100, 160))
    down = np.sin(y / height * random.uniform(20, 60))
    base, one, two = (np.array(_colour(random, 20, 230)) for _ in range(3))
    pixels = base + (one - base) * (across > 0.4)[:, :, None] * 0.6 + (two - base) * (down > 0.3)[:, :, None] * 0.4
    return _image(pixels * (0.8 + 0.18 * fold[:, :, None]) + 5 * fractal(random, size, 0.3)[:, :, None])


Painter = Callable[[Random, tuple[int, int]], Image.Image]

TUNED: Mapping[str, Painter] = {
    "landscape": landscape, "portrait": portrait, "night": night, "city": city, "snow": snow, "text": text,
    "foliage": foliage, "minimal": minimal, "dark": dark, "marble": marble, "mosaic": mosaic, "beach": beach,
    "crowd": crowd,
}  # fmt: skip
"""Scenes that the constants of the checks may be set on."""

HELD_OUT: Mapping[str, Painter] = {
    "bricks": bricks, "clouds": clouds, "corridor": corridor, "fruit": fruit, "fabric": fabric,
}  # fmt: skip
"""Scenes of the held-out set: no constant was set on them."""


def paint(name: str, random: Random, size: tuple[int, int]) -> Image.Image:
    """One picture of this kind of scene."""
    return {**TUNED, **HELD_OUT}[name](random, size)
