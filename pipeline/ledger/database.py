"""Opening the ledger's database: one engine for the writer, one for readers, and what must hold before money moves."""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, delete, event, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool, SingletonThreadPool, StaticPool

from pipeline.errors import LedgerError
from pipeline.ledger.identity import CHAIN, GENESIS, LEDGER_ID, new_ledger_id
from pipeline.ledger.schema import ON_SERVERS_ONLY, SCHEMA_VERSION, meta, metadata, reviews

BUSY_TIMEOUT_MS = 30_000
"""Milliseconds that SQLite waits for the lock of another process: longer than any commit here takes."""
REBUILD = "`dop ledger rebuild` makes it from its journal"
_HEX = re.compile("[0-9a-f]{16}")
NOT_WRITABLE = ("unable to open", "readonly database")
"""What SQLite says of a file whose folder, or which itself, can't be written: its shared memory is a file there."""
CREATION_LOCK = 0x646F7000
"""Number of the advisory lock under which a server's tables are made: `dop` in ASCII, then 0."""

_APPEND_ONLY = """
CREATE FUNCTION dop_journal_stays() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the journal of dop is append-only'; END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON journal
FOR EACH STATEMENT EXECUTE FUNCTION dop_journal_stays()
"""

_REVIEWS_APPEND_ONLY = """
CREATE FUNCTION dop_reviews_stay() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the reviews of dop are append-only'; END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON reviews
FOR EACH STATEMENT EXECUTE FUNCTION dop_reviews_stay()
"""


def sqlite_engine(path: Path, *, write: bool) -> Engine:
    """An engine over one SQLite file: WAL, synchronous=FULL, and `BEGIN IMMEDIATE` for the writer.

    NORMAL lost committed rows in simulated power cuts; FULL lost none, and with group commit it costs next to nothing.
    """
    # Only a writer makes the file: a question to one that was removed would leave an empty ledger in its place.
    address = f"file:{quote(str(path))}?mode={'rwc' if write else 'rw'}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(address, uri=True, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000)

    # One connection for the writer, which has the lock; a fresh one for each reader, so that none sees an old moment.
    engine = create_engine("sqlite://", creator=connect, poolclass=SingletonThreadPool if write else NullPool)

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        if write:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            # Checked on the open connection, as SQLite answers a PRAGMA that it can't follow without an error.
            assert_durable(connection, path)
        else:
            connection.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


LISTING_CACHE_KB, _USUAL_CACHE_KB = 40_960, 2_000
"""Pages that SQLite keeps while a large sheet is written down, and otherwise (its own default). Request ids are random,
so each row touches pages all over two indexes: with the usual cache 1,000,000 rows took half as long again. Three times
as much saves a tenth, and would be the most memory that a run of 100,000 rows ever has."""


@contextmanager
def large_cache(connection: Connection) -> Iterator[None]:
    """Let a file's transaction keep more of the ledger in memory; a server has settings of its own."""
    if connection.dialect.name != "sqlite":
        yield
        return
    connection.exec_driver_sql(f"PRAGMA cache_size=-{LISTING_CACHE_KB}")
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA cache_size=-{_USUAL_CACHE_KB}")


def release_memory() -> None:
    """Hand memory that is free again back to the system, after the transaction of a `large_cache`.

    The allocator of Linux (glibc) keeps it otherwise: a run of 100,000 rows would have 40 MB of it until its end.
    """
    import ctypes  # noqa: PLC0415 - only a command that lists rows needs it

    if sys.platform == "linux":
        # Other allocators have no such function, and give memory back of themselves.
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)


def scratch_engine() -> Engine:
    """An engine over a database in memory, for a replay that is thrown away."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def assert_durable(connection: sqlite3.Connection, path: Path) -> None:
    """MONEY: a commit that returns is on the disk, or nothing is bought.

    Raises:
        LedgerError: the file can't be made so here.
    """
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    synchronous = connection.execute("PRAGMA synchronous").fetchone()[0]
    if (mode, synchronous) != ("wal", 2):
        raise LedgerError(
            f"{path} can't be made durable here (journal_mode={mode}, synchronous={synchronous}, wanted wal and 2); "
            "put the ledger on a local disk with --set ledger.path=FILE"
        )


def upsert(connection: Connection, table: Any) -> Any:
    """`INSERT` that can say ON CONFLICT, for the connection's dialect."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def read_meta(connection: Connection) -> dict[str, str]:
    """Everything the ledger knows of itself."""
    return {row.name: row.value for row in connection.execute(select(meta))}


def write_meta(connection: Connection, values: Mapping[str, str | None]) -> None:
    """Sets some of what the ledger knows of itself; None removes it."""
    kept = [{"name": name, "value": value} for name, value in values.items() if value is not None]
    if kept:
        statement = upsert(connection, meta)
        statement = statement.on_conflict_do_update(index_elements=["name"], set_={"value": statement.excluded.value})
        connection.execute(statement, kept)
    gone = [name for name, value in values.items() if value is None]
    if gone:
        connection.execute(delete(meta).where(meta.c.name.in_(gone)))


class LedgerOutdatedError(LedgerError):
    """Written by an earlier version: it has to be brought up to date, under the lock."""


def create_or_check(engine: Engine, place: str) -> dict[str, str]:
    """Makes the tables of a new ledger, or checks that an old one is ours and not newer than this program.

    Raises:
        LedgerError: damaged, no ledger, or written by a newer program.
        LedgerOutdatedError: written by an earlier one.
    """
    try:
        with engine.begin() as connection:
            if _is_new(connection, place):
                _create(connection)
            found = read_meta(connection)
    except (DatabaseError, UnicodeError) as error:
        if engine.dialect.name == "postgresql":
            raise  # the caller that knows servers decides whether it is unavailable or wrong
        cause = getattr(error, "orig", "damaged")
        if any(word in str(cause) for word in NOT_WRITABLE):
            raise LedgerError(
                f"{place} can't be opened ({cause}). Questions write to it as well, which this user, or a "
                "read-only disk, does not allow. Copy the folder to a place where you can write, and name it with "
                "--outputs DIR"
            ) from None
        raise LedgerError(f"{place} can't be read as a ledger ({cause}); `dop ledger check` says more") from None
    version = number_in(found, "schema_version", place)
    number_in(found, "seq", place)
    if version > SCHEMA_VERSION:
        raise LedgerError(
            f"{place} was written by a newer dop (ledger version {version}, this program knows {SCHEMA_VERSION}); "
            "update dop before you spend with it"
        )
    if version < SCHEMA_VERSION:
        raise LedgerOutdatedError(
            f"{place} is of an earlier version ({version}); the next `dop run` brings it up to date"
        )
    for name in (LEDGER_ID, CHAIN):
        value: object = found.get(name)  # in a damaged file it may be anything
        if not isinstance(value, str) or not _HEX.fullmatch(value):
            raise LedgerError(f"{place} is damaged: its {name} is {found.get(name)!r}; {REBUILD}")
    return found


def _is_new(connection: Connection, place: str) -> bool:
    """Whether there is no ledger yet; a database on a server may hold other programs' tables beside it."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({CREATION_LOCK})")  # two first runs at once
    names = set(connection.dialect.get_table_names(connection))
    if connection.dialect.name == "postgresql":
        names &= metadata.tables.keys()
    if names and not {"meta", "attempts"} <= names:
        raise LedgerError(f"{place} is a database, but no ledger of dop; choose another ledger.path or ledger.url")
    return not names


def _create(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        metadata.create_all(connection, [table for table in metadata.sorted_tables if table is not reviews])
        connection.exec_driver_sql(_APPEND_ONLY)
        create_reviews(connection)
    else:
        metadata.create_all(connection, [table for table in metadata.sorted_tables if table not in ON_SERVERS_ONLY])
    own = {"schema_version": str(SCHEMA_VERSION), "seq": "0", CHAIN: GENESIS, LEDGER_ID: new_ledger_id()}
    write_meta(connection, own)


def create_reviews(connection: Connection) -> None:
    """The table of reviews; a server also refuses to change or remove one."""
    reviews.create(connection)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_REVIEWS_APPEND_ONLY)


def number_in(facts: Mapping[str, str], name: str, place: str) -> int:
    """A whole number that the ledger knows of itself.

    Raises:
        LedgerError: it is missing, or not a number any more.
    """
    text = facts.get(name)
    if not isinstance(text, str) or not text.isascii() or not text.isdecimal():
        raise LedgerError(f"{place} is damaged: its {name} is {text!r}; {REBUILD}")
    return int(text)


def integrity_problems(connection: Connection, table: str = "20") -> list[str]:
    """What SQLite itself finds wrong; empty when the file, or one table of it with its indexes, is whole.

    The full check: quick_check misses flipped bits.
    """
    if connection.dialect.name != "sqlite":
        return []
    found = [str(row[0]) for row in connection.execute(text(f"PRAGMA integrity_check({table})"))]
    return [] if found == ["ok"] else found


def structure_problems(connection: Connection) -> list[str]:
    """Whether SQLite's pages hang together, in a sixth of the full check's time: indexes are not compared with rows."""
    if connection.dialect.name != "sqlite":
        return []
    found = [str(row[0]) for row in connection.execute(text("PRAGMA quick_check(20)"))]
    return [] if found == ["ok"] else found
