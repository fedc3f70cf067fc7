"""Makes a damaged ledger from its journal, beside the old one, and puts it in its place when it is whole.

The journal knows every request that was ever sent, with what became of it, so nothing that was paid is lost. What only
the database knew (which run lists which row, what the checks found) is taken from the old file as far as that can be
read. Needs the lock.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, delete, func, insert, or_, select, update
from sqlalchemy.exc import DBAPIError

from pipeline.errors import LedgerError
from pipeline.files import LEDGER_UMASK, fsync_path
from pipeline.ledger.database import create_or_check, integrity_problems, read_meta, sqlite_engine, write_meta
from pipeline.ledger.identity import CHAIN, COPY, HOLE, INODE, LEDGER_ID, MACHINE, inode_of, machine_id
from pipeline.ledger.integrity import audit, sums_digest
from pipeline.ledger.journal_check import (
    ForeignJournalError,
    ForkedJournalError,
    Gap,
    JournalWalk,
    lines_of,
    table_lines,
)
from pipeline.ledger.journal_sync import hole_text, mark_of, origin_of
from pipeline.ledger.leftovers import REBUILDING
from pipeline.ledger.migrations import copy_file
from pipeline.ledger.postgres_session import address, refusal, server_engine
from pipeline.ledger.replay import ReplayResult, replay
from pipeline.ledger.review_store import restore_reviews, write_copy
from pipeline.ledger.schema import attempts, checksum, history, metadata, run_rows, runs, spend
from pipeline.ledger.shots import restore_checks
from pipeline.ledger.side_files import journal_path, reviews_path, take_over_old_files
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.records import State

SIDES = ("", "-wal", "-shm")
"""A SQLite file and what belongs to it while it is open, or was not closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryResult:
    """What came of it. `kept` is where the old file is now, `kept_tables` the old rows of a server; None without.

    `hole` names the events that are lost and may have been purchases.
    """

    events: int
    requests: int
    runs: int
    kept: Path | None
    kept_tables: str | None = None
    hole: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    """What is left of the old file: what it knows of itself, and whether all of it is whole."""

    facts: dict[str, str]
    is_whole: bool
    is_copy: bool

    @property
    def seq(self) -> int:
        return int(self.facts["seq"])


def rebuild(path: Path, *, now: float) -> RecoveryResult:
    """Makes what is damaged from what is whole: the ledger from its journal, the journal from its ledger, or both.

    Marks of the ledger (a copy, moved, a hole) stay. Where events are lost that may have been purchases, the result
    has a hole: rows that it does not know are listed as unknown, and not bought, until the operator closes it.

    Args:
        now: Unix seconds, for the names under which the old files are kept.
    Raises:
        LedgerError: nothing to make it from, or what it makes is not whole; then nothing was changed.
    """
    path = path.resolve()
    take_over_old_files(path)
    journal, base = journal_path(path), _base_of(path)
    at = (base.seq, base.facts[CHAIN]) if base is not None and base.is_whole else None
    walk = JournalWalk(str(journal), ledger_id=base.facts[LEDGER_ID] if base else None, at=at)
    old_mask = os.umask(LEDGER_UMASK)
    try:
        foreign = _read_through(walk, journal)
        gaps = walk.lacks(0)
        if base is not None and base.is_whole and (gaps or foreign or walk.seq == 0):
            return _mend(path, journal, base, foreign, now=now)
        if foreign is not None:
            raise LedgerError(f"{foreign}; nothing was changed")
        if walk.seq == 0 and not gaps:
            raise LedgerError(
                f"{journal} holds no event: there is nothing to make the ledger from; nothing was changed"
            )
        return _made_from(path, journal, base, gaps, now=now)
    except OSError as error:
        raise LedgerError(f"{path} could not be rebuilt ({error.strerror}); the old file is still there") from None
    finally:
        os.umask(old_mask)


def _read_through(walk: JournalWalk, journal: Path) -> ForeignJournalError | None:
    """Why the journal does not belong to the ledger, if it does not."""
    try:
        for _ in walk.entries(lines_of(journal)):
            pass
    except ForeignJournalError as error:
        return error
    return None


@contextmanager
def _opened(path: Path) -> Iterator[SqliteLedger]:
    """The ledger for repairs: whether its last run ended cleanly stays as it is."""
    ledger = SqliteLedger(path, inline=True, may_migrate=True)
    try:
        yield ledger
    finally:
        ledger.close(clean=False)


def _base_of(path: Path) -> _Base | None:
    """What can be read of the old file; None when it is gone, beyond reading, or has just been made."""
    if not path.is_file() or path.stat().st_size == 0:
        return None
    try:
        with _opened(path) as ledger:
            base = _Base(facts=dict(ledger.facts), is_whole=not ledger.problems(), is_copy=ledger.is_copy)
    except LedgerError:
        return None
    return base if base.seq else None


def _mend(path: Path, journal: Path, base: _Base, foreign: ForeignJournalError | None, *, now: float) -> RecoveryResult:
    """The file is whole and the journal is not: the journal is written again from the file.

    Events that only the journal has are recorded first, as far as it can tell them.
    """
    copy_file(path, kept := _free_name(path, f"before-rebuild-{_moment(now)}"))
    walk = JournalWalk(str(journal), ledger_id=base.facts[LEDGER_ID], after=base.seq)

    def work(connection: Connection) -> tuple[int, int]:
        found = ReplayResult(recorded=0)
        if foreign is None:
            found = replay(connection, walk.entries(lines_of(journal)))
        gaps = walk.lacks(base.seq) + [Gap(one.seq, one.seq, str(one)) for one in found.unnamed]
        if isinstance(foreign, ForkedJournalError):
            gaps = [Gap(base.seq + 1, max(walk.seq, base.seq + 1), "its journal is a copy's")]
        if gaps:
            _forget_unsent(connection)
            write_meta(connection, {HOLE: mark_of(gaps)})
        # Without its digest a manifest is read again by the next run, and so are the rows that were removed here.
        connection.execute(update(runs).values(rows_digest=None))
        restore_reviews(connection, reviews_path(path))
        write_meta(connection, {"sums": sums_digest(connection)})
        if problems := audit(connection):
            raise LedgerError(f"{path} would not be whole: {problems[0]}; nothing was changed")
        return found.recorded, int(connection.execute(select(func.count()).select_from(attempts)).scalar_one())

    with _opened(path) as ledger:
        events, requests = ledger.transact(work)
        _write_journal(ledger, journal, now)
        ledger.transact(lambda connection: write_copy(connection, reviews_path(path)))
        listed = ledger.ask(select(func.count()).select_from(runs))[0][0]
    return RecoveryResult(events=events, requests=requests, runs=int(listed), kept=kept, hole=_hole_of(path))


def _write_journal(ledger: SqliteLedger, journal: Path, now: float) -> None:
    """Writes the journal again from the ledger; the old one is kept under another name."""
    if os.path.lexists(journal):  # a link that leads nowhere, too
        journal.rename(_free_name(journal, f"damaged-{_moment(now)}"))
    ledger.reload()
    ledger.write_journal_again()
    if not ledger.is_copy:
        ledger.note_place()


def _hole_of(path: Path) -> str | None:
    with _opened(path) as ledger:
        return ledger.facts.get(HOLE)


def _made_from(path: Path, journal: Path, base: _Base | None, gaps: list[Gap], *, now: float) -> RecoveryResult:
    """The ledger from its journal alone, beside the old file, and put in its place when it is whole."""
    fresh = path.with_name(f"{path.name}{REBUILDING}")
    _remove(fresh)
    origin: dict[str, str | None] = {COPY: None}
    if base is None:
        origin |= origin_of(journal)
    elif base.is_copy:
        origin[COPY] = "it was rebuilt from a copy"
    if base is not None:
        origin[LEDGER_ID] = base.facts[LEDGER_ID]
    try:
        events, requests, salvaged = _made(fresh, journal, path, origin, gaps)
        # Only now, as the new file is whole and durable: until here a crash leaves the old one in its place.
        kept = _put_aside(path, now)
        fresh.replace(path)
        fsync_path(path.parent)
    finally:
        _remove(fresh)
    hole = _hole_of(path)
    if gaps:
        with _opened(path) as ledger:
            _write_journal(ledger, journal, now)
    return RecoveryResult(events=events, requests=requests, runs=salvaged, kept=kept, hole=hole)


def _forget_unsent(connection: Connection) -> None:
    """Rows that were planned and never sent may be what the lost events bought: their manifest lists them again."""
    never_sent = (attempts.c.state == State.PLANNED.value) & (attempts.c.submit_attempts == 0)
    connection.execute(delete(attempts).where(never_sent))
    _revive(connection)
    _forget_unknown_rows(connection)


def rebuild_on_server(url: str, *, now: float) -> RecoveryResult:
    """Rebuilds the ledger in a database from the journal in it, in one transaction; the old rows are kept aside.

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
            walk = JournalWalk(f"in {name}", ledger_id=read_meta(connection)[LEDGER_ID])
            found = replay(connection, walk.entries(table_lines(old)))
            if walk.seq == 0:
                raise LedgerError(f"the journal in {name} holds no event: nothing to make the ledger from")
            gaps = walk.lacks(0) + [Gap(one.seq, one.seq, str(one)) for one in found.unnamed]
            if gaps:
                raise LedgerError(f"{hole_text(f'in {name}', gaps)}; nothing was changed. A backup may have it whole")
            events = found.recorded
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
        raise refusal(error, name, "could not be rebuilt") from None
    finally:
        writing.dispose()
        reading.dispose()
    kept = f"attempts_{suffix}, history_{suffix}, spend_{suffix}"
    return RecoveryResult(events=events, requests=int(requests), runs=int(listed), kept=None, kept_tables=kept)


def _forget_unknown_rows(connection: Connection) -> None:
    known = or_(run_rows.c.request_id.in_(select(attempts.c.request_id)), run_rows.c.request_id.like("skipped:%"))
    connection.execute(run_rows.delete().where(~known))


def _made(
    fresh: Path, journal: Path, old: Path, origin: dict[str, str | None], gaps: list[Gap]
) -> tuple[int, int, int]:
    engine = sqlite_engine(fresh, write=True)
    try:
        create_or_check(engine, str(fresh))
        with engine.begin() as connection:
            found = replay(connection, JournalWalk(str(journal)).entries(lines_of(journal)))
            lost = gaps + [Gap(one.seq, one.seq, str(one)) for one in found.unnamed]
            _revive(connection)
            salvaged = _salvage(connection, old)
            restore_reviews(connection, reviews_path(old), old)
            own = {INODE: inode_of(fresh), MACHINE: machine_id(), "clean": "yes"}
            write_meta(connection, own | origin | ({HOLE: mark_of(lost)} if lost else {}))
            requests = connection.execute(select(func.count()).select_from(attempts)).scalar_one()
            problems = integrity_problems(connection) + audit(connection)
            if not problems:
                write_copy(connection, reviews_path(old))
        if problems:
            raise LedgerError(f"the journal {journal} does not make a whole ledger: {problems[0]}")
        with engine.connect() as connection:
            # SQLite makes no checkpoint within a transaction, and SQLAlchemy has begun one. The log must be empty,
            # since only the main file gets the ledger's name.
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        engine.dispose()
    fsync_path(fresh)
    return found.recorded, int(requests), salvaged


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
    """Runs, what they list, and check results, from the damaged file; returns how many runs could be read."""
    found = [row for row in _rows_of(old, "runs") if isinstance(row["started_at"], float)]
    for row in found:
        row["rows_digest"] = None  # the manifest is read again, which plans what was not sent yet
    if found:
        connection.execute(insert(runs).prefix_with("OR IGNORE"), found)
    listed = [row for row in _rows_of(old, "run_rows") if isinstance(row["position"], int)]
    if listed:
        connection.execute(insert(run_rows).prefix_with("OR IGNORE"), listed)
    _forget_unknown_rows(connection)
    restore_checks(connection, _rows_of(old, "clip_checks"))
    return len(found)


def _rows_of(old: Path, table: str) -> Iterator[dict[str, object]]:
    known = {column.name for column in metadata.tables[table].columns}
    with suppress(sqlite3.Error, UnicodeError), closing(sqlite3.connect(f"file:{old}?mode=ro", uri=True)) as source:
        # A file of an earlier version lacks some columns; they take their defaults.
        names = [name for _, name, *_ in source.execute(f"PRAGMA table_info({table})") if name in known]
        for row in source.execute(f"SELECT {', '.join(names)} FROM {table}"):  # noqa: S608 - names of our own tables
            if all(value is None or isinstance(value, (str, int, float)) for value in row):
                yield dict(zip(names, row, strict=True))


def _moment(now: float) -> str:
    return f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}"


def _free_name(path: Path, suffix: str) -> Path:
    kept = path.with_name(f"{path.name}.{suffix}")
    while kept.exists():
        kept = kept.with_name(f"{kept.name}+")
    return kept


def _put_aside(path: Path, now: float) -> Path | None:
    """Keeps the old file under another name; one that is empty was only made to be locked."""
    if not path.exists():
        return None
    is_empty = path.stat().st_size == 0
    kept = _free_name(path, f"damaged-{_moment(now)}")
    for side in reversed(SIDES):  # the file itself last: until then a crash leaves a ledger that is still found
        with suppress(FileNotFoundError):
            path.with_name(path.name + side).rename(kept.with_name(kept.name + side))
    if is_empty:
        _remove(kept)
        return None
    return kept


def _remove(path: Path) -> None:
    for side in SIDES:
        path.with_name(path.name + side).unlink(missing_ok=True)
