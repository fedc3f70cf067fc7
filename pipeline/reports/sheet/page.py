"""The contact sheet: one HTML page that works from a file, offline, with the clips beside it.

Resolves where files lie, fills the template and writes the page. Everything a manifest or a gateway said goes through
autoescape or into a JSON block without markup; the page may load nothing but pictures and clips beside it, and runs
no script but its own (content security policy with hashes).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from pipeline.files import whole_text
from pipeline.ledger.reviews import plain_review
from pipeline.records import FAILED_FOR_GOOD, State, Totals, usd
from pipeline.reports.checks.findings import Grade, Kind
from pipeline.reports.progress import span
from pipeline.reports.sheet.beside import arranged_by_run, lines_with_owners, run_labels, with_runs
from pipeline.reports.sheet.cell_data import CellData
from pipeline.reports.sheet.cells import STATE_WORDS, SheetCell, is_web_link, sheet_cell
from pipeline.reports.sheet.charts import charts_of
from pipeline.reports.sheet.clip_files import USUAL_SHAPE, check_of, clips_of, media_of, shape_of, start_clips
from pipeline.reports.sheet.keeper_panel import HEAD as KEEPERS_HEAD
from pipeline.reports.sheet.keeper_panel import keeper_rows
from pipeline.reports.sheet.layout import MAX_STACKED, LayoutAxis, SheetLayout, arrange, axes_of, places_of
from pipeline.reports.sheet.lazy_sequence import LazySequence
from pipeline.reports.sheet.money_panel import money_by_model
from pipeline.reports.sheet.run_view import Cell, RunView, latest_lines
from pipeline.reports.sheet.thumbnails import make_stills
from pipeline.reports.tables import moment

PAGE_CELLS = 2000
"""Cells shown at a time: more would make scrolling stutter. The rest is a page further on."""

SCRIPTS = (
    "data", "arrange", "reviews", "bradley", "grid", "players", "triage", "compare", "duel", "controls", "keys",
    "start",
)  # fmt: skip
"""The page's scripts, in the order in which they are joined."""

HELP_KEYS = (
    ("← → ↑ ↓", "move between the clips"),
    ("J shift+J", "the next clip, the one before"),
    ("K", "keep, or take that back (P as well)"),
    ("X", "reject, or take that back"),
    ("1 … 5", "stars; 0 takes them back"),
    ("N", "note"),
    ("D", "download the clip"),
    ("U", "undo"),
    ("enter", "one clip large, its takes below"),
    ("F", "the same over the whole screen"),
    ("C", "mark for comparing (2 to 4)"),
    ("V", "compare the marked clips, or the takes of this shot"),
    ("W E", "in a comparison of two: wipe, or what differs"),
    ("B", "blind duel between two takes of this shot: ← or → wins, S another pair, O the order"),
    ("space", "play or pause"),
    (", .", "one frame back or on"),
    ("I", "details: prices, run, the whole request"),
    ("[ ]", "the tab before or after"),
    ("− +", "smaller or larger clips"),
    ("/", "filter"),
    ("esc", "close, or back to the stills"),
    ("?", "this list"),
)
"""Every key of the page, as its help lists them."""

SHARED_FILES = (
    ("review.zip", "a folder that plays anywhere: this page, small clips and the reviews"),
    ("grid.mp4", "one video of all clips in step; 48 clips take about 20 s"),
    ("contact.png", "one picture of all clips"),
)
"""What `dop report -o` makes of a run for others, with what it is."""

SANDBOX = "sandbox"
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetModel:
    """The page's content before it is markup."""

    cells: Sequence[SheetCell]
    axes: tuple[LayoutAxis, ...]
    arrangement: SheetLayout


def write_sheet(view: RunView, path: Path, *, stills: bool = True) -> None:
    """Writes the page; with `stills`, first the posters and start frames that are missing beside the clips.

    The page itself takes under 3 s for 1,000 cells; a missing poster takes tenths of a second more.
    Writes: `path`, by rename; JPEG files beside the clips.
    """
    lines = latest_lines(view.lines)
    if stills:
        make_stills(clips_of(view), start_clips(lines, view).values())
    sheet = _sheet_of(view, lines, path.parent)
    with whole_text(path) as stream:
        stream.writelines(page_pieces(view, sheet, shape=shape_of(lines, view.outputs)))


def build_sheet(view: RunView, folder: Path) -> SheetModel:
    """The cells, axes and arrangement of a run as seen from a page in `folder`."""
    return _sheet_of(view, latest_lines(view.lines), folder)


def _sheet_of(view: RunView, lines: Sequence[Cell], folder: Path) -> SheetModel:
    owners: Sequence[RunView] = ()
    if view.beside:
        owners, lines = lines_with_owners(view)
    shown = [line for line, _ in lines]
    places = places_of(shown)
    if view.beside:
        places = with_runs(places, view, owners)
    axes = axes_of(shown, places, wanted=[name for name in (view.x, view.y, *view.tabs) if name])
    starts = start_clips(lines, view)

    def cell(number: int) -> SheetCell:
        line, earlier = lines[number]
        stills = media_of(line, view.outputs, folder, starts)
        owner = owners[number] if view.beside else view
        return sheet_cell(number, line, earlier, places[number], stills, check=check_of(owner, line))

    plan = arranged_by_run(axes, places) if view.beside else arrange(axes, places, x=view.x, y=view.y, tabs=view.tabs)
    return SheetModel(cells=LazySequence(len(lines), cell), axes=tuple(axes), arrangement=plan)


def sheet_html(
    view: RunView,
    sheet: SheetModel,
    *,
    shape: tuple[int, int] = USUAL_SHAPE,
    served_script: str = "",
    is_embedded: bool = False,
) -> str:
    """The page as one text; the arguments are those of `page_pieces`."""
    return "".join(page_pieces(view, sheet, shape=shape, served_script=served_script, is_embedded=is_embedded))


def page_pieces(
    view: RunView,
    sheet: SheetModel,
    *,
    shape: tuple[int, int] = USUAL_SHAPE,
    served_script: str = "",
    is_embedded: bool = False,
) -> Iterator[str]:
    """The page as text, piece by piece.

    Args:
        served_script: what a page adds that a server gives out; only such a page may talk, and to its server alone.
        is_embedded: clips and pictures are in the page itself; it has no clips before its script runs.
    """
    style = _asset("sheet.css") + f":root{{--shape:{shape[0]}/{shape[1]}}}"
    parts = [*(_asset(f"{name}.js") for name in SCRIPTS), served_script]
    script = "(() => {\n" + "\n".join(parts) + "\n})();\n"
    with CellData(sheet.cells, [axis.name for axis in sheet.axes]) as data:
        yield from (
            template_environment()
            .get_template("sheet.html")
            .generate(
                view=view,
                sheet=sheet,
                data=map(_for_script, _json_pieces(head_data(view, sheet, is_served=bool(served_script)), data)),
                style=Markup(style),  # noqa: S704 # our own file and two numbers
                script=Markup(script),  # noqa: S704 # our own files
                style_hash=_hash(style),
                script_hash=_hash(script),
                sections=[] if is_embedded else sections(sheet),
                is_embedded=is_embedded,
                is_served=bool(served_script),
                shown=PAGE_CELLS,
                statuses=data.states,
                spare=data.spare,
                checks=checks_shown(data),
                troubles=troubles_of(data.states),
                words=STATE_WORDS,
                totals=totals_shown(view.totals),
                money=money_by_model(view),
                keepers=keeper_rows(view),
                keepers_head=KEEPERS_HEAD,
                charts=charts_of(view),
                is_sandbox=view.gateway.partition("-")[0] == SANDBOX,
                help_keys=HELP_KEYS,
                shared_files=SHARED_FILES,
                started=_minute(view.started_at),
                lasted=_lasted(view),
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetSection:
    """One tab as a table: column and row heads and the cells of each crossing. No columns: the cells flow."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[SheetCell, ...], ...]], ...]


def sections(sheet: SheetModel, most: int = PAGE_CELLS) -> list[SheetSection]:
    """The first cells in the default arrangement, tab after tab: what is on the page before any script runs."""
    plan = sheet.arrangement
    by_tab: dict[tuple[str, ...], list[SheetCell]] = {}
    for cell in sheet.cells[:most]:
        by_tab.setdefault(tuple(cell.place.get(name, "") for name in plan.tabs), []).append(cell)
    return [_section(plan, tab, cells) for tab, cells in by_tab.items()]


def _section(plan: SheetLayout, tab: tuple[str, ...], cells: Sequence[SheetCell]) -> SheetSection:
    columns = tuple(dict.fromkeys(cell.place.get(plan.x, "") for cell in cells)) if plan.x else ("",)
    crossings: dict[str, dict[str, list[SheetCell]]] = {}
    for cell in cells:
        row = crossings.setdefault(cell.place.get(plan.y, "") if plan.y else "", {})
        row.setdefault(cell.place.get(plan.x, "") if plan.x else "", []).append(cell)
    return SheetSection(
        title=" · ".join(f"{name} {value or '–'}" for name, value in zip(plan.tabs, tab, strict=True)),
        columns=columns if plan.x else (),
        rows=tuple((name, tuple(tuple(row.get(column, ())) for column in columns)) for name, row in crossings.items()),
    )


def head_data(view: RunView, sheet: SheetModel, *, is_served: bool = False) -> dict[str, object]:
    """What the page's scripts know of the run; its cells follow as `CellData`."""
    plan = sheet.arrangement
    runs = (view, *view.beside) if view.reviews else ()
    listed = {attempt.request_id for run in runs for attempt in run.attempts()}
    return {
        "run": view.run,
        "gateway": view.gateway,
        "axes": [{"name": axis.name, "values": axis.values} for axis in sheet.axes],
        "x": plan.x,
        "y": plan.y,
        "tabs": plan.tabs,
        "words": {state.value: words for state, words in STATE_WORDS.items()},
        "pageCells": PAGE_CELLS,
        "mostStacked": MAX_STACKED,
        "isServed": is_served,
        "reviewer": view.reviewer,
        "beside": [other.run for other in view.beside],
        "runs": {label: run for run, label in run_labels(view).items()},
        "reviews": [plain_review(change) for change in view.reviews if change.request_id in listed],
        "prices": dict(view.prices),
    }


def _json_pieces(head: Mapping[str, object], data: CellData) -> Iterator[str]:
    yield json.dumps(head, ensure_ascii=False, separators=(",", ":"))[:-1] + ","
    yield from data.pieces()
    yield "}"


def totals_shown(totals: Totals) -> list[tuple[str, str, str]]:
    """The sums as (name, dollars, what it means)."""
    return [
        ("confirmed", f"${usd(totals.confirmed_microusd)}", "videos made, also those that are gone since"),
        ("disputed", f"${usd(totals.disputed_microusd)}", "failed, refused or canceled: a refund is not known"),
        ("reserved", f"${usd(totals.reserved_microusd)}", "in flight, stalled or unknown"),
        ("worst case", f"${usd(totals.worst_microusd)}", "if every open question goes against you"),
    ]


def troubles_of(states: Mapping[str, int]) -> list[tuple[str, str, int]]:
    """What the user should know before looking at the clips, as (name, its states, count)."""
    kinds = (("failed", sorted(FAILED_FOR_GOOD)), ("unknown", [State.UNKNOWN]), ("stalled", [State.STALLED]))
    return [(name, " ".join(some), sum(states.get(state, 0) for state in some)) for name, some in kinds]


def checks_shown(data: CellData) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Grades of the clips with their counts, worst first, and the kinds of defects with theirs."""
    grades, kinds = data.grades, data.defects
    order = (Grade.BAD, Grade.WARN, Grade.UNCHECKED, Grade.OK)
    return [(grade, grades[grade]) for grade in order if grades[grade]], [(k, kinds[k]) for k in Kind if kinds[k]]


def _minute(at: float | None) -> str:
    when = moment(at)
    return "" if when is None else when.strftime("%Y-%m-%d %H:%M UTC")


def _lasted(view: RunView) -> str:
    if view.started_at is None or view.ended_at is None:
        return ""
    return span(view.ended_at - view.started_at)


def _for_script(text: str) -> Markup:
    """A piece of JSON that no HTML parser can mistake for markup: the characters that could are escapes."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _asset(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


@cache
def template_environment(folder: Path = _TEMPLATES) -> jinja2.Environment:
    """The templates of a folder; whatever they print is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.tests["web_link"] = is_web_link
    return environment
