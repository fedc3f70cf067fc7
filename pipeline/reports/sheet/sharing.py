"""The review page to send: as a folder in a ZIP with small clips, or as one HTML file that holds everything.

Neither names a path of this machine, and neither needs a network to play. Never changes a run's own files.
"""

from __future__ import annotations

import base64
import mimetypes
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote

from pipeline.assets.addresses import is_local
from pipeline.errors import UsageError
from pipeline.files import whole_path, whole_text
from pipeline.records import Attempt
from pipeline.reports.review_file import reviews_text
from pipeline.reports.sheet.cells import CellMedia
from pipeline.reports.sheet.clip_files import clip_of, clip_shape, clips_of, clips_to_share
from pipeline.reports.sheet.page import build_sheet, sheet_html, write_sheet
from pipeline.reports.sheet.run_view import Line, RunView
from pipeline.reports.sheet.thumbnails import poster_path, start_path
from pipeline.reports.sheet.web_clips import make_web_clips

ZIP_WIDTH_PX = 720
"""Width in pixels of the clips in a zip file: they can be judged full screen on a laptop."""
EMBEDDED_WIDTH_PX = 480
"""Width in pixels of the clips in one HTML file, which holds them all."""
MAX_EMBEDDED_BYTES = 48_000_000
"""Clips and pictures of one HTML file. A browser reads the whole file before it shows anything, and mail takes less."""

PAGE_NAME, CLIPS, REVIEWS = "index.html", "clips", "reviews.json"
README = (
    "Open index.html in a browser; nothing is loaded from the network. Your reviews stay in your browser until you\n"
    'press "Save reviews": send the file reviews.json back, and `dop review import reviews.json --as NAME` adds it.\n'
)


def write_review_zip(view: RunView, path: Path) -> int:
    """Writes the page, posters, small clips and reviews as one folder in a ZIP; returns how many clips it holds.

    Writes: `path`, by rename. Takes about a second of CPU for each clip in 1080p.

    Raises:
        UsageError: the run has no clip yet.
    """
    with TemporaryDirectory(prefix="dop-review-") as name:
        folder = Path(name)
        small = _staged(view, folder, width_px=ZIP_WIDTH_PX)
        write_sheet(small, folder / PAGE_NAME)
        with whole_text(folder / REVIEWS) as file:
            shown = {line.request_id for line in view.attempts()}
            file.write(reviews_text(change for change in view.reviews if change.request_id in shown))
        (folder / "README.txt").write_text(README, encoding="utf-8")
        with whole_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for file_path in sorted(folder.rglob("*")):
                if file_path.is_file():
                    archive.write(file_path, f"{path.stem}/{file_path.relative_to(folder).as_posix()}")
        return len(clips_of(small))


def write_embedded_page(view: RunView, path: Path) -> int:
    """Writes the page as one HTML file that holds its small clips; returns how many.

    Raises:
        UsageError: the run has no clip yet, or too many for one file.
    """
    with TemporaryDirectory(prefix="dop-review-") as name:
        folder = Path(name)
        small = _staged(view, folder, width_px=EMBEDDED_WIDTH_PX)
        write_sheet(small, folder / PAGE_NAME)  # makes the posters that are missing
        sheet = build_sheet(small, folder)
        size = sum(file.stat().st_size for file in (folder / CLIPS).iterdir())
        if size > MAX_EMBEDDED_BYTES:
            raise UsageError(
                f"{len(clips_of(small))} clips make one file of {size * 4 // 3 // 1_000_000} MB; write a ZIP instead: "
                f"-o {path.with_suffix('.zip').name}"
            )
        cells = tuple(replace(cell, stills=_embedded(cell.stills, folder)) for cell in sheet.cells)
        page = sheet_html(small, replace(sheet, cells=cells), shape=clip_shape(small), is_embedded=True)
    with whole_text(path) as stream:
        stream.write(page)
    return len(clips_of(view))


def _staged(view: RunView, folder: Path, *, width_px: int) -> RunView:
    """The same run over small clips in `folder`.

    Raises:
        UsageError: the run has no clip yet.
    """
    clips_to_share(view)
    (folder / CLIPS).mkdir()
    lines: list[Line] = []
    work: dict[Path, Path] = {}
    for line, clip, target in _targets(view, folder):
        if clip is not None and target is not None:
            work[clip] = target
        path = None if target is None else target.relative_to(folder).as_posix()
        lines.append(_without_places(line, path) if isinstance(line, Attempt) else line)
    make_web_clips(list(work.items()), width_px=width_px)
    for clip, target in work.items():
        for still in (poster_path, start_path):
            if still(clip).exists():
                shutil.copyfile(still(clip), still(target))
    return replace(view, outputs=folder, lines=tuple(lines))


def _without_places(attempt: Attempt, path: str | None) -> Attempt:
    """The attempt without the places of this machine and the gateway's own link, for a page that is sent."""
    params = attempt.params
    shown = replace(
        params,
        input_images=tuple(map(_short, params.input_images)),
        input_images_end=tuple(map(_short, params.input_images_end)),
    )
    return replace(attempt, local_path=path, video_url=None, params=shown)


def _short(image: str) -> str:
    """A picture's name with its folder's, for one that is on this machine."""
    return "/".join(Path(image).parts[-2:]) if is_local(image) else image


def _targets(view: RunView, folder: Path) -> Iterator[tuple[Line, Path | None, Path | None]]:
    """Each line with its clip and where that goes; clips of several runs may bear one name."""
    known: dict[Path, Path] = {}
    names: set[str] = set()
    for line in view.lines:
        clip = clip_of(line, view.outputs)
        if clip is not None and clip not in known:
            name = clip.name if clip.name not in names else f"{len(names)}-{clip.name}"
            names.add(name)
            known[clip] = folder / CLIPS / name
        yield line, clip, None if clip is None else known[clip]


def _embedded(stills: CellMedia, folder: Path) -> CellMedia:
    return CellMedia(
        clip=_data_link(stills.clip, folder),
        poster=_data_link(stills.poster, folder),
        start=_data_link(stills.start, folder),
    )


def _data_link(link: str, folder: Path) -> str:
    if not link:
        return ""
    kind, _ = mimetypes.guess_type(link)
    content = base64.b64encode((folder / unquote(link)).read_bytes()).decode()
    return f"data:{kind};base64,{content}"
