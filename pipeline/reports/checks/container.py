"""Length, rate, size and codec of a clip against what the models sell."""

from __future__ import annotations

from pipeline.reports.checks.findings import Finding, Grade, Kind
from pipeline.reports.checks.frames import Film

CODECS = frozenset({"h264", "hevc", "vp9", "av1"})
"""What browsers and editing programs play; decoders go by other names (libdav1d, libvpx-vp9)."""

_DECODERS = {"libdav1d": "av1", "libaom-av1": "av1", "libvpx-vp9": "vp9"}

SOLD_S = 5.0
"""Length of every clip of the three models, seconds."""

MAX_OFF_S = 1.0
"""Seconds by which a clip may be longer or shorter than what is sold."""
MIN_FPS = 10.0
"""Frames per second below which a clip is no video but a slide show."""
MAX_FPS = 90.0
"""Frames per second above which the clock of the file must be wrong."""
MIN_SIDE_PX = 120
"""Pixels of the shorter side below which a clip is a preview or broken, and not what was paid for."""
SMALL_SIDE_PX = 700
"""A live gateway sells 1080p; its smallest shape has 720 px on the shorter side."""


def judge_format(film: Film, *, small: bool) -> list[Finding]:
    """Every point in which the clip is not what was sold."""
    said = []
    if abs(film.duration_s - SOLD_S) > MAX_OFF_S:
        said.append(f"{film.duration_s:.1f} s instead of {SOLD_S:.0f}")
    if film.count > 1 and not MIN_FPS <= film.fps <= MAX_FPS:
        said.append(f"{film.fps:.0f} frames a second")
    side = min(film.width, film.height)
    if side < MIN_SIDE_PX:
        said.append(f"{film.width}x{film.height} px")
    codec = _DECODERS.get(film.codec, film.codec)
    if codec not in CODECS:
        said.append(f"codec {codec}")
    found = [Finding(kind=Kind.FORMAT, grade=Grade.BAD, figure=", ".join(said))] if said else []
    if small and MIN_SIDE_PX <= side < SMALL_SIDE_PX:
        found.append(Finding(kind=Kind.SMALL, grade=Grade.WARN, figure=f"{film.width}x{film.height} px"))
    return found
