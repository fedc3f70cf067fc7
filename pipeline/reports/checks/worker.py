"""A process that checks clips: one JSON job a line on stdin, one line on stdout for each that is done.

A process of its own, so that a decoder that crashes or swallows memory takes no run with it, and all cores are used.
It decodes each clip once: poster, start frame and checks come from the same pass.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from av.video.frame import VideoFrame

from pipeline.reports.checks.check import Subject, check_clip
from pipeline.reports.checks.findings import ClipCheck
from pipeline.reports.checks.jobs import CheckJob
from pipeline.reports.checks.store import save_check
from pipeline.reports.sheet.thumbnails import POSTER_AT_S, make_poster, make_start, save_poster, save_start

MEMORY_BYTES = 3 << 30
"""Address space of a worker: a check needs 0.3 GB; a file that asks for ten times that is given up."""


class _Stills:
    """Takes poster and start frame from the frames of a pass."""

    def __init__(self, clip: Path, *, wants_start: bool) -> None:
        self._clip = clip
        self._wants_start = wants_start
        self._last: VideoFrame | None = None
        self._is_saved = False

    def __call__(self, frame: VideoFrame, at_s: float) -> None:
        if self._last is None and self._wants_start:
            save_start(self._clip, frame)
        if not self._is_saved and at_s >= POSTER_AT_S - 1e-3:
            self._is_saved = True
            save_poster(self._clip, frame)
        self._last = frame

    def close(self) -> None:
        """A clip shorter than the poster's moment shows its last frame."""
        if not self._is_saved and self._last is not None:
            save_poster(self._clip, self._last)


def examine(job: CheckJob) -> ClipCheck:
    """Check one clip, keep the result, its poster and its start frame beside it."""
    clip = Path(job.clip)
    stills = _Stills(clip, wants_start=job.wants_start)
    subject = Subject(
        start=Path(job.start) if job.start else None,
        end=Path(job.end) if job.end else None,
        preset=job.preset,
        has_end=job.has_end,
        loop=job.loop,
        small=job.small,
    )
    check = check_clip(clip, subject, max_cpu_s=job.max_cpu_s, watch=stills, notes=(job.note,) if job.note else ())
    stills.close()
    make_poster(clip)
    if job.wants_start:
        make_start(clip)
    save_check(clip, check)
    return check


def answer(line: str) -> dict[str, object]:
    """What the worker says about one job; never raises."""
    try:
        wanted: Mapping[str, object] = json.loads(line)
        check = examine(CheckJob(**wanted))  # type: ignore[arg-type] # our own line
    except (OSError, ValueError, TypeError, MemoryError, RuntimeError) as error:
        return {"error": f"{type(error).__name__}: {error}"[:200]}
    return {"grade": check.grade.value}


def main() -> None:
    """Answer jobs until stdin ends."""
    _limit_memory()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(line)) + "\n")
        sys.stdout.flush()


def _limit_memory() -> None:
    try:
        import resource  # noqa: PLC0415 - not on every system
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    if soft == resource.RLIM_INFINITY or soft > wanted:
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))


if __name__ == "__main__":
    main()
