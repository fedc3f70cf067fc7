"""The ledger on PostgreSQL: several hosts write it at once, and its server may go away for a while.

Every commit takes the row of the event counter first, so that budget, swap and money are judged by one writer at a
time, whichever host it is on. While the server is away nothing is bought, and outcomes wait: they are kept in a file
here (the spool) until they are recorded. Must never: send anything, or tell a caller "recorded" before the server did.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Executable
from sqlalchemy.engine import Row as Found
from sqlalchemy.exc import DatabaseError, DBAPIError
from sqlalchemy.pool import QueuePool

from pipeline.errors import DopError, LedgerError, LedgerUnavailableError
from pipeline.ledger import postgres_session
from pipeline.ledger.batch_statements import Executor
from pipeline.ledger.clock import newest_day_at
from pipeline.ledger.database import LedgerOutdatedError, create_or_check, write_meta
from pipeline.ledger.fitness import audited_now, check_not_moved, check_sums, clean_end
from pipeline.ledger.gateway_names import map_gateways
from pipeline.ledger.identity import COPY, HOLE, MOVED
from pipeline.ledger.journal import line_of
from pipeline.ledger.journal_check import table_lines
from pipeline.ledger.migrations import migrate
from pipeline.ledger.outage import InDoubtCommit, LockLostError, PendingOutcomes, backoff_delays, is_intent
from pipeline.ledger.postgres_lock import RunLock
from pipeline.ledger.postgres_readers import ReadPool
from pipeline.ledger.postgres_session import LockMode, cause_of, is_away
from pipeline.ledger.states import Event
from pipeline.ledger.write_queue import QueuedWrite, WriteResult
from pipeline.ledger.writer import LedgerWriter

MAX_WAIT_S = 300.0
"""A server that restarts or fails over is waited for this long; then a run ends, and its outcomes stay in the spool."""

CLOSE_MAX_WAIT_S = 3.0
"""Seconds that a closing ledger waits for an unavailable server; what it holds by then is in the spool."""
_AT_LEISURE = "SET LOCAL idle_in_transaction_session_timeout = '15min'; SET LOCAL lock_timeout = 0"
"""For work that does not block other commits, and may wait for the process that fills the queue."""


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
            LedgerAwayError: the server can't be reached.
            LedgerError: not a server that a ledger can stand on, damaged, or newer.
        """
        super().__init__(inline=inline)
        self.name = postgres_session.address(url)
        self.engine = postgres_session.server_engine(url, write=True)
        self.reader = ReadPool(postgres_session.server_engine(url, write=False), self.name)
        self._pending = PendingOutcomes(spool, self._say)
        self._patience_s = patience_s
        self._lock = RunLock(hold)
        self._doubt: InDoubtCommit | None = None
        self._kept: tuple[int, str] | None = None  # number and text of the journal line that was written last
        self._leaving = False
        self._left_out: list[str] = []  # warnings: what the spool held and could not be recorded
        self._gave_up = False
        try:
            self._lock.take(self.engine, wait_s, self.name)
            self.facts = self._facts(may_migrate)
            with self.engine.connect() as connection:
                self._identity = postgres_session.identity(connection)
        except DBAPIError as error:
            raise postgres_session.refusal(error, self.name) from None
        finally:
            if not hasattr(self, "_identity"):
                self.engine.dispose()
        self._start()

    def _facts(self, may_migrate: bool) -> dict[str, str]:
        with suppress(LedgerOutdatedError):
            return create_or_check(self.engine, self.name)
        if may_migrate and self._lock.is_first:
            done = migrate(self.engine, None, name=self.name)
            if done is not None:
                self._notices.append(f"the ledger was of version {done[0]} and is up to date now")
        return create_or_check(self.engine, self.name)

    def _say(self, text: str) -> None:
        with suppress(RuntimeError):  # the loop that listened is closed
            self.tell(text)

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        with self.engine.begin() as connection:
            self._lock.keep(connection)
            yield connection

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
        if self._pending.inherit():
            self.transact(lambda _: None)  # what the spool holds is recorded before anything else
            notices.append("outcomes that were kept here while the database was away were recorded now")
            notices += [f"warning: {warning}" for warning in self._left_out]
        if self._lock.is_first:
            notices += self.transact(map_gateways)
        with self.reader.connect() as connection:
            self._batches.begin_day_at(newest_day_at(connection))
        here, is_checked = {"identity": self._identity, "clean": "no"}, self._lock.is_first
        self.transact(
            lambda connection: write_meta(connection, {**here, **(audited_now(connection) if is_checked else {})})
        )
        self.facts |= here
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
        lines = [(int(str(entry["seq"])), line_of(entry).rstrip("\n")) for entry in entries]
        self._sql.keep(hand, lines)
        self._kept = lines[-1]

    def _alone(self, job: QueuedWrite) -> None:
        try:
            result = self._retry_while_unavailable(lambda begun: self._one(job, begun))
        except DatabaseError as error:
            self._deliver([job], [(None, postgres_session.refusal(error, self.name, "could not be written"))])
        except BaseException as error:  # noqa: BLE001 - the writer must outlive a caller's mistake; the caller gets it
            self._deliver([job], [(None, error)])
        else:
            self._deliver([job], [(result, None)])

    def _one(self, job: QueuedWrite, begun: Callable[[], None]) -> object:
        assert job.transaction is not None
        with self._begin() as connection:
            if job.alone:
                self._sql.seq(connection)
            else:
                connection.exec_driver_sql(_AT_LEISURE)
            begun()  # what it reads may be gone: it can't be done again
            return job.transaction(connection)

    def _commit(self, batch: Sequence[QueuedWrite]) -> None:
        if not batch:
            return
        try:
            results = self._retry_while_unavailable(lambda _: self._written(batch), batch)
        except LockLostError as error:
            self._refuse_intents(batch, LedgerError(str(error)))
        except LedgerUnavailableError as error:
            self._give_up(batch, error)
        except BaseException as error:  # noqa: BLE001 - the writer must outlive any mistake; every caller gets it
            self._each_alone(batch, error)
        else:
            self._deliver(batch, results)

    def _written(self, batch: Sequence[QueuedWrite]) -> list[WriteResult]:
        with self._begin() as connection:
            resolved = self._resolve_in_doubt(connection)
            if resolved is not None:
                return resolved
            if self._lock.taken_by is not None and any(is_intent(job) for job in batch):
                raise LockLostError(
                    f"another run works on {self.name} now ({self._lock.taken_by}); nothing more is bought"
                )
            self._kept = None
            results = self._batches.write(connection, batch, [])
            self._doubt = InDoubtCommit(*self._kept, results) if self._kept is not None else None
        self._doubt = None
        return results

    def _resolve_in_doubt(self, connection: Connection) -> list[WriteResult] | None:
        """MONEY: a commit whose answer was lost is neither done again nor forgotten: the journal knows."""
        if self._doubt is None:
            return None
        self._sql.seq(connection)  # the process that holds the turn sees a transaction that has ended
        took_place = self._doubt.took_place(connection)
        results, self._doubt = self._doubt.results, None
        return results if took_place else None

    def _refuse_intents(self, batch: Sequence[QueuedWrite], error: LedgerError) -> None:
        intents = [job for job in batch if is_intent(job)]
        self._deliver(intents, [(None, error)] * len(intents))
        self._commit([job for job in batch if job not in intents])

    def _each_alone(self, batch: Sequence[QueuedWrite], error: BaseException) -> None:
        """One change that can't be recorded must not take the others with it."""
        self._doubt = None
        if len(batch) > 1:
            for job in batch:
                self._commit([job])
            return
        self._pending.keep_outcomes(batch)
        failed = (
            postgres_session.refusal(error, self.name, "could not be written")
            if isinstance(error, DatabaseError)
            else error
        )
        self._deliver(batch, [(None, failed)])

    # -- while the server is away

    def _retry_while_unavailable(
        self, work: Callable[[Callable[[], None]], Any], batch: Sequence[QueuedWrite] = ()
    ) -> Any:
        """Does `work` when the server is there; `work` may call what it is given to say that it can't be repeated.

        Raises:
            LedgerAwayError: it was away for too long.
        """
        patience_s = min(CLOSE_MAX_WAIT_S, self._patience_s) if self._gave_up else self._patience_s
        begun = threading.Event()
        waited_s, cause, spooled = 0.0, "", False
        for pause_s in backoff_delays(patience_s):
            try:
                self._flush_spool()
                result = work(begun.set)
            except Exception as error:
                if begun.is_set() or not is_away(error):
                    raise
                cause = cause_of(error)
                if postgres_session.is_lock_timeout(error):
                    self._free_the_turn()
            else:
                self._back(spooled=spooled, waited_s=waited_s)
                return result
            if not spooled:
                spooled = self._pending.keep_outcomes(batch)
            if not waited_s:
                self._say(f"the ledger {self.name} is away ({cause}): waiting for it, nothing is bought meanwhile")
            if self._leaving and waited_s >= CLOSE_MAX_WAIT_S:
                break
            threading.Event().wait(pause_s)
            waited_s += pause_s
        raise LedgerUnavailableError(
            f"the ledger {self.name} is away ({cause}); nothing more is bought, run again later"
        )

    def _free_the_turn(self) -> None:
        with suppress(LedgerUnavailableError, DatabaseError), self.reader.connect() as connection:
            for name in postgres_session.end_idle_lock_holder(connection):
                self._say(f"{name} blocked every commit and does not move: its session was ended")

    def _back(self, *, spooled: bool, waited_s: float) -> None:
        self._gave_up = False
        if spooled:
            self._pending.forget()
        if waited_s:
            self._say(f"the ledger {self.name} is back")

    def _give_up(self, batch: Sequence[QueuedWrite], error: LedgerUnavailableError) -> None:
        # MONEY: the caller gets an error and sends nothing; if its commit took place after all, this takes it back.
        intents = [job.change for job in batch if job.change is not None and is_intent(job)]
        if self._doubt:
            self._pending.keep([replace(change, event=Event.RELEASE, values={}) for change in intents])
        self._doubt = None
        self._gave_up = True
        path = self._pending.path
        if path is not None:
            self._pending.mark_behind()
        else:
            self._pending.mark_recorded()
        kept = f"; what was answered meanwhile is in {path}" if path is not None else ""
        self._deliver(batch, [(None, LedgerUnavailableError(f"{error}{kept}"))] * len(batch))

    def _flush_spool(self) -> None:
        """Records what the spool holds; what was recorded already is refused by its token or state, which is right."""
        if not self._pending.is_behind:
            return
        self._pending.mark_recorded()
        try:
            with self._begin() as connection:
                self._left_out = self._pending.flush(connection, lambda jobs: self._batches.write(connection, jobs, []))
        except DopError as error:
            self._say(f"what {self._pending.path} keeps can't be recorded: {error}")
            return
        except DatabaseError:
            self._pending.mark_behind()
            raise
        for warning in self._left_out:
            self._say(f"warning: {warning}")
        self._pending.done(self._left_out)

    def close(self, *, clean: bool = True) -> None:
        """Writes what waits, marks a clean end where no other process works on it, and lets go of the server."""
        self._leaving = True
        if clean and self.facts.get("clean") == "no" and not self._gave_up:
            with suppress(DopError):
                self.transact(self._close_for_all)
        self._writes.end()
        self._pending.close()
        self._leave()
        self.reader.dispose()

    def _leave(self) -> None:
        """The lock is free when this returns."""
        pool = self.engine.pool
        away = self._gave_up or self._pending.is_behind
        if not away and isinstance(pool, QueuePool) and pool.checkedin():
            self._lock.free(self.engine)
        super()._leave()

    def _close_for_all(self, connection: Connection) -> None:
        """The last one out closes the sums: they hold only when no other process records any more."""
        if self._lock.is_alone(connection):
            write_meta(connection, clean_end(connection))
