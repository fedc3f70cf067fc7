"""The sheet as one video to send: every clip at once, in step, page after page. Touches no clip and no ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import unquote

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.files import whole_path
from pipeline.reports.sheet.clip_files import SHAPE_CLIPS, clip_shape, clips_to_share
from pipeline.reports.sheet.clip_reader import open_clip
from pipeline.reports.sheet.image_pages import (
    CellPosition,
    RenderedPage,
    cell_width,
    draw_pages,
    pages_of,
    same_size,
)
from pipeline.reports.sheet.page import build_sheet, sections
from pipeline.reports.sheet.run_view import RunView
from pipeline.reports.sheet.thumbnails import make_stills

RATE = 24
"""Frames per second of the grid video; clips of other rates are shown at their nearest frame."""
PAGE_S = 5.0
"""A page is shown this long, and longer when a clip of it is longer. Source: API document, pricing (5 seconds)."""

MAX_COLUMNS, MAX_CELLS = 8, 48
"""Of a page: more at once could not be distinguished, and each open clip takes memory."""

MAX_WIDTH_PX = 1920
"""Pixels of the widest grid video: players decode full HD everywhere."""
MAX_HEIGHT_PX = 1920
"""Pixels of the highest grid video; a grid may be taller than wide."""

Picture = NDArray[np.uint8]


def write_grid_video(view: RunView, path: Path) -> int:
    """Writes an H.264 MP4 of all clips in the sheet's arrangement and returns the number of pages in it.

    Takes about as long as decoding every clip once. Placeholders stay empty; what failed shows its reason; no prices.
    Writes: `path`, by rename; the first posters beside the clips.

    Raises:
        UsageError: the run has no clip yet.
    """
    make_stills(clips_to_share(view)[:SHAPE_CLIPS], ())
    sheet = build_sheet(view, path.parent)
    pages = pages_of(sections(sheet, most=len(sheet.cells)), most_columns=MAX_COLUMNS, most_cells=MAX_CELLS)
    pages = [page for page in pages if any(cell and cell.stills.clip for _, cells in page.rows for cell in cells)]
    shape = clip_shape(view)
    tall = max(len(page.rows) for page in pages)
    width_px = min(cell_width(pages, most_width_px=MAX_WIDTH_PX), MAX_HEIGHT_PX // tall * shape[0] // shape[1]) // 2 * 2
    plates = draw_pages(pages, title=view.title, layout=sheet.arrangement, width_px=width_px, shape=shape)
    with whole_path(path) as temporary, _encoder(temporary, same_size([plate.paper for plate in plates])) as encode:
        for plate in plates:
            for picture in _played(plate, path.parent):
                encode(picture)
    return len(pages)


@contextmanager
def _encoder(path: Path, size: tuple[int, int]) -> Iterator[_Encoder]:
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        encoder = _Encoder(container, size)
        yield encoder
        encoder.finish()


class _Encoder:
    """Takes pictures of any size up to the video's and writes them in the upper left corner."""

    def __init__(self, container: av.container.OutputContainer, size: tuple[int, int]) -> None:
        self._container = container
        self._stream = container.add_stream("libx264", rate=RATE, options={"crf": "20", "preset": "veryfast"})
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        self._canvas: Picture = np.full((size[1], size[0], 3), (16, 18, 23), dtype=np.uint8)
        self._shown = (0, 0)

    def __call__(self, picture: Picture) -> None:
        if self._shown != picture.shape[:2]:
            self._canvas[:] = (16, 18, 23)
            self._shown = (picture.shape[0], picture.shape[1])
        self._canvas[: picture.shape[0], : picture.shape[1]] = picture
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(self._canvas, format="rgb24")))

    def finish(self) -> None:
        self._container.mux(self._stream.encode())


def _played(plate: RenderedPage, folder: Path) -> Iterator[Picture]:
    """The page's pictures, one per frame of the video; a clip that ends early holds its last picture."""
    canvas: Picture = np.array(plate.paper)
    with ExitStack() as stack:
        clips = [clip for spot in plate.spots if (clip := _opened(spot, folder, plate.cell_px, stack)) is not None]
        length_s = max([PAGE_S, *(clip.length_s for clip in clips)])
        for number in range(round(length_s * RATE)):
            for clip in clips:
                clip.paint(canvas, number / RATE)
            yield canvas


def _opened(spot: CellPosition, folder: Path, cell_px: tuple[int, int], stack: ExitStack) -> _Clip | None:
    if not spot.cell.stills.clip:
        return None
    try:
        container, stream = stack.enter_context(open_clip(folder / unquote(spot.cell.stills.clip)))
        return _Clip(container, stream, spot, cell_px)
    except (av.FFmpegError, OSError, ValueError):
        return None  # a clip that cannot be read leaves its card empty


class _Clip:
    """One clip as it plays: paints the picture of a time into its place, whole and in the middle."""

    def __init__(
        self, container: InputContainer, stream: VideoStream, spot: CellPosition, cell_px: tuple[int, int]
    ) -> None:
        self.length_s = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else PAGE_S
        self._frames = container.decode(stream)
        factor = min(cell_px[0] / stream.width, cell_px[1] / stream.height)
        self._width, self._height = max(2, round(stream.width * factor)), max(2, round(stream.height * factor))
        self._x = spot.x + (cell_px[0] - self._width) // 2
        self._y = spot.y + (cell_px[1] - self._height) // 2
        self._next: av.VideoFrame | None = next(self._frames, None)

    def paint(self, canvas: Picture, at_s: float) -> None:
        newest = None
        while self._next is not None and (self._next.time or 0.0) <= at_s + 1e-3:
            newest = self._next
            self._next = next(self._frames, None)
        if newest is not None:
            small = newest.reformat(self._width, self._height, format="rgb24").to_ndarray()
            canvas[self._y : self._y + self._height, self._x : self._x + self._width] = small
