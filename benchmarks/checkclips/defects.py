"""Defects put into the frames of a good clip, each with its severity: 1 is clear, 0 is medium."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from benchmarks.checkclips.effects import Pixels, blur
from benchmarks.checkclips.pictures import Random

Frames = list[Pixels]

Defect = Callable[[Frames, float, float, Random, Frames], Frames]
"""(frames, frames per second, severity 0..1, random, frames of another scene) -> frames"""


def frozen(frames: Frames, fps: float, severity: float, random: Random, other: Frames) -> Frames:
    length = math.ceil((0.62 + 1.2 * severity * random.random() + 0.2 * severity) * fps)
    start = int(random.integers(2, max(3, len(frames) - length - 1)))
    held = frames[:start] + [frames[start]] * length + frames[start:]
    if random.random() < 0.5:  # the rest continues where it was, or where it would have been
        return held[: len(frames)]
    return frames[:start] + [frames[start]] * length + frames[start + length :]


def black(frames: Frames, fps: float, severity: float, random: Random, other: Frames) -> Frames:
    length = 2 + int(severity * random.integers(0, 12))
    start = int(random.integers(3, len(frames) - length - 2))
    colour = random.choice([np.zeros(3), np.full(3, 255.0), random.uniform(0, 255, 3)], p=[0.6, 0.1, 0.3])
    blank = np.broadcast_to(colour.astype(np.float32), frames[0].shape)
    return frames[:start] + [blank] * length + frames[start + length :]


def flash(frames: Frames, fps: float, severity: float, random: Random, other: Frames) -> Frames:
    length, result = int(random.integers(1, 4)), list(frames)
    start = int(random.integers(3, len(frames) - length - 3))
    off = 24 + 60 * severity * random.random()
    mean = float(np.mean(frames[start]))
    kind, tint = (
        random.random(),
        np.array([[off * 1.9, -off, -off * 0.5], [-off, off * 1.6, -off]][int(random.integers(0, 2))]),
    )
    for number in range(start, start + length):
        if kind < 0.6 and mean + off < 235:
            result[number] = frames[number] + (255 - frames[number]) * (off / (255 - mean))
        elif kind < 0.8 and mean > off + 15:
            result[number] = frames[number] * (1 - off / mean)
        else:
            result[number] = frames[number] + tint.astype(np.float32)
    return [np.clip(frame, 0, 255) for frame in result]


def cut(frames: Frames, fps: float, severity: float, random: Random, other: Frames) -> Frames:
    at = int(len(frames) * random.uniform(0.15, 0.85))
    return frames[:at] + other[at:]


def flicker(frames: Frames, fps: float, severity: float, random: Random, other: Frames) -> Frames:
    wanted = random.uniform(0.03, 0.05) + severity * random.uniform(0.02, 0.1)
    kind, n = int(random.integers(0, 3)), np.arange(len(frames))
    wave = (
        (-1.0) ** n
        if kind == 0
        else random.normal(size=len(frames))
        if kind == 1
        else np.sin(math.tau * n / random.uniform(2.4, 4.2))
    )
    wave = wave / np.sqrt(np.mean(np.diff(wave, 2) ** 2)) * wanted
    start = int(random.uniform(0, 0.4) * len(frames)) if random.random() < 0.5 else 0
    length = len(frames) if random.random() < 0.6 else int(1.6 * fps)
    wave[:start] = 0
    wave[start + length :] = 0
    most = 1.0 if float(np.mean(frames[0])) < 120 else float(1 + np.abs(wave).max())  # bright frames would be clipped
    return [np.clip(frame * ((1 + gain) / most), 0, 255) for frame, gain in zip(frames, wave, strict=True)]


def strobe(frames: Frames, fps: float, severity: float, random: Random, other: Frames) -> Frames:
    every = int(random.integers(1, 7))
    start = int(random.uniform(0, 0.4) * len(frames))
    length = math.ceil(2.2 * fps + severity * random.random() * fps)
    shots = [
        frames[0],
        other[0],
        other[0][::-1],
        frames[0][:, ::-1],
        255 - frames[0],
        other[0][:, ::-1],
        255 - other[0],
    ]
    result = list(frames)
    last = -1
    for number in range(start, min(len(frames), start + length)):
        if (number - start) % every == 0:
            last = int(random.choice([i for i in range(len(shots)) if i != last]))
        result[number] = shots[last]
    return result


def soft(frames: Frames, fps: float, severity: float, random: Random, other: Frames) -> Frames:
    """Blur that grows towards the end, until the last frame has lost its share of fine detail."""
    share = random.uniform(0.25, 0.36) if severity < 0.5 else random.uniform(0.06, 0.2)
    sharp = _fine(frames[-1])
    low, high = 0.0, frames[0].shape[0] * 0.08
    for _ in range(9):
        middle = (low + high) / 2
        low, high = (middle, high) if _fine(blur(frames[-1], middle)) > share * sharp else (low, middle)
    start = random.uniform(0.0, 0.7)
    ramp = [min(1.0, max(0.0, (n / len(frames) - start) / max(0.05, 0.85 - start))) for n in range(len(frames))]
    return [blur(frame, high * step) for frame, step in zip(frames, ramp, strict=True)]


def _fine(frame: Pixels) -> float:
    luma = frame.mean(axis=2)
    step = max(1, round(max(luma.shape) / 320))
    luma = luma[: luma.shape[0] // step * step, : luma.shape[1] // step * step]
    small = luma.reshape(luma.shape[0] // step, step, luma.shape[1] // step, step).mean(axis=(1, 3))
    laplacian = 4 * small[1:-1, 1:-1] - small[:-2, 1:-1] - small[2:, 1:-1] - small[1:-1, :-2] - small[1:-1, 2:]
    return float(laplacian.std())


def color_drift(frames: Frames, fps: float, severity: float, random: Random, other: Frames) -> Frames:
    """A tint or a loss of colour that grows and stays: 13 to 30 of 255 in mean chroma."""
    off = 13 + 3 * random.random() + 14 * severity * random.random()
    end = frames[-1].mean(axis=(0, 1))
    start, stop = random.uniform(0, 0.4), random.uniform(0.6, 0.8)
    colourful = float(np.mean(frames[-1].max(axis=2) - frames[-1].min(axis=2)))
    kind = 0 if colourful < 1.6 * off else int(random.integers(0, 2))
    toward = np.array(
        [[1.1, -0.35, -1.2], [-1.2, 0.1, 1.1], [1.0, -0.6, 0.9], [-0.9, 0.6, -0.8]][int(random.integers(0, 4))]
    )
    gains = _gains(end, toward, off)
    result: Frames = []
    for number, frame in enumerate(frames):
        share = min(1.0, max(0.0, (number / len(frames) - start) / (stop - start)))
        if kind == 1:
            grey = frame @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
            keep = max(0.0, 1 - 1.3 * off / colourful)
            tinted = grey[:, :, None] + (frame - grey[:, :, None]) * keep
        else:
            tinted = frame * gains.astype(np.float32)
        result.append(np.clip(frame * (1 - share) + tinted * share, 0, 255).astype(np.float32))
    return result


def _gains(end: Pixels, toward: Pixels, off: float) -> Pixels:
    """Factors of the three channels that move the mean chroma of a picture of that mean colour by so many levels."""
    gains: Pixels = np.ones(3, dtype=np.float32)
    for step in np.linspace(0, 4, 200):
        gains = np.maximum(0, 1 + step * toward * off / np.maximum(end, 40)).astype(np.float32)
        red, green, blue = end * gains - end
        light = 0.299 * red + 0.587 * green + 0.114 * blue
        if math.hypot(0.564 * (blue - light), 0.713 * (red - light)) >= off:
            break
    return gains


def loop_seam(frames: Frames, fps: float, severity: float, random: Random, other: Frames) -> Frames:
    """Nothing to do: a clip that does not return to its start has the seam."""
    return frames


IN_FRAMES: Mapping[str, Defect] = {
    "frozen": frozen, "black": black, "flash": flash, "cut": cut, "flicker": flicker, "strobe": strobe, "soft": soft,
    "color_drift": color_drift,
}  # fmt: skip
"""Defects that are put into frames; the others lie in the file, in the request or in another clip."""
