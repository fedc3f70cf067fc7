"""One line of a sheet -> one row of the manifest: each cell read by its column."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from pathlib import Path

from pipeline.manifest import field_types, prompt_checks, ranges
from pipeline.manifest.axes import Axis, DerivedSeedAxis, SeedAxis
from pipeline.manifest.delimited import is_blank
from pipeline.manifest.diagnostics import Diagnostic, Diagnostics
from pipeline.manifest.labels import short_hash, slug
from pipeline.manifest.resolution import (
    ALIASES,
    KEEP_FIELDS,
    MAX_CACHED,
    REQUEST_FIELDS,
    SELDOM_SAME,
    ValidationContext,
    reader_of,
)
from pipeline.manifest.spec import INVALID, VAR, SharedCells, SourceLocation, SpecRow

COLUMNS = (*REQUEST_FIELDS, *ALIASES, "id", "seeds", "tags", "take", "repeat", "skip", "loop", *KEEP_FIELDS)
"""The columns a sheet may have, besides `var:NAME`."""

RESULT_COLUMNS = ("status", "video", "cost_usd", "reason")
"""What `dop report --into` adds to a sheet. All of them together are passed over, so that the copy is a sheet again."""

ID_PROMPT_CHARS = 32
"""Characters of the prompt in the id of a row that has none: enough to recognise it in a file name."""
COMMENTED = (
    "the line begins with '#', and a sheet has no comments: to leave a row out, write true in the column 'skip'"
    " (a text that really begins with '#' cannot be in the first column)"
)


def is_column(name: str) -> bool:
    """Whether a sheet may have a column of this name."""
    return name in COLUMNS or (name.startswith(VAR) and bool(name[len(VAR) :].strip()))


def seeds_of(text: str) -> Axis:
    """The axis of a seed expression: `x8`, '1000-1005', '7, 77', '5'.

    Raises:
        ValueError: it is none.
    """
    field_types.text(text)
    count = text[1:].strip() if text[:1] in {"x", "X"} else ""
    if count.isascii() and count.isdigit():
        return DerivedSeedAxis(size=field_types.seed_count(field_types.number_from_text(count)))
    return SeedAxis(values=ranges.values_of(ranges.SEED, text))


_Reading = tuple[int, str, str, Callable[[str], object]]
"""Of one column: its place, its name, the field that it sets, and what settles a cell."""


@dataclass(slots=True, kw_only=True)
class PartlyFilled:
    """How many rows of a sheet leave a column's cell empty. Counted while the rows are read."""

    rows: int = 0
    empty: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Layout:
    """What the header of a sheet says about its lines.

    `missing` are required fields that neither a column nor anything else gives. Empty cells of the columns `fill_down`
    take the cell above.
    """

    path: Path
    header: Sequence[str]
    separator: str
    missing: Sequence[str] = ()
    fill_down: Sequence[str] = ()

    @property
    def unnamed(self) -> list[int]:
        """The places of columns without a name, whose cells must be empty."""
        return [place for place, name in enumerate(self.header) if not name.strip()]

    @property
    def width(self) -> int:
        """How many cells reach the last column with a name."""
        return max((place for place, name in enumerate(self.header, start=1) if name.strip()), default=0)


class RowBuilder:
    """Makes rows of records, column by column, and remembers what repeated cells mean."""

    def __init__(
        self, layout: Layout, surroundings: ValidationContext, mistakes: Diagnostics, counted: PartlyFilled
    ) -> None:
        header = layout.header
        self._path = layout.path
        self._header = header
        self._unnamed = layout.unnamed
        self._width = layout.width
        self._mistakes = mistakes
        self._missing = layout.missing
        self._separator = layout.separator
        columns = [self._column(place, name, surroundings) for place, name in enumerate(header)]
        self._readings = [column for column in columns if column is not None]
        self._seldom_same = [reading for reading in self._readings if reading[2] in SELDOM_SAME]
        self._often_same = [reading for reading in self._readings if reading[2] not in SELDOM_SAME]
        self._common_cells = _cells_at([reading[0] for reading in self._often_same])
        self._common: dict[tuple[str, ...], SharedCells] = {}
        self._prompt_at = header.index("prompt") if "prompt" in header else None
        filled = {ALIASES.get(name, name) for name in layout.fill_down}
        self._above = {place: "" for place, name in enumerate(header) if ALIASES.get(name, name) in filled}
        self._counted = counted
        counted.empty.update({field_name: 0 for _, _, field_name, _ in self._readings})

    def _column(self, place: int, name: str, surroundings: ValidationContext) -> _Reading | None:
        if name.startswith(VAR):
            return place, name, VAR + name[len(VAR) :].strip(), field_types.variable
        if name == "seeds":
            return place, name, name, lru_cache(MAX_CACHED)(seeds_of)
        field_name = ALIASES.get(name, name)
        if name not in COLUMNS:
            return None
        read = reader_of(field_name, surroundings)
        if field_name == "strength" and self._separator == ";":
            return place, name, field_name, lambda cell: read(_with_point(cell))
        return place, name, field_name, read

    def row(self, record: list[str], line: int) -> SpecRow | None:
        """The row of a record; None for one whose cells do not stand under their columns."""
        # A spreadsheet's own error (`#REF!`) has a message of its own; every other `#` is meant as a comment.
        if record[0].lstrip().startswith("#") and prompt_checks.debris(record[0]) is None:
            self._report(line, COMMENTED)
            return None
        # Before anything is read: cells that are one place off would give wrong prompts to right pictures.
        if len(record) != len(self._header) or self._unnamed:
            why = self._why_ragged(record)
            if why is not None:
                self._report(line, why)
                return None
        for place in self._above:
            self._above[place] = record[place] = record[place] or self._above[place]
        self._counted.rows += 1
        # Cells that are the same in most rows (model, image, motion) are read once for all rows that have them.
        cells = self._common_cells(record)
        common = self._common.get(cells)
        if common is None:
            own: dict[str, object] = dict.fromkeys(self._missing, INVALID)
            self._read(self._readings, record, own, line)
            self._remember(cells, own)
            return self._made(own, record, line, self._common.get(cells))
        own = common.fields.copy()
        for name in common.empty:
            self._counted.empty[name] += 1
        self._read(self._seldom_same, record, own, line)
        return self._made(own, record, line, common)

    def _read(self, readings: Iterable[_Reading], record: list[str], own: dict[str, object], line: int) -> None:
        """Settle the cells of some columns into `own`; a mistake leaves INVALID there."""
        for place, name, field_name, read in readings:
            if cell := record[place]:
                try:
                    own[field_name] = read(cell)
                except ValueError as error:
                    own[field_name] = INVALID
                    self._report(line, str(error), f"column {name!r}")
            else:
                self._counted.empty[field_name] += 1

    def _remember(self, cells: tuple[str, ...], own: dict[str, object]) -> None:
        """Keep what these cells mean for the next row that has the same; cells with a mistake are read each time."""
        names = [reading[2] for reading in self._often_same]
        fields = {name: own[name] for name in names if name in own}
        # A mistake is reported for each row that has it, so such cells are not remembered.
        if self._missing or INVALID in fields.values():
            return
        if len(self._common) >= MAX_CACHED:
            self._common.clear()
        self._common[cells] = SharedCells(fields, tuple(name for name in names if name not in own))

    def _why_ragged(self, record: list[str]) -> str | None:
        """Why cells do not stand under their columns; None where they do, after cells are cut or added at the end."""
        columns = len(self._header)
        if not self._separator or len(record) >= self._width:
            record += [""] * (columns - len(record))
        if len(record) > columns and is_blank(record[columns:]):
            del record[columns:]
        if len(record) != columns:
            return _why_ragged(record, columns)
        for place in self._unnamed:
            if record[place].strip():
                message = f"column {place + 1} has no name, and this cell holds {record[place]!r}"
                return f"{message}: name the column, or empty the cell"
        return None

    def _made(self, own: dict[str, object], record: list[str], line: int, common: SharedCells | None) -> SpecRow:
        row_id = own.pop("id", None)
        location = SourceLocation(file=self._path, line=line)
        row = SpecRow(location=location, own=own, default_id=lambda: self._default_id(record), common=common)
        if isinstance(row_id, str):
            row.row_id = row_id
        elif row_id is INVALID:
            row.has_errors = True
        if "seeds" in own:
            seeds = own.pop("seeds")
            if seeds is INVALID:
                own["seed"] = INVALID
            elif isinstance(seeds, (SeedAxis, DerivedSeedAxis)):
                row.seeds = seeds
        return row

    def _default_id(self, record: list[str]) -> str:
        written = sorted(
            (name, cell) for name, cell in zip(self._header, record, strict=True) if cell and name not in RESULT_COLUMNS
        )
        prompt = record[self._prompt_at] if self._prompt_at is not None else ""
        return default_id(prompt, json.dumps(written))

    def _report(self, line: int, message: str, where: str = "") -> None:
        self._mistakes.add(Diagnostic(file=self._path, line=line, where=where, message=message))


def _cells_at(places: Sequence[int]) -> Callable[[Sequence[str]], tuple[str, ...]]:
    """What takes the cells at these places out of a record."""
    if len(places) < 2:  # for one place `itemgetter` gives the cell alone
        return lambda record: tuple([record[place] for place in places])
    return itemgetter(*places)


def default_id(prompt: str, whole_row: str) -> str:
    """The id of a row that has none: a slug of its prompt and a hash of the whole row."""
    return f"{slug(prompt[: ID_PROMPT_CHARS * 2])[:ID_PROMPT_CHARS].rstrip('-.') or 'row'}-{short_hash(whole_row, 6)}"


def _with_point(cell: str) -> str:
    """A strength as a spreadsheet writes it where a comma is the decimal mark, and semicolons separate the cells."""
    return cell.replace(",", ".") if re.fullmatch(r"\d,\d+", cell) else cell


CURLY_QUOTES = frozenset("\u201c\u201d\u201e\u00ab\u00bb")
"""Double quotes as word processors write them; CSV knows the straight one only."""


def _why_ragged(record: Sequence[str], columns: int) -> str:
    hint = "put cells with commas in quotes" if len(record) > columns else "a comma is missing, or a quote is open"
    if any(cell[:1] == " " and cell.lstrip()[:1] == '"' for cell in record):
        hint = "there is a space before an opening quote"
    elif any(cell.lstrip()[:1] in CURLY_QUOTES for cell in record):
        hint = 'curly quotes hold no cell together: write straight ones (")'
    return f"has {len(record)} cells, the header has {columns}: {hint}"
