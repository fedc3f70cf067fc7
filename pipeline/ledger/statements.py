"""The writer's few statements, written out once: they run for every event, and building them each time cost more than
running them. The text is the same for SQLite and PostgreSQL but for the parameter mark. No value is put into a text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from pipeline.ledger.batch_statements import BatchStatement, BatchStatements, Executor
from pipeline.ledger.identity import CHAIN
from pipeline.ledger.schema import IMMUTABLE, MUTABLE, attempts, history, journal, spend
from pipeline.ledger.transitions import Row, SpendKey
from pipeline.records import CostState, canonical_job_id

_FIXED = frozenset({"request_id", "attempt", "gateway", "model", "superseded", "digest"})
CHANGING = tuple(name for name in MUTABLE if name not in _FIXED)
KEY = ("request_id", "attempt")
"""What names one row of attempts."""
_SPANS = {"run": "run_id = {mark}", "day": "day = {mark}", "month": "day LIKE {mark}"}


_SERVER_TIME = "SELECT extract(epoch FROM clock_timestamp())"


ChangedRow = tuple[Row, tuple[str, ...]]
"""A row after its changes, and the names of the columns that changed, of those in CHANGING and in their order."""


def changed_columns(before: Row, after: Row) -> tuple[str, ...]:
    """The names of the columns that differ."""
    return tuple(name for name in CHANGING if before[name] != after[name])


class Statements:
    """The statements for one kind of database."""

    def __init__(self, dialect: str) -> None:
        self._on_server = dialect == "postgresql"
        self._many = BatchStatements(dialect)
        mark = "%s" if self._on_server else "?"
        self._mark = mark
        self._lock = " FOR UPDATE" if self._on_server else ""
        self._update = self._many.changed(attempts, CHANGING, KEY)
        self._updates: dict[tuple[str, ...], BatchStatement] = {}
        self._note = self._many.added(history, [column.name for column in history.columns if column.name != "seq"])
        self._spend = self._many.added(
            spend,
            [column.name for column in spend.columns],
            " ON CONFLICT (gateway, run_id, day, model) DO UPDATE SET "
            "confirmed = spend.confirmed + excluded.confirmed, disputed = spend.disputed + excluded.disputed, "
            "reserved = spend.reserved + excluded.reserved",
        )
        # MONEY: on PostgreSQL the row is taken first, so that hosts judge budget and swaps one after the other.
        self._read_seq = f"SELECT value FROM meta WHERE name = 'seq'{self._lock}"
        self._keep = self._many.added(journal, ("seq", "line"))
        self._read_chain = f"SELECT value FROM meta WHERE name = '{CHAIN}'"
        self._head = (
            f"UPDATE meta SET value = CASE name WHEN 'seq' THEN {mark} ELSE {mark} END WHERE name IN ('seq', '{CHAIN}')"
        )
        self._spent = {
            span: "SELECT coalesce(sum(confirmed + disputed + reserved), 0) FROM spend "
            f"WHERE gateway = {mark} AND {where.format(mark=mark)}"
            for span, where in _SPANS.items()
        }

    def rows(self, hand: Executor, request_ids: Iterable[str]) -> dict[str, Row]:
        """The hot columns of the latest attempts, by request id."""
        ids = tuple(request_ids)
        text = (
            f"SELECT {', '.join(MUTABLE)} FROM attempts WHERE superseded = 0 "
            f"AND request_id IN ({self._marks(len(ids))}){self._lock}"
        )
        # `zip` pairs the columns with their names by place: MUTABLE is the order of the SELECT as well.
        found = _run(hand, text, self._padded(ids)).fetchall()
        return {record[0]: dict(zip(MUTABLE, record, strict=True)) for record in found}

    def cold(self, hand: Executor, request_ids: Iterable[str]) -> dict[str, Row]:
        """What the latest attempts say, by request id."""
        ids = tuple(request_ids)
        text = (
            f"SELECT request_id, {', '.join(IMMUTABLE)} FROM attempts WHERE superseded = 0 "
            f"AND request_id IN ({self._marks(len(ids))})"
        )
        found = _run(hand, text, self._padded(ids)).fetchall()
        return {record[0]: dict(zip(IMMUTABLE, record[1:], strict=True)) for record in found}

    def owners(self, hand: Executor, gateways: Iterable[str], jobs: Iterable[str]) -> dict[tuple[str, str], str]:
        """(gateway, `canonical_job_id`) -> the request that owns the job, for those that are owned.

        `jobs` are all spellings of the ids in question.

        The gateways are named because the index begins with them: without, each call would read every attempt.
        """
        ids, places = tuple(jobs), tuple(gateways)
        if not ids or not places:
            return {}
        text = (
            "SELECT gateway, job_set_id, request_id FROM attempts "
            f"WHERE gateway IN ({self._marks(len(places))}) AND job_set_id IN ({self._marks(len(ids))})"
        )
        found = _run(hand, text, self._padded(places) + self._padded(ids)).fetchall()
        return {(gateway, canonical_job_id(job)): request_id for gateway, job, request_id in found}

    def spent(self, hand: Executor, span: str, gateway: str, key: str) -> int:
        """Worst-case micro-dollars of a gateway's run, day or month."""
        # Days are texts such as 2026-11-30; a month is all days that begin with it.
        value = f"{key}-%" if span == "month" else key
        return int(_run(hand, self._spent[span], (gateway, value)).fetchone()[0])

    def save(self, hand: Executor, rows: Iterable[ChangedRow], lines: Sequence[tuple[object, ...]]) -> None:
        """Writes changed rows and their lines of history (request_id, attempt, at, event, state, detail).

        In a file only the columns that changed, since an index is written for each that is named. On a server one
        statement for all columns, since there a further statement costs a round trip.
        """
        if self._on_server:
            self._many.run(hand, self._update, [_values(row, (*CHANGING, *KEY)) for row, _ in rows])
        else:
            self._save_columns(hand, rows)
        self._many.run(hand, self._note, lines)

    def _save_columns(self, hand: Executor, rows: Iterable[ChangedRow]) -> None:
        alike: dict[tuple[str, ...], list[Row]] = {}
        for row, columns in rows:
            if columns:  # a note changes none
                alike.setdefault(columns, []).append(row)
        for columns, found in alike.items():
            if columns not in self._updates:
                self._updates[columns] = self._many.changed(attempts, columns, KEY)
            self._many.run(hand, self._updates[columns], [_values(row, (*columns, *KEY)) for row in found])

    def add_spend(self, hand: Executor, deltas: Mapping[SpendKey, Mapping[CostState, int]]) -> None:
        """Adds a transaction's money to the spend book."""
        kinds = (CostState.CONFIRMED, CostState.DISPUTED, CostState.RESERVED)
        lines = [(*key, *(amounts.get(kind, 0) for kind in kinds)) for key, amounts in deltas.items()]
        self._many.run(hand, self._spend, lines)

    def seq(self, hand: Executor) -> int:
        """The number of the last event, also when another process recorded it."""
        return int(_run(hand, self._read_seq).fetchone()[0])

    def moment(self, hand: Executor) -> float | None:
        """Unix seconds by the server's clock; None for a file, where the host's counts."""
        return float(_run(hand, _SERVER_TIME).fetchone()[0]) if self._on_server else None

    def data_version(self, hand: Executor) -> object:
        """Equal for two transactions of one connection to a file if no other connection wrote between; else None."""
        if isinstance(hand, Connection):
            return None
        return hand, _run(hand, "PRAGMA data_version").fetchone()[0]

    def head(self, hand: Executor) -> tuple[int, str]:
        """Number of the last event and the chain after it. On a server the number's row is locked first."""
        return self.seq(hand), str(_run(hand, self._read_chain).fetchone()[0])

    def keep(self, hand: Executor, lines: Sequence[tuple[object, ...]]) -> None:
        """Adds lines (seq, text) to the journal in the database."""
        self._many.run(hand, self._keep, lines)

    def set_head(self, hand: Executor, seq: int, chain: str) -> None:
        """Sets the number of the last event and the chain after it."""
        _run(hand, self._head, (str(seq), chain))

    def _marks(self, count: int) -> str:
        return ", ".join([self._mark] * _rounded(count))

    def _padded(self, ids: tuple[str, ...]) -> tuple[str, ...]:
        # Filled up with the last id: naming it twice in an IN list changes nothing.
        return ids + (ids[-1],) * (_rounded(len(ids)) - len(ids)) if ids else ("",)


def _values(row: Row, columns: tuple[str, ...]) -> tuple[object, ...]:
    return tuple([row[name] for name in columns])


def _run(hand: Executor, text: str, values: tuple[Any, ...] = ()) -> Any:
    """Runs a statement; returns a cursor."""
    return hand.exec_driver_sql(text, values) if isinstance(hand, Connection) else hand.execute(text, values)


def _rounded(count: int) -> int:
    """The next power of two: few different texts, so that the database's statement cache holds them all."""
    return 1 << max(0, count - 1).bit_length()
