"""The writer's few statements, written out once: they run for every event, and building them each time cost more than
running them. The text is the same for SQLite and PostgreSQL but for the parameter mark. No value is put into a text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection

from pipeline.ledger.judge import Row, SpendKey
from pipeline.ledger.schema import COLD, HOT
from pipeline.records import CostState

_FIXED = frozenset({"request_id", "attempt", "gateway", "model", "superseded", "digest"})
CHANGING = tuple(name for name in HOT if name not in _FIXED)
_SPANS = {"run": "run_id = {mark}", "day": "day = {mark}", "month": "day LIKE {mark}"}


class Statements:
    """The statements for one kind of database."""

    def __init__(self, dialect: str) -> None:
        mark = "%s" if dialect == "postgresql" else "?"
        self._mark = mark
        self._lock = " FOR UPDATE" if dialect == "postgresql" else ""
        columns = ", ".join(f"{name} = {mark}" for name in CHANGING)
        self._update = f"UPDATE attempts SET {columns} WHERE request_id = {mark} AND attempt = {mark}"
        self._note = (
            f"INSERT INTO history (request_id, attempt, at, event, state, detail) VALUES ({', '.join([mark] * 6)})"
        )
        self._spend = (
            "INSERT INTO spend (gateway, run_id, day, model, confirmed, disputed, reserved) "
            f"VALUES ({', '.join([mark] * 7)}) ON CONFLICT (gateway, run_id, day, model) DO UPDATE SET "
            "confirmed = spend.confirmed + excluded.confirmed, disputed = spend.disputed + excluded.disputed, "
            "reserved = spend.reserved + excluded.reserved"
        )
        # MONEY: on PostgreSQL the row is taken first, so that hosts judge budget and swaps one after the other.
        self._read_seq = f"SELECT value FROM meta WHERE name = 'seq'{self._lock}"
        self._read_seq_and_xid = f"SELECT value, pg_current_xact_id()::text FROM meta WHERE name = 'seq'{self._lock}"
        self._keep = f"INSERT INTO journal (seq, line) VALUES ({mark}, {mark})"
        self._seq = f"UPDATE meta SET value = {mark} WHERE name = 'seq'"
        self._spent = {
            span: "SELECT coalesce(sum(confirmed + disputed + reserved), 0) FROM spend "
            f"WHERE gateway = {mark} AND {where.format(mark=mark)}"
            for span, where in _SPANS.items()
        }

    def rows(self, connection: Connection, request_ids: Iterable[str]) -> dict[str, Row]:
        """The hot columns of the latest attempts, by request id."""
        ids = tuple(request_ids)
        text = (
            f"SELECT {', '.join(HOT)} FROM attempts WHERE superseded = 0 "
            f"AND request_id IN ({self._marks(len(ids))}){self._lock}"
        )
        found = connection.exec_driver_sql(text, self._padded(ids)).fetchall()
        return {record[0]: dict(zip(HOT, record, strict=True)) for record in found}

    def cold(self, connection: Connection, request_ids: Iterable[str]) -> dict[str, Row]:
        """What the latest attempts say, by request id."""
        ids = tuple(request_ids)
        text = (
            f"SELECT request_id, {', '.join(COLD)} FROM attempts WHERE superseded = 0 "
            f"AND request_id IN ({self._marks(len(ids))})"
        )
        found = connection.exec_driver_sql(text, self._padded(ids)).fetchall()
        return {record[0]: dict(zip(COLD, record[1:], strict=True)) for record in found}

    def owners(self, connection: Connection, jobs: Iterable[str]) -> dict[tuple[str, str], str]:
        """(gateway, job id) -> the request that owns it, for those that are owned."""
        ids = tuple(jobs)
        if not ids:
            return {}
        text = f"SELECT gateway, job_set_id, request_id FROM attempts WHERE job_set_id IN ({self._marks(len(ids))})"
        found = connection.exec_driver_sql(text, self._padded(ids)).fetchall()
        return {(gateway, job): request_id for gateway, job, request_id in found}

    def spent(self, connection: Connection, span: str, gateway: str, key: str) -> int:
        """Worst-case micro-dollars of a gateway's run, day or month."""
        value = f"{key}-%" if span == "month" else key
        return int(connection.exec_driver_sql(self._spent[span], (gateway, value)).scalar_one())

    def save(self, connection: Connection, rows: Iterable[Row], lines: Sequence[tuple[object, ...]]) -> None:
        """Writes changed rows and their lines of history (request_id, attempt, at, event, state, detail)."""
        values = [(*(row[name] for name in CHANGING), row["request_id"], row["attempt"]) for row in rows]
        connection.exec_driver_sql(self._update, values)
        connection.exec_driver_sql(self._note, list(lines))

    def book(self, connection: Connection, deltas: Mapping[SpendKey, Mapping[CostState, int]]) -> None:
        """Adds a transaction's money to the spend book."""
        kinds = (CostState.CONFIRMED, CostState.DISPUTED, CostState.RESERVED)
        lines = [(*key, *(amounts.get(kind, 0) for kind in kinds)) for key, amounts in deltas.items()]
        if lines:
            connection.exec_driver_sql(self._spend, lines)

    def seq(self, connection: Connection) -> int:
        """The number of the last event, also when another process booked it."""
        return int(connection.exec_driver_sql(self._read_seq).scalar_one())

    def seq_and_xid(self, connection: Connection) -> tuple[int, str]:
        """The number of the last event, and PostgreSQL's number of this transaction."""
        seq, xid = connection.exec_driver_sql(self._read_seq_and_xid).one()
        return int(seq), str(xid)

    def keep(self, connection: Connection, lines: Sequence[tuple[object, ...]]) -> None:
        """Adds lines (seq, text) to the journal that stands in the database."""
        connection.exec_driver_sql(self._keep, list(lines))

    def set_seq(self, connection: Connection, seq: int) -> None:
        """The number of the last event."""
        connection.exec_driver_sql(self._seq, (str(seq),))

    def _marks(self, count: int) -> str:
        return ", ".join([self._mark] * _rounded(count))

    def _padded(self, ids: tuple[str, ...]) -> tuple[str, ...]:
        return ids + (ids[-1],) * (_rounded(len(ids)) - len(ids)) if ids else ("",)


def _rounded(count: int) -> int:
    """The next power of two: few different texts, so that the database's statement cache holds them all."""
    return 1 << max(0, count - 1).bit_length()
