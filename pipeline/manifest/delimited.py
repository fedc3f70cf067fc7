"""Lines of text -> records of cells: CSV with commas, or with semicolons or tabs where they are unmistakable."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

COMMA = ","
TAB = "\t"
OTHER_MARKS = (";", TAB)
"""Separators that are recognised by the names of the columns between them."""
ENOUGH_NAMES = 2
"""So many known column names between other separators, and not one comma, leave no doubt."""

_SEP_LINE = re.compile(r"sep=([,;\t])\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Records with the line on which each begins, from 1; a message takes the place of a record that cannot be read.

    `separator` is what separates the cells; "" where the file has cells of its own.
    """

    records: Iterator[tuple[int, list[str] | str]]
    separator: str = ""


def is_blank(record: Sequence[str]) -> bool:
    """Whether a record shows nothing."""
    return not any(cell.strip() for cell in record)


def table(lines: Iterable[str], is_column: Callable[[str], bool], separator: str | None = None) -> Table:
    """The records of text lines, their ends as they are.

    Args:
        is_column: whether a word is the name of a column.
        separator: what separates the cells where the file's name says it; found in the first line unless given.
    """
    rest = iter(lines)
    lead: list[str] = []
    for line in rest:
        lead.append(line)
        if line.strip():
            break
    first = lead[-1] if lead else ""
    marked = _SEP_LINE.fullmatch(first)
    if marked:
        separator = marked[1]
        # An empty line in its place, so that the numbers in messages are those of the file.
        lead[-1] = "\n"
    elif separator is None:
        separator = separator_of(first, is_column)
    return Table(records=_records(chain(lead, rest), separator), separator=separator)


def separator_of(header: str, is_column: Callable[[str], bool]) -> str:
    """What separates the columns of a header line: a comma unless another mark is unmistakable."""
    if sum(1 for cell in _split(header, COMMA) if cell.strip()) == 1:
        for mark in OTHER_MARKS:
            # In small letters: `Image;Prompt` is separated by semicolons, and its names are a mistake of their own.
            if sum(1 for cell in _split(header, mark) if is_column(cell.strip().lower())) >= ENOUGH_NAMES:
                return mark
    return COMMA


def names_columns(line: str, is_column: Callable[[str], bool]) -> bool:
    """Whether a line looks like the header of a sheet."""
    return any(is_column(cell.strip()) for cell in _split(line, separator_of(line, is_column)))


def is_header(record: Sequence[str], is_column: Callable[[str], bool]) -> bool:
    """Whether a record further down can only be the header: it names several columns, whatever separates them."""
    cells = _split(record[0], separator_of(record[0], is_column)) if len(record) == 1 else record
    return sum(1 for cell in cells if is_column(cell.strip().lower())) >= ENOUGH_NAMES


def _split(line: str, mark: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=mark), [])
    except csv.Error:
        return []


def _records(lines: Iterable[str], separator: str) -> Iterator[tuple[int, list[str] | str]]:
    # Strict: a quote that is never closed would otherwise swallow the rows below it as one prompt.
    reader = csv.reader(lines, strict=True, delimiter=separator)
    while True:
        # Before the record is read: a quoted cell may go over several lines, and the first one is the place to name.
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, _why_not_csv(str(error))
        else:
            yield line, record


def _why_not_csv(error: str) -> str:
    if "unexpected end of data" in error:
        return "a quote that opens in this row is never closed"
    if "expected after" in error:
        return "text follows a closing quote: double the quotes inside a quoted cell"
    if "field limit" in error:
        return f"a cell has more than {csv.field_size_limit():,} characters: is a quote before it never closed?"
    return f"not CSV: {error}"
