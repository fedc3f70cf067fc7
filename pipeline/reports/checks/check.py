"""Check one clip: decode it once, ask every check, join what they find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame

from pipeline.reports.checks import color, container, continuity, exposure, framing, sharpness, stillness
from pipeline.reports.checks.allowances import Allowance, allowance_of
from pipeline.reports.checks.duplicates import fingerprint
from pipeline.reports.checks.findings import ClipCheck, Finding, Grade, Kind, concluded, unchecked
from pipeline.reports.checks.frames import Film, TooLargeError, UndecodableError, read_film
from pipeline.reports.checks.reference import Reference, UnreadablePictureError, read_reference
from pipeline.reports.checks.signals import Signals

MIN_FRAMES = 8
"""A clip of fewer frames has no motion to judge; its format is a finding already."""


FADE_OUT_S = 1.0
"""So long before its end a clip may begin to fade out."""

FADED = 0.4
"""Share of the usual contrast below which the last frame is one of a fade."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What the request says about a clip.

    Args:
        start, end: the pictures, as files or bytes; None where there is none.
        has_end: an end picture was given, though perhaps none that is here: the clip is to end differently.
        preset: name of the motion preset.
        loop: the last frame is to lead on to the first.
        small: report clips below 700 px on the shorter side.
    """

    start: Path | bytes | None = None
    end: Path | bytes | None = None
    preset: str | None = None
    has_end: bool = False
    loop: bool = False
    small: bool = False


def check_clip(
    clip: Path,
    subject: Subject,
    *,
    max_cpu_s: float = 5.0,
    watch: Callable[[VideoFrame, float], None] | None = None,
    notes: Sequence[str] = (),
) -> ClipCheck:
    """Check a clip; never raises for what a file may hold.

    Args:
        watch: called with each decoded frame and its time, for a caller that needs whole frames of the same pass.
        notes: words that the result ends with.
    """
    try:
        film = read_film(clip, max_cpu_s=max_cpu_s, watch=watch)
    except (FileNotFoundError, PermissionError) as error:
        return unchecked(f"the file cannot be opened ({error.strerror})")
    except UndecodableError as error:
        return concluded([Finding(kind=Kind.UNREADABLE, grade=Grade.BAD, figure=str(error))], {})
    except TooLargeError as error:
        return unchecked(str(error))
    if film is None:
        return concluded([Finding(kind=Kind.FORMAT, grade=Grade.BAD, figure="no video track")], {})
    return check_film(film, subject, notes=notes)


def check_film(film: Film, subject: Subject, *, notes: Sequence[str] = ()) -> ClipCheck:
    """Check a clip that was decoded."""
    notes = [*notes]
    start, end = (
        _picture(source, name, notes)
        for source, name in ((subject.start, "start picture"), (subject.end, "end picture"))
    )
    metrics: dict[str, float] = {
        "duration_s": film.duration_s,
        "fps": film.fps,
        "frames": film.count,
        "width_px": film.width,
        "height_px": film.height,
    }
    found = container.judge_format(film, small=subject.small)
    allowance = allowance_of(subject.preset)
    found += _framing(film, start, None if allowance.jumps else end, metrics)  # broken pictures show no end picture
    if film.count >= MIN_FRAMES:
        found += _motion(film, allowance, subject, start, metrics)
    rounded = {name: round(float(value), 4) for name, value in metrics.items() if np.isfinite(value)}
    return concluded(_merged(found), rounded, notes=notes, fingerprint=fingerprint(film))


def _picture(source: Path | bytes | None, name: str, notes: list[str]) -> Reference | None:
    if source is None:
        return None
    try:
        return read_reference(source)
    except UnreadablePictureError as error:
        notes.append(f"{name} not compared: {error}")
        return None


def _framing(film: Film, start: Reference | None, end: Reference | None, metrics: dict[str, float]) -> list[Finding]:
    found: list[Finding] = []
    if start is not None:
        findings, match = framing.judge(film, 0, start, Kind.WRONG_START)
        found += findings
        metrics["start_likeness"], metrics["start_squeeze"] = match.likeness, match.squeeze
    # Where decoding stopped early, the last frame is not the clip's last.
    if end is not None and not film.stopped:
        judged = [framing.judge(film, index, end, Kind.WRONG_END) for index in _last_shown(film)]
        findings, match = min(judged, key=lambda one: (len(one[0]), -one[1].likeness))
        found += findings
        metrics["end_likeness"] = match.likeness
    return found


def _last_shown(film: Film) -> list[int]:
    """The last frame, or, where the clip fades out, the frames of its last second that show something."""
    contrast = film.luma.std(axis=(1, 2))
    if contrast[-1] > FADED * np.median(contrast):
        return [film.count - 1]
    moments = film.times[-1] - np.linspace(FADE_OUT_S, 0, 6)
    picks = sorted({int(pick) for pick in np.searchsorted(film.times, moments)})
    return [pick for pick in picks if contrast[pick] > exposure.NOTHING] or [film.count - 1]


def _motion(
    film: Film,
    allowance: Allowance,
    subject: Subject,
    start: Reference | None,
    metrics: dict[str, float],
) -> list[Finding]:
    """Everything that is measured over time. Black and strobe come first, for they explain what others would see."""
    signals = Signals(film)
    contrast = None if start is None else float(np.std(start.views[0].mean(axis=2)))
    found, blank = exposure.black(signals, picture_contrast=contrast)
    strobes, metrics["strobe_s"] = continuity.strobe(signals, allowance)
    found += strobes
    flashes, metrics["flash_levels"] = exposure.flash(signals, allowance, blank)
    cuts, sure = continuity.cut(signals, allowance, blank)
    metrics["cut"] = sure
    if not strobes:
        found += flashes + cuts
        flickers, metrics["flicker"] = exposure.flicker(signals, allowance, blank)
        found += flickers
    freezes, metrics["frozen_s"] = stillness.frozen(signals, allowance, blank)
    stills, metrics["way"] = stillness.still(signals, allowance)
    found += freezes + stills
    # A clip that ends on another picture has that one's detail and colours.
    if not strobes and not cuts and subject.end is None and not subject.has_end:
        softs, sharpness_left = sharpness.soft(signals, allowance)
        found += softs
        if sharpness_left is not None:
            metrics["detail_left"] = sharpness_left.share
        drifts, metrics["color_drift"] = color.color_drift(signals, allowance)
        found += drifts
    if subject.loop:
        seams, metrics["loop_seam"] = continuity.loop_seam(signals)
        found += seams
    return found


def _merged(found: list[Finding]) -> list[Finding]:
    """One finding a kind: figures joined, the worst grade."""
    merged: dict[Kind, Finding] = {}
    for one in found:
        if one.kind in merged:
            other = merged[one.kind]
            grade = Grade.BAD if Grade.BAD in (one.grade, other.grade) else Grade.WARN
            one = Finding(kind=one.kind, grade=grade, figure=f"{other.figure}, {one.figure}")  # noqa: PLW2901
        merged[one.kind] = one
    return list(merged.values())
