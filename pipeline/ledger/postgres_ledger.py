"""The ledger on PostgreSQL: several hosts write it at once, and its server may go away for a while.

Every commit takes the row of the event counter first, so that budget, swap and money are judged by one writer at a
time, whichever host it is on. While the server is away nothing is bought, and outcomes wait: they are kept in a file
here (the spool) until they are recorded. Must never: send anything, or tell a caller "recorded" before the server did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Executable
from sqlalchemy.engine import Row as Found
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from pipeline.errors import DopError, LedgerError, LedgerUnavailableError
from pipeline.ledger import postgres_session
from pipeline.ledger.batch_statements import Executor
from pipeline.ledger.clock import newest_day_at
from pipeline.ledger.database import LedgerOutdatedError, create_or_check, write_meta
from pipeline.ledger.gateway_names import map_gateways
from pipeline.ledger.identity import COPY, HOLE, MOVED
from pipeline.ledger.journal_check import table_lines
from pipeline.ledger.migrations import migrate
from pipeline.ledger.outage import PendingOutcomes
from pipeline.ledger.postgres_commits import PostgresCommits
from pipeline.ledger.postgres_lock import LockedTransactions, RunLock
from pipeline.ledger.postgres_outages import MAX_WAIT_S, ServerOutages
from pipeline.ledger.postgres_readers import ReadPool
from pipeline.ledger.postgres_session import LockMode
from pipeline.ledger.spending_checks import audited_now, check_not_moved, check_sums, clean_end
from pipeline.ledger.write_queue import QueuedWrite
from pipeline.ledger.writer import LedgerWriter


class PostgresLedger(LedgerWriter):
    """An open ledger in a database.

    Several may be open at once, on several hosts: reservations and swaps are safe between them. `hold` is what keeps a
    plain run alone; without one nothing is locked (questions, and tests).
    """

    def __init__(
        self,
        url: str,
        *,
        spool: Path | None = None,
        hold: LockMode | None = None,
        wait_s: float = 0.0,
        inline: bool = False,
        may_migrate: bool = False,
        patience_s: float = MAX_WAIT_S,
    ) -> None:
        """Opens or makes the ledger in the database at `url`.

        Args:
            spool: the folder in which this process keeps outcomes while the server is away.
            wait_s: seconds to wait for the hold.
            may_migrate: bring an earlier version up to date; only when no other process works on it.
        Raises:
            LockedError: another process holds it.
            LedgerUnavailableError: the server can't be reached.
            LedgerError: not a server that a ledger can stand on, damaged, or newer.
        """
        super().__init__(inline=inline)
        self.name = postgres_session.address(url)
        self.engine = postgres_session.server_engine(url, write=True)
        self.reader = ReadPool(postgres_session.server_engine(url, write=False), self.name)
        self._lock = RunLock(hold)
        self._transactions = LockedTransactions(self.engine, self._lock)
        try:
            # Before anything is read of the ledger, which another run may change until then.
            self._lock.take(self.engine, wait_s, self.name)
            self.facts = self._facts(may_migrate)
            with self.engine.connect() as connection:
                self._identity = postgres_session.identity(connection)
        except DBAPIError as error:
            raise postgres_session.refusal(error, self.name) from None
        finally:
            # An opening that failed must leave no session behind: it would keep the lock.
            if not hasattr(self, "_identity"):
                self.engine.dispose()
        self._start()
        self._outages = ServerOutages(
            self.name,
            self._transactions,
            reader=self.reader,
            batches=self._batches,
            pending=PendingOutcomes(spool, self._notify),
            notify=self._notify,
            patience_s=patience_s,
        )
        self._commits = PostgresCommits(
            self.name,
            self._transactions,
            batches=self._batches,
            statements=self._sql,
            lock=self._lock,
            outages=self._outages,
            deliver=self._deliver,
        )

    def _facts(self, may_migrate: bool) -> dict[str, str]:
        with suppress(LedgerOutdatedError):
            return create_or_check(self.engine, self.name)
        if may_migrate and self._lock.is_first:
            done = migrate(self.engine, None, name=self.name)
            if done is not None:
                self._notices.append(f"the ledger was of version {done[0]} and is up to date now")
        return create_or_check(self.engine, self.name)

    def _notify(self, text: str) -> None:
        with suppress(RuntimeError):  # the loop that listened is closed
            self._on_notice(text)

    # -- opening for spending

    @property
    def is_copy(self) -> bool:
        """Whether this database was restored from a dump of the one that was last spent with."""
        return self.facts.get("identity", self._identity) != self._identity

    def ready_to_spend(self) -> list[str]:
        """Checks everything that must hold before money moves; returns notices for the user.

        Raises:
            LedgerError: copied, moved or damaged.
        """
        notices = list(self._notices)
        check_not_moved(self.facts, self.name)
        if self.is_copy:
            raise LedgerError(
                f"{self.name} was restored from a copy, and spending with two copies pays twice. "
                "If this is the only one in use now, say so with `dop ledger adopt`"
            )
        if self._lock.is_first:
            notices += check_sums(self.reader, self.facts, self.name)
        if self._outages.pending.inherit():
            self.transact(lambda _: None)  # what the spool holds is recorded before anything else
            notices.append("outcomes that were kept here while the database was away were recorded now")
            notices += [f"warning: {warning}" for warning in self._outages.left_out]
        if self._lock.is_first:
            notices += self.transact(map_gateways)
        with self.reader.connect() as connection:
            self._batches.begin_day_at(newest_day_at(connection))
        here, is_checked = {"identity": self._identity, "clean": "no"}, self._lock.is_first
        self.transact(
            lambda connection: write_meta(connection, {**here, **(audited_now(connection) if is_checked else {})})
        )
        self.facts |= here
        # Only now: the other workers rely on what was checked above.
        if self._lock.mode is LockMode.SHARED and self._lock.is_first:
            self.transact(self._lock.let_others_in)
        return notices

    def journal_lines(self) -> Iterator[str]:
        """The lines of the journal in the database, in order."""
        with self.reader.connect() as connection:
            yield from table_lines(connection)

    def adopt(self, now: float, *, keep_hole: bool = False) -> list[str]:
        """Takes this database for the one ledger that spends: the operator said so."""
        hole = self.facts.get(HOLE) if keep_hole else None
        self.mark({MOVED: None, COPY: None, HOLE: hole, "identity": self._identity})
        return []

    # -- the writer

    def ask(self, statement: Executable) -> Sequence[Found[Any]]:
        """Everything that one question finds; asked again when the server went away meanwhile."""
        with suppress(LedgerUnavailableError):
            return super().ask(statement)
        return super().ask(statement)

    def _keep(self, hand: Executor, entries: Sequence[Mapping[str, object]]) -> None:
        self._commits.keep(hand, entries)

    def _alone(self, job: QueuedWrite) -> None:
        self._commits.alone(job)

    def _commit(self, batch: Sequence[QueuedWrite]) -> None:
        self._commits.commit(batch)

    def close(self, *, clean: bool = True) -> None:
        """Writes what waits, marks a clean end where no other process works on it, and lets go of the server."""
        self._outages.leave()
        if clean and self.facts.get("clean") == "no" and not self._outages.gave_up:
            with suppress(DopError):
                self.transact(self._close_for_all)
        self._writes.end()
        self._outages.pending.close()
        self._leave()
        self.reader.dispose()

    def _leave(self) -> None:
        """The lock is free when this returns."""
        pool = self.engine.pool
        # Only with a session at hand: to open one takes its time, and the server frees the lock of one that has ended.
        if not self._outages.is_away and isinstance(pool, QueuePool) and pool.checkedin():
            self._lock.free(self.engine)
        super()._leave()

    def _close_for_all(self, connection: Connection) -> None:
        """The last one out closes the sums: they hold only when no other process records any more."""
        if self._lock.is_alone(connection):
            write_meta(connection, clean_end(connection))
