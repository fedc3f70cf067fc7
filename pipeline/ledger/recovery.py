"""Makes a damaged ledger anew from its journal, beside the old one, and puts it in its place when it is whole.

The journal knows every request that was ever sent, with what became of it, so nothing that was paid is lost. What only
the database knew (which run lists which row) is taken from the old file as far as that can be read. Needs the lock.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, delete, func, insert, or_, select, update
from sqlalchemy.exc import DBAPIError

from pipeline.errors import LedgerError
from pipeline.ledger.database import create_or_check, inode_of, integrity_problems, sqlite_engine, write_meta
from pipeline.ledger.integrity import audit, replay, sums_digest
from pipeline.ledger.journal import entries, last_seq, table_entries
from pipeline.ledger.postgres_session import address, refusal, server_engine
from pipeline.ledger.schema import attempts, checksum, history, run_rows, runs, spend

SIDES = ("", "-wal", "-shm")
"""A SQLite file and what belongs to it while it is open, or was not closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryResult:
    """What came of it. `kept` is where the old file is now, `kept_tables` the old rows of a server; None without."""

    events: int
    requests: int
    runs: int
    kept: Path | None
    kept_tables: str | None = None


def rebuild(path: Path, *, now: float) -> RecoveryResult:
    """Makes the ledger at `path` anew from its journal; the old file is kept aside.

    Args:
        now: Unix seconds, for the name under which the old file is kept.
    Raises:
        LedgerError: no journal, a damaged one, or what it makes is not whole; then nothing was changed.
    """
    journal = path.with_suffix(".journal")
    if last_seq(journal) == 0:
        raise LedgerError(f"{journal} holds no event: there is nothing to make the ledger from; nothing was changed")
    fresh = path.with_name(f"{path.name}.rebuilding")
    _remove(fresh)
    old_mask = os.umask(0o077)
    try:
        events, requests, salvaged = _made(fresh, journal, path)
        kept = _put_aside(path, now)
        fresh.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise LedgerError(f"{path} could not be made anew ({error.strerror}); the old file is still there") from None
    finally:
        _remove(fresh)
        os.umask(old_mask)
    return RecoveryResult(events=events, requests=requests, runs=salvaged, kept=kept)


def rebuild_on_server(url: str, *, now: float) -> RecoveryResult:
    """Makes the ledger in a database anew from the journal in it, in one transaction; the old rows are kept aside.

    Args:
        now: Unix seconds, for the names under which the old rows are kept.
    Raises:
        LedgerError: no journal, a damaged one, or what it makes is not whole; then nothing was changed.
    """
    name = address(url)
    writing, reading = server_engine(url, write=True), server_engine(url, write=False)
    try:
        create_or_check(writing, name)
        with reading.connect() as old, writing.begin() as connection:
            suffix = f"damaged_{datetime.fromtimestamp(now, UTC):%Y%m%dt%H%M%Sz}"
            for table in (attempts, history, spend):
                connection.exec_driver_sql(f"CREATE TABLE {table.name}_{suffix} AS TABLE {table.name}")
                connection.execute(delete(table))
            events = replay(connection, table_entries(old, name))
            if events == 0:
                raise LedgerError(f"the journal in {name} holds no event: nothing to make the ledger from")
            _revive(connection)
            connection.execute(update(runs).values(rows_digest=None))
            _forget_unknown_rows(connection)
            write_meta(connection, {"clean": "yes", "sums": sums_digest(connection)})
            requests = connection.execute(select(func.count()).select_from(attempts)).scalar_one()
            listed = connection.execute(select(func.count()).select_from(runs)).scalar_one()
            problems = audit(connection)
            if problems:
                raise LedgerError(f"the journal in {name} does not make a whole ledger: {problems[0]}")
    except DBAPIError as error:
        raise refusal(error, name, "could not be made anew") from None
    finally:
        writing.dispose()
        reading.dispose()
    kept = f"attempts_{suffix}, history_{suffix}, spend_{suffix}"
    return RecoveryResult(events=events, requests=int(requests), runs=int(listed), kept=None, kept_tables=kept)


def _forget_unknown_rows(connection: Connection) -> None:
    known = or_(run_rows.c.request_id.in_(select(attempts.c.request_id)), run_rows.c.request_id.like("skipped:%"))
    connection.execute(run_rows.delete().where(~known))


def _made(fresh: Path, journal: Path, old: Path) -> tuple[int, int, int]:
    engine = sqlite_engine(fresh, write=True)
    try:
        create_or_check(engine, str(fresh))
        with engine.begin() as connection:
            events = replay(connection, entries(journal))
            _revive(connection)
            salvaged = _salvage(connection, old)
            write_meta(connection, {"seq": str(last_seq(journal)), "inode": inode_of(fresh), "clean": "yes"})
            requests = connection.execute(select(func.count()).select_from(attempts)).scalar_one()
            problems = integrity_problems(connection) + audit(connection)
        if problems:
            raise LedgerError(f"the journal {journal} does not make a whole ledger: {problems[0]}")
        with engine.connect() as connection:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        engine.dispose()
    _sync(fresh)
    return events, int(requests), salvaged


def _revive(connection: Connection) -> None:
    """A newer attempt that was planned and never sent is not in the journal: the one before it is the latest again."""
    latest = (
        select(attempts.c.request_id, func.max(attempts.c.attempt).label("attempt"))
        .group_by(attempts.c.request_id)
        .having(func.min(attempts.c.superseded) == 1)
    )
    for request_id, attempt in connection.execute(latest).all():
        key = (attempts.c.request_id == request_id) & (attempts.c.attempt == attempt)
        row = dict(connection.execute(select(attempts).where(key)).one()._mapping) | {"superseded": 0}
        connection.execute(update(attempts).where(key).values(superseded=0, checksum=checksum(row)))


def _salvage(connection: Connection, old: Path) -> int:
    """Runs and what they list, from the damaged file; returns how many runs could be read."""
    found = [row for row in _rows_of(old, "runs") if isinstance(row["started_at"], float)]
    for row in found:
        row["rows_digest"] = None  # the manifest is read anew, which plans what was not sent yet
    if found:
        connection.execute(insert(runs).prefix_with("OR IGNORE"), found)
    listed = [row for row in _rows_of(old, "run_rows") if isinstance(row["position"], int)]
    if listed:
        connection.execute(insert(run_rows).prefix_with("OR IGNORE"), listed)
    _forget_unknown_rows(connection)
    return len(found)


def _rows_of(old: Path, table: str) -> Iterator[dict[str, object]]:
    names = [column.name for column in {"runs": runs, "run_rows": run_rows}[table].columns]
    with suppress(sqlite3.Error, UnicodeError), closing(sqlite3.connect(f"file:{old}?mode=ro", uri=True)) as source:
        for row in source.execute(f"SELECT {', '.join(names)} FROM {table}"):  # noqa: S608 - names of our own tables
            if all(value is None or isinstance(value, (str, int, float)) for value in row):
                yield dict(zip(names, row, strict=True))


def _put_aside(path: Path, now: float) -> Path | None:
    if not path.exists():
        return None
    kept = path.with_name(f"{path.name}.damaged-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}")
    while kept.exists():
        kept = kept.with_name(f"{kept.name}+")
    for side in reversed(SIDES):  # the file itself last: until then a crash leaves a ledger that is still found
        with suppress(FileNotFoundError):
            path.with_name(path.name + side).rename(kept.with_name(kept.name + side))
    return kept


def _remove(path: Path) -> None:
    for side in SIDES:
        path.with_name(path.name + side).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
