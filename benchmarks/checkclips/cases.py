"""The cases of the benchmark: what clip to make, with which picture, preset, coding and defect; and the clip itself."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from benchmarks.checkclips.camera import Move, Subject, look_of, quake, roll, shoot, still, yoyo
from benchmarks.checkclips.defects import IN_FRAMES, Frames, flicker
from benchmarks.checkclips.effects import as_model, make_effect
from benchmarks.checkclips.pictures import HELD_OUT, TUNED, Random, paint

CODECS = {
    "h264": ("libx264", {"preset": "veryfast"}),
    "hevc": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none:pools=1"}),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "b": "0"}),
    "av1": ("libsvtav1", {"preset": "11"}),  # limited to one thread it deadlocks on some clips
}
SIZES = ((320, 180), (384, 216), (426, 240), (240, 320), (480, 270), (640, 360), (288, 288))
RATES = (12, 15, 16, 24, 24, 24, 25, 30)
HELD_OUT_SIZES = ((512, 288), (360, 640), (768, 432), (400, 300), (352, 198))
HELD_OUT_RATES = (18, 20, 24, 25, 30, 48)
WHOLE = ("unreadable", "format", "still", "wrong_start", "wrong_end", "duplicate", "loop_seam")
KINDS = (*IN_FRAMES, *WHOLE)
EXTRAS = ("", "grain", "candle", "rain", "cadence", "fade", "fade_out", "subject", "")
RETURNING = (still, quake, yoyo, roll)
"""Paths whose last step leads on to the first as well as any other step does."""

FLICKER = 0.02
"""Relative second difference of brightness that a clip with flicker must have in the file: codecs take some away."""

NOT_IN_THE_DARK = ("cut", "flicker", "soft", "frozen", "color_drift", "duplicate", "format")
STILL_PRESETS = {"Static", "Focus Change", "VHS", "Timelapse Human", "Timelapse Landscape"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One clip to make. `kind` is the defect, `good` without one."""

    number: int
    kind: str
    preset: str
    extra: str = ""
    severity: float = 1.0
    held_out: bool = False
    size: tuple[int, int] = (384, 216)
    fps: int = 24
    codec: str = "h264"
    crf: int = 23


@dataclass(slots=True, kw_only=True)
class Made:
    """A clip that was made, with what its request says."""

    case: Case
    clip: Path
    start: Path
    end: Path | None = None
    loop: bool = False
    twin: Path | None = None
    twin_start: Path | None = None
    notes: dict[str, float] = field(default_factory=dict)


def make_cases(presets: list[str], *, good: int, each: int, seed: int, held_out: bool) -> list[Case]:
    """Good clips of every preset, and `each` broken ones of every kind over presets in turn."""
    random = np.random.default_rng([seed, int(held_out)])
    wanted = [("good", preset) for preset in presets for _ in range(good)]
    spread = itertools.cycle(random.permutation(presets).tolist())
    for kind in KINDS:
        taken = 0
        while taken < each:
            preset = next(spread)
            if allowed(kind, preset):
                wanted.append((kind, preset))
                taken += 1
    return [_case(number, kind, preset, random, held_out) for number, (kind, preset) in enumerate(wanted)]


def allowed(kind: str, preset: str) -> bool:
    """Whether the defect is one in a clip of this preset: some promise it."""
    promised = {
        "still": STILL_PRESETS | {"Freezing"},
        "frozen": {"Datamosh", "Freezing", *STILL_PRESETS},
        "flash": {"Paparazzi", "Thunder God", "Lens Flare", "Super 8MM", "Glam", "Datamosh"},
        "flicker": {"Paparazzi", "Thunder God", "Super 8MM", "VHS", "Datamosh", "Hyperlapse", "Timelapse Landscape"},
        "soft": {"Focus Change", "Low Shutter", "Datamosh", "Sand Storm"},
        "color_drift": {
            "Set on Fire",
            "Freezing",
            "Turning Metal",
            "Glowshift",
            "Innerlight",
            "Super 8MM",
            "Timelapse Landscape",
        },
        "strobe": {"Datamosh"},
        "loop_seam": STILL_PRESETS,
    }
    if kind == "loop_seam" and look_of(preset)[0] in RETURNING:
        return False
    named = promised.get(kind, set())
    return preset not in named and not (kind in ("flash", "color_drift") and "Explosion" in preset)


def _case(number: int, kind: str, preset: str, random: Random, held_out: bool) -> Case:
    codec = str(random.choice(list(CODECS), p=[0.4, 0.2, 0.2, 0.2] if held_out else [0.64, 0.14, 0.11, 0.11]))
    sizes, rates = (HELD_OUT_SIZES, HELD_OUT_RATES) if held_out else (SIZES, RATES)
    extras = [
        extra
        for extra in EXTRAS
        if not (extra == "fade_out" and kind != "good") and not (extra == "candle" and kind == "flicker")
    ]
    if kind in ("still", "frozen"):
        extras = ["", "grain"] if kind == "still" else ["", "grain", "subject"]
    return Case(
        number=number, kind=kind, preset=preset, held_out=held_out, codec=codec,
        extra=str(random.choice(extras)),
        severity=float(random.choice([0.0, 1.0])),
        size=sizes[int(random.integers(0, len(sizes)))],
        fps=rates[int(random.integers(0, len(rates)))],
        crf=int(random.integers(18, 31)) + (8 if codec in ("vp9", "av1") else 0),
    )  # fmt: skip


def make(case: Case, folder: Path, *, seed: int) -> Made:
    """Draw the clip of a case and write its files."""
    random = np.random.default_rng([seed, case.number, int(case.held_out)])
    pictures = HELD_OUT if case.held_out else TUNED
    scale = random.uniform(1.6, 2.2)
    size = (round(case.size[0] * scale), round(case.size[1] * scale))
    names = list(pictures)
    scene, other_scene, end_scene = (str(name) for name in random.choice(names, 3, replace=False))
    if case.kind in NOT_IN_THE_DARK and {scene, other_scene} & {"dark"}:
        scene, other_scene = "city", "landscape"  # in the dark a cut is black, and the others cannot be seen
    picture, other = paint(scene, random, size), paint(other_scene, random, size)
    end = (
        paint(end_scene, random, size)
        if case.kind == "wrong_end" or (case.kind == "good" and random.random() < 0.12)
        else None
    )
    frames = _frames(case, picture, random, end=end if case.kind == "good" else None)
    good, fps = frames, case.fps
    if case.kind in IN_FRAMES:
        others = _frames(case, other, random, end=None)
        frames = IN_FRAMES[case.kind](frames, fps, case.severity, random, others)
    made = Made(
        case=case, clip=folder / f"{case.number:05}-{case.kind}.mp4", start=folder / f"{case.number:05}.start.png"
    )
    (other if case.kind == "wrong_start" else picture).save(made.start)
    if end is not None:
        made.end = folder / f"{case.number:05}.end.png"
        end.save(made.end)
    made.loop = case.kind == "loop_seam"
    if case.kind in ("unreadable", "format", "duplicate"):
        _make_special(case, frames, made, random)
    else:
        encode(frames, fps, made.clip, case.codec, case.crf)
    for stronger in range(1, 4) if case.kind == "flicker" else ():
        if flicker_in(made.clip) >= FLICKER:
            break
        encode(flicker(good, fps, case.severity + stronger, random, good), fps, made.clip, case.codec, case.crf)
    return made


def flicker_in(clip: Path) -> float:
    """Largest root mean square over a second of the relative second difference of the frames' mean brightness."""
    with av.open(str(clip)) as container:
        means = np.array([frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)])
    second = np.diff(means, 2) / np.maximum(1, means[1:-1])
    window = max(2, len(means) // 5)
    power = np.convolve(second**2, np.full(window, 1 / window), mode="valid")
    return float(np.sqrt(power.max()))


def _frames(case: Case, picture: Image.Image, random: Random, *, end: Image.Image | None) -> Frames:
    """The frames of a good clip."""
    path, effect_name = look_of(case.preset)
    if case.kind == "still":
        path, effect_name = still, ""
    source = as_model(picture, random, 1.0 if not case.held_out else 1.2)
    target = None if end is None else as_model(end, random, 1.0).resize(source.size)
    amount = float(random.uniform(0.3, 1.0))
    move = Move(amount=amount, side=float(random.choice([-1.0, 1.0])), phase=float(random.random()))
    effect = make_effect(effect_name, case.size, random, amount)
    light = make_effect(case.extra, case.size, random, amount) if case.extra in ("candle", "rain") else None
    subject = (
        Subject(source, random)
        if case.extra == "subject" or (case.kind != "still" and random.random() < 0.35)
        else None
    )
    noise = random.uniform(2, 7) if case.extra == "grain" else 0.0
    count = 5 * case.fps
    frames: Frames = []
    for number in range(count):
        u = (number - number % 2 if case.extra == "cadence" else number) / (count - 1)
        drawn = source if subject is None else subject.on(source, u)
        if target is not None:
            share = min(1.0, max(0.0, (u - 0.25) / 0.6))
            drawn = Image.blend(drawn, target, share) if share > 0 else drawn
        pose = (
            path(u, move)
            if case.kind != "still"
            else (1.03 + random.uniform(0, 0.0) + 0.003 * u * case.severity, 0.0, 0.0, 0.0, 0.0)
        )
        pixels = np.asarray(shoot(drawn, pose, case.size), dtype=np.float32).copy()
        for layer in (effect, light):
            pixels = pixels if layer is None else layer(pixels, u)
        if case.extra == "fade":
            pixels = pixels * (1 - 0.5 * u)
        if case.extra == "fade_out":
            pixels = pixels * min(1.0, max(0.0, (1.0 - u) / 0.15))
        if noise:
            pixels = pixels + random.normal(0, noise, pixels.shape[:2]).astype(np.float32)[:, :, None]
        frames.append(np.clip(pixels, 0, 255))
    return frames


def _make_special(case: Case, frames: Frames, made: Made, random: Random) -> None:
    """Broken files, odd formats, and clips that are bought twice."""
    if case.kind == "duplicate":
        encode(frames, case.fps, made.clip, case.codec, case.crf)
        made.twin = made.clip.with_suffix(".twin.mp4")
        resized = [
            np.asarray(
                Image.fromarray(f.astype(np.uint8)).resize(
                    (case.size[0] * 3 // 4 // 2 * 2, case.size[1] * 3 // 4 // 2 * 2)
                )
            )
            for f in frames
        ]
        encode(resized if case.severity < 0.5 else frames, case.fps, made.twin, "h264", 28)
    elif case.kind == "unreadable":
        encode(frames, case.fps, made.clip, case.codec, case.crf)
        content = bytearray(made.clip.read_bytes())
        kind = int(random.integers(0, 4))
        if kind == 0:
            content = content[: int(len(content) * random.uniform(0.3, 0.8))]
        elif kind == 1:
            at = int(len(content) * random.uniform(0.4, 0.7))
            content[at : at + 4000] = bytes(4000)
        elif kind == 2:
            at = int(len(content) * random.uniform(0.4, 0.7))
            content[at : at + 3000] = random.bytes(3000)
        else:
            content = bytearray(random.choice([b"", b"<html>not found</html>", random.bytes(5000)]))
        made.clip.write_bytes(bytes(content))
    else:
        kind = int(random.integers(0, 5))
        if kind == 0:
            encode(frames[: int(len(frames) * random.uniform(0.2, 0.7))], case.fps, made.clip, case.codec, case.crf)
        elif kind == 1:
            encode(frames[::6] if case.fps > 24 else frames[:: case.fps // 6], 6, made.clip, case.codec, case.crf)
        elif kind == 2:
            encode(frames, case.fps, made.clip, "mpeg4", case.crf)
        elif kind == 3:
            tiny = [np.asarray(Image.fromarray(f.astype(np.uint8)).resize((160, 90))) for f in frames]
            encode(tiny, case.fps, made.clip, "h264", case.crf)
        else:
            squeezed = [
                np.asarray(Image.fromarray(f.astype(np.uint8)).resize((case.size[0] * 7 // 10 // 2 * 2, case.size[1])))
                for f in frames
            ]
            encode(squeezed, case.fps, made.clip, case.codec, case.crf)


def encode(frames: Frames, fps: int, target: Path, codec: str, crf: int) -> None:
    """Write frames as an MP4 whose index comes first, so that half a file still opens."""
    name, options = CODECS.get(codec, (codec, {}))
    height, width = frames[0].shape[:2]
    with av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(name, rate=fps)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, fps)
        stream.thread_count = 1
        stream.options = {**options, **({} if codec == "mpeg4" else {"crf": str(crf)})}
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    if hasattr(os, "sched_setscheduler"):
        # As root the AV1 encoder makes its caller a real-time process, which would keep every other one from the cores.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def numbered(cases: list[Case]) -> Iterator[Case]:
    """The cases in an order that mixes kinds, so that a part of them says something about all."""
    step = 37
    for start in range(step):
        yield from cases[start::step]
