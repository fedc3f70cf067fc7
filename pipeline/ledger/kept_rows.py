"""The rows that the writer's connection committed last: the next change of one of them need not read it again."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pipeline.ledger.transitions import Row
from pipeline.records import State

MAX_KEPT = 500
"""Rows that are kept: an outcome follows its intent within seconds, and a quick job its acceptance."""

_SOON = frozenset({State.SUBMITTING.value, State.ACCEPTED.value})
"""States whose next change is near."""


class KeptRows:
    """Rows as the last transactions of one connection left them.

    MONEY: they count only while no other connection has written, which the database's own number of versions says
    under the write lock, and only within the connection that wrote them.
    """

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._version: object = None

    def begin(self, version: object) -> None:
        """A transaction begins. `version` is equal while the connection and what others wrote are; None is never."""
        if version is None or version != self._version:
            self._rows.clear()
            self._version = version

    def take(self, request_ids: Collection[str]) -> dict[str, Row]:
        """Those of the rows that are known. They are the caller's now: a transaction that fails leaves none of them."""
        rows = self._rows
        return {name: rows.pop(name) for name in request_ids if name in rows}

    def keep(self, rows: Mapping[str, Row]) -> None:
        """The rows as a transaction left them that is committed now."""
        self._rows.update((name, row) for name, row in rows.items() if row["state"] in _SOON)
        while len(self._rows) > MAX_KEPT:
            del self._rows[next(iter(self._rows))]

    def forget(self) -> None:
        """Something else than `keep` was committed, or it is not known what."""
        self._rows.clear()
