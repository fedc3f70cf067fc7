"""Sheets as pictures: where each cell is on a page, and the page with its heads. No prices: it is made to be sent.

Shared by the grid video and the contact print. Draws on its own paper only; reads no clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil, sqrt

from PIL import Image, ImageDraw, ImageFont

from pipeline.reports.sheet.cells import SheetCell
from pipeline.reports.sheet.layout import SheetLayout
from pipeline.reports.sheet.page import SheetSection

PAPER, INK, SOFT, EMPTY, TROUBLE = "#101217", "#eceef2", "#9aa2b0", "#1b1f27", "#ff9d92"
GAP_PX, EDGE_PX, TITLE_PX, HEAD_PX, LABEL_PX, NAME_PX = 8, 24, 48, 28, 128, 20
"""Sizes of a rendered page in pixels: between cells, at the edge, title, column heads, row labels, names."""
MIN_CELL_PX, MAX_CELL_PX = 64, 480
"""Width of a cell in pixels: legible at the least, and no larger than a still picture."""

GridRows = tuple[tuple[str, tuple[SheetCell | None, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PagePlan:
    """A part of a tab that is seen at once: heads, and for each row its label and one cell (or none) a column."""

    title: str
    columns: tuple[str, ...]
    rows: GridRows

    @property
    def width_cells(self) -> int:
        return max([len(self.columns), *(len(cells) for _, cells in self.rows)])


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPosition:
    """One cell and the upper left corner of its picture, in pixels."""

    cell: SheetCell
    x: int
    y: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedPage:
    """A page as drawn: paper of even size with everything but the clips, and where these go."""

    paper: Image.Image
    spots: tuple[CellPosition, ...]
    cell_px: tuple[int, int]


def pages_of(sections: Sequence[SheetSection], *, most_columns: int, most_cells: int) -> list[PagePlan]:
    """Tabs cut into pages of so many columns and cells; clips that flow are wrapped into rows."""
    pages: list[PagePlan] = []
    for section in sections:
        rows = _first_of_each(section) if section.columns else _wrapped(section, most_columns)
        for start in range(0, max(len(section.columns), 1), most_columns):
            columns = section.columns[start : start + most_columns]
            part = [(name, cells[start : start + most_columns]) for name, cells in rows]
            tall = max(1, most_cells // max(len(columns) or most_columns, 1))
            pages += [
                PagePlan(title=section.title, columns=columns, rows=tuple(part[at : at + tall]))
                for at in range(0, len(part), tall)
            ]
    return pages


def _first_of_each(section: SheetSection) -> list[tuple[str, tuple[SheetCell | None, ...]]]:
    return [(name, tuple(_best(cells) for cells in row)) for name, row in section.rows]


def _best(cells: Sequence[SheetCell]) -> SheetCell | None:
    """Of several cells at one crossing the first that has a clip."""
    return next((cell for cell in cells if cell.stills.clip), cells[0] if cells else None)


def _wrapped(section: SheetSection, most_columns: int) -> list[tuple[str, tuple[SheetCell | None, ...]]]:
    count = sum(len(cells) for _, row in section.rows for cells in row)
    wide = min(most_columns, max(1, ceil(sqrt(count * 1.2))))
    lines: list[tuple[str, tuple[SheetCell | None, ...]]] = []
    for name, row in section.rows:
        cells = [cell for some in row for cell in some]
        lines += [(name if at == 0 else "", tuple(cells[at : at + wide])) for at in range(0, len(cells), wide)]
    return lines


def cell_width(pages: Sequence[PagePlan], *, most_width_px: int) -> int:
    """The even width of a cell at which the widest page fits, within reason."""
    wide = max(page.width_cells for page in pages)
    room = most_width_px - 2 * EDGE_PX - max(_label_px(page) for page in pages)
    return max(MIN_CELL_PX, min(MAX_CELL_PX, room // wide - GAP_PX)) // 2 * 2


def corner_text(plan: SheetLayout) -> str:
    """What runs down and across, for the corner of a page."""
    return " / ".join(name for name in (plan.y, plan.x) if name)


def draw_pages(
    pages: Sequence[PagePlan], *, title: str, layout: SheetLayout, width_px: int, shape: tuple[int, int]
) -> list[RenderedPage]:
    """Every page as drawn."""
    corner = corner_text(layout)
    return [draw_page(page, title=title, corner=corner, width_px=width_px, shape=shape) for page in pages]


def draw_page(page: PagePlan, *, title: str, corner: str, width_px: int, shape: tuple[int, int]) -> RenderedPage:
    """The page with its heads and labels; what has no clip is drawn as a card that says why.

    Without column heads each cell has its id below it.
    """
    cell_px = (width_px, max(2, round(width_px * shape[1] / shape[0] / 2) * 2))
    left, top = EDGE_PX + _label_px(page), EDGE_PX + TITLE_PX + (HEAD_PX if page.columns else 0)
    step = cell_px[1] + GAP_PX + (0 if page.columns else NAME_PX)
    across, down = left + page.width_cells * (cell_px[0] + GAP_PX), top + len(page.rows) * step
    paper = Image.new("RGB", (_even(across - GAP_PX + EDGE_PX), _even(down - GAP_PX + EDGE_PX)), PAPER)
    draw = ImageDraw.Draw(paper)
    name = " · ".join(part for part in (title, page.title) if part)
    write(draw, (EDGE_PX, EDGE_PX), name, size=24, width=paper.width - 2 * EDGE_PX)
    for number, column in enumerate(page.columns):
        x = left + number * (cell_px[0] + GAP_PX)
        write(draw, (x, EDGE_PX + TITLE_PX), column or "–", size=16, width=cell_px[0])
    if _label_px(page) and page.columns:
        write(draw, (EDGE_PX, EDGE_PX + TITLE_PX + 2), corner, size=13, width=_label_px(page) - GAP_PX, colour=SOFT)
    spots = []
    for number, (label, cells) in enumerate(page.rows):
        y = top + number * step
        write(draw, (EDGE_PX, y + 2), label, size=16, width=_label_px(page) - GAP_PX)
        spots += list(_row(draw, cells, (left, y), cell_px))
    if not page.columns:
        _name(draw, spots, cell_px)
    return RenderedPage(paper=paper, spots=tuple(spots), cell_px=cell_px)


def _row(
    draw: ImageDraw.ImageDraw, cells: Sequence[SheetCell | None], corner: tuple[int, int], cell_px: tuple[int, int]
) -> Iterator[CellPosition]:
    for number, cell in enumerate(cells):
        x, y = corner[0] + number * (cell_px[0] + GAP_PX), corner[1]
        if cell is not None and cell.state != "skipped":
            _card(draw, cell, (x, y), cell_px)
            yield CellPosition(cell=cell, x=x, y=y)


def _name(draw: ImageDraw.ImageDraw, spots: Sequence[CellPosition], cell_px: tuple[int, int]) -> None:
    for spot in spots:
        below = (spot.x, spot.y + cell_px[1] + 2)
        write(draw, below, spot.cell.row_id, size=13, width=cell_px[0], colour=SOFT)


def _card(draw: ImageDraw.ImageDraw, cell: SheetCell, corner: tuple[int, int], cell_px: tuple[int, int]) -> None:
    x, y = corner
    draw.rectangle((x, y, x + cell_px[0] - 1, y + cell_px[1] - 1), fill=EMPTY)
    if cell.state == "done":
        return
    write(draw, (x + 8, y + 6), cell.state.replace("_", " "), size=15, width=cell_px[0] - 16, colour=TROUBLE)
    if cell_px[1] >= 60:
        write(draw, (x + 8, y + 28), cell.reason, size=13, width=cell_px[0] - 16, colour=SOFT)


def write(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, *, size: int, width: int, colour: str = INK
) -> None:
    """One line of text, cut with an ellipsis where the room ends."""
    line = " ".join(text.split())
    font = _font(line, size)
    if draw.textlength(line, font=font) > width:
        while line and draw.textlength(line + "…", font=font) > width:
            line = line[:-1]
        line += "…"
    draw.text(corner, line, font=font, fill=colour)


WIDE_FONTS = ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "Arial Unicode.ttf", "arial.ttf")
"""Fonts of the machine, tried for text that the built-in Latin font cannot show; without one its empty boxes show."""


def _font(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if any(ord(character) > 0x24F and character not in "–·…" for character in text):
        for name in WIDE_FONTS:
            with suppress(OSError):
                return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)


def same_size(plates: Sequence[Image.Image]) -> tuple[int, int]:
    """Width and height that hold every page."""
    return max(paper.width for paper in plates), max(paper.height for paper in plates)


def _label_px(page: PagePlan) -> int:
    return LABEL_PX if any(name for name, _ in page.rows) else 0


def _even(length: int) -> int:
    return length + length % 2
