"""A copy of the user's own sheet with the results behind its columns: the cells, their order and formulas stay.

The lines of the sheet are not interpreted here: the caller says which rows a line makes.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from pipeline.files import whole_path
from pipeline.manifest.sheet_row import RESULT_COLUMNS

MILL = Decimal("0.001")
"""A tenth of a cent: amounts of money are shown with three decimals where cents are not enough."""
BETWEEN = "; "
"""Between the values of several videos of one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The sheet as it is: its text, what separates its cells, and the line (from 1) of its header."""

    text: str
    separator: str
    header_line: int
    line_end: str


def with_results(source: Source, results: Mapping[int, Sequence[Mapping[str, object]]], folder: Path) -> str:
    """The sheet's text with the result columns.

    Args:
        results: line of the sheet -> the report's rows of its videos, with `video` as an absolute path.
        folder: where the copy will lie: paths of videos are relative to it.
    """
    out: list[str] = []
    for line, record, written in _records(source):
        if line < source.header_line or not any(cell.strip() for cell in record):
            out.append(written)
            continue
        cells = RESULT_COLUMNS if line == source.header_line else _cells(results.get(line, ()), folder)
        out.append(_appended(written, cells, source))
    return "".join(out)


def _records(source: Source) -> Iterator[tuple[int, list[str], str]]:
    """Each record with the line on which it begins and the text it was written as."""
    lines = io.StringIO(source.text, newline="")
    taken: list[str] = []

    def fed() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    reader = csv.reader(fed(), delimiter=source.separator)
    line = 1
    for record in reader:
        yield line, record, "".join(taken)
        line += len(taken)
        taken.clear()


def _appended(written: str, cells: Sequence[str], source: Source) -> str:
    body = written.rstrip("\r\n")
    end = written[len(body) :] or source.line_end
    quoted = source.separator.join(_quoted(cell, source.separator) for cell in cells)
    return f"{body}{source.separator}{quoted}{end}"


def _quoted(cell: str, separator: str) -> str:
    needs = any(mark in cell for mark in (separator, '"', "\n", "\r"))
    return '"' + cell.replace('"', '""') + '"' if needs else cell


def _cells(rows: Iterable[Mapping[str, object]], folder: Path) -> list[str]:
    lines = list(rows)
    if not lines:
        return [""] * len(RESULT_COLUMNS)
    states = [str(row["status"]) for row in lines]
    counts = Counter(states)
    status = states[0] if len(counts) == 1 else BETWEEN.join(f"{count} {state}" for state, count in counts.items())
    videos = [_relative(Path(str(row["video"])), folder) for row in lines if row["video"]]
    cost = sum((Decimal(str(row["cost_usd"])) for row in lines), Decimal(0))
    reasons = dict.fromkeys(str(row["reason"]) for row in lines if row["reason"])
    return [status, BETWEEN.join(videos), _dollars(cost), BETWEEN.join(reasons)]


def _relative(video: Path, folder: Path) -> str:
    try:
        return video.relative_to(folder).as_posix()
    except ValueError:
        return str(video)


def write(text: str, target: Path, encoding: str) -> None:
    """Puts the copy in its place, whole or not at all."""
    with whole_path(target) as part:
        part.write_bytes(text.encode(encoding))


def _dollars(amount: Decimal) -> str:
    """Exact dollars with at least three decimals."""
    rounded = amount.quantize(MILL)
    return str(rounded if rounded == amount else amount)
