"""Moves a ledger from a file to a database, whole or not at all, and leaves the file unable to spend.

The file is marked before the database's transaction ends: a cut in between leaves no ledger that spends, never two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, func, select

from pipeline.errors import LedgerError, LedgerUnavailableError
from pipeline.ledger.database import read_meta, write_meta
from pipeline.ledger.identity import COPY, INODE, JOURNAL_PLACE, MACHINE, MOVED
from pipeline.ledger.integrity import audit, sums_digest
from pipeline.ledger.journal import line_of
from pipeline.ledger.journal_check import JournalWalk
from pipeline.ledger.postgres_ledger import PostgresLedger
from pipeline.ledger.schema import attempts, clip_checks, history, journal, reviews, run_rows, runs, spend
from pipeline.ledger.spending_checks import AUDITED
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.ledger.writer import LedgerWriter

TABLES = (runs, run_rows, attempts, history, spend, reviews, clip_checks)
_STAYS = {INODE, MACHINE, JOURNAL_PLACE, COPY, MOVED, "identity", "clean", "sums", AUDITED, "schema_version"}
"""What a ledger knows of itself and not of what was bought."""

_COUNT_ON = (
    "SELECT setval(pg_get_serial_sequence('history', 'seq'), coalesce(max(seq), 1), max(seq) IS NOT NULL) FROM history",
    "SELECT setval(pg_get_serial_sequence('reviews', 'number'), coalesce(max(number), 1), max(number) IS NOT NULL) "
    "FROM reviews",
)
"""The server's own numbers go on after those that were copied."""

CHUNK = 2_000
"""Rows that are copied at a time, so that a transfer needs little memory whatever its size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerFingerprint:
    """What two ledgers have in common when one is the other's copy. Money in micro-dollars."""

    rows: Mapping[str, int]
    states: Mapping[str, tuple[int, int]]
    """state -> requests, price of them"""
    money: tuple[int, int, int]
    """confirmed, disputed, reserved"""


def contents(connection: Connection) -> LedgerFingerprint:
    """Counts and sums of a ledger."""
    counted = {table.name: select(func.count()).select_from(table) for table in TABLES}
    by_state = select(attempts.c.state, func.count(), func.sum(attempts.c.price_microusd)).group_by(attempts.c.state)
    sums = [func.coalesce(func.sum(spend.c[kind]), 0) for kind in ("confirmed", "disputed", "reserved")]
    confirmed, disputed, reserved = connection.execute(select(*sums)).one()
    return LedgerFingerprint(
        rows={name: int(connection.execute(count).scalar_one()) for name, count in counted.items()},
        states={state: (int(count), int(price)) for state, count, price in connection.execute(by_state)},
        money=(int(confirmed), int(disputed), int(reserved)),
    )


def move(source: SqliteLedger, target: PostgresLedger) -> LedgerFingerprint:
    """Copies everything, compares it, and marks the source as moved; returns what was moved.

    Both must be open and held, the source ready to spend, which checked it.

    Raises:
        LedgerError: the source is damaged, the target not empty, or what arrived differs; nothing was changed.
        LedgerUnavailableError: the connection was lost at the very end; the source stays marked.
    """
    problems = source.problems()
    if problems:
        raise LedgerError(f"{source.name} is damaged: {problems[0]}; `dop ledger check` lists everything")
    with source.reader.connect() as reading:
        found = contents(reading)
        facts = read_meta(reading)
        walk = JournalWalk(source.name, ledger_id=source.ledger_id)

        def work(connection: Connection) -> None:
            _must_be_empty(connection, target.name)
            _fill(connection, reading)
            _lines(connection, walk.entries(source.journal_lines()))
            write_meta(connection, {name: value for name, value in facts.items() if name not in _STAYS})
            _must_equal(connection, found, target.name)
            write_meta(connection, {"sums": sums_digest(connection), "clean": "yes"})
            # MONEY: the last act before the commit. If the commit fails, no ledger spends until the operator has
            # looked; the other way round, two would.
            source.mark({MOVED: target.name})

        try:
            target.transact(work)
        except LedgerUnavailableError as error:
            text = f"{error}. Look with `dop ledger check` at {target.name}: if it is empty, `dop ledger adopt` lets"
            raise LedgerUnavailableError(f"{text} {source.name} spend again; if it is whole, use it") from None
        except BaseException:
            unmark(source)
            raise
    return found


def unmark(ledger: LedgerWriter) -> None:
    """The ledger was not moved after all, or the operator says that the other one was given up."""
    ledger.mark({MOVED: None})


def _must_be_empty(connection: Connection, name: str) -> None:
    for table in TABLES:
        if connection.execute(select(func.count()).select_from(table)).scalar_one():
            raise LedgerError(f"{name} holds a ledger with {table.name} already; nothing was copied")


def _fill(connection: Connection, reading: Connection) -> None:
    for table in TABLES:
        found = reading.execution_options(yield_per=CHUNK).execute(select(table))
        _copy(connection, table, (tuple(row) for row in found))
    for statement in _COUNT_ON:
        connection.exec_driver_sql(statement)


def _lines(connection: Connection, journal_entries: Iterable[Mapping[str, object]]) -> None:
    rows: Iterator[tuple[Any, ...]] = ((entry["seq"], line_of(entry).rstrip("\n")) for entry in journal_entries)
    _copy(connection, journal, rows, only=("seq", "line"))


def _copy(
    connection: Connection, table: Table, rows: Iterable[tuple[Any, ...]], *, only: tuple[str, ...] | None = None
) -> None:
    names = only or tuple(column.name for column in table.columns)
    driver: Any = connection.connection.dbapi_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({', '.join(names)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def _must_equal(connection: Connection, found: LedgerFingerprint, name: str) -> None:
    arrived = contents(connection)
    if arrived != found:
        raise LedgerError(f"what arrived in {name} differs: {arrived}, not {found}; nothing was changed")
    problems = audit(connection)
    if problems:
        raise LedgerError(f"what arrived in {name} is not whole: {problems[0]}; nothing was changed")
