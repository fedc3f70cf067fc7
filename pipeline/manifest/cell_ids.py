"""The ids of rows and cells within one manifest: each names one thing, and stays the same while the manifest does."""

from __future__ import annotations

from pipeline.manifest.diagnostics import Diagnostics
from pipeline.manifest.spec import SpecRow


class CellIds:
    """The ids that were given so far, kept as hashes of 64 bits: a million of them collide once in tens of millions of
    manifests.
    """

    def __init__(self, mistakes: Diagnostics) -> None:
        self._mistakes = mistakes
        self._row_lines: dict[int, int | None] = {}
        self._cell_ids: set[int] = set()

    def row_id(self, row: SpecRow) -> str:
        """The row's id; two rows with one id are a mistake, two equal rows without ids get different ones."""
        first = row.row_id or row.default_id()
        mark = hash(first)
        if mark not in self._row_lines and mark not in self._cell_ids:
            self._row_lines[mark] = row.location.line
            return first
        if row.row_id is not None and self._is_taken(first):
            line = self._row_lines.get(mark)
            where = f", see line {line}" if line is not None else ""
            self._mistakes.add(row.location.diagnostic(f"the id {first!r} is taken{where}", "id"))
        row_id = first
        number = 1
        while self._is_taken(row_id):
            number += 1
            row_id = f"{first}-{number}"
        self._row_lines[hash(row_id)] = row.location.line
        return row_id

    def _is_taken(self, any_id: str) -> bool:
        return hash(any_id) in self._row_lines or hash(any_id) in self._cell_ids

    def claim(self, row: SpecRow, cell_id: str) -> None:
        if self._is_taken(cell_id):
            message = f"two cells would be called {cell_id!r}: give ids or labels that differ"
            self._mistakes.add(row.location.diagnostic(message))
        self._cell_ids.add(hash(cell_id))
