"""A strip of frames for each kind of defect, for the documents: what the defect looks like where it happens."""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

from benchmarks.checkclips.cases import KINDS, Case, make
from pipeline.reports.checks.check import Subject, check_clip

FRAME_PX = (208, 117)
FRAMES = 6
BEFORE_S = 0.25
"""The strip begins so long before the moment that the check names."""

SHORT_S = {"flash": 0.12, "black": 0.25, "cut": 0.15, "strobe": 0.5, "flicker": 0.2, "frozen": 1.2}
"""Seconds that a strip shows; 5 for what grows over the whole clip."""

PRESETS = {"still": "Dolly In", "loop_seam": "Dolly Right", "soft": "Handheld"}
MAX_TRIES = 12


def draw_gallery(folder: Path) -> list[Path]:
    """One picture for each kind; those that a picture cannot show are left out."""
    written = []
    for number, kind in enumerate(kind for kind in KINDS if kind not in ("unreadable", "duplicate")):
        strip = _strip(kind, number)
        if strip is not None:
            target = folder / f"check-{kind.replace('_', '-')}.jpg"
            strip.save(target, "JPEG", quality=80, optimize=True)
            written.append(target)
    return written


def _strip(kind: str, number: int) -> Image.Image | None:
    case = Case(
        number=9000 + 20 * number, kind=kind, preset=PRESETS.get(kind, "Dolly In"), size=(416, 234), fps=24, crf=20
    )
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(MAX_TRIES):
            made = make(replace(case, number=case.number + seed), Path(folder), seed=seed)
            found = check_clip(made.clip, Subject(start=made.start, end=made.end, preset=case.preset, loop=made.loop))
            if found.kinds == (kind,):
                return _frames(made.clip, kind, found.reasons[0], made.start)
    return None


def _frames(clip: Path, kind: str, reason: str, start: Path) -> Image.Image:
    with av.open(str(clip)) as container:
        pictures = [
            (frame.time or 0.0, Image.fromarray(frame.to_ndarray(format="rgb24")))
            for frame in container.decode(video=0)
        ]
    match = re.search(r"(?:at|from) ([0-9.]+) s", reason)
    span = SHORT_S.get(kind)
    begin = 0.0 if span is None or match is None else max(0.0, float(match[1]) - (BEFORE_S if span > 0.3 else 0.06))
    moments = np.linspace(begin, begin + (span or pictures[-1][0]), FRAMES)
    width, height = FRAME_PX
    shown = [min(pictures, key=lambda picture: abs(picture[0] - at)) for at in moments]
    if kind == "wrong_start":
        shown[0] = (-1.0, Image.open(start).convert("RGB"))
    strip = Image.new("RGB", (FRAMES * (width + 4) - 4, height + 16), "white")
    draw = ImageDraw.Draw(strip)
    for place, (at, picture) in enumerate(shown):
        strip.paste(picture.resize(FRAME_PX, Image.Resampling.LANCZOS), (place * (width + 4), 0))
        draw.text((place * (width + 4) + 2, height + 2), "start picture" if at < 0 else f"{at:.2f} s", fill="black")
    return strip
