"""A manifest as Python has it: a file, a table, a list of rows, or a whole document as a dictionary.

What is no file is written to one of this process, because a manifest is read several times. It counts as lying in the
working folder, so that relative paths of pictures begin there and the same name continues the same run.
"""

from __future__ import annotations

import atexit
import csv
import io
import json
import math
import re
import shutil
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from pipeline.errors import Place, UsageError, show_as
from pipeline.manifest.spec import VAR

DEFAULT_NAME = "notebook"
"""Names the run of a manifest that is no file."""

WHOLE_NUMBERS = frozenset({"seed", "take", "repeat"})
"""Columns of whole numbers, which pandas makes floats as soon as a cell is empty."""

_NAME = re.compile(r"[\w. -]{1,80}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestFile:
    """A manifest as a file. `origin`: the file that it counts as, where that is another one."""

    path: Path
    origin: Path | None = None


def manifest_file(source: object, name: str | None) -> ManifestFile:
    """The file of a manifest in any of its forms.

    Args:
        name: of the run, where the source is no file; default `notebook`.

    Raises:
        UsageError: the source is no manifest.
    """
    if isinstance(source, Path | str):
        if name is not None:
            raise UsageError("name= is for tables and lists: a file names its run itself")
        return ManifestFile(path=Path(source))
    if isinstance(source, Mapping):
        file = _written(json.dumps(_plain(source), indent=1, ensure_ascii=False), ".yaml", name)
        show_as(
            file.path, lambda line, column: file.path.stem
        )  # its keys are named; its lines are no lines of the user
        return file
    records = _sheet(_rows(source))
    file = _written("".join(records), ".csv", name)
    show_as(file.path, _row_place(file.path.stem, records))
    return file


def _row_place(name: str, records: Sequence[str]) -> Place:
    """The row of a table at a line of its CSV text; a cell may have several lines."""
    first_lines = list(accumulate((record.count("\n") for record in records), initial=1))

    def place(line: int | None, _: int | None) -> str:
        row = 0 if line is None else bisect_right(first_lines, line) - 1
        return f"{name}, row {row}" if row > 0 else name

    return place


def _rows(source: object) -> list[Mapping[object, object]]:
    records = source.to_dict("records") if _is_frame(source) else source  # type: ignore[attr-defined]
    if not isinstance(records, Sequence) or not all(isinstance(row, Mapping) for row in records):
        raise UsageError(
            f"{type(source).__name__} is no manifest: give a file, a DataFrame, a list of dictionaries (one for each "
            "row), or a dictionary as in a YAML manifest"
        )
    return list(records)


def _is_frame(source: object) -> bool:
    """Whether it is a DataFrame of pandas, or of a library that gives one's records the same way."""
    return hasattr(source, "to_dict") and hasattr(source, "columns")


def _sheet(rows: Sequence[Mapping[object, object]]) -> list[str]:
    """The rows as records of CSV behind their head, with every column that one of them has."""
    flat = [dict(_cells(number, row)) for number, row in enumerate(rows, start=1)]
    columns = list(dict.fromkeys(column for row in flat for column in row))
    return [_record(columns), *(_record([row.get(column, "") for column in columns]) for row in flat)]


def _record(cells: Sequence[str]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _cells(number: int, row: Mapping[object, object]) -> Iterable[tuple[str, str]]:
    for column, value in row.items():
        if column == "vars" and isinstance(value, Mapping):
            yield from ((f"{VAR}{name}", _cell(number, str(name), inner)) for name, inner in value.items())
        elif column != "vars" or not _is_missing(value):
            yield str(column), _cell(number, str(column), value)


def _cell(number: int, column: str, value: object) -> str:
    """A value as a sheet has it: an empty cell for None and NaN, `0.3` for 0.30000000000000004.

    Raises:
        UsageError: a sheet cannot hold it.
    """
    if isinstance(value, str | Path):
        return str(value)
    if isinstance(value, Mapping):
        raise UsageError(
            f"row {number}, {column!r}: a row's cell can't be a dictionary. "
            "Give the whole manifest as one: {'defaults': ..., 'rows': [...], 'matrix': ...}"
        )
    if isinstance(value, Iterable):
        return ("," if column == "tags" else ", ").join(_cell(number, column, inner) for inner in value)
    plain = _scalar(value)
    if _is_missing(plain):
        return ""
    if isinstance(plain, bool):
        return str(plain).lower()
    if isinstance(plain, float):
        whole = column in WHOLE_NUMBERS and plain.is_integer()
        return str(int(plain)) if whole else f"{plain:.10g}"
    return str(plain)


def _is_missing(value: object) -> bool:
    """Whether it is None or NaN, the one value that does not equal itself."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _scalar(value: object) -> object:
    """A number of numpy as Python's; pandas' own mark of a missing value as None."""
    item: Callable[[], object] | None = getattr(value, "item", None)
    if item is not None:
        return item()
    return None if type(value).__name__ in ("NAType", "NaTType") else value


def _plain(value: object) -> object:
    """A document that JSON can hold, which YAML reads."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    plain = _scalar(value)
    return float(f"{plain:.10g}") if isinstance(plain, float) else plain


def _written(text: str, suffix: str, name: str | None) -> ManifestFile:
    name = DEFAULT_NAME if name is None else name
    if not _NAME.fullmatch(name):
        raise UsageError(f"name={name!r}: give letters, digits, '-', '_' and '.'")
    folder = Path(tempfile.mkdtemp(prefix="dop-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / f"{name}{suffix}"
    path.write_text(text, encoding="utf-8")
    return ManifestFile(path=path, origin=Path.cwd() / path.name)
