"""The clips of several runs on one page, to compare what one model made with what another did. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pipeline.records import Attempt
from pipeline.reports.sheet.layout import MAX_STACKED, ROW, RUN, LayoutAxis, Places, SheetLayout
from pipeline.reports.sheet.run_view import Cell, Line, RunView, latest_lines


def lines_with_owners(view: RunView) -> tuple[list[RunView], list[Cell]]:
    """Each cell's line with the run that it is of; a clip that several runs share is the first one's."""
    owners: list[RunView] = []
    lines: list[Cell] = []
    known: set[str] = set()
    for owner in (view, *view.beside):
        found = latest_lines(owner.lines)
        new = [one for one in found if not (isinstance(one[0], Attempt) and one[0].request_id in known)]
        known |= {line.request_id for line, _ in new if isinstance(line, Attempt)}
        lines += new
        owners += [owner] * len(new)
    first: dict[tuple[str, str], int] = {}
    places = [first.setdefault(_take(line), len(first)) for line, _ in lines]
    order = sorted(range(len(lines)), key=lambda at: places[at])  # the same take of two runs lies side by side
    return [owners[at] for at in order], [lines[at] for at in order]


def _take(line: Line) -> tuple[str, str]:
    """The row and the seed: what a clip has in common with the one that another model made of it."""
    return base_row(line.row_id), str(line.params.seed) if isinstance(line, Attempt) else ""


def base_row(row_id: str) -> str:
    """The row; of one that `dop derive` made, the row that it came from."""
    return row_id.split("@", 1)[0].split("+", 1)[0]


def arranged_by_run(axes: Sequence[LayoutAxis], places: Places) -> SheetLayout:
    """A column for each run where few clips meet; where a row has many takes, they flow and pairs are neighbours."""
    crowd = max(Counter(zip(places.column(ROW), places.column(RUN), strict=True)).values(), default=0)
    x = RUN if crowd <= MAX_STACKED else None
    names = {axis.name for axis in axes}
    return SheetLayout(x=x if x in names else None, y=ROW if ROW in names else None, tabs=())


def run_labels(view: RunView) -> dict[str, str]:
    """Run -> what the page calls it: its name, or where names repeat, its whole id."""
    runs = (view, *view.beside)
    is_clear = len({run.title for run in runs}) == len(runs)
    return {run.run: run.title if is_clear else run.run for run in runs}


def with_runs(places: Places, view: RunView, owners: Sequence[RunView]) -> Places:
    """The places with each cell's run as an axis; a row that `dop derive` made is one with the row it came from."""
    labels = run_labels(view)
    rows = [base_row(row) for row in places.column(ROW)]
    return places.replaced({ROW: rows, RUN: [labels[owner.run] for owner in owners]})
