"""Pages of the grid video and the contact print: nothing is lost, nothing overlaps, everything is on the paper."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from pipeline.reports.sheet.cells import CellMedia, SheetCell
from pipeline.reports.sheet.image_pages import PagePlan, cell_width, corner_text, draw_page, pages_of, write
from pipeline.reports.sheet.layout import SheetLayout
from pipeline.reports.sheet.page import SheetSection

SHAPE = (160, 96)


def make_cell(number: int, state: str = "done") -> SheetCell:
    return SheetCell(
        number=number, row_id=f"row-{number}", state=state, words="", reason="why", price="", due="", cost="",
        model="m", tags=(), place={}, stills=CellMedia(), facts=(), history=(), request_id="r", attempt=1,
    )  # fmt: skip


def table(rows: int, columns: int) -> SheetSection:
    return SheetSection(
        title="model dop-lite",
        columns=tuple(map(str, range(columns))),
        rows=tuple(
            (f"r{row}", tuple((make_cell(row * columns + column),) for column in range(columns))) for row in range(rows)
        ),
    )


def flowing(count: int) -> SheetSection:
    return SheetSection(title="", columns=(), rows=(("", (tuple(map(make_cell, range(count))),)),))


def numbers(pages: list[PagePlan]) -> list[int]:
    return sorted(cell.number for page in pages for _, cells in page.rows for cell in cells if cell is not None)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 10), st.integers(1, 60))
def test_every_cell_is_on_exactly_one_page(rows: int, columns: int, most_columns: int, most_cells: int) -> None:
    pages = pages_of([table(rows, columns)], most_columns=most_columns, most_cells=most_cells)
    assert numbers(pages) == list(range(rows * columns))
    assert all(page.width_cells <= most_columns for page in pages)
    assert all(page.width_cells * len(page.rows) <= max(most_cells, most_columns) for page in pages)


@given(st.integers(1, 100), st.integers(1, 10))
def test_clips_that_flow_are_wrapped_and_none_is_lost(count: int, most_columns: int) -> None:
    pages = pages_of([flowing(count)], most_columns=most_columns, most_cells=48)
    assert numbers(pages) == list(range(count))
    assert all(page.width_cells <= most_columns for page in pages)


def test_spots_do_not_overlap_and_stay_on_paper_of_even_size() -> None:
    for section in (table(3, 4), flowing(7)):
        for page in pages_of([section], most_columns=8, most_cells=48):
            width = cell_width([page], most_width_px=900)
            plate = draw_page(page, title="study", corner="strength / seed", width_px=width, shape=SHAPE)
            boxes = [(spot.x, spot.y, spot.x + plate.cell_px[0], spot.y + plate.cell_px[1]) for spot in plate.spots]
            assert plate.paper.width % 2 == plate.paper.height % 2 == 0
            assert all(box[2] <= plate.paper.width and box[3] <= plate.paper.height for box in boxes)
            assert not [
                (one, two)
                for at, one in enumerate(boxes)
                for two in boxes[:at]
                if one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]
            ]


def test_a_placeholder_is_left_empty_and_a_failure_has_a_card() -> None:
    section = SheetSection(
        title="", columns=("1", "2"), rows=(("r", ((make_cell(0, "skipped"),), (make_cell(1, "failed"),))),)
    )
    (page,) = pages_of([section], most_columns=8, most_cells=48)
    plate = draw_page(page, title="t", corner="", width_px=200, shape=SHAPE)
    assert [spot.cell.number for spot in plate.spots] == [1]


def test_text_is_cut_where_the_room_ends() -> None:
    paper = Image.new("L", (400, 40))
    write(ImageDraw.Draw(paper), (0, 0), "a very long name " * 20, size=16, width=100, colour="#ffffff")
    box = paper.getbbox()
    assert box is not None
    assert 60 < box[2] <= 102


def test_the_corner_says_what_runs_down_and_across() -> None:
    assert corner_text(SheetLayout(x="seed", y="strength", tabs=())) == "strength / seed"
    assert corner_text(SheetLayout(x=None, y=None, tabs=())) == ""
