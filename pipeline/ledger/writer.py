"""The one way to change the ledger: one writer, group commit, changes judged under the write lock.

Theory
------
A purchase is a POST to a gateway without idempotency keys: sent twice, it is paid twice; sent and forgotten, it is paid
and lost. No exception tells afterwards whether it arrived. So the ledger knows of each POST before it leaves:

    reserve (durable) -> POST -> settle (durable) -> poll -> download

Three rules carry everything else.

1. The intent comes first. RESERVE writes the row (`submitting`, with a random token), its price in the spend book, its
   line of history and the number of the event in ONE transaction that is on the disk before the POST leaves. A process
   that dies after that leaves a row that the next start calls `unknown`: counted as spent, never sent again.
2. Every change is a compare-and-swap. `batch_writer` reads the rows of a batch under the write lock, `transitions`
   judges each change by the table of states, and rows, money and history are written in the same transaction. Only a
   `planned` row can be reserved, and only the token of a POST settles it. Two processes without any other lock still
   reserve each row once.
3. Money that may be owed counts. A cap is judged inside that transaction, against confirmed, disputed and reserved
   money, and the day on which it is recorded never runs backwards (see `clock`).

What holds at every moment, whatever was killed, cut or full:
    - the spend book is the sum of the rows, to the micro-dollar;
    - a job id belongs to one request, over all its attempts;
    - the number of events has no gaps, and each event's chain depends on all before it (see `identity`);
    - what the journal tells up to an event makes the ledger as it was after that event (see `replay`).

What may never happen: a POST without a durable intent; a second RESERVE of a row that is not `planned`; a caller that
learns of a record before the disk has it; a text that keeps a paid answer out of the ledger (`text` mends it first); an
event that is lost and not missed (`journal_check`).

Group commit: what waits in the queue shares one transaction, since the sync of the disk costs more than the changes.
A change that is refused leaves the others of its batch alone. `sqlite_ledger` is the ledger in a file, which keeps its
journal beside it; `postgres_ledger` is the one on a server. Must never: send anything, know the gateway's JSON, or
change a row without a line of history.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Executable
from sqlalchemy.engine import Row as Found

from pipeline.errors import DopError
from pipeline.ledger.batch_statements import Executor
from pipeline.ledger.batch_writer import BatchWriter
from pipeline.ledger.database import read_meta, write_meta
from pipeline.ledger.identity import CHAIN, LEDGER_ID
from pipeline.ledger.journal import mark_entry, sealed
from pipeline.ledger.saved_states import SavedStates
from pipeline.ledger.spending_checks import ReadConnections, clean_end, problems_of
from pipeline.ledger.statements import Statements
from pipeline.ledger.transitions import (
    ChangeResult,
    LedgerChange,
)
from pipeline.ledger.write_queue import QueuedWrite, WriteQueue, WriteResult

T = TypeVar("T")


class LedgerWriter(ABC):
    """An open ledger, wherever it is. `inline` does the writer's work in the event loop itself (virtual time in tests).

    `name` is where it is, for messages: never with a password. The subclass calls `_start` when it is open.
    """

    name: str
    engine: Engine
    reader: ReadConnections
    facts: dict[str, str]

    def __init__(self, *, inline: bool) -> None:
        self._on_notice: Callable[[str], None] = lambda text: None
        self._notices: list[str] = []
        self._writes = WriteQueue(self._do, self._leave, inline=inline)

    def report_to(self, notify: Callable[[str], None]) -> None:
        """Call `notify`, in the writer's thread, with what the user should know while the ledger is open."""
        self._on_notice = notify

    def _start(self) -> None:
        self.saved_states = SavedStates(self.reader, self.transact)
        self._sql = Statements(self.engine.dialect.name)
        self._batches = BatchWriter(
            self._sql,
            name=self.name,
            ledger_id=lambda: self.ledger_id,
            seq=int(self.facts["seq"]),
            chain=self.facts[CHAIN],
            newest_at=0.0,
            keep=self._keep,
        )
        self._writes.start()

    # -- opening for spending

    @property
    @abstractmethod
    def is_copy(self) -> bool:
        """Whether this is a copy of the ledger that was last spent with."""

    @abstractmethod
    def ready_to_spend(self) -> list[str]:
        """Checks everything that must hold before money moves; returns notices for the user.

        Raises:
            LedgerError: copied, moved or damaged.
        """

    @abstractmethod
    def journal_lines(self) -> Iterator[str]:
        """The lines of the second book, in order, as they are."""

    @abstractmethod
    def adopt(self, now: float, *, keep_hole: bool = False) -> list[str]:
        """Takes this ledger for the one that spends, and the clock's `now` for right: the operator said so.

        Returns notices.
        """

    @property
    def name_in_full(self) -> str:
        """Where it is, as every other folder would name it."""
        return self.name

    @property
    def head(self) -> tuple[int, str]:
        """Number of the newest event and the hash chain after it, as this process knows them."""
        return self._batches.seq, self._batches.chain

    @property
    def newest_at(self) -> float:
        """Unix seconds of the newest event that was known when the ledger was made ready; 0 before the first."""
        return self._batches.newest_at

    @property
    def ledger_id(self) -> str:
        """The random id of this ledger, the same over moves, rebuilds and migrations."""
        return self.facts[LEDGER_ID]

    def reload(self) -> None:
        """Reads again what the ledger knows of itself, after something else than `mark` wrote it."""
        with self.reader.connect() as connection:
            self.facts = read_meta(connection)
        self._batches.moved_to(int(self.facts["seq"]), self.facts[CHAIN])

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
        self._batches.moved_to(int(str(entry["seq"])), str(entry["chain"]))
        for name, value in values.items():
            if value is None:
                self.facts.pop(name, None)
            else:
                self.facts[name] = value
        # After the commit, as every line of a journal beside a file: it follows the database and never leads it.
        self._keep_beside([entry])

    def _keep_beside(self, entries: list[dict[str, object]]) -> None:  # noqa: B027 - may be
        """A journal beside the database; one that is in it was written in the same transaction."""

    def problems(self, *, full: bool = True) -> list[str]:
        """Everything that is wrong with the ledger, in words; empty when it is whole."""
        return problems_of(self.reader, full=full)

    # -- the one way to change a row

    async def apply(self, change: LedgerChange) -> ChangeResult:
        """Records one change; when it returns, the result is durable.

        Raises:
            InvariantError: the state forbids the event.
            LedgerError: the ledger could not be written.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ChangeResult] = loop.create_future()
        job = QueuedWrite(future, loop=loop, change=change)
        self._writes.put(job, loop)
        return await future

    def apply_now(self, change: LedgerChange) -> ChangeResult:
        """`apply` for callers without an event loop."""
        done: Future[ChangeResult] = Future()
        self._writes.run([QueuedWrite(done, change=change)])
        return done.result()

    def apply_all(self, changes: Iterable[LedgerChange]) -> list[ChangeResult]:
        """`apply_now` for many changes, which share their commits."""
        jobs: list[tuple[QueuedWrite, Future[ChangeResult]]] = []
        for change in changes:
            done: Future[ChangeResult] = Future()
            jobs.append((QueuedWrite(done, change=change), done))
        self._writes.run([job for job, _ in jobs])
        return [done.result() for _, done in jobs]

    def transact(self, work: Callable[[Connection], T], *, alone: bool = True) -> T:
        """Runs `work` in one write transaction of its own and waits for it.

        Without `alone` other hosts may book meanwhile: for long ones that touch no money.
        """
        done: Future[T] = Future()
        self._writes.run([QueuedWrite(done, transaction=work, alone=alone)])
        return done.result()

    async def transact_async(self, work: Callable[[Connection], T]) -> T:
        """`transact` for coroutines: the event loop is free meanwhile."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._writes.put(QueuedWrite(future, loop=loop, transaction=work), loop)
        return await future

    def ask(self, statement: Executable) -> Sequence[Found[Any]]:
        """Everything that one question finds."""
        with self.reader.connect() as connection:
            return connection.execute(statement).all()

    # -- the writer

    def _leave(self) -> None:
        """The last thing the writer does: it lets go of its connection."""
        self.engine.dispose()

    def _do(self, jobs: Sequence[QueuedWrite]) -> None:
        batch: list[QueuedWrite] = []
        for job in jobs:
            if job.transaction is None:
                batch.append(job)
                continue
            # What was put before a transaction of its own is committed before it: the order of the queue is that of the
            # ledger.
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

    def _close_sums(self) -> None:
        with suppress(DopError):
            self.transact(lambda connection: write_meta(connection, clean_end(connection)))

    def _deliver(self, jobs: Sequence[QueuedWrite], results: Sequence[WriteResult]) -> None:
        self._writes.deliver(jobs, results)

    def _keep(self, hand: Executor, entries: Sequence[Mapping[str, object]]) -> None:  # noqa: B027 - may be
        """A journal that is written in the same transaction; one beside the database is written after it."""
