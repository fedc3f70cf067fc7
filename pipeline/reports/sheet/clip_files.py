"""The files of a run's clips as the sheet needs them: where they are, links to them, the shape of their pictures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from pipeline.errors import UsageError
from pipeline.records import Attempt
from pipeline.reports.checks.findings import ClipCheck, Grade
from pipeline.reports.sheet.cells import CellMedia
from pipeline.reports.sheet.run_view import Cell, Line, RunView, latest_lines
from pipeline.reports.sheet.thumbnails import picture_size, poster_path, start_path

SHAPE_CLIPS = 20
"""So many posters settle the shape of all cells."""

USUAL_SHAPE = (16, 9)
"""Width and height of the cells while no clip is there to measure: what the gateway sells as a rule."""

_NO_MEDIA = CellMedia()


def check_of(view: RunView, line: Line) -> ClipCheck | None:
    """What was found in the cell's clip; None for one without."""
    return view.checks.of(line) if isinstance(line, Attempt) else None


def clip_of(line: Line, outputs: Path) -> Path | None:
    """The cell's clip, where it was downloaded and still is."""
    if not isinstance(line, Attempt) or line.local_path is None:
        return None
    clip = outputs / line.local_path
    return clip if clip.exists() else None


def start_clips(lines: Sequence[Cell], view: RunView) -> dict[str, Path]:
    """For each input image one clip that begins with it: a broken one only where there is no other."""
    starts: dict[str, Path] = {}
    broken: dict[str, Path] = {}
    for line, _ in lines:
        if isinstance(line, Attempt) and line.params.input_images[0] not in starts:
            check = check_of(view, line)
            known = broken if check is not None and check.grade is Grade.BAD else starts
            if line.params.input_images[0] not in known and (clip := clip_of(line, view.outputs)) is not None:
                known[line.params.input_images[0]] = clip
    return broken | starts


def media_of(line: Line, outputs: Path, folder: Path, starts: Mapping[str, Path]) -> CellMedia:
    """The links of a cell: to its clip, its poster, and the start frame of its input image."""
    clip = clip_of(line, outputs)
    start = starts.get(line.params.input_images[0]) if isinstance(line, Attempt) else None
    if clip is None and start is None:
        return _NO_MEDIA
    return CellMedia(
        clip=link_to(clip, folder),
        poster=link_to(poster_path(clip) if clip else None, folder),
        start=link_to(start_path(start) if start else None, folder),
    )


def link_to(file: Path | None, folder: Path) -> str:
    """A relative link, percent-encoded; empty where the file is not there."""
    if file is None or not file.exists():
        return ""
    return quote(os.path.relpath(file, folder).replace(os.sep, "/"))


def clips_of(view: RunView) -> list[Path]:
    """Every clip of the run that was downloaded and still is where it was put."""
    return [clip for line, _ in latest_lines(view.lines) if (clip := clip_of(line, view.outputs)) is not None]


def clips_to_share(view: RunView) -> list[Path]:
    """The same for what is made of the clips.

    Raises:
        UsageError: the run has no clip yet.
    """
    clips = clips_of(view)
    if not clips:
        raise UsageError(f"{view.run} has no clip on disk yet: collect it first")
    return clips


def clip_shape(view: RunView) -> tuple[int, int]:
    """The commonest width and height of the run's clips, as the posters that are there show it."""
    return shape_of(latest_lines(view.lines), view.outputs)


def shape_of(lines: Sequence[Cell], outputs: Path) -> tuple[int, int]:
    """The commonest width and height among the first posters, so that cells have the clips' shape before they load."""
    sizes: Counter[tuple[int, int]] = Counter()
    for line, _ in lines:
        clip = clip_of(line, outputs)
        if clip is not None and poster_path(clip).exists():
            sizes[picture_size(poster_path(clip))] += 1
        if sizes.total() >= SHAPE_CLIPS:
            break
    return sizes.most_common(1)[0][0] if sizes else USUAL_SHAPE
