"""Reaching a PostgreSQL server: sessions that are durable and never hang, the lock of a ledger, and what "away" means.

Everything goes through psycopg and libpq, so a URL may name what libpq knows (several hosts, sslmode, a service), and
the password may come from PGPASSWORD or ~/.pgpass. Must never: put a URL into a message; `address` is its name there.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from pipeline.errors import DopError, LedgerError, LedgerUnavailableError, LockedError
from pipeline.ledger.database_words import database_words

if TYPE_CHECKING:
    import psycopg

CONNECT_TIMEOUT_S = 5
"""Seconds for one connection to the server; the caller tries again for as long as it may wait."""
MIN_SERVER_VERSION = 130_000
"""PostgreSQL 13, the oldest that is supported."""

IDLE_LOCK_HOLDER_S = 5
"""Between two statements of a commit are milliseconds; who takes so long is frozen or cut off."""

LOCK_WAIT_S = 15
"""Seconds that a commit waits for its turn before it checks whether the process that holds it is frozen."""

_SESSION = """
SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
SET TIME ZONE 'UTC'; SET lock_timeout = 0; SET statement_timeout = 0
"""
"""A frozen or cut off host lets go of what it holds within seconds: its transaction first, its session next."""

CLIENT: Mapping[str, Any] = MappingProxyType(
    {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
    }
)
"""For every connection: a host that was cut off notices within seconds, not when its kernel has given up repeating."""

_READER = "SET default_transaction_read_only = on; SET idle_in_transaction_session_timeout = '15min'"
"""A reader blocks no other session, and a query over a million rows takes its time between two statements."""

_WRITER = f"SET idle_in_transaction_session_timeout = '{IDLE_LOCK_HOLDER_S}s'; SET lock_timeout = '{LOCK_WAIT_S}s'"

_AWAY = ("08", "53", "57", "25P03", "25006", "40001", "40P01", "55P03")
"""SQLSTATE classes of a server that is down, full, going down, a standby now, or that asks to try again."""

_LETS_GO = {"idle_in_transaction_session_timeout": "15s"}

LOCK_CLASS = 0x646F70  # "dop"
"""First number of this program's advisory locks, so that they meet no other program's: `dop` in ASCII."""


def client(url: str, **session: str) -> dict[str, Any]:
    """How a connection to `url` is opened: as every other, its session with these settings beside the URL's own.

    A session that is idle between two statements loses its locks.
    """
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415 - only who uses PostgreSQL needs it

    own = conninfo_to_dict(url).get("options") or os.environ.get("PGOPTIONS", "")
    options = " ".join([str(own), *(f"-c {name}={value}" for name, value in (_LETS_GO | session).items())])
    return {**CLIENT, "options": options.strip()}


def address(url: str) -> str:
    """A database's URL as it may be shown: user, hosts and name; no password, no options."""
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    user = login.partition(":")[0]
    return f"postgresql://{user}@{hosts}{parts.path}" if user else f"postgresql://{hosts}{parts.path}"


def server_engine(url: str, *, write: bool) -> Engine:
    """An engine over one database: one session that writes, or a few that only read, one moment in each transaction.

    Raises:
        LedgerError: psycopg is not installed.
    """
    try:
        import psycopg  # noqa: PLC0415 - only who uses PostgreSQL needs it
    except ImportError:
        raise LedgerError("a ledger on PostgreSQL needs psycopg: pip install 'psycopg[binary]'") from None

    def connect() -> psycopg.Connection[Any]:
        connection = psycopg.connect(url, autocommit=True, application_name=session_name(), **CLIENT)
        try:
            connection.execute(_SESSION)
            if write:
                connection.execute(_WRITER)
                assert_durable(connection, address(url))
            else:
                connection.execute(_READER)
            connection.autocommit = False
        except BaseException:
            connection.close()
            raise
        return connection

    return create_engine(
        "postgresql+psycopg://",
        creator=connect,
        poolclass=QueuePool,
        pool_size=1 if write else 4,
        max_overflow=0 if write else 8,
        # A reader's session may have been cut while it was idle. The writer has to notice a cut, since it must take its
        # lock again.
        pool_pre_ping=not write,
        # A writer that waited for its turn must see what the one before it committed; a reader's questions see one
        # moment.
        isolation_level="READ COMMITTED" if write else "REPEATABLE READ",
        # Errors of the driver would quote prompts, addresses and raw answers.
        hide_parameters=True,
    )


def session_name() -> str:
    """Under which name the server lists our sessions, and a refused run hears of them."""
    return f"dop {platform.node()} process {os.getpid()}"[:63]


def assert_durable(connection: psycopg.Connection[Any], name: str) -> None:
    """MONEY: a commit that returns is on the server's disk, or nothing is bought.

    Raises:
        LedgerError: the server can't promise that, or is not one that a ledger can stand on.
    """

    def show(setting: str) -> str:
        row = connection.execute(f"SHOW {setting}".encode()).fetchone()
        return str(row[0]) if row is not None else ""

    if connection.info.server_version < MIN_SERVER_VERSION:
        raise LedgerError(f"{name} is older than PostgreSQL 13, the oldest that a ledger can stand on")
    # A database or a role may have it off by default; on is this session's own choice.
    if show("synchronous_commit") == "off":
        connection.execute("SET synchronous_commit = on")
    if show("fsync") != "on" or show("synchronous_commit") == "off":
        raise LedgerError(f"{name} can't be made durable: its fsync is {show('fsync')}; nothing is bought with it")
    if show("server_encoding") != "UTF8":
        raise LedgerError(f"{name} can't hold every prompt: its encoding is {show('server_encoding')}, not UTF8")


def is_away(error: BaseException) -> bool:
    """Whether the same thing may work a little later: the server is down, full, restarting, or out of reach."""
    if isinstance(error, LedgerUnavailableError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if error.connection_invalidated or (state is not None and state.startswith(_AWAY)):
        return True
    kinds = {kind.__name__ for kind in type(error.orig).__mro__}
    return state is None and "OperationalError" in kinds  # no answer at all, or not in time


def cause_of(error: BaseException) -> str:
    """What went wrong, in one line: our own errors as they are, those of a database in words of ours."""
    return str(error) if isinstance(error, DopError) else database_words(error)


# --- the lock of a ledger


class LockMode(StrEnum):
    """How a ledger is held: a plain run alone, the workers of a cluster beside each other."""

    EXCLUSIVE = "alone"
    SHARED = "beside"


@dataclass(frozen=True, slots=True)
class LedgerLock:
    """A session's advisory lock on the ledger in its schema; the server frees it when the session ends."""

    hold: LockMode

    def take(self, connection: Connection) -> bool:
        """Takes the lock for the session, if it is free."""
        shared = "_shared" if self.hold is LockMode.SHARED else ""
        return bool(_lock_call(connection, f"pg_try_advisory_lock{shared}"))

    def take_alone(self, connection: Connection) -> bool:
        """Takes it alone, for a moment in which no other process works on the ledger."""
        return bool(_lock_call(connection, "pg_try_advisory_lock"))

    def leave_alone(self, connection: Connection) -> None:
        """Ends that moment."""
        _lock_call(connection, "pg_advisory_unlock")

    def let_go(self, connection: Connection) -> None:
        """Frees it, however often it was taken."""
        connection.exec_driver_sql("SELECT pg_advisory_unlock_all()")

    def wait(self, take: Callable[[], bool], wait_s: float, *, refusal: Callable[[], str]) -> None:
        """Takes the lock within `wait_s` seconds.

        Raises:
            LockedError: another process holds it; `refusal` says who.
        """
        pause = threading.Event()
        for _ in range(1 + int(wait_s / 0.1)):
            if take():
                return
            if wait_s > 0:
                pause.wait(0.1)
        raise LockedError(refusal())


def _lock_call(connection: Connection, function: str) -> object:
    text = f"SELECT {function}(%s, hashtext(current_schema()))"
    return connection.exec_driver_sql(text, (LOCK_CLASS,)).scalar_one()


_HOLDERS = """
SELECT s.application_name, to_char(s.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
FROM pg_locks l JOIN pg_stat_activity s USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.classid = %s AND l.pid <> pg_backend_pid()
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND l.objid::bigint = (hashtext(current_schema())::bigint & 4294967295)
ORDER BY s.backend_start
"""


def holders(connection: Connection) -> list[str]:
    """Who else holds the ledger's lock, and since when."""
    found = connection.exec_driver_sql(_HOLDERS, (LOCK_CLASS,)).all()
    return [f"{name.removeprefix('dop ')}, since {since}" for name, since in found]


def has_ledger(url: str) -> bool:
    """Whether a database holds a ledger already; a question, which makes nothing.

    Raises:
        LedgerUnavailableError: the server can't be reached.
        LedgerError: it refuses us.
    """
    engine = server_engine(url, write=False)
    try:
        with engine.connect() as connection:
            return "attempts" in connection.dialect.get_table_names(connection)
    except DBAPIError as error:
        raise refusal(error, address(url)) from None
    finally:
        engine.dispose()


def refusal(error: BaseException, name: str, what: str = "can't be used") -> LedgerError:
    """A database's error in our words: away for now, or wrong."""
    kind = LedgerUnavailableError if is_away(error) else LedgerError
    return kind(f"the ledger {name} {what}: {cause_of(error)}")


@contextmanager
def locked(url: str, *, wait_s: float) -> Iterator[None]:
    """Holds the ledger's lock alone, for care that does not go through an open ledger.

    Raises:
        LockedError: another process works on it.
        LedgerUnavailableError: the server can't be reached.
    """
    engine = server_engine(url, write=True)
    try:
        with engine.connect() as connection:
            claim = LedgerLock(LockMode.EXCLUSIVE)
            claim.wait(lambda: claim.take(connection), wait_s, refusal=lambda: held_by(connection, address(url)))
            connection.commit()
            yield
    except DBAPIError as error:
        raise refusal(error, address(url)) from None
    finally:
        engine.dispose()


def held_by(connection: Connection, name: str) -> str:
    """What a refused run hears."""
    found = "; ".join(holders(connection)) or "its holder is just leaving"
    return f"another run holds {name} ({found}); nothing was sent"


def session_number(connection: Connection) -> int:
    """The server's number of this session."""
    return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())


def end_session(connection: Connection, pid: int) -> None:
    """Ends a session of our own that the server has not missed yet, after its connection was lost."""
    text = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND application_name = %s"
    connection.exec_driver_sql(text, (pid, session_name()))


_IDLE_LOCK_HOLDERS = """
SELECT s.application_name, pg_terminate_backend(s.pid) FROM meta m JOIN pg_stat_activity s ON s.backend_xid = m.xmax
WHERE m.name = 'seq' AND s.application_name LIKE 'dop %%' AND s.wait_event = 'ClientRead'
AND s.state_change < clock_timestamp() - make_interval(secs => %s)
"""


def end_idle_lock_holder(connection: Connection) -> list[str]:
    """Ends the session that has the turn to book and leaves the server waiting for the rest of what it says; its name.

    The server does so itself between two statements. Within one it would wait for as long as the connection lives, and
    that of a frozen process lives: its kernel answers. What it had not committed is undone, and it asks again.
    """
    found = connection.exec_driver_sql(_IDLE_LOCK_HOLDERS, (IDLE_LOCK_HOLDER_S,)).all()
    return [name.removeprefix("dop ") for name, ended in found if ended]


def is_lock_timeout(error: BaseException) -> bool:
    """Whether a statement waited in vain for what another session holds."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) == "55P03"


def identity(connection: Connection) -> str:
    """What tells this very database from a copy of it that was restored elsewhere."""
    text = "SELECT (SELECT system_identifier FROM pg_control_system()) || '/' || oid || '/' || current_schema()"
    return str(connection.exec_driver_sql(f"{text} FROM pg_database WHERE datname = current_database()").scalar_one())


def is_in_journal(connection: Connection, seq: int, line: str) -> bool:
    """Whether the journal holds this very line; for the process that holds the turn.

    Numbers of events have no gaps, so the walk back from the end is over at the line's own number.
    """
    text = "SELECT line FROM journal WHERE seq <= %s ORDER BY number DESC LIMIT 1"
    return bool(connection.exec_driver_sql(text, (seq,)).scalar_one_or_none() == line)
