"""The durable book of what was bought: one writer thread, group commit, changes judged under the write lock.

Callers of the event loop await `apply`; whatever it returns is on the disk. Must never: send anything, know the
gateway's JSON, or change a row without a line of history. Measured: set-based writes in one thread beat async drivers.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, select
from sqlalchemy.exc import DatabaseError

from pipeline.errors import DopError, LedgerError
from pipeline.ledger.audit import audit, replay, sums_digest
from pipeline.ledger.database import (
    OldLedgerError,
    create_or_check,
    inode_of,
    integrity_problems,
    read_meta,
    sqlite_engine,
    write_meta,
)
from pipeline.ledger.hotpath import Statements
from pipeline.ledger.journal import Journal, change_entry, entries, last_seq, row_entry, snapshot_end, snapshot_entry
from pipeline.ledger.judge import Applied, Change, Money, Outcome, Row, judge
from pipeline.ledger.lifecycle import Event
from pipeline.ledger.migrations import migrate
from pipeline.ledger.schema import attempts, checksum

T = TypeVar("T")

BATCH_LIMIT = 400
"""Changes in one commit. SQLite takes 32,766 parameters a statement; the disk write dominates well before."""

SPARE_BYTES = 256 * 1024
"""Kept beside the ledger and given up when the disk is full, so that a paid answer can still be booked."""


class _Job:
    """One thing for the writer to do, and who waits for it: a future of an event loop, or of another thread."""

    __slots__ = ("change", "loop", "transaction", "waiter")

    def __init__(
        self,
        waiter: asyncio.Future[Any] | Future[Any],
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        change: Change | None = None,
        transaction: Callable[[Connection], object] | None = None,
    ) -> None:
        self.waiter = waiter
        self.loop = loop
        self.change = change
        self.transaction = transaction


_Result = tuple[object, BaseException | None]


class Ledger:
    """An open ledger. `inline` does the writer's work in the event loop itself (virtual time in tests)."""

    def __init__(self, path: Path, *, inline: bool = False, may_migrate: bool = False) -> None:
        """Opens or makes the ledger at `path`.

        Args:
            may_migrate: bring an earlier version up to date; only under the lock.
        Raises:
            LedgerError: damaged, newer, or not writable.
            OldLedgerError: of an earlier version, and it may not be brought up to date here.
        """
        self._told: list[str] = []
        self.path = path
        self._inline = inline
        self._waiting: list[_Job] = []
        try:
            old_mask = os.umask(0o077)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self.engine = sqlite_engine(path, write=True)
                self.facts = self._facts(may_migrate)
            finally:
                os.umask(old_mask)
        except OSError as error:
            raise LedgerError(f"the ledger {path} can't be written: {error.strerror}") from None
        self.reader = sqlite_engine(path, write=False)
        self.journal = Journal(path.with_suffix(".journal"))
        self.spare = path.with_suffix(".spare")
        self._seq = int(self.facts["seq"])
        self._sql = Statements(self.engine.dialect.name)
        self._full: str | None = None
        self._ahead = False  # whether the journal holds events that the database does not
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if not inline:
            self._thread = threading.Thread(target=self._work, name="ledger-writer", daemon=True)
            self._thread.start()

    def _facts(self, may_migrate: bool) -> dict[str, str]:
        try:
            return create_or_check(self.engine, str(self.path))
        except OldLedgerError:
            if not may_migrate:
                raise
        done = migrate(self.engine, self.path)
        if done is not None:
            self._told.append(
                f"the ledger was of version {done[0]} and is up to date now; {done[1]} is a copy of before"
            )
        return create_or_check(self.engine, str(self.path))

    @property
    def is_copy(self) -> bool:
        """Whether this file was made by copying the one that was last spent with."""
        here = inode_of(self.path)
        return self.facts.get("inode", here) != here

    # -- opening for spending

    def ready_to_spend(self) -> list[str]:
        """Checks everything that must hold before money moves; returns notices for the person.

        Raises:
            LedgerError: copied, damaged, or its journal belongs to another ledger or is ahead of it.
        """
        notices = list(self._told)
        if self.is_copy:
            raise LedgerError(
                f"{self.path} is a copy or was restored from one, and spending with two copies pays twice. "
                "If this is the only one in use now, say so with `dop ledger adopt`"
            )
        if self.facts.get("clean", "yes") != "yes":
            notices.append("the last run did not end cleanly; the ledger was checked in full and is whole")
            self._check_in_full()
        elif "sums" in self.facts and not self._sums_stand():
            # Two programs that wrote at once leave sums that only a look at every row can confirm.
            self._check_in_full()
        ahead = last_seq(self.journal.path)
        if ahead > self._seq:
            notices.append(f"the ledger was {ahead - self._seq} events behind its journal; they were booked now")
            self.transact(lambda connection: replay(connection, entries(self.journal.path, self._seq)))
            self._seq = ahead
        elif ahead < self._seq:
            self._journal_anew()
        self._keep_spare()
        here = inode_of(self.path)
        self.transact(lambda connection: write_meta(connection, {"inode": here, "clean": "no"}))
        self.facts |= {"inode": here, "clean": "no"}
        return notices

    def problems(self, *, full: bool = True) -> list[str]:
        """Everything that is wrong with the ledger, in words; empty when it is whole."""
        try:
            with self.reader.connect() as connection:
                return integrity_problems(connection) + (audit(connection) if full else [])
        except (DatabaseError, UnicodeError) as error:
            return [str(getattr(error, "orig", "a text of the file can't be read"))]

    def _check_in_full(self) -> None:
        problems = self.problems()
        if problems:
            raise LedgerError(
                f"{self.path} is damaged: {problems[0]}; nothing is bought with it. "
                "`dop ledger check` lists everything, `dop ledger rebuild` makes it anew from its journal"
            )

    def _sums_stand(self) -> bool:
        """MONEY: caps are judged by the spend book, which no run touches row by row."""
        with suppress(DatabaseError, UnicodeError), self.reader.connect() as connection:
            return sums_digest(connection) == self.facts["sums"]
        return False

    def _keep_spare(self) -> None:
        with suppress(OSError):
            if not self.spare.exists():
                descriptor = os.open(self.spare, os.O_WRONLY | os.O_CREAT, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(os.urandom(SPARE_BYTES))  # not zeros: a sparse or compressed file frees nothing

    # -- the one way to change a row

    async def apply(self, change: Change) -> Outcome:
        """Books one change; when it returns, the result is durable.

        Raises:
            InvariantError: the state forbids the event.
            LedgerError: the ledger could not be written.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        job = _Job(future, loop=loop, change=change)
        if self._inline:
            if not self._waiting:
                loop.call_soon(self._flush)
            self._waiting.append(job)
        else:
            self._queue.put(job)
        return await future

    def apply_now(self, change: Change) -> Outcome:
        """`apply` for callers without an event loop."""
        done: Future[Outcome] = Future()
        self._run(_Job(done, change=change))
        return done.result()

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in one write transaction of its own and waits for it."""
        done: Future[T] = Future()
        self._run(_Job(done, transaction=work))
        return done.result()

    def recall(self, name: str) -> dict[str, object]:
        """What `remember` kept under `name`; empty when nothing was."""
        with self.reader.connect() as connection:
            text = read_meta(connection).get(name)
        found = json.loads(text) if text else {}
        return found if isinstance(found, dict) else {}

    def remember(self, name: str, values: Mapping[str, object]) -> None:
        """Keeps a small JSON object for later runs: what was learned of a gateway, never a secret."""
        text = json.dumps(dict(values), sort_keys=True)
        self.transact(lambda connection: write_meta(connection, {name: text}))

    def _run(self, job: _Job) -> None:
        if self._inline:
            self._flush()
            self._do([job])
        else:
            self._queue.put(job)

    def _flush(self) -> None:
        jobs, self._waiting = self._waiting, []
        if jobs:
            self._do(jobs)

    # -- the writer

    def _work(self) -> None:
        ended = False
        while not ended:
            jobs: list[_Job] = []
            item = self._queue.get()
            while item is not None:
                jobs.append(item)
                if len(jobs) >= BATCH_LIMIT:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            ended = item is None
            self._do(jobs)
        self.engine.dispose()

    def _do(self, jobs: Sequence[_Job]) -> None:
        batch: list[_Job] = []
        for job in jobs:
            if job.transaction is None:
                batch.append(job)
                continue
            self._commit(batch)
            batch = []
            self._alone(job)
        self._commit(batch)

    def _alone(self, job: _Job) -> None:
        assert job.transaction is not None
        try:
            with self.engine.begin() as connection:
                result = job.transaction(connection)
        except DatabaseError as error:
            self._deliver([job], [(None, LedgerError(f"the ledger {self.path} could not be written: {error.orig}"))])
        except Exception as error:  # noqa: BLE001 - the writer must outlive a caller's mistake; the caller gets it
            self._deliver([job], [(None, error)])
        else:
            self._deliver([job], [(result, None)])

    def _commit(self, batch: Sequence[_Job]) -> None:
        if self._full is not None:
            batch = self._without_intents(batch)
        if self._ahead and batch:
            # MONEY: a later event in the database would hide those that only the journal has from the next start.
            self._only_journal(batch, LedgerError(self._full or "the ledger is behind its journal"))
            return
        for last_try in (False, True):
            if not batch:
                return
            entries: list[dict[str, object]] = []
            try:
                with self.engine.begin() as connection:
                    results = self._write(connection, batch, entries)
            except (DatabaseError, OSError) as error:
                cause = getattr(error, "orig", error)
                if not last_try and self._give_up_spare(cause):
                    batch = self._without_intents(batch)
                    continue
                self._full = self._full or f"the ledger {self.path} can't be written ({cause})"
                self._only_journal(batch, LedgerError(self._full))
                return
            except Exception as error:  # noqa: BLE001 - the writer must outlive any mistake; every caller gets it
                self._only_journal(batch, error)
                return
            self._seq += len(entries)  # what `_write` counted from
            self._note(entries)
            self._deliver(batch, results)
            return

    def _without_intents(self, batch: Sequence[_Job]) -> list[_Job]:
        """MONEY: on a full disk an intent is refused, so that nothing is sent; what was sent is still booked."""
        intents = [job for job in batch if job.change is not None and job.change.event is Event.RESERVE]
        self._deliver(intents, [(None, LedgerError(self._full or "the ledger is full"))] * len(intents))
        return [job for job in batch if job not in intents]

    def _deliver(self, jobs: Sequence[_Job], results: Sequence[_Result]) -> None:
        """Everybody gets their result; one wake-up an event loop."""
        waiting: dict[asyncio.AbstractEventLoop, list[tuple[_Job, _Result]]] = {}
        for job, result in zip(jobs, results, strict=True):
            if job.loop is not None:
                waiting.setdefault(job.loop, []).append((job, result))
            else:
                _settle([(job, result)])
        for loop, settled in waiting.items():
            if self._inline:
                _settle(settled)
                continue
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more, and the change is booked
                loop.call_soon_threadsafe(_settle, settled)

    def _give_up_spare(self, cause: object) -> bool:
        self._full = f"the ledger {self.path} can't be written ({cause}); free some disk space and run again"
        with suppress(OSError):
            self.spare.unlink()
            return True
        return False

    def _only_journal(self, batch: Sequence[_Job], error: Exception) -> None:
        """The database failed: what was already paid still goes to the second book, on disk, before anybody is told."""
        self._full = self._full or f"the ledger {self.path} can't be written ({error})"
        changes = [job.change for job in batch if job.change is not None and job.change.event is not Event.RESERVE]
        self._ahead = self._ahead or bool(changes)
        kept = [change_entry(change, self._seq + offset) for offset, change in enumerate(changes, start=1)]
        with suppress(OSError):
            self.journal.append(kept, sync=True)
            self._seq += len(kept)
        self._deliver(batch, [(None, error)] * len(batch))

    def _note(self, entries: list[dict[str, object]]) -> None:
        try:
            self.journal.append(entries)
        except OSError as error:
            self._full = f"the journal {self.journal.path} can't be written ({error.strerror}); free some disk space"

    def _write(self, connection: Connection, batch: Sequence[_Job], entries: list[dict[str, object]]) -> list[_Result]:
        changes = [job.change for job in batch if job.change is not None]
        self._seq = self._sql.seq(connection)
        rows = self._rows(connection, changes)
        owners = self._sql.owners(connection, _jobs_named(changes))
        money = Money(lambda span, gateway, key: self._sql.spent(connection, span, gateway, key))
        results: list[_Result] = []
        touched: dict[str, Row] = {}
        lines: list[tuple[object, ...]] = []
        for change in changes:
            row = rows.get(change.request_id)
            try:
                outcome = judge(row, change, money=money, job_owner=lambda gateway, job: owners.get((gateway, job)))
            except DopError as error:
                results.append((None, error))
                continue
            if isinstance(outcome, Applied) and row is not None:
                if "job_set_id" in change.values:
                    owners[str(row["gateway"]), str(row["job_set_id"])] = change.request_id
                row["checksum"] = checksum(row)
                touched[change.request_id] = row
                state, detail = row["state"], change.detail
                lines.append((change.request_id, row["attempt"], change.at, change.event.value, state, detail))
                entries.append(row_entry(row, change, self._seq + len(entries) + 1))
                outcome = Applied(row=dict(row), before=outcome.before)
            results.append((outcome, None))
        if touched:
            self._sql.save(connection, touched.values(), lines)
            self._sql.book(connection, money.deltas)
            self._sql.set_seq(connection, self._seq + len(lines))
            self._add_cold(connection, entries)
        return results

    def _rows(self, connection: Connection, changes: Sequence[Change]) -> dict[str, Row]:
        rows = self._sql.rows(connection, {change.request_id for change in changes})
        for row in rows.values():
            if row["checksum"] != checksum(row):
                raise _damaged(self.path, row)
        return rows

    def _add_cold(self, connection: Connection, entries: Sequence[dict[str, object]]) -> None:
        """An intent's journal line holds the whole request, so that the journal alone can make the ledger anew."""
        reserved = {str(entry["request_id"]): entry for entry in entries if entry["event"] == Event.RESERVE}
        if reserved:
            for request_id, cold in self._sql.cold(connection, reserved).items():
                reserved[request_id]["cold"] = cold

    def _journal_anew(self) -> None:
        """The journal lags behind (lost, or cut by a power failure): the rows as they stand are written to it.

        Only the line after the last one bears the ledger's number: cut before it, the journal still lags behind.
        """
        with self.reader.connect() as connection:
            found = connection.execute(select(attempts).where(attempts.c.submit_attempts > 0))
            self.journal.append(snapshot_entry(dict(row._mapping), self._seq - 1) for row in found)
        self.journal.append([snapshot_end(self._seq)], sync=True)

    def close(self, *, clean: bool = True) -> None:
        """Writes what waits, marks a clean end, and lets go of the file."""
        if clean and self.facts.get("clean") == "no" and self._full is None:
            with suppress(DopError):
                self.transact(
                    lambda connection: write_meta(connection, {"clean": "yes", "sums": sums_digest(connection)})
                )
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        with suppress(OSError):  # a full disk: what the journal lacks is written to it at the next start
            self.journal.close()
        self.engine.dispose()
        self.reader.dispose()


def _settle(settled: Sequence[tuple[_Job, _Result]]) -> None:
    for job, (result, error) in settled:
        if job.waiter.done():
            continue  # MONEY: the caller was cancelled; the change is booked all the same
        if error is not None:
            job.waiter.set_exception(error)
        else:
            job.waiter.set_result(result)


def _jobs_named(changes: Iterable[Change]) -> list[str]:
    return [str(change.values["job_set_id"]) for change in changes if change.values.get("job_set_id") is not None]


def _damaged(path: Path, row: Row) -> LedgerError:
    return LedgerError(
        f"{path}: the row of request {row['request_id']} does not match its checksum; nothing is bought with a damaged "
        "ledger. `dop ledger check` lists everything, `dop ledger rebuild` makes it anew from its journal"
    )
