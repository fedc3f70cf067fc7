"""Rows of a sheet, one after the other, never all at once.

Strict on purpose: a sheet shifted by one comma would buy the wrong prompts, and a spreadsheet rewrites what it likes.
What buys nothing whatever it means (empty lines, empty columns, the FALSE of a checkbox) is passed over with a notice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipeline.manifest.delimited import Table, is_blank, is_header
from pipeline.manifest.diagnostics import Diagnostic, Diagnostics
from pipeline.manifest.labels import did_you_mean
from pipeline.manifest.resolution import ALIASES, FORBIDDEN_FIELDS, REQUIRED, ValidationContext
from pipeline.manifest.sheet_row import COLUMNS, RESULT_COLUMNS, Layout, PartlyFilled, RowBuilder, is_column
from pipeline.manifest.spec import SpecRow

CHECKBOX = frozenset({"", "true", "false"})
"""What the cells of an empty line may hold in a sheet with a column of checkboxes."""

MAX_LINES_ABOVE_HEADER = 10
"""Records below the first one that are searched for a header: a title, a date and a logo's empty lines fit in them."""


def header_mistakes(header: Sequence[str]) -> list[tuple[str, str]]:
    """Column and message of what is wrong with a header line. A column without a name is judged by its cells."""
    wrong: list[tuple[str, str]] = []
    spelled: dict[str, str] = {}
    # Only all of them together mean a copy with results; one of them alone is an unknown column.
    results = RESULT_COLUMNS if set(header) >= set(RESULT_COLUMNS) else ()
    for name in header:
        if not name.strip() or name in results:
            continue
        why = _why_not_a_column(name)
        field_name = ALIASES.get(name, name)
        if why is None and field_name in spelled:
            first = spelled[field_name]
            why = "is there twice" if first == name else f"is the same field as {first!r}: keep one of them"
        spelled.setdefault(field_name, name)
        if why is not None:
            wrong.append((name, why))
    if "seed" in header and "seeds" in header:
        wrong.append(("seeds", "is given beside 'seed': keep one of them"))
    if "take" in header and "repeat" in header:
        wrong.append(("repeat", "is given beside 'take': keep one of them"))
    return wrong


def _why_not_a_column(name: str) -> str | None:
    if is_column(name):
        return None
    if name.strip() in COLUMNS:
        return f"has spaces around it: write {name.strip()!r}"
    if name in FORBIDDEN_FIELDS:
        return FORBIDDEN_FIELDS[name]
    return f"unknown column.{did_you_mean(name, COLUMNS)}"


def _why_not_a_header(first: Sequence[str], table: Table) -> str | None:
    """Why the first line names no columns, in one sentence for the whole line; None where each name can be judged."""
    if not first:
        return "is empty: the first line names the columns"
    if any(is_column(name.strip().lower()) for name in first):
        return None
    below = _header_below(table)
    if below is not None:
        return f"is not the header, which is line {below}: delete the lines above it"
    for mark, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(first) == 1 and mark in first[0]:
            return f"the columns are separated by {name}: save the sheet with commas"
    return None


def _header_below(table: Table) -> int | None:
    """The line of a header that follows a title; None where none of the next records is one."""
    for line, record in islice(table.records, MAX_LINES_ABOVE_HEADER):
        if not isinstance(record, str) and record and is_header(record, is_column):
            return line
    return None


def is_noise(record: Sequence[str]) -> bool:
    """Whether a record shows nothing but what a column of checkboxes leaves below the last row."""
    if not record or record[0].strip().lower() not in CHECKBOX:  # for nearly every record the first cell answers it
        return not record
    return all(cell.strip().lower() in CHECKBOX for cell in record)


@dataclass(slots=True)
class _PassedOver:
    """What of a sheet was passed over because it is empty."""

    lines: int = 0
    columns: int = 0

    def notice(self, file: Path) -> str | None:
        """What is said about it; None if there is nothing to say."""
        counts = [(self.lines, "line", "lines"), (self.columns, "column without a name", "columns without a name")]
        message = " and ".join(f"{count} {one if count == 1 else several}" for count, one, several in counts if count)
        return f"{file}: {message} without content: passed over" if message else None


class CsvRows:
    """The rows of one sheet.

    Args:
        given: required fields that defaults or axes give, so that their columns may be missing.
        fill_down: columns whose empty cells take the cell above.
    """

    def __init__(
        self,
        path: Path,
        surroundings: ValidationContext,
        given: frozenset[str],
        fill_down: Sequence[str] = (),
    ) -> None:
        self.path = path
        self.partly_filled = PartlyFilled()
        self._surroundings = surroundings
        self._given = given
        self._fill_down = fill_down

    def rows(self, table: Table, mistakes: Diagnostics) -> Iterator[SpecRow]:
        """The rows in the file's order, without those whose cells do not stand under their columns: mistakes."""
        self.partly_filled = PartlyFilled()
        passed_over = _PassedOver()
        layout = self._layout(table, mistakes)
        if layout is None:
            return
        passed_over.columns = len(layout.unnamed)
        builder = RowBuilder(layout, self._surroundings, mistakes, self.partly_filled)
        rows = 0
        for line, record in table.records:
            if isinstance(record, str):
                mistakes.add(Diagnostic(file=self.path, line=line, message=record))
                # Counted, or the sheet would be called empty as well.
                rows += 1
            elif is_noise(record):
                # Bare line ends are no news; a row of commas may be a row that lost its text.
                passed_over.lines += len(record) > 1
            else:
                rows += 1
                row = builder.row(record, line)
                if row is not None:
                    yield row
        if not rows:
            mistakes.add(Diagnostic(file=self.path, message="has no rows"))
        notice = passed_over.notice(self.path)
        if notice is not None:
            self._surroundings.warnings[notice] = None

    def _layout(self, table: Table, mistakes: Diagnostics) -> Layout | None:
        """What the first line that is not blank says; None if it cannot be a header."""
        line, header = _first(table)
        why = header if isinstance(header, str) else _why_not_a_header(header, table)
        if why is not None or isinstance(header, str):
            mistakes.add(Diagnostic(file=self.path, line=line, message=why or ""))
            return None
        for name, message in header_mistakes(header):
            mistakes.add(Diagnostic(file=self.path, line=line, where=f"column {name!r}", message=message))
        known = {ALIASES.get(name, name) for name in header}
        for name in self._fill_down:
            if ALIASES.get(name, name) not in known:
                message = f"fill_down: the sheet has no column {name!r}.{did_you_mean(name, header)}"
                mistakes.add(Diagnostic(file=self.path, line=line, message=message))
        return Layout(
            path=self.path,
            header=header,
            separator=table.separator,
            missing=self._missing(header, line, mistakes),
            fill_down=self._fill_down,
        )

    def _missing(self, header: Sequence[str], line: int, mistakes: Diagnostics) -> tuple[str, ...]:
        """The required fields that neither a column nor anything else gives: one mistake, not one on every line."""
        columns = {ALIASES.get(name.strip(), name.strip()) for name in header}
        if "seeds" in columns:
            columns.add("seed")
        missing = tuple(name for name in REQUIRED if name not in columns and name not in self._given)
        for name in missing:
            if any(f"'{name}'" in did_you_mean(column, REQUIRED) for column in columns - set(REQUIRED)):
                continue  # a misspelt column, which has its own mistake
            where = "column 'seed' or 'seeds'" if name == "seed" else f"column {name!r}"
            mistakes.add(
                Diagnostic(file=self.path, line=line, where=where, message="is missing, and no default gives it")
            )
        return missing


def _first(table: Table) -> tuple[int, list[str] | str]:
    """The first record that shows something, with its line."""
    for line, record in table.records:
        if isinstance(record, str) or not is_blank(record):
            return line, record
    return 1, []
