"""The lock of a run on a ledger in a database: held by the session that writes, taken again when that was cut off."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from pipeline.ledger import postgres_session
from pipeline.ledger.postgres_session import LedgerLock, LockMode

RETAKE_TRIES = 20
"""Tries to take a lost lock again, RETAKE_PAUSE_S apart, before another process counts as its holder."""
RETAKE_PAUSE_S = 0.05
"""Tries and pauses in seconds until a lost lock is free: the server frees it once it has ended our old session."""


class RunLock:
    """One run's lock; without a mode nothing is locked (questions, and tests).

    `is_first` says whether no other worker was on the ledger when this one came. `taken_by` names the run that took
    the lock while the connection was lost: what was sent is still recorded, and nothing new is bought.
    """

    def __init__(self, mode: LockMode | None) -> None:
        self.mode = mode
        self.is_first = mode is not LockMode.SHARED
        self.taken_by: str | None = None
        self._lock = LedgerLock(mode) if mode is not None else None
        self._session: int | None = None  # the server's number of the session that holds it

    def take(self, engine: Engine, wait_s: float, name: str) -> None:
        """Takes the lock within `wait_s` seconds.

        Raises:
            LockedError: another run holds it.
        """
        if self._lock is None:
            return
        lock = self._lock
        with engine.connect() as connection:
            # Taken alone besides the shared one: the process that gets it checks the whole ledger before the others may
            # come.
            self.is_first = self.is_first or lock.take_alone(connection)
            lock.wait(lambda: lock.take(connection), wait_s, refusal=lambda: postgres_session.held_by(connection, name))
            self._holds(connection)

    def keep(self, connection: Connection) -> None:
        """At the beginning of each transaction: a connection that is new has to take the lock again."""
        if self._lock is not None and "claimed" not in connection.info:
            self._take_again(self._lock, connection)

    def let_others_in(self, connection: Connection) -> None:
        """The first of several workers has checked the ledger; the others may come."""
        if self._lock is not None:
            self._lock.leave_alone(connection)

    def is_alone(self, connection: Connection) -> bool:
        """Whether no other process works on the ledger now."""
        if self.taken_by is not None:
            return False
        return self._lock is None or self.mode is LockMode.EXCLUSIVE or self._lock.take_alone(connection)

    def free(self, engine: Engine) -> None:
        """Frees the lock at once; of a session that just ends, the server would free it some time later."""
        if self._lock is not None:
            with suppress(DBAPIError), engine.connect() as connection:
                self._lock.let_go(connection)

    def _holds(self, connection: Connection) -> None:
        connection.info["claimed"] = True
        self.taken_by = None
        self._session = postgres_session.session_number(connection)

    def _take_again(self, lock: LedgerLock, connection: Connection) -> None:
        if self._session is not None:
            # Our own old session may still hold the lock on the server, which has not noticed yet that its connection
            # is lost.
            postgres_session.end_session(connection, self._session)
        pause = threading.Event()
        for _ in range(RETAKE_TRIES if self._session is not None else 1):
            if lock.take(connection):
                self._holds(connection)
                return
            pause.wait(RETAKE_PAUSE_S)
        self._session = None
        self.taken_by = "; ".join(postgres_session.holders(connection)) or "another run"


class LockedTransactions:
    """Write transactions of one ledger, each under its run's lock."""

    def __init__(self, engine: Engine, lock: RunLock) -> None:
        self._engine, self._lock = engine, lock

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction that is committed at the end; a connection that is new has taken the lock again."""
        with self._engine.begin() as connection:
            self._lock.keep(connection)
            yield connection
