"""The one way to change the ledger: one writer thread, group commit, changes judged under the write lock.

Callers of the event loop await `apply`; whatever it returns is on the disk. `store` is the ledger in a file, `server`
the one on PostgreSQL. Must never: send anything, know the gateway's JSON, or change a row without a line of history.
"""

from __future__ import annotations

import asyncio
import functools
import json
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Engine, Executable
from sqlalchemy.engine import Row as Found
from sqlalchemy.exc import DatabaseError

from pipeline.errors import DopError, LedgerError
from pipeline.ledger.database import integrity_problems, read_meta, write_meta
from pipeline.ledger.identity import CHAIN, LEDGER_ID, MOVED
from pipeline.ledger.integrity import audit, sums_digest
from pipeline.ledger.journal import mark_entry, row_entry, sealed
from pipeline.ledger.schema import checksum
from pipeline.ledger.statements import Executor, Statements
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import (
    Applied,
    ChangeResult,
    LedgerChange,
    Row,
    SpendAccumulator,
    apply_change,
    utc_day,
)
from pipeline.records import canonical_job_id, job_id_spellings

T = TypeVar("T")

BATCH_LIMIT = 400
"""Changes in one commit. SQLite takes 32,766 parameters a statement; the disk write dominates well before."""

GATHER_S = 0.004
"""A run's first change waits this long for others: half as many commits, each of which costs more than its changes."""


class QueuedWrite:
    """One thing for the writer to do, and who waits for it: a future of an event loop, or of another thread."""

    __slots__ = ("alone", "change", "loop", "transaction", "waiter")

    def __init__(
        self,
        waiter: asyncio.Future[Any] | Future[Any],
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        change: LedgerChange | None = None,
        transaction: Callable[[Connection], object] | None = None,
        alone: bool = True,
    ) -> None:
        self.waiter = waiter
        self.loop = loop
        self.change = change
        self.transaction = transaction
        self.alone = alone

    @classmethod
    def for_nobody(cls, change: LedgerChange) -> QueuedWrite:
        """A change whose outcome nobody waits for."""
        return cls(Future(), change=change)


WriteResult = tuple[object, BaseException | None]


class ReadConnections(Protocol):
    """Where questions are asked."""

    def connect(self) -> AbstractContextManager[Connection]:
        """A connection that reads."""

    def dispose(self) -> None:
        """Lets go of it all."""


class LedgerWriter(ABC):
    """An open ledger, wherever it is. `inline` does the writer's work in the event loop itself (virtual time in tests).

    `name` is where it is, for messages: never with a password. Whoever makes one calls `_start` when it is open.
    """

    name: str
    engine: Engine
    reader: ReadConnections
    facts: dict[str, str]

    def __init__(self, *, inline: bool) -> None:
        self.tell: Callable[[str], None] = lambda text: None
        self._told: list[str] = []
        self._inline = inline
        self._newest_at = 0.0  # Unix seconds of the newest event, by the clock that counts
        self._waiting: list[QueuedWrite] = []
        self._queue: queue.SimpleQueue[QueuedWrite | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()

    def report_to(self, notify: Callable[[str], None]) -> None:
        """Call `notify`, in the writer's thread, with what the user should know while the ledger is open."""
        self.tell = notify

    def _start(self) -> None:
        self._seq, self._chain = int(self.facts["seq"]), self.facts[CHAIN]
        self._sql = Statements(self.engine.dialect.name)
        if not self._inline:
            self._thread = threading.Thread(target=self._work, name="ledger-writer", daemon=True)
            self._thread.start()

    # -- opening for spending

    @property
    @abstractmethod
    def is_copy(self) -> bool:
        """Whether this is a copy of the ledger that was last spent with."""

    @abstractmethod
    def ready_to_spend(self) -> list[str]:
        """Checks everything that must hold before money moves; returns notices for the person.

        Raises:
            LedgerError: copied, moved or damaged.
        """

    @abstractmethod
    def journal_lines(self) -> Iterator[str]:
        """The lines of the second book, in order, as they are."""

    @abstractmethod
    def adopt(self, now: float) -> list[str]:
        """Takes this ledger for the one that spends, and the clock's `now` for right: the operator said so.

        Returns notices.
        """

    def _check_sums(self) -> list[str]:
        """A ledger that was not closed is looked at in full; one that was, by its sums. Returns notices."""
        if self.facts.get("clean", "yes") != "yes":
            self._check_in_full()
            return ["the last run did not end cleanly; the ledger was checked in full and is whole"]
        if "sums" in self.facts and not self._sums_stand():
            # Two programs that wrote at once leave sums that only a look at every row can confirm.
            self._check_in_full()
        return []

    @property
    def name_in_full(self) -> str:
        """Where it is, as every other folder would name it."""
        return self.name

    @property
    def head(self) -> tuple[int, str]:
        """Number of the newest event and the hash chain after it, as this process knows them."""
        return self._seq, self._chain

    @property
    def newest_at(self) -> float:
        """Unix seconds of the newest event that was known when the ledger was made ready; 0 before the first."""
        return self._newest_at

    @property
    def ledger_id(self) -> str:
        """The random id of this ledger, the same over moves, rebuilds and migrations."""
        return self.facts[LEDGER_ID]

    def mark(self, values: Mapping[str, str | None]) -> None:
        """Writes down what the ledger learned of itself, as a numbered event of database and journal.

        So it survives a rebuild, and a database that is lost. None removes a mark. Outside a run only.
        """

        def work(connection: Connection) -> dict[str, object]:
            seq, chain = self._sql.head(connection)
            entry = mark_entry(seq + 1, values)
            chain = sealed(entry, self.ledger_id, chain)
            self._sql.set_head(connection, seq + 1, chain)
            write_meta(connection, values)
            self._keep(connection, [entry])
            return entry

        entry = self.transact(work)
        self._seq, self._chain = int(str(entry["seq"])), str(entry["chain"])
        for name, value in values.items():
            if value is None:
                self.facts.pop(name, None)
            else:
                self.facts[name] = value
        self._keep_beside([entry])

    def _keep_beside(self, entries: list[dict[str, object]]) -> None:  # noqa: B027 - may be
        """A journal beside the database; one that is in it was written in the same transaction."""

    def _check_not_moved(self) -> None:
        if MOVED in self.facts:
            raise LedgerError(
                f"{self.name} was moved to {self.facts[MOVED]}, and spending with both pays twice. Use that one "
                "with --set ledger.url=URL (or DOP_LEDGER__URL), or say `dop ledger adopt` if it was given up"
            )

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
                f"{self.name} is damaged: {problems[0]}; nothing is bought with it. "
                "`dop ledger check` lists everything, `dop ledger rebuild` makes it anew from its journal"
            )

    def _sums_stand(self) -> bool:
        """MONEY: caps are judged by the spend book, which no run touches row by row."""
        with suppress(DatabaseError, UnicodeError), self.reader.connect() as connection:
            # A sum is found through the book's index: a flipped bit there hides a row that the table still has.
            return not integrity_problems(connection, "spend") and sums_digest(connection) == self.facts["sums"]
        return False

    # -- the one way to change a row

    async def apply(self, change: LedgerChange) -> ChangeResult:
        """Books one change; when it returns, the result is durable.

        Raises:
            InvariantError: the state forbids the event.
            LedgerError: the ledger could not be written.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ChangeResult] = loop.create_future()
        job = QueuedWrite(future, loop=loop, change=change)
        if self._inline:
            if not self._waiting:
                loop.call_soon(self._flush)
            self._waiting.append(job)
        else:
            self._queue.put(job)
        return await future

    def apply_now(self, change: LedgerChange) -> ChangeResult:
        """`apply` for callers without an event loop."""
        done: Future[ChangeResult] = Future()
        self._run(QueuedWrite(done, change=change))
        return done.result()

    def apply_all(self, changes: Iterable[LedgerChange]) -> list[ChangeResult]:
        """`apply_now` for many changes, which share their commits."""
        jobs: list[tuple[QueuedWrite, Future[ChangeResult]]] = []
        for change in changes:
            done: Future[ChangeResult] = Future()
            jobs.append((QueuedWrite(done, change=change), done))
        if self._inline:
            self._flush()
            self._do([job for job, _ in jobs])
        else:
            for job, _ in jobs:
                self._queue.put(job)
        return [done.result() for _, done in jobs]

    def transact(self, work: Callable[[Connection], T], *, alone: bool = True) -> T:
        """Runs `work` in one write transaction of its own and waits for it.

        Without `alone` other hosts may book meanwhile: for long ones that touch no money.
        """
        done: Future[T] = Future()
        self._run(QueuedWrite(done, transaction=work, alone=alone))
        return done.result()

    def ask(self, statement: Executable) -> Sequence[Found[Any]]:
        """Everything that one question finds."""
        with self.reader.connect() as connection:
            return connection.execute(statement).all()

    def load_state(self, name: str) -> dict[str, object]:
        """What `remember` kept under `name`; empty when nothing was."""
        with self.reader.connect() as connection:
            text = read_meta(connection).get(name)
        found = json.loads(text) if text else {}
        return found if isinstance(found, dict) else {}

    def save_state(self, name: str, values: Mapping[str, object]) -> None:
        """Keeps a small JSON object for later runs: what was learned of a gateway, never a secret."""
        text = json.dumps(dict(values), sort_keys=True)
        self.transact(lambda connection: write_meta(connection, {name: text}))

    def _run(self, job: QueuedWrite) -> None:
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
            jobs: list[QueuedWrite] = []
            item = self._queue.get()
            if item is not None and item.loop is not None:
                self._ending.wait(GATHER_S)
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
        self._leave()

    def _leave(self) -> None:
        """The last thing the writer does: it lets go of its connection."""
        self.engine.dispose()

    def _do(self, jobs: Sequence[QueuedWrite]) -> None:
        batch: list[QueuedWrite] = []
        for job in jobs:
            if job.transaction is None:
                batch.append(job)
                continue
            self._commit(batch)
            batch = []
            self._alone(job)
        self._commit(batch)

    @abstractmethod
    def _alone(self, job: QueuedWrite) -> None:
        """Runs one transaction of its own and delivers what it gave."""

    @abstractmethod
    def _commit(self, batch: Sequence[QueuedWrite]) -> None:
        """Writes a batch in one transaction and delivers what became of each change."""

    @abstractmethod
    def close(self, *, clean: bool = True) -> None:
        """Writes what waits, marks a clean end, and lets go of the ledger."""

    def _end(self) -> None:
        if self._thread is not None:
            self._ending.set()
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _close_sums(self) -> None:
        with suppress(DopError):
            self.transact(lambda connection: write_meta(connection, {"clean": "yes", "sums": sums_digest(connection)}))

    def _deliver(self, jobs: Sequence[QueuedWrite], results: Sequence[WriteResult]) -> None:
        """Everybody gets their result; one wake-up an event loop."""
        waiting: dict[asyncio.AbstractEventLoop, list[tuple[QueuedWrite, WriteResult]]] = {}
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

    def _write(
        self, hand: Executor, batch: Sequence[QueuedWrite], entries: list[dict[str, object]]
    ) -> list[WriteResult]:
        changes = [job.change for job in batch if job.change is not None]
        self._seq, chain = self._sql.head(hand)
        rows = self._rows(hand, changes)
        owners = self._sql.owners(hand, {str(row["gateway"]) for row in rows.values()}, _jobs_named(changes))
        moment = functools.cache(lambda: self._sql.moment(hand))
        money = SpendAccumulator(
            lambda span, gateway, key: self._sql.spent(hand, span, gateway, key),
            day_of=lambda at: self._day_of(moment() or at),
        )

        def owner_of(gateway: str, job_set_id: str) -> str | None:
            return owners.get((gateway, canonical_job_id(job_set_id)))

        results: list[WriteResult] = []
        touched: dict[str, Row] = {}
        lines: list[tuple[object, ...]] = []
        for change in changes:
            row = rows.get(change.request_id)
            try:
                outcome = apply_change(row, change, money=money, job_owner=owner_of)
            except DopError as error:
                results.append((None, error))
                continue
            if isinstance(outcome, Applied) and row is not None:
                if "job_set_id" in change.values:
                    owners[str(row["gateway"]), canonical_job_id(str(row["job_set_id"]))] = change.request_id
                row["checksum"] = checksum(row)
                touched[change.request_id] = row
                state, detail = row["state"], change.detail
                lines.append((change.request_id, row["attempt"], change.at, change.event.value, state, detail))
                entries.append(row_entry(row, change, self._seq + len(entries) + 1))
                chain = sealed(entries[-1], self.ledger_id, chain)
                outcome = Applied(row=dict(row), before=outcome.before)
            results.append((outcome, None))
        if touched:
            self._sql.save(hand, touched.values(), lines)
            self._sql.book(hand, money.deltas)
            self._sql.set_head(hand, self._seq + len(lines), chain)
            self._add_cold(hand, entries)
            self._keep(hand, entries)
        return results

    def _day_of(self, at: float) -> str:
        """MONEY: the day of a budget never runs backwards, so that a clock that is set back opens no cap again."""
        self._newest_at = max(self._newest_at, at)
        return utc_day(self._newest_at)

    def _keep(self, hand: Executor, entries: Sequence[Mapping[str, object]]) -> None:  # noqa: B027 - may be
        """A journal that is written in the same transaction; one beside the database is written after it."""

    def _rows(self, hand: Executor, changes: Sequence[LedgerChange]) -> dict[str, Row]:
        rows = self._sql.rows(hand, {change.request_id for change in changes})
        for row in rows.values():
            if row["checksum"] != checksum(row):
                raise _damaged(self.name, row)
        return rows

    def _add_cold(self, hand: Executor, entries: Sequence[dict[str, object]]) -> None:
        """An intent's journal line holds the whole request, so that the journal alone can make the ledger anew."""
        reserved = {str(entry["request_id"]): entry for entry in entries if entry["event"] == Event.RESERVE}
        if reserved:
            for request_id, cold in self._sql.cold(hand, reserved).items():
                reserved[request_id]["cold"] = cold


def _settle(settled: Sequence[tuple[QueuedWrite, WriteResult]]) -> None:
    for job, (result, error) in settled:
        if job.waiter.done():
            continue  # MONEY: the caller was cancelled; the change is booked all the same
        if error is not None:
            job.waiter.set_exception(error)
        else:
            job.waiter.set_result(result)


def _jobs_named(changes: Iterable[LedgerChange]) -> list[str]:
    """Every spelling under which the ledger may hold the job ids that the changes set."""
    named = (str(change.values["job_set_id"]) for change in changes if change.values.get("job_set_id") is not None)
    return [spelling for job_id in named for spelling in job_id_spellings(job_id)]


def _damaged(name: str, row: Row) -> LedgerError:
    return LedgerError(
        f"{name}: the row of request {row['request_id']} does not match its checksum; nothing is bought with a damaged "
        "ledger. `dop ledger check` lists everything, `dop ledger rebuild` makes it anew from its journal"
    )
