"""Commits on a server: each change once, also where the answer to a commit was lost.

MONEY: a commit whose answer was lost is neither done again nor forgotten: the journal, which is written in the same
transaction, says whether it took place. Once another run holds the lock, intents are refused and nothing more is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from pipeline.errors import LedgerError, LedgerUnavailableError
from pipeline.ledger import postgres_session
from pipeline.ledger.batch_statements import Executor
from pipeline.ledger.batch_writer import BatchWriter
from pipeline.ledger.journal import line_of
from pipeline.ledger.outage import InDoubtCommit, LockLostError, is_intent
from pipeline.ledger.postgres_lock import LockedTransactions, RunLock
from pipeline.ledger.postgres_outages import ServerOutages
from pipeline.ledger.statements import Statements
from pipeline.ledger.write_queue import QueuedWrite, WriteResult

_AT_LEISURE = "SET LOCAL idle_in_transaction_session_timeout = '15min'; SET LOCAL lock_timeout = 0"
"""For work that does not block other commits, and may wait for the process that fills the queue."""


class PostgresCommits:
    """Writes what the queue hands over, in the writer's thread.

    Args:
        name: where the ledger is, for messages.
        outages: waits for a server that is unavailable.
        deliver: gives each waiting caller its result.
    """

    def __init__(
        self,
        name: str,
        transactions: LockedTransactions,
        *,
        batches: BatchWriter,
        statements: Statements,
        lock: RunLock,
        outages: ServerOutages,
        deliver: Callable[[Sequence[QueuedWrite], Sequence[WriteResult]], None],
    ) -> None:
        self._name, self._transactions = name, transactions
        self._batches, self._sql, self._lock = batches, statements, lock
        self._outages, self._deliver = outages, deliver
        self._doubt: InDoubtCommit | None = None
        self._kept: tuple[int, str] | None = None  # number and text of the journal line that was written last

    def keep(self, hand: Executor, entries: Sequence[Mapping[str, object]]) -> None:
        """Write journal lines in the transaction that is open, and remember the last one for a commit in doubt."""
        lines = [(int(str(entry["seq"])), line_of(entry).rstrip("\n")) for entry in entries]
        self._sql.keep(hand, lines)
        self._kept = lines[-1]

    def alone(self, job: QueuedWrite) -> None:
        """Run one transaction of its own and deliver what it gave."""
        try:
            result = self._outages.retry(lambda begun: self._one(job, begun))
        except DatabaseError as error:
            self._deliver([job], [(None, postgres_session.refusal(error, self._name, "could not be written"))])
        except BaseException as error:  # noqa: BLE001 - the writer must outlive a caller's mistake; the caller gets it
            self._deliver([job], [(None, error)])
        else:
            self._deliver([job], [(result, None)])

    def _one(self, job: QueuedWrite, begun: Callable[[], None]) -> object:
        assert job.transaction is not None
        with self._transactions.begin() as connection:
            if job.alone:
                self._sql.seq(connection)
            else:
                connection.exec_driver_sql(_AT_LEISURE)
            begun()  # what it reads may be gone: it can't be done again
            return job.transaction(connection)

    def commit(self, batch: Sequence[QueuedWrite]) -> None:
        """Write a batch in one transaction and deliver what became of each change."""
        if not batch:
            return
        try:
            results = self._outages.retry(lambda _: self._written(batch), batch)
        except LockLostError as error:
            self._refuse_intents(batch, LedgerError(str(error)))
        except LedgerUnavailableError as error:
            failed = self._outages.give_up(error, batch, in_doubt=self._doubt is not None)
            self._doubt = None
            self._deliver(batch, [(None, failed)] * len(batch))
        except BaseException as error:  # noqa: BLE001 - the writer must outlive any mistake; every caller gets it
            self._each_alone(batch, error)
        else:
            self._deliver(batch, results)

    def _written(self, batch: Sequence[QueuedWrite]) -> list[WriteResult]:
        with self._transactions.begin() as connection:
            # First: this may be the second try of a batch whose commit took place and lost its answer.
            resolved = self._resolve_in_doubt(connection)
            if resolved is not None:
                return resolved
            if self._lock.taken_by is not None and any(is_intent(job) for job in batch):
                raise LockLostError(
                    f"another run works on {self._name} now ({self._lock.taken_by}); nothing more is bought"
                )
            # A batch that writes no event has no line in the journal, and nothing that could be in doubt.
            self._kept = None
            results = self._batches.write(connection, batch, [])
            # Set within the block: the commit comes at its end, and its answer may be lost there.
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
        self.commit([job for job in batch if job not in intents])

    def _each_alone(self, batch: Sequence[QueuedWrite], error: BaseException) -> None:
        """One change that can't be recorded must not take the others with it."""
        self._doubt = None
        if len(batch) > 1:
            for job in batch:
                self.commit([job])
            return
        self._outages.pending.keep_outcomes(batch)
        failed = (
            postgres_session.refusal(error, self._name, "could not be written")
            if isinstance(error, DatabaseError)
            else error
        )
        self._deliver(batch, [(None, failed)])
