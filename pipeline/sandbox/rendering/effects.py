"""What is laid over the frames: embers, snow, glow, flashes, tape, ripples; functions of the frame and its moment.

Everything random is drawn once, from the request's seed, before the first frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageEnhance, ImageFilter

Frame = Image.Image
Size = tuple[int, int]
Effect = Callable[[Frame, float], Frame]
"""(frame, u in 0..1) -> frame"""


Maker = Callable[[Size, float, np.random.Generator], Effect]
Grid = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticleEffect:
    """Particles of one kind: their number at full strength, size in frame heights, speed in frames a clip."""

    colours: tuple[tuple[int, int, int], ...]
    count: int
    size: float
    across: float
    down: float
    sway: float = 0.02
    twinkle: float = 0.5


SWARMS: Mapping[str, ParticleEffect] = {
    "embers": ParticleEffect(
        colours=((255, 150, 40), (255, 90, 20), (255, 200, 90)), count=120, size=0.014, across=0.3, down=-1.6
    ),
    "snow": ParticleEffect(
        colours=((255, 255, 255), (225, 235, 250)), count=110, size=0.012, across=0.4, down=1.3, twinkle=0.1
    ),
    "sand": ParticleEffect(
        colours=((214, 178, 120), (190, 150, 95)), count=160, size=0.009, across=3.4, down=0.3, twinkle=0.2
    ),
    "petals": ParticleEffect(
        colours=((245, 170, 190), (250, 205, 215), (230, 120, 150)),
        count=45,
        size=0.018,
        across=0.9,
        down=0.9,
        sway=0.05,
        twinkle=0.2,
    ),
    "motes": ParticleEffect(
        colours=((255, 245, 215), (220, 240, 255)), count=50, size=0.015, across=0.15, down=-0.3, sway=0.04, twinkle=0.9
    ),
    "ash": ParticleEffect(
        colours=((170, 165, 160), (110, 105, 105)), count=130, size=0.011, across=1.1, down=-0.7, sway=0.05, twinkle=0.2
    ),
    "powder": ParticleEffect(
        colours=((90, 190, 255), (255, 110, 190), (255, 225, 90)),
        count=150,
        size=0.016,
        across=0.5,
        down=-0.4,
        sway=0.06,
        twinkle=0.3,
    ),
}


def make_effect(name: str, size: Size, *, amount: float, random: np.random.Generator) -> Effect | None:
    """The effect of this name for frames of this size; None for `""`.

    Args:
        amount: 0..1, from the strength.
    """
    if name in SWARMS:
        return _swarm(SWARMS[name], size, amount, random)
    maker = _MAKERS.get(name)
    return None if maker is None else maker(size, amount, random)


def _swarm(kind: ParticleEffect, size: Size, amount: float, random: np.random.Generator) -> Effect:
    width, height = size
    count = max(8, round(kind.count * (0.3 + 0.7 * amount)))
    start, near, phase = random.random((count, 2)), random.uniform(0.45, 1.6, count), random.random(count)
    colours = np.array(kind.colours, dtype=float)[random.integers(0, len(kind.colours), count)]
    dots = [_dot(max(1.0, kind.size * height * scale), colour) for scale, colour in zip(near, colours, strict=True)]

    def lay(frame: Frame, u: float) -> Frame:
        canvas = np.zeros((height, width, 3), dtype=np.float32)
        sway = kind.sway * np.sin(math.tau * (2 * u + phase))
        xs = (start[:, 0] + kind.across * near * u + sway) % 1.2 - 0.1
        ys = (start[:, 1] + kind.down * near * u) % 1.2 - 0.1
        light = 1 - kind.twinkle * (0.5 + 0.5 * np.sin(math.tau * (5 * u * near + phase)))
        for dot, x, y, shine in zip(dots, xs, ys, light, strict=True):
            _add_dot(canvas, dot * shine, x * width, y * height)
        veil = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
        return ImageChops.screen(frame, veil)

    return lay


def _dot(radius_px: float, colour: Grid) -> NDArray[np.float32]:
    reach = math.ceil(radius_px * 2)
    axis = np.arange(-reach, reach + 1)
    distance = np.hypot(axis[:, None], axis[None, :]) / radius_px
    dot: NDArray[np.float32] = (np.exp(-1.6 * distance**2)[:, :, None] * colour).astype(np.float32)
    return dot


def _add_dot(canvas: NDArray[np.float32], dot: NDArray[np.float32], x: float, y: float) -> None:
    side = dot.shape[0]
    left, top = round(x) - side // 2, round(y) - side // 2
    right, low = min(left + side, canvas.shape[1]), min(top + side, canvas.shape[0])
    if right <= max(left, 0) or low <= max(top, 0):
        return
    part = dot[max(0, -top) : low - top, max(0, -left) : right - left]
    canvas[max(top, 0) : low, max(left, 0) : right] += part


def _radial(size: Size, centre: tuple[float, float], reach: float) -> NDArray[np.float32]:
    width, height = size
    across = (np.arange(width) / width - centre[0]) * width / height
    down = np.arange(height) / height - centre[1]
    distance = np.hypot(across[None, :], down[:, None])
    falloff: NDArray[np.float32] = np.exp(-((distance / reach) ** 2)).astype(np.float32)
    return falloff


def _veil(mask: NDArray[np.float32], colour: tuple[int, int, int], light: float) -> Frame:
    pixels = mask[:, :, None] * np.array(colour, dtype=np.float32) * light
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _glow(size: Size, amount: float, random: np.random.Generator) -> Effect:
    mask = _radial(size, (0.5 + random.uniform(-0.08, 0.08), 0.45), 0.45)

    def lay(frame: Frame, u: float) -> Frame:
        light = amount * (0.35 + 0.45 * u + 0.1 * math.sin(math.tau * 2 * u))
        return ImageChops.screen(frame, _veil(mask, (255, 225, 170), light))

    return lay


def _flare(size: Size, amount: float, random: np.random.Generator) -> Effect:
    height_at = random.uniform(0.15, 0.35)

    def lay(frame: Frame, u: float) -> Frame:
        x = -0.1 + 1.2 * u
        core = _radial(size, (x, height_at), 0.12) + 0.35 * _radial(size, (x, height_at), 0.4)
        ghost = 0.5 * _radial(size, (1 - x, 1 - height_at), 0.07)
        lit = ImageChops.screen(frame, _veil(core, (255, 236, 200), 0.9 * amount))
        return ImageChops.screen(lit, _veil(ghost, (120, 190, 255), amount))

    return lay


def _pulses(
    colour: tuple[int, int, int], count: int, decay: float
) -> Callable[[Size, float, np.random.Generator], Effect]:
    def make(size: Size, amount: float, random: np.random.Generator) -> Effect:
        moments = np.sort(random.uniform(0.06, 0.9, count))
        masks = [_radial(size, (random.uniform(0.2, 0.8), random.uniform(0.1, 0.6)), 0.7) for _ in moments]

        def lay(frame: Frame, u: float) -> Frame:
            for moment, mask in zip(moments, masks, strict=True):
                light = amount * math.exp(-decay * (u - moment)) if u >= moment else 0.0
                if light > 0.02:
                    frame = ImageChops.screen(frame, _veil(mask, colour, light))
            return frame

        return lay

    return make


def _blast(size: Size, amount: float, random: np.random.Generator) -> Effect:
    flash = _pulses((255, 190, 110), 1, 7)(size, amount, random)
    embers = _swarm(SWARMS["embers"], size, amount, random)
    return lambda frame, u: embers(flash(frame, u), u)


def _drift_light(_size: Size, amount: float, random: np.random.Generator) -> Effect:
    phase = random.random()

    def lay(frame: Frame, u: float) -> Frame:
        light = 1 + 0.28 * amount * math.sin(math.tau * (1.5 * u + phase))
        warmth = 0.10 * amount * math.sin(math.tau * (0.75 * u + phase))
        red, green, blue = ImageEnhance.Brightness(frame).enhance(light).split()
        return Image.merge(
            "RGB", (red.point(lambda v: v * (1 + warmth)), green, blue.point(lambda v: v * (1 - warmth)))
        )

    return lay


def _film(size: Size, amount: float, random: np.random.Generator) -> Effect:
    width, height = size
    vignette = 0.35 + 0.65 * _radial(size, (0.5, 0.5), 0.75)
    grain = random.normal(0, 9, (8, height, width, 1)).astype(np.float32)
    flicker = random.normal(1, 0.03, 256)
    tone = np.array([1.06, 0.97, 0.80], dtype=np.float32) * amount + (1 - amount)

    def lay(frame: Frame, u: float) -> Frame:
        tick = int(u * 119)
        pixels = np.asarray(frame, dtype=np.float32) * tone * vignette[:, :, None] * flicker[tick]
        return Image.fromarray(np.clip(pixels + grain[tick % 8] * amount, 0, 255).astype(np.uint8))

    return lay


def _tape(size: Size, amount: float, random: np.random.Generator) -> Effect:
    width, height = size
    lines = (1 - 0.16 * amount * (np.arange(height) % 2))[:, None, None].astype(np.float32)
    wobble = random.normal(0, 1, (128, height)).cumsum(axis=1)
    shift = max(1, round(width * 0.006))

    def lay(frame: Frame, u: float) -> Frame:
        red, green, blue = frame.split()
        split = Image.merge("RGB", (ImageChops.offset(red, shift, 0), green, ImageChops.offset(blue, -shift, 0)))
        pixels = np.asarray(split).copy()
        band = int((u * 1.7 % 1) * height)
        torn = np.clip(wobble[int(u * 119)] * 0.15 * amount, -width / 30, width / 30).astype(int)
        for row in range(band, min(height, band + height // 12)):
            pixels[row] = np.roll(pixels[row], torn[row] + shift * 3, axis=0)
        return Image.fromarray(np.clip(pixels * lines, 0, 255).astype(np.uint8))

    return lay


def _trail(_size: Size, amount: float, _random: np.random.Generator) -> Effect:
    seen: list[Frame] = []

    def lay(frame: Frame, _u: float) -> Frame:
        mixed = Image.blend(frame, seen[0], 0.55 + 0.3 * amount) if seen else frame
        seen[:] = [mixed]
        return mixed

    return lay


def _focus(size: Size, amount: float, _random: np.random.Generator) -> Effect:
    most = size[1] * 0.025 * amount

    def lay(frame: Frame, u: float) -> Frame:
        radius = most * (0.5 + 0.5 * math.cos(math.tau * u))
        return frame.filter(ImageFilter.GaussianBlur(radius)) if radius > 0.3 else frame

    return lay


def _bent(size: Size, offset: Callable[[Grid, Grid, float], Grid]) -> Effect:
    """Bends the frame by a grid: `offset(x, y, u)` says, in 0..1 coordinates, where each node's colour comes from."""
    columns, rows = 16, 12
    xs, ys = np.meshgrid(np.linspace(0, 1, columns + 1), np.linspace(0, 1, rows + 1))
    scale = np.array(size, dtype=float)
    edges_x = np.linspace(0, size[0], columns + 1).round().astype(int).tolist()
    edges_y = np.linspace(0, size[1], rows + 1).round().astype(int).tolist()

    def lay(frame: Frame, u: float) -> Frame:
        nodes = np.clip(offset(xs, ys, u), 0, 1) * scale
        mesh = []
        for row in range(rows):
            for column in range(columns):
                box = (edges_x[column], edges_y[row], edges_x[column + 1], edges_y[row + 1])
                quad = (nodes[row, column], nodes[row + 1, column], nodes[row + 1, column + 1], nodes[row, column + 1])
                mesh.append((box, tuple(float(value) for corner in quad for value in corner)))
        return frame.transform(size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)

    return lay


def _ripple(size: Size, amount: float, random: np.random.Generator) -> Effect:
    phase = random.random()

    def offset(x: Grid, y: Grid, u: float) -> Grid:
        depth = 0.022 * amount * np.clip((y - 0.15) * 1.6, 0, 1) * min(1.0, 3 * u)
        dx = depth * np.sin(math.tau * (3.0 * y - 2.0 * u + phase))
        dy = depth * np.sin(math.tau * (2.0 * x + 1.7 * u + phase))
        return np.stack((0.03 + 0.94 * x + dx, 0.03 + 0.94 * y + dy), axis=-1)

    return _bent(size, offset)


def _bulge(size: Size, amount: float, _random: np.random.Generator) -> Effect:
    def offset(x: Grid, y: Grid, u: float) -> Grid:
        dx, dy = x - 0.5, y - 0.5
        pull = 1 - 0.75 * amount * u * np.clip(0.5 - (dx**2 + dy**2), 0, 1)
        return np.stack((0.5 + dx * pull, 0.5 + dy * pull), axis=-1)

    return _bent(size, offset)


_MAKERS: Mapping[str, Maker] = {
    "glow": _glow,
    "flare": _flare,
    "flashes": _pulses((255, 255, 250), 9, 30),
    "lightning": _pulses((205, 220, 255), 4, 16),
    "blast": _blast,
    "drift light": _drift_light,
    "film": _film,
    "tape": _tape,
    "trail": _trail,
    "focus": _focus,
    "ripple": _ripple,
    "bulge": _bulge,
}
