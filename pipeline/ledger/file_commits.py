"""Commits to the ledger's file: one transaction a batch, its journal lines after it, and a disk that runs full.

MONEY: once the file or its journal can't be written, intents are refused, so that nothing more is sent. What was sent
before is still recorded: in the file if the spare space that was set aside allows it, else in the journal alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from sqlalchemy import Engine
from sqlalchemy.exc import DatabaseError

from pipeline.errors import LedgerError
from pipeline.files import remedy
from pipeline.ledger.batch_writer import BatchWriter
from pipeline.ledger.file_in_place import FileInPlace
from pipeline.ledger.journal import Journal, change_entry, sealed
from pipeline.ledger.states import Event
from pipeline.ledger.write_queue import QueuedWrite, WriteResult


class FileCommits:
    """Writes what the queue hands over, in the writer's thread. `failure` says why nothing more is bought.

    Args:
        journal: the journal beside the file, which may be another one after a reconciliation.
        ledger_id: the ledger's id, which enters the chain.
        spare: a file of no use that is removed when the disk runs full.
        deliver: gives each waiting caller its result.
    """

    def __init__(
        self,
        path: Path,
        engine: Engine,
        *,
        batches: BatchWriter,
        journal: Callable[[], Journal],
        ledger_id: Callable[[], str],
        spare: Path,
        deliver: Callable[[Sequence[QueuedWrite], Sequence[WriteResult]], None],
    ) -> None:
        self._path, self._engine, self._batches = path, engine, batches
        self._journal, self._ledger_id, self._spare, self._deliver = journal, ledger_id, spare, deliver
        self._in_place = FileInPlace(path)
        self._is_spending = False
        self._failure: str | None = None
        self._ahead = False  # whether the journal holds events that the database does not

    @property
    def failure(self) -> str | None:
        """Why the ledger can't be written, in words; None while it can."""
        return self._failure

    def begin_spending(self) -> None:
        """From now on money moves: a file that is removed or replaced stops the buying."""
        self._is_spending = True

    def is_file_gone(self) -> bool:
        """Whether the file was removed or replaced while money moved."""
        return self._is_spending and not self._in_place

    def alone(self, job: QueuedWrite) -> None:
        """Run one transaction of its own and deliver what it gave."""
        assert job.transaction is not None
        self._batches.forget_rows()
        try:
            with self._engine.begin() as connection:
                result = job.transaction(connection)
        except DatabaseError as error:
            self._deliver([job], [(None, LedgerError(f"the ledger {self._path} could not be written: {error.orig}"))])
        except BaseException as error:  # noqa: BLE001 - the writer must outlive a caller's mistake; the caller gets it
            self._deliver([job], [(None, error)])
        else:
            self._deliver([job], [(result, None)])

    def commit(self, batch: Sequence[QueuedWrite]) -> None:
        """Write a batch in one transaction, then its journal lines, and deliver what became of each change."""
        if self._failure is None and self.is_file_gone():
            self._failure = f"the ledger {self._path} was removed or replaced while it was in use"
        if self._failure is not None:
            batch = self._without_intents(batch)
        if self._ahead and batch:
            # MONEY: a later event in the database would hide those that only the journal has from the next start.
            self._only_journal(batch, LedgerError(self._failure or "the ledger is behind its journal"))
            return
        # Twice at most: the second time with the spare space given up, and without intents.
        for last_try in (False, True):
            if not batch:
                return
            entries: list[dict[str, object]] = []
            try:
                with self._begun() as hand:
                    results = self._batches.write(hand, batch, entries)
            except (sqlite3.DatabaseError, OSError) as error:
                if not last_try and self._give_up_spare(error):
                    batch = self._without_intents(batch)
                    continue
                self._failure = self._failure or f"the ledger {self._path} can't be written ({error})"
                self._only_journal(batch, LedgerError(self._failure))
                return
            except BaseException as error:  # noqa: BLE001 - the writer must outlive any mistake; every caller gets it
                self._only_journal(batch, error)
                return
            if entries:
                self._batches.committed(entries)
            # After the commit. A journal ahead of the database would tell of intents that were never reserved.
            self._note(entries)
            self._deliver(batch, results)
            return

    @contextmanager
    def _begun(self) -> Iterator[sqlite3.Connection]:
        """A write transaction on the driver's own connection; given back, it forgets what was not committed."""
        pooled = self._engine.raw_connection()
        try:
            hand = cast(sqlite3.Connection, pooled.driver_connection)
            hand.execute("BEGIN IMMEDIATE")
            yield hand
            hand.commit()
        except BaseException:
            self._batches.forget_rows()
            raise
        finally:
            pooled.close()

    def _without_intents(self, batch: Sequence[QueuedWrite]) -> list[QueuedWrite]:
        """MONEY: on a full disk an intent is refused, so that nothing is sent; what was sent is still recorded."""
        intents = [job for job in batch if job.change is not None and job.change.event is Event.RESERVE]
        self._deliver(intents, [(None, LedgerError(self._failure or "the ledger is full"))] * len(intents))
        return [job for job in batch if job not in intents]

    def _give_up_spare(self, cause: object) -> bool:
        self._failure = f"the ledger {self._path} can't be written ({cause}); {remedy(cause)}"
        with suppress(OSError):
            self._spare.unlink()
            return True
        return False

    def _only_journal(self, batch: Sequence[QueuedWrite], error: BaseException) -> None:
        """The database failed: what was already paid still goes to the journal on disk before the error is reported."""
        self._failure = self._failure or f"the ledger {self._path} can't be written ({error})"
        changes = [job.change for job in batch if job.change is not None and job.change.event is not Event.RESERVE]
        self._ahead = self._ahead or bool(changes)
        kept, (seq, chain) = [], (self._batches.seq, self._batches.chain)
        for offset, change in enumerate(changes, start=1):
            kept.append(change_entry(change, seq + offset))
            chain = sealed(kept[-1], self._ledger_id(), chain)
        # If the journal can't be written either, the caller still gets its error, and prints the id of what was paid.
        with suppress(OSError):
            self._journal().append(kept, sync=True)
            self._batches.moved_to(seq + len(kept), chain)
        self._deliver(batch, [(None, error)] * len(batch))

    def _note(self, entries: list[dict[str, object]]) -> None:
        try:
            self._journal().append(entries)
        except OSError as error:
            self._failure = f"the journal {self._journal().path} can't be written ({error.strerror}); {remedy(error)}"
