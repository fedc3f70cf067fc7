"""The cells as the page's scripts know them: JSON in pieces, so that a page of 100,000 cells never lies in memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, filterfalse, islice, pairwise
from tempfile import SpooledTemporaryFile
from typing import Self

from pipeline.reports.checks.findings import Grade
from pipeline.reports.sheet.cells import SheetCell
from pipeline.reports.tables import NOT_NEEDED

MAX_KNOWN_TEXTS = 50_000
"""Texts whose numbers are remembered: then all are forgotten, and one that comes again is in the page twice."""

CHUNK_CELLS = 500
"""Cells that become one piece of JSON, about 80 kB."""

SPOOL_BYTES = 1 << 20
"""Bytes of JSON that are kept in memory; the data of a larger page is in a temporary file until it is written."""

PIECE_CHARACTERS = 1 << 16
"""Characters of a piece that is read back."""

_SINGLE = 5
"""Texts of a cell that stand before its lists: row, state, reason, price and model."""


class CellData:
    """Cells as lists of numbers, each of which names a text of one pool: a prompt of a thousand cells is written once.

    Made in one pass over the cells, which counts their states, grades and defects for the page's head. For a
    `with` statement: it may hold temporary files.
    """

    def __init__(self, cells: Iterable[SheetCell], axes: Sequence[str]) -> None:
        self.states: Counter[str] = Counter()
        self.spare = 0
        """Candidates that their shots do not need."""
        self.grades: Counter[str] = Counter()
        self.defects: Counter[str] = Counter()
        """Kinds of defects: one for each defect of a cell whose grade is warn or bad."""
        self._axes = tuple(axes)
        self._known: dict[str, int] = {}
        self._count = 0
        self._fresh: list[str] = []  # texts that are numbered, and not written yet
        self._cells, self._texts = _spool(), _spool()
        source = iter(cells)
        while chunk := list(islice(source, CHUNK_CELLS)):
            _add(self._cells, [self._numbers(cell) for cell in chunk])
            _add(self._texts, self._fresh)
            self._fresh = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cells.close()
        self._texts.close()

    def pieces(self) -> Iterator[str]:
        """The members "cells" and "strings" of the page's JSON object."""
        yield '"cells":['
        yield from _read(self._cells)
        yield '],"strings":['
        yield from _read(self._texts)
        yield "]"

    def _numbers(self, cell: SheetCell) -> list[object]:
        self.states[cell.state] += 1
        self.spare += cell.words == NOT_NEEDED
        if cell.check:
            self.grades[cell.check] += 1
            if cell.check in (Grade.WARN, Grade.BAD):
                self.defects.update(defect.split(" ")[0] for defect in cell.defects)
        if len(self._known) >= MAX_KNOWN_TEXTS:
            self._known.clear()
        place, stills = cell.place, cell.stills
        texts = [cell.row_id, cell.state, cell.reason, cell.price, cell.model]
        ends = []  # where each of the lists within the cell ends
        for some in (
            cell.tags,
            [place.get(name, "") for name in self._axes],
            (stills.clip, stills.poster, stills.start),
            chain.from_iterable(cell.facts),
            cell.history,
        ):
            texts += some
            ends.append(len(texts))
        texts += (cell.request_id, cell.due, cell.check, "; ".join(cell.defects))
        # No call of a function for each text: that took longer than everything else of the page.
        for text in dict.fromkeys(filterfalse(self._known.__contains__, texts)):
            self._known[text] = self._count
            self._count += 1
            self._fresh.append(text)
        numbers = list(map(self._known.__getitem__, texts))
        lists = [numbers[start:end] for start, end in pairwise((_SINGLE, *ends))]
        request, *others = numbers[ends[-1] :]
        return [*numbers[:_SINGLE], *lists, request, cell.attempt, *others]


Spool = SpooledTemporaryFile[str]


def _spool() -> Spool:
    return SpooledTemporaryFile(SPOOL_BYTES, "w+", encoding="utf-8", errors="surrogatepass", newline="")


def _add(spool: Spool, values: Sequence[object]) -> None:
    """More elements of the array that the file holds."""
    if values:
        spool.write(("," if spool.tell() else "") + json.dumps(values, ensure_ascii=False, separators=(",", ":"))[1:-1])


def _read(spool: Spool) -> Iterator[str]:
    spool.seek(0)
    while piece := spool.read(PIECE_CHARACTERS):
        yield piece
