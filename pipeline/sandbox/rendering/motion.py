"""The motion presets: the camera move and the effect of each name, and where the camera is when.

A clip is a still image seen by a moving camera. `CameraPose` is that camera at one moment; a path gives it for a beat.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CATALOGUE = Path(__file__).parents[1] / "motions.csv"
FALLBACK = "General"
"""What an id that is not in the catalogue moves like; the document's own example id is such a one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One row of the catalogue."""

    name: str
    motion_id: str
    start_end_frame: bool


@cache
def presets() -> Mapping[str, Preset]:
    """The catalogue by lower-case id, in its own order."""
    with CATALOGUE.open(encoding="utf-8", newline="") as lines:
        rows = [
            Preset(name=row["name"], motion_id=row["id"], start_end_frame=row["start_end_frame"] == "true")
            for row in csv.DictReader(lines)
        ]
    return {row.motion_id.lower(): row for row in rows}


def preset_name(motion_id: str) -> str:
    """Name of the preset with this id, or FALLBACK."""
    preset = presets().get(motion_id.lower())
    return preset.name if preset is not None else FALLBACK


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraPose:
    """The camera at one moment. Zoom 1 shows the whole frame; x, y count widths and heights; angles in radians."""

    zoom: float = 1.0
    x: float = 0.0
    y: float = 0.0
    roll: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AnimationFrame:
    """One moment of a clip, with what the request says about all of it.

    Args:
        u: 0 at the first frame, 1 at the last.
        amount: size of the move, above 0 and at most 1; from the strength.
        side: -1 or 1; from the seed, for moves that have no direction of their own.
        phase: 0..1; from the seed, shifts every tremor.
    """

    u: float
    amount: float
    side: float
    phase: float


CameraPath = Callable[[AnimationFrame], CameraPose]


def ease(u: float) -> float:
    """Slow start and slow end: 0 -> 0, 1 -> 1."""
    u = min(max(u, 0.0), 1.0)
    return u * u * u * (u * (u * 6 - 15) + 10)


def soft(u: float) -> float:
    """Nearly even speed, with softened ends."""
    return 0.6 * u + 0.4 * ease(u)


def tremor(u: float, phase: float, cycles: float) -> float:
    """A smooth wander in about -1..1 that never repeats within a clip."""
    angle = math.tau * (u * cycles + phase)
    return 0.5 * math.sin(angle) + 0.3 * math.sin(2.27 * angle + 1.3) + 0.2 * math.sin(4.11 * angle + 4.2)


def _zoomed(end: float, share: float) -> float:
    return math.pow(end, share)


def _shake(beat: AnimationFrame, size: float, cycles: float, zoom: float = 1.0) -> CameraPose:
    amplitude = size * beat.amount
    return CameraPose(
        zoom=zoom,
        x=amplitude * tremor(beat.u, beat.phase, cycles),
        y=amplitude * tremor(beat.u, beat.phase + 0.37, cycles * 1.13),
        roll=0.8 * amplitude * tremor(beat.u, beat.phase + 0.71, cycles * 0.9),
    )


def _push(far: float, drift: float = 0.02) -> CameraPath:
    def path(beat: AnimationFrame) -> CameraPose:
        share = soft(beat.u)
        return CameraPose(
            zoom=_zoomed(1 + far * beat.amount, share),
            x=beat.side * drift * beat.amount * share,
            yaw=beat.side * drift * beat.amount * (share - 0.5),
        )

    return path


def _reversed(path: CameraPath) -> CameraPath:
    return lambda beat: path(AnimationFrame(u=1 - beat.u, amount=beat.amount, side=beat.side, phase=beat.phase))


def _slide(x: float, y: float, *, yaw: float = 0.0, pitch: float = 0.0) -> CameraPath:
    def path(beat: AnimationFrame) -> CameraPose:
        share = (soft(beat.u) - 0.5) * beat.amount
        return CameraPose(zoom=1.04, x=x * share, y=y * share, yaw=yaw * share, pitch=pitch * share)

    return path


def _whip(beat: AnimationFrame) -> CameraPose:
    share = ease((beat.u - 0.36) / 0.28) - 0.5
    return CameraPose(zoom=1.04 + 0.05 * beat.u, x=beat.side * 0.5 * beat.amount * share)


def _crash(beat: AnimationFrame) -> CameraPose:
    share = ease((beat.u - 0.38) / 0.2)
    after = math.exp(-9 * (beat.u - 0.58)) if beat.u > 0.58 else 0.0
    pose = _shake(beat, 0.02 * after, 16)
    zoom = _zoomed(1 + 1.1 * beat.amount, share) * (1 + 0.03 * beat.u)
    return CameraPose(zoom=zoom, x=pose.x, y=pose.y, roll=pose.roll)


def _yoyo(beat: AnimationFrame) -> CameraPose:
    share = 0.5 - 0.5 * math.cos(math.tau * 2 * beat.u)
    return CameraPose(zoom=_zoomed(1 + 0.55 * beat.amount, share))


def _orbit(beat: AnimationFrame) -> CameraPose:
    swing = math.sin(math.pi * (soft(beat.u) - 0.5)) * beat.amount * beat.side
    return CameraPose(zoom=1.06 + 0.05 * beat.amount, x=0.07 * swing, yaw=0.34 * swing, roll=-0.015 * swing)


def _bullet(beat: AnimationFrame) -> CameraPose:
    share = ease(min(1.0, beat.u * 1.15)) - 0.5
    swing = 2 * share * beat.amount * beat.side
    return CameraPose(
        zoom=1.1 + 0.22 * beat.amount * ease(beat.u), x=0.05 * swing, yaw=0.36 * swing, pitch=0.04 * swing
    )


def _dutch(beat: AnimationFrame) -> CameraPose:
    share = ease(beat.u)
    return CameraPose(zoom=1 + 0.12 * share * beat.amount, roll=beat.side * 0.26 * beat.amount * share)


def _roll_over(beat: AnimationFrame) -> CameraPose:
    return CameraPose(
        zoom=1 + 0.25 * beat.amount * math.sin(math.pi * beat.u), roll=beat.side * math.tau * ease(beat.u)
    )


def _drone(beat: AnimationFrame) -> CameraPose:
    bank = tremor(beat.u, beat.phase, 0.8)
    return CameraPose(
        zoom=_zoomed(1 + 0.9 * beat.amount, soft(beat.u)),
        x=0.05 * beat.amount * bank,
        y=0.02 * beat.amount * tremor(beat.u, beat.phase + 0.4, 0.9),
        roll=-0.11 * beat.amount * bank,
        yaw=0.08 * beat.amount * bank,
    )


def _ride(beat: AnimationFrame) -> CameraPose:
    weave = math.sin(math.tau * (1.4 * beat.u + beat.phase))
    jolt = tremor(beat.u, beat.phase, 9)
    return CameraPose(
        zoom=_zoomed(1 + 0.4 * beat.amount, soft(beat.u)),
        x=0.045 * beat.amount * weave,
        y=0.006 * beat.amount * jolt,
        roll=0.09 * beat.amount * weave,
    )


def _general(beat: AnimationFrame) -> CameraPose:
    pose = _push(0.24)(beat)
    hand = _shake(beat, 0.006, 1.6)
    return CameraPose(zoom=pose.zoom, x=pose.x + hand.x, y=hand.y, roll=hand.roll, yaw=pose.yaw)


def _still(beat: AnimationFrame) -> CameraPose:
    return CameraPose(zoom=1.006 + 0.006 * beat.amount * math.sin(math.tau * (0.5 * beat.u + beat.phase)))


def _rise(beat: AnimationFrame) -> CameraPose:
    bob = math.sin(math.tau * (0.9 * beat.u + beat.phase))
    return CameraPose(
        zoom=1.08, y=-0.1 * beat.amount * (soft(beat.u) - 0.5) + 0.008 * bob, roll=0.01 * beat.amount * bob
    )


PATHS: Mapping[str, CameraPath] = {
    "general": _general,
    "static": _still,
    "push": _push(0.45),
    "pull": _reversed(_push(0.45)),
    "super push": _push(1.1, 0.03),
    "super pull": _reversed(_push(1.1, 0.03)),
    "zoom": _push(0.6, 0.0),
    "unzoom": _reversed(_push(0.6, 0.0)),
    "far unzoom": _reversed(_push(1.6, 0.0)),
    "crash in": _crash,
    "crash out": _reversed(_crash),
    "yoyo": _yoyo,
    "left": _slide(-0.24, 0.0, yaw=-0.03),
    "right": _slide(0.24, 0.0, yaw=0.03),
    "whip": _whip,
    "up": _slide(0.0, -0.22, pitch=-0.03),
    "down": _slide(0.0, 0.22, pitch=0.03),
    "crane up": _slide(0.0, -0.2, pitch=0.26),
    "crane down": _slide(0.0, 0.2, pitch=-0.26),
    "orbit": _orbit,
    "arc left": _slide(-0.1, 0.0, yaw=-0.42),
    "arc right": _slide(0.1, 0.0, yaw=0.42),
    "bullet": _bullet,
    "dutch": _dutch,
    "roll": _roll_over,
    "drone": _drone,
    "ride": _ride,
    "rise": _rise,
    "handheld": lambda beat: _shake(beat, 0.028, 2.4, 1.02),
    "quake": lambda beat: _shake(beat, 0.03, 14, 1.02),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionStyle:
    """What a preset looks like here: a key of PATHS and the name of an effect (`""` = none)."""

    path: str
    effect: str = ""


_LOOKS: tuple[tuple[str, str, str], ...] = (
    ("super dolly in", "super push", ""),
    ("super dolly out", "super pull", ""),
    ("dolly zoom in", "push", "bulge"),
    ("dolly zoom out", "pull", "bulge"),
    ("double dolly", "super push", ""),
    ("dolly in", "push", ""),
    ("dolly out", "pull", ""),
    ("dolly left", "left", ""),
    ("dolly right", "right", ""),
    ("crash zoom in", "crash in", ""),
    ("crash zoom out", "crash out", ""),
    ("earth zoom", "far unzoom", ""),
    ("yoyo", "yoyo", ""),
    ("zoom in", "zoom", ""),
    ("zoom out", "unzoom", ""),
    ("360 orbit", "orbit", ""),
    ("lazy susan", "orbit", ""),
    ("3d rotation", "orbit", ""),
    ("arc left", "arc left", ""),
    ("arc right", "arc right", ""),
    ("bullet", "bullet", ""),
    ("crane up", "crane up", ""),
    ("jib up", "crane up", ""),
    ("crane", "crane down", ""),
    ("jib", "crane down", ""),
    ("overhead", "crane down", ""),
    ("incline", "up", ""),
    ("tilt up", "up", ""),
    ("tilt down", "down", ""),
    ("whip", "whip", ""),
    ("moonwalk left", "left", ""),
    ("moonwalk right", "right", ""),
    ("dutch", "dutch", ""),
    ("roll transition", "roll", ""),
    ("fisheye", "general", "bulge"),
    ("drone", "drone", ""),
    ("flying", "drone", ""),
    ("pov", "drone", ""),
    ("downhill", "drone", ""),
    ("powder explosion", "handheld", "powder"),
    ("ski powder", "ride", "snow"),
    ("snowboard powder", "ride", "snow"),
    ("ski", "ride", "snow"),
    ("snowboard", "ride", "snow"),
    ("skate", "ride", ""),
    ("car chasing", "ride", ""),
    ("car grip", "ride", ""),
    ("explosion", "quake", "blast"),
    ("levitation", "rise", ""),
    ("soul jump", "rise", "glow"),
    ("jelly", "rise", "motes"),
    ("fish", "rise", "motes"),
    ("handheld", "handheld", ""),
    ("snorricam", "handheld", ""),
    ("head tracking", "handheld", ""),
    ("action run", "handheld", ""),
    ("wiggle", "quake", ""),
    ("punch", "crash in", ""),
    ("boxing", "quake", ""),
    ("kick", "crash in", ""),
    ("dunk", "crash in", ""),
    ("eyes in", "super push", ""),
    ("mouth in", "super push", ""),
    ("object in", "super push", ""),
    ("object out", "super pull", ""),
    ("push to glass", "push", ""),
    ("robo arm", "bullet", ""),
    ("hyperlapse", "super push", "drift light"),
    ("timelapse", "static", "drift light"),
    ("static", "static", ""),
    ("fire", "general", "embers"),
    ("disintegration", "general", "ash"),
    ("sand storm", "handheld", "sand"),
    ("wind", "handheld", "petals"),
    ("garden", "general", "petals"),
    ("floral", "general", "petals"),
    ("bloom", "general", "petals"),
    ("paint", "general", "petals"),
    ("freezing", "general", "snow"),
    ("thunder", "quake", "lightning"),
    ("paparazzi", "handheld", "flashes"),
    ("glam", "general", "motes"),
    ("diamond", "orbit", "motes"),
    ("angel", "rise", "glow"),
    ("innerlight", "push", "glow"),
    ("glowshift", "general", "glow"),
    ("flare", "general", "flare"),
    ("dirty lens", "general", "motes"),
    ("super 8", "handheld", "film"),
    ("vhs", "static", "tape"),
    ("datamosh", "general", "tape"),
    ("low shutter", "handheld", "trail"),
    ("focus", "static", "focus"),
    ("flood", "general", "ripple"),
    ("melting", "general", "ripple"),
    ("metal", "orbit", "drift light"),
)
"""First match of the lower-case name wins; names without a match (people acting) move like FALLBACK."""


def motion_style(name: str) -> MotionStyle:
    """Camera path and effect of a preset."""
    lower = name.lower()
    for word, path, effect in _LOOKS:
        if word in lower:
            return MotionStyle(path=path, effect=effect)
    return MotionStyle(path="general")


def poses(look: MotionStyle, *, frames: int, strength: float, side: float, phase: float) -> list[CameraPose]:
    """The camera for every frame of a clip."""
    amount = 0.15 + 0.85 * strength
    path = PATHS[look.path]
    last = max(1, frames - 1)
    return [path(AnimationFrame(u=frame / last, amount=amount, side=side, phase=phase)) for frame in range(frames)]
