"""Rows of a CSV file, one after the other, never all at once.

Strict on purpose: a sheet shifted by one comma would buy the wrong prompts, and a spreadsheet rewrites what it likes.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pipeline.manifest import field_types, ranges
from pipeline.manifest.axes import Axis, DerivedSeedAxis, SeedAxis
from pipeline.manifest.diagnostics import Diagnostic, Diagnostics
from pipeline.manifest.labels import did_you_mean, short_hash, slug
from pipeline.manifest.resolution import (
    ALIASES,
    FORBIDDEN_FIELDS,
    REQUEST_FIELDS,
    REQUIRED,
    ValidationContext,
    reader_of,
)
from pipeline.manifest.spec import INVALID, VAR, SourceLocation, SpecRow

COLUMNS = (*REQUEST_FIELDS, *ALIASES, "id", "seeds", "tags", "take", "repeat", "skip", "loop")
"""The columns a sheet may have, besides `var:NAME`."""

ID_PROMPT_CHARS = 32


def seeds_of(text: str) -> Axis:
    """The axis of a seed expression: `x8`, '1000-1005', '7, 77', '5'.

    Raises:
        ValueError: it is none.
    """
    field_types.text(text)
    count = text[1:].strip() if text[:1] in {"x", "X"} else ""
    if count.isascii() and count.isdigit():
        return DerivedSeedAxis(count=field_types.seed_count(field_types.number_from_text(count)))
    return SeedAxis(values=ranges.values_of(ranges.SEED, text))


class _SeedReading:
    """Remembers the axes of seed expressions."""

    def __init__(self) -> None:
        self._known: dict[str, Axis] = {}

    def value(self, cell: str) -> object:
        known = self._known.get(cell)
        if known is None:
            known = seeds_of(cell)
            if len(self._known) < 10_000:
                self._known[cell] = known
        return known


class _TextReading:
    """A template variable: any text."""

    def value(self, cell: str) -> object:
        return field_types.text(cell)


def header_mistakes(header: Sequence[str]) -> list[tuple[str, str]]:
    """Column and message of everything that is wrong with a header line."""
    wrong: list[tuple[str, str]] = []
    spelled: dict[str, str] = {}
    for place, name in enumerate(header, start=1):
        why = _why_not_a_column(name, place)
        field_name = ALIASES.get(name, name)
        if why is None and field_name in spelled:
            first = spelled[field_name]
            why = "stands twice" if first == name else f"is the same field as {first!r}: keep one of them"
        spelled.setdefault(field_name, name)
        if why is not None:
            wrong.append((name, why))
    if "seed" in header and "seeds" in header:
        wrong.append(("seeds", "stands beside 'seed': keep one of them"))
    if "take" in header and "repeat" in header:
        wrong.append(("repeat", "stands beside 'take': keep one of them"))
    return wrong


def _why_not_a_column(name: str, place: int) -> str | None:
    if name in COLUMNS or (name.startswith(VAR) and name[len(VAR) :].strip()):
        return None
    if not name.strip():
        return f"column {place} has no name: a comma too many?"
    if name.strip() in COLUMNS:
        return f"has spaces around it: write {name.strip()!r}"
    if name in FORBIDDEN_FIELDS:
        return FORBIDDEN_FIELDS[name]
    return f"unknown column.{did_you_mean(name, COLUMNS)}"


def _other_separator(header: Sequence[str]) -> str | None:
    if header[0].lower().startswith("sep="):
        return "the line 'sep=' is not part of the sheet: delete it"
    for mark, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(header) == 1 and mark in header[0]:
            return f"the columns are separated by {name}: save the sheet with commas"
    return None


class CsvRows:
    """The rows of one CSV file.

    Args:
        given: required fields that defaults or axes give, so that their columns may be missing.
    """

    def __init__(self, path: Path, surroundings: ValidationContext, given: frozenset[str]) -> None:
        self.path = path
        self._surroundings = surroundings
        self._given = given

    def rows(self, text: Iterable[str], mistakes: Diagnostics) -> Iterator[SpecRow]:
        """The rows in the file's order; lines whose cells do not stand under their columns are told and left out.

        Args:
            text: the file's lines, with their ends as they are.
        """
        reader = csv.reader(text, strict=True)
        header = self._header(reader, mistakes)
        if header is None:
            return
        line_maker = _RowBuilder(self.path, header, self._surroundings, self._missing(header, mistakes), mistakes)
        rows = 0
        while True:
            line = reader.line_num + 1
            try:
                record = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                mistakes.add(Diagnostic(file=self.path, line=line, message=_why_not_csv(str(error))))
                continue
            if not record:
                continue
            rows += 1
            row = line_maker.row(record, line)
            if row is not None:
                yield row
        if not rows:
            mistakes.add(Diagnostic(file=self.path, message="has no rows"))

    def _header(self, reader: Iterator[list[str]], mistakes: Diagnostics) -> list[str] | None:
        try:
            header = next(reader, [])
        except csv.Error as error:
            mistakes.add(Diagnostic(file=self.path, line=1, message=_why_not_csv(str(error))))
            return None
        why = "is empty: the first line names the columns" if not header else _other_separator(header)
        if why is not None:
            mistakes.add(Diagnostic(file=self.path, line=1, message=why))
            return None
        for name, message in header_mistakes(header):
            mistakes.add(Diagnostic(file=self.path, line=1, where=f"column {name!r}", message=message))
        return header

    def _missing(self, header: Sequence[str], mistakes: Diagnostics) -> tuple[str, ...]:
        """The required fields that neither a column nor anything else gives: told once, not on every line."""
        columns = {ALIASES.get(name.strip(), name.strip()) for name in header}
        if "seeds" in columns:
            columns.add("seed")
        missing = tuple(name for name in REQUIRED if name not in columns and name not in self._given)
        for name in missing:
            where = "column 'seed' or 'seeds'" if name == "seed" else f"column {name!r}"
            mistakes.add(Diagnostic(file=self.path, line=1, where=where, message="is missing, and no default gives it"))
        return missing


class _RowBuilder:
    """Makes rows of records, column by column, and remembers what repeated cells mean."""

    def __init__(
        self,
        path: Path,
        header: Sequence[str],
        surroundings: ValidationContext,
        missing: Sequence[str],
        mistakes: Diagnostics,
    ) -> None:
        self._path = path
        self._header = header
        self._mistakes = mistakes
        self._missing = missing
        self._columns = [self._column(place, name, surroundings) for place, name in enumerate(header)]
        self._readings = [column for column in self._columns if column is not None]
        self._prompt_at = header.index("prompt") if "prompt" in header else None

    def _column(
        self, place: int, name: str, surroundings: ValidationContext
    ) -> tuple[int, str, str, Callable[[str], object]] | None:
        if name.startswith(VAR):
            return place, name, VAR + name[len(VAR) :].strip(), _TextReading().value
        if name == "seeds":
            return place, name, name, _SeedReading().value
        field_name = ALIASES.get(name, name)
        if name not in COLUMNS:
            return None
        return place, name, field_name, reader_of(field_name, surroundings)

    def row(self, record: list[str], line: int) -> SpecRow | None:
        """The row of a record; None for one whose cells do not stand under their columns."""
        if len(record) != len(self._header):
            self._tell(line, _why_ragged(record, len(self._header)))
            return None
        if not any(record):
            self._tell(line, "the line is empty but for its commas: delete it")
            return None
        own: dict[str, object] = dict.fromkeys(self._missing, INVALID)
        for place, name, field_name, read in self._readings:
            if cell := record[place]:
                try:
                    own[field_name] = read(cell)
                except ValueError as error:
                    own[field_name] = INVALID
                    self._tell(line, str(error), f"column {name!r}")
        return self._made(own, record, line)

    def _made(self, own: dict[str, object], record: list[str], line: int) -> SpecRow:
        row_id = own.pop("id", None)
        seeds = own.pop("seeds", None)
        if seeds is INVALID:
            own["seed"] = INVALID
        return SpecRow(
            location=SourceLocation(file=self._path, line=line),
            own=own,
            row_id=row_id if isinstance(row_id, str) else None,
            has_errors=row_id is INVALID,
            default_id=lambda: self._default_id(record),
            seeds=seeds if isinstance(seeds, (SeedAxis, DerivedSeedAxis)) else None,
        )

    def _default_id(self, record: list[str]) -> str:
        written = sorted((name, cell) for name, cell in zip(self._header, record, strict=True) if cell)
        prompt = record[self._prompt_at] if self._prompt_at is not None else ""
        return default_id(prompt, json.dumps(written))

    def _tell(self, line: int, message: str, where: str = "") -> None:
        self._mistakes.add(Diagnostic(file=self._path, line=line, where=where, message=message))


def default_id(prompt: str, whole_row: str) -> str:
    """The id of a row that has none: a slug of its prompt and a hash of the whole row."""
    return f"{slug(prompt[: ID_PROMPT_CHARS * 2])[:ID_PROMPT_CHARS].rstrip('-.') or 'row'}-{short_hash(whole_row, 6)}"


def _why_ragged(record: Sequence[str], columns: int) -> str:
    hint = "put cells with commas in quotes" if len(record) > columns else "a comma is missing, or a quote is open"
    if any(cell[:1] == " " and cell.lstrip()[:1] == '"' for cell in record):
        hint = "there is a space before an opening quote"
    return f"has {len(record)} cells, the header has {columns}: {hint}"


def _why_not_csv(error: str) -> str:
    if "unexpected end of data" in error:
        return "a quote that opens in this row is never closed"
    if "expected after" in error:
        return "text stands behind a closing quote: double the quotes inside a quoted cell"
    return f"not CSV: {error}"
