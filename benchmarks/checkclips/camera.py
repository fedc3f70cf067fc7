"""Camera paths for the presets, and frames: a picture seen through a moving frame, with things that move in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from benchmarks.checkclips.pictures import Random

Pose = tuple[float, float, float, float, float]
"""zoom, x, y (in widths), roll (radians), tilt (perspective, -1..1)"""

Path = Callable[[float, "Move"], Pose]


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """The size of a move, its direction (-1, 1) and a phase 0..1 that shifts every tremor."""

    amount: float
    side: float
    phase: float


def ease(u: float) -> float:
    """Slow start, slow end."""
    u = min(1.0, max(0.0, u))
    return u * u * (3 - 2 * u)


def wander(u: float, phase: float, cycles: float) -> float:
    """A smooth path in -1..1 that does not repeat."""
    a = math.tau * (cycles * u + phase)
    return 0.55 * math.sin(a) + 0.3 * math.sin(1.9 * a + 1) + 0.15 * math.sin(3.7 * a + 2)


def _hand(u: float, m: Move, size: float, cycles: float) -> tuple[float, float, float]:
    s = size * m.amount
    return (
        s * wander(u, m.phase, cycles),
        s * wander(u, m.phase + 0.4, cycles * 1.2),
        s * wander(u, m.phase + 0.7, cycles),
    )


def push(u: float, m: Move) -> Pose:
    return (1 + 0.5 * m.amount * (0.5 * u + 0.5 * ease(u)), 0.01 * m.side * u, 0, 0, 0)


def pull(u: float, m: Move) -> Pose:
    return push(1 - u, m)


def far_push(u: float, m: Move) -> Pose:
    return ((1 + 1.3 * m.amount) ** ease(u), 0, 0, 0, 0)


def far_pull(u: float, m: Move) -> Pose:
    return far_push(1 - u, m)


def slide(u: float, m: Move) -> Pose:
    return (1.3, m.side * 0.2 * m.amount * (u - 0.5), 0, 0, 0)


def crane(u: float, m: Move) -> Pose:
    return (1.35, 0, m.side * 0.12 * m.amount * (ease(u) - 0.5), 0, m.side * 0.3 * m.amount * (u - 0.5))


def orbit(u: float, m: Move) -> Pose:
    return (
        1.35,
        m.side * 0.1 * m.amount * (u - 0.5),
        0,
        0.05 * m.side * (u - 0.5),
        m.side * 0.5 * m.amount * (u - 0.5),
    )


def whip(u: float, m: Move) -> Pose:
    return (
        1.7,
        m.side * 0.38 * m.amount * (ease((u - 0.42) / 0.14) - 0.5) + 0.004 * u,
        0.002 * wander(u, m.phase, 2),
        0,
        0,
    )


def crash(u: float, m: Move) -> Pose:
    x, y, r = _hand(u, m, 0.004, 3)
    return (1.04 * (1 + 1.0 * m.amount * ease((u - 0.4) / 0.12)), x, y, r, 0)


def crash_out(u: float, m: Move) -> Pose:
    return crash(1 - u, m)


def yoyo(u: float, m: Move) -> Pose:
    return (1.02 + 0.4 * m.amount * (0.5 - 0.5 * math.cos(math.tau * 2 * u)), 0, 0, 0, 0)


def roll(u: float, m: Move) -> Pose:
    return (1.9, 0, 0, m.side * math.tau * ease((u - 0.3) / 0.35), 0)


def dutch(u: float, m: Move) -> Pose:
    return (1.4, 0, 0, m.side * 0.25 * m.amount * ease(u), 0)


def handheld(u: float, m: Move) -> Pose:
    x, y, r = _hand(u, m, 0.025, 2.2)
    return (1.15, x, y, r, 0)


def quake(u: float, m: Move) -> Pose:
    x, y, r = _hand(u, m, 0.02, 13)
    return (1.15, x, y, r, 0)


def ride(u: float, m: Move) -> Pose:
    x, y, r = _hand(u, m, 0.012, 7)
    return (
        1.25 + 0.35 * m.amount * u,
        x + 0.04 * math.sin(math.tau * (1.3 * u + m.phase)),
        y,
        r + 0.06 * math.sin(math.tau * 1.3 * u),
        0,
    )


def general(u: float, m: Move) -> Pose:
    x, y, r = _hand(u, m, 0.006, 1.4)
    return (1.04 + 0.18 * m.amount * u, x, y, r, 0)


def rise(u: float, m: Move) -> Pose:
    return (1.25, 0, 0.07 * m.amount * (u - 0.5) + 0.006 * math.sin(math.tau * u), 0, 0)


def still(u: float, m: Move) -> Pose:
    return (1.03 + 0.001 * u, 0, 0, 0, 0)


PATHS: tuple[tuple[str, Path, str], ...] = (
    ("super dolly in", far_push, ""), ("super dolly out", far_pull, ""), ("double dolly", far_push, ""),
    ("dolly in", push, ""), ("dolly out", pull, ""), ("dolly left", slide, ""), ("dolly right", slide, ""),
    ("dolly zoom in", push, ""), ("dolly zoom out", pull, ""), ("crash zoom in", crash, ""),
    ("crash zoom out", crash_out, ""), ("earth zoom", far_pull, ""), ("yoyo", yoyo, ""), ("zoom in", push, ""),
    ("zoom out", pull, ""), ("orbit", orbit, ""), ("lazy", orbit, ""), ("3d", orbit, ""), ("arc", orbit, ""),
    ("bullet", orbit, ""), ("crane", crane, ""), ("jib", crane, ""), ("overhead", crane, ""), ("incline", crane, ""),
    ("tilt", crane, ""), ("whip", whip, ""), ("moonwalk", slide, ""), ("dutch", dutch, ""), ("roll trans", roll, ""),
    ("drone", ride, ""), ("flying", ride, ""), ("pov", ride, ""), ("powder explosion", handheld, "powder"),
    ("powder", ride, "snow"), ("carving", ride, "snow"), ("skate", ride, ""), ("car chasing", ride, ""),
    ("car grip", ride, ""), ("explosion", quake, "blast"), ("levitation", rise, ""), ("soul", rise, "glow"),
    ("jelly", rise, "motes"), ("fish", rise, "motes"), ("handheld", handheld, ""), ("snorri", handheld, ""),
    ("tracking", handheld, ""), ("action run", quake, ""), ("wiggle", quake, ""), ("punch", crash, ""),
    ("boxing", quake, ""), ("kick", crash, ""), ("dunks", crash, ""), ("eyes in", far_push, ""),
    ("mouth in", far_push, ""), ("object in", far_push, ""), ("object out", far_pull, ""), ("glass", push, ""),
    ("robo", orbit, ""), ("hyperlapse", far_push, "daylight"), ("timelapse", still, "daylight"),
    ("static", still, ""), ("fire", general, "embers"), ("disintegration", general, "powder"),
    ("sand storm", handheld, "powder"), ("wind", handheld, "motes"), ("freezing", general, "snow"),
    ("thunder", general, "lightning"), ("paparazzi", handheld, "flashes"), ("glam", general, "motes"),
    ("innerlight", push, "glow"), ("glowshift", general, "glow"), ("flare", general, "flare"),
    ("super 8", handheld, "film"), ("vhs", still, "tape"), ("datamosh", general, "mosh"),
    ("low shutter", handheld, "trail"), ("focus", still, "focus"), ("flood", general, "ripple"),
    ("melting", general, "ripple"), ("metal", general, "daylight"),
)  # fmt: skip


def look_of(preset: str) -> tuple[Path, str]:
    """Path and effect of a preset: the first word that its name holds."""
    lower = preset.lower()
    return next(((path, effect) for word, path, effect in PATHS if word in lower), (general, ""))


def shoot(picture: Image.Image, pose: Pose, size: tuple[int, int]) -> Image.Image:
    """The picture seen from a pose; edges repeat by mirroring, so that no frame shows a border."""
    zoom, x, y, roll_by, tilt = pose
    width, height = size
    pw, ph = picture.size
    scale = min(pw / width, ph / height) / zoom
    c, s = math.cos(roll_by) * scale, math.sin(roll_by) * scale
    cx, cy = pw / 2 + x * pw, ph / 2 + y * pw
    g = 0.35 * tilt / width
    matrix = np.array(
        [[c, -s, cx - c * width / 2 + s * height / 2], [s, c, cy - s * width / 2 - c * height / 2], [0, 0, 1]]
    )
    centre = np.array([[1, 0, width / 2], [0, 1, height / 2], [0, 0, 1]])
    m = matrix @ centre @ np.array([[1, 0, 0], [0, 1, 0], [g, 0, 1]]) @ np.linalg.inv(centre) if tilt else matrix
    m = m / m[2, 2]
    return picture.transform(size, Image.Transform.PERSPECTIVE, tuple(m.ravel()[:8]), Image.Resampling.BILINEAR)


class Subject:
    """Something that moves in the picture: a piece of it, carried along a path of its own."""

    def __init__(self, picture: Image.Image, random: Random) -> None:
        width, height = picture.size
        side = int(height * random.uniform(0.12, 0.3))
        left, top = int(random.integers(0, width - side)), int(random.integers(0, height - side))
        self._piece = picture.crop((left, top, left + side, top + side))
        y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
        self._mask = Image.fromarray((255 * np.clip(2.5 - 2.5 * np.hypot(x, y), 0, 1)).astype(np.uint8))
        self._at = (random.uniform(0.3, 0.6) * width, random.uniform(0.3, 0.6) * height)
        self._reach = random.uniform(0.03, 0.12) * width
        self._phase = random.random()

    def on(self, picture: Image.Image, u: float) -> Image.Image:
        """The picture with the piece where it is at that moment; its path starts at the place where it is at u = 0."""
        dx = self._reach * (wander(u, self._phase, 0.8) - wander(0, self._phase, 0.8))
        dy = self._reach * 0.5 * (wander(u, self._phase + 0.3, 0.8) - wander(0, self._phase + 0.3, 0.8))
        result = picture.copy()
        result.paste(self._piece, (int(self._at[0] + dx), int(self._at[1] + dy)), self._mask)
        return result


MOVES: Mapping[str, Path] = {path.__name__: path for _, path, _ in PATHS}
