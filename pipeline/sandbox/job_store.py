"""The sandbox's books: what it accepted and therefore charged, durable before the answer leaves.

One SQLite file (WAL, synchronous=FULL, held exclusively), one writer thread with group commit. All reads are served
from memory. A job is never changed or removed; nothing is refunded.
"""

from __future__ import annotations

import asyncio
import json
import queue
import secrets
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.sandbox.jobs import Job, JobOutcome
from pipeline.sandbox.settings import SandboxError

GROUP_LIMIT = 1000
"""Most rows in one transaction."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
  job_set_id TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, price_microusd INTEGER NOT NULL,
  accepted_at REAL NOT NULL, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS visits (name TEXT PRIMARY KEY, visits INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class _Entry:
    statement: str
    values: Sequence[object]
    settle: Callable[[BaseException | None], None] = field(default=lambda _error: None)


class JobStore:
    """The jobs of one data folder, in the order of acceptance. Open it once; close it before the loop ends.

    `token` seeds the ids of the jobs of a new folder; without it they are random.
    """

    def __init__(self, path: Path, *, inline: bool = False, token: str | None = None) -> None:
        self._path = path
        self._inline = inline
        self._entries: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._database = _open(path)
        self.jobs: dict[str, Job] = {}
        self.charged_microusd = 0
        self._accepted: Counter[str] = Counter()
        for (record,) in self._database.execute("SELECT record FROM jobs ORDER BY rowid"):
            self._remember(_read_job(record))
        self._visits = Counter[str](dict(self._database.execute("SELECT name, visits FROM visits")))
        self.token = self._fact("token", token or secrets.token_hex(16))
        self._writer = threading.Thread(target=self._write_all, name="sandbox-books", daemon=True)
        if not inline:
            self._writer.start()

    def next_visit(self, fingerprint: str) -> int:
        """Which acceptance of this fingerprint the next one will be, from 1."""
        return self._accepted[fingerprint] + 1

    async def accept(self, job: Job) -> None:
        """Charge for a job; it is durable when this returns.

        Raises:
            sqlite3.Error: it could not be written, and is not charged.
        """
        # Before it is durable: the same body submitted meanwhile has to be the next visit, or both would get one id.
        self._remember(job)
        entry = (
            "INSERT INTO jobs VALUES (?, ?, ?, ?, ?)",
            (job.job_set_id, job.fingerprint, job.price_microusd, job.accepted_at, json.dumps(asdict(job))),
        )
        if self._inline:
            self._commit([_Entry(*entry)])
            return
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()
        self._entries.put(_Entry(*entry, settle=lambda error: _tell(loop, written, error)))
        try:
            # Where the handler is cancelled, the job is charged all the same, as it is by a real gateway.
            await asyncio.shield(written)
        except sqlite3.Error:
            self._forget(job)
            raise

    def count(self, hook: str, name: str) -> int:
        """Count a visit, from 1. Written soon, so that a restarted fault plan continues where it was."""
        key = f"{hook} {name}"
        self._visits[key] += 1
        visits = self._visits[key]
        entry = _Entry("INSERT OR REPLACE INTO visits VALUES (?, ?)", (key, visits))
        if self._inline:
            self._commit([entry])
        else:
            self._entries.put(entry)
        return visits

    def counted(self, hook: str, name: str) -> int:
        """How often this was counted."""
        return self._visits[f"{hook} {name}"]

    def close(self) -> None:
        """Write what is waiting and let go of the file."""
        if not self._inline:
            self._entries.put(None)
            self._writer.join()
        self._database.close()

    def _remember(self, job: Job) -> None:
        self.jobs[job.job_set_id] = job
        self._accepted[job.fingerprint] += 1
        self.charged_microusd += job.price_microusd

    def _forget(self, job: Job) -> None:
        del self.jobs[job.job_set_id]
        self._accepted[job.fingerprint] -= 1
        self.charged_microusd -= job.price_microusd

    def _fact(self, name: str, default: str) -> str:
        with self._database:
            self._database.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, default))
        return str(self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()[0])

    def _write_all(self) -> None:
        while (entry := self._entries.get()) is not None:
            group = [entry]
            # One sync of the disk for everything that came during the last one.
            while len(group) < GROUP_LIMIT and not self._entries.empty():
                following = self._entries.get()
                if following is None:
                    self._settle(group)
                    return
                group.append(following)
            self._settle(group)

    def _settle(self, group: Sequence[_Entry]) -> None:
        fault: BaseException | None = None
        try:
            self._commit(group)
        except sqlite3.Error as error:
            fault = error
        for entry in group:
            entry.settle(fault)

    def _commit(self, group: Sequence[_Entry]) -> None:
        with self._database:
            for entry in group:
                self._database.execute(entry.statement, entry.values)


def _tell(loop: asyncio.AbstractEventLoop, written: asyncio.Future[None], error: BaseException | None) -> None:
    def settle() -> None:
        # The handler that waited may have been cancelled.
        if not written.done():
            written.set_exception(error) if error is not None else written.set_result(None)

    loop.call_soon_threadsafe(settle)


def _open(path: Path) -> sqlite3.Connection:
    try:
        database = sqlite3.connect(path, check_same_thread=False, timeout=1)
        # A second sandbox on this folder fails at its start, instead of charging into the same books.
        database.execute("PRAGMA locking_mode=EXCLUSIVE")
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.executescript(_SCHEMA)
    except sqlite3.Error as error:
        raise SandboxError(f"{path}: {error}; does another sandbox use this folder?") from error
    return database


def _read_job(record: str) -> Job:
    fields = json.loads(record)
    return Job(**{**fields, "fate": JobOutcome(fields["fate"])})
