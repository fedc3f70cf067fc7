"""The first worksheet of an .xlsx file as records of text cells, as the spreadsheet shows their values.

openpyxl reads it, an extra of this package: the faster readers give an error cell, `#REF!`, as an empty one, and an
empty cell takes a default.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from zipfile import BadZipFile

EXTRA = "needs the extra [xlsx] (openpyxl): install it, or save the sheet as 'CSV UTF-8'"
NO_VALUE = "the formula has no value yet: open the file in the spreadsheet, save it, and run again"

BROKEN = (BadZipFile, KeyError, ValueError, EOFError, SyntaxError, TypeError, IndexError, AttributeError)
"""What openpyxl raises for files that are no workbooks, or broken ones."""


class WorkbookError(ValueError):
    """The file is not a workbook that can be read; the message says why."""


def records(path: Path) -> Iterator[tuple[int, list[str] | str]]:
    """Rows with their numbers, from 1; a message takes the place of a row that cannot be read.

    Raises:
        WorkbookError: it is no workbook, or openpyxl is not installed.
    """
    try:
        import openpyxl  # noqa: PLC0415 - an extra
    except ImportError:
        raise WorkbookError(EXTRA) from None
    warnings.filterwarnings("ignore", module="openpyxl")  # of drop-down lists and styles, which it leaves out
    with path.open("rb") as shown_file, path.open("rb") as written_file:
        try:
            values = openpyxl.load_workbook(shown_file, read_only=True, data_only=True)
            formulas = openpyxl.load_workbook(written_file, read_only=True)
            shown = values.worksheets[0].iter_rows(values_only=True)
            written = formulas.worksheets[0].iter_rows(values_only=True)
            for line, (cells, sources) in enumerate(zip(shown, written, strict=True), start=1):
                lacking = any(cell is None and _is_formula(source) for cell, source in zip(cells, sources, strict=True))
                yield line, NO_VALUE if lacking else [text_of(cell) for cell in cells]
        except BROKEN as error:
            raise WorkbookError(_not_readable(error)) from None


def _not_readable(error: Exception) -> str:
    return f"is not an .xlsx file that can be read ({error}): save the sheet as 'CSV UTF-8'"


def _is_formula(source: object) -> bool:
    return isinstance(source, str) and source.startswith("=")


def text_of(value: object) -> str:
    """A cell's value as a CSV export would write it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else format(Decimal(repr(value)), "f")
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    if isinstance(value, (date, time)):
        return value.isoformat()
    return str(value).replace("_x000D_", "")
