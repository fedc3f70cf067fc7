"""A server that is unavailable: the writer waits for it, and outcomes are kept on this host's disk meanwhile.

While the server is away nothing is bought. After `patience_s` the writer gives up: its callers get an error, and what
the spool holds is recorded by the next command.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from sqlalchemy.exc import DatabaseError

from pipeline.errors import DopError, LedgerUnavailableError
from pipeline.ledger import postgres_session
from pipeline.ledger.batch_writer import BatchWriter
from pipeline.ledger.outage import PendingOutcomes, backoff_delays, is_intent
from pipeline.ledger.postgres_lock import LockedTransactions
from pipeline.ledger.postgres_session import cause_of, is_away
from pipeline.ledger.spending_checks import ReadConnections
from pipeline.ledger.states import Event
from pipeline.ledger.write_queue import QueuedWrite

T = TypeVar("T")

MAX_WAIT_S = 300.0
"""A server that restarts or fails over is waited for this long; then a run ends, and its outcomes stay in the spool."""

CLOSE_MAX_WAIT_S = 3.0
"""Seconds that a closing ledger waits for an unavailable server; what it holds by then is in the spool."""


class ServerOutages:
    """Repeats transactions until the server is there, and records what waited for it.

    Args:
        name: where the ledger is, for messages.
        pending: the spool on this host's disk.
        notify: what the user should know now.
        patience_s: seconds after which the writer gives up.
    """

    def __init__(
        self,
        name: str,
        transactions: LockedTransactions,
        *,
        reader: ReadConnections,
        batches: BatchWriter,
        pending: PendingOutcomes,
        notify: Callable[[str], None],
        patience_s: float,
    ) -> None:
        self._name, self._transactions, self._reader, self._batches = name, transactions, reader, batches
        self.pending = pending
        self._notify, self._patience_s = notify, patience_s
        self._leaving = False
        self.gave_up = False
        """Whether the server stayed away for longer than the patience, and did not come back since."""
        self.left_out: list[str] = []
        """Warnings: what the spool held and could not be recorded."""

    @property
    def is_away(self) -> bool:
        """Whether the server is away, or lacks what the spool holds."""
        return self.gave_up or self.pending.is_behind

    def leave(self) -> None:
        """The ledger is closing: the writer waits for CLOSE_MAX_WAIT_S at most."""
        self._leaving = True

    def retry(self, work: Callable[[Callable[[], None]], T], batch: Sequence[QueuedWrite] = ()) -> T:
        """Does `work` when the server is there; `work` may call what it is given to say that it can't be repeated.

        Raises:
            LedgerUnavailableError: it was away for too long.
        """
        # Once the patience is used up every further call is short: callers would wait minutes each, one after the
        # other.
        patience_s = min(CLOSE_MAX_WAIT_S, self._patience_s) if self.gave_up else self._patience_s
        begun = threading.Event()
        waited_s, cause, spooled = 0.0, "", False
        for pause_s in backoff_delays(patience_s):
            try:
                self._flush_spool()
                result = work(begun.set)
            except Exception as error:
                # Work that has begun to read a stream, such as the rows of a sheet, can't be done a second time.
                if begun.is_set() or not is_away(error):
                    raise
                cause = cause_of(error)
                if postgres_session.is_lock_timeout(error):
                    self._free_the_turn()
            else:
                self._back(spooled=spooled, waited_s=waited_s)
                return result
            # Once: at each try the batch is the same.
            if not spooled:
                spooled = self.pending.keep_outcomes(batch)
            if not waited_s:
                self._notify(f"the ledger {self._name} is away ({cause}): waiting for it, nothing is bought meanwhile")
            if self._leaving and waited_s >= CLOSE_MAX_WAIT_S:
                break
            threading.Event().wait(pause_s)
            waited_s += pause_s
        raise LedgerUnavailableError(
            f"the ledger {self._name} is away ({cause}); nothing more is bought, run again later"
        )

    def _free_the_turn(self) -> None:
        with suppress(LedgerUnavailableError, DatabaseError), self._reader.connect() as connection:
            for name in postgres_session.end_idle_lock_holder(connection):
                self._notify(f"{name} blocked every commit and does not move: its session was ended")

    def _back(self, *, spooled: bool, waited_s: float) -> None:
        self.gave_up = False
        if spooled:
            self.pending.forget()
        if waited_s:
            self._notify(f"the ledger {self._name} is back")

    def give_up(
        self, error: LedgerUnavailableError, batch: Sequence[QueuedWrite], *, in_doubt: bool
    ) -> LedgerUnavailableError:
        """The server stayed away. Returns the error for the callers of `batch`, which says where outcomes are kept.

        MONEY: the callers get an error and send nothing; if their commit took place after all (`in_doubt`), the
        releases that are kept here take its intents back once the server is there.
        """
        if in_doubt:
            intents = [job.change for job in batch if job.change is not None and is_intent(job)]
            self.pending.keep([replace(change, event=Event.RELEASE, values={}) for change in intents])
        self.gave_up = True
        path = self.pending.path
        if path is not None:
            self.pending.mark_behind()
        else:
            self.pending.mark_recorded()
        kept = f"; what was answered meanwhile is in {path}" if path is not None else ""
        return LedgerUnavailableError(f"{error}{kept}")

    def _flush_spool(self) -> None:
        """Records what the spool holds; what was recorded already is refused by its token or state, which is right."""
        if not self.pending.is_behind:
            return
        # Before the transaction: what can't be recorded must not be tried again with every commit. An outage sets it
        # back.
        self.pending.mark_recorded()
        try:
            with self._transactions.begin() as connection:
                self.left_out = self.pending.flush(connection, lambda jobs: self._batches.write(connection, jobs, []))
        except DopError as error:
            self._notify(f"what {self.pending.path} keeps can't be recorded: {error}")
            return
        except DatabaseError:
            self.pending.mark_behind()
            raise
        for warning in self.left_out:
            self._notify(f"warning: {warning}")
        self.pending.done(self.left_out)
