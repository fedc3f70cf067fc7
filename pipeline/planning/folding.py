"""Rows that ask for the same video: each is bought once, and every row is listed with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pipeline.records import Cell, FoldedRow, Request


@dataclass(slots=True)
class Folding:
    """Folds equal requests of one stream; `duplicates` counts the rows that were folded."""

    duplicates: int = 0
    _seen: set[bytes] = field(default_factory=set)

    def has(self, request_id: str) -> bool:
        """Whether a row of the stream so far asks for it."""
        return bytes.fromhex(request_id) in self._seen

    def folded(self, rows: Iterable[Request | Cell]) -> Iterator[Request | Cell | FoldedRow]:
        """The rows in their order: of equal requests the first one, and a `FoldedRow` for each of the others."""
        for row in rows:
            if not isinstance(row, Request):
                yield row
                continue
            # 16 bytes instead of a text of 32 characters: a sheet may have a million rows.
            mark = bytes.fromhex(row.request_id)
            if mark in self._seen:
                self.duplicates += 1
                yield FoldedRow(
                    request_id=row.request_id,
                    row_id=row.row_id,
                    tags=row.tags,
                    axes=row.axes,
                    candidacy=row.candidacy,
                )
            else:
                self._seen.add(mark)
                yield row
