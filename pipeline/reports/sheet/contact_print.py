"""The sheet as one picture for mail and chat: posters in the sheet's arrangement, tab below tab. Shows no prices."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from PIL import Image, ImageOps

from pipeline.files import whole_path
from pipeline.reports.sheet.clip_files import clip_shape, clips_to_share
from pipeline.reports.sheet.image_pages import (
    PAPER,
    RenderedPage,
    cell_width,
    draw_pages,
    pages_of,
    same_size,
)
from pipeline.reports.sheet.page import PAGE_CELLS, build_sheet, sections
from pipeline.reports.sheet.run_view import RunView
from pipeline.reports.sheet.thumbnails import make_stills

MAX_WIDTH_PX = 2400
"""Width in pixels of the widest contact print, which stays legible on paper."""
MAX_HEIGHT_PX = 16_000
"""Pictures beyond this many lines are refused by many programs."""


def write_contact_print(view: RunView, path: Path) -> None:
    """Writes the contact print as PNG (or JPEG, by the name's ending), making missing posters first.

    Writes: `path`, by rename; JPEG files beside the clips.

    Raises:
        UsageError: the run has no clip yet.
    """
    make_stills(clips_to_share(view), ())
    sheet = build_sheet(view, path.parent)
    pages = pages_of(sections(sheet), most_columns=PAGE_CELLS if sheet.arrangement.x else 8, most_cells=PAGE_CELLS)
    more = len(sheet.cells) - PAGE_CELLS
    title = view.title + (f" (the first {PAGE_CELLS} of {len(sheet.cells)} clips)" if more > 0 else "")
    width_px = cell_width(pages, most_width_px=MAX_WIDTH_PX)
    plates = draw_pages(pages, title=title, layout=sheet.arrangement, width_px=width_px, shape=clip_shape(view))
    for plate in plates:
        _paste_posters(plate, path.parent)
    with whole_path(path) as temporary:
        _below_each_other(plates).save(temporary, optimize=True)


def _paste_posters(plate: RenderedPage, folder: Path) -> None:
    for spot in plate.spots:
        if spot.cell.stills.poster:
            with Image.open(folder / unquote(spot.cell.stills.poster)) as poster:
                small = ImageOps.contain(poster.convert("RGB"), plate.cell_px, Image.Resampling.LANCZOS)
            aside, below = (plate.cell_px[0] - small.width) // 2, (plate.cell_px[1] - small.height) // 2
            plate.paper.paste(small, (spot.x + aside, spot.y + below))


def _below_each_other(plates: list[RenderedPage]) -> Image.Image:
    width, _ = same_size([plate.paper for plate in plates])
    height = sum(plate.paper.height for plate in plates)
    paper = Image.new("RGB", (width, height), PAPER)
    at = 0
    for plate in plates:
        paper.paste(plate.paper, (0, at))
        at += plate.paper.height
    if height > MAX_HEIGHT_PX:
        paper.thumbnail((width, MAX_HEIGHT_PX), Image.Resampling.LANCZOS)
    return paper
