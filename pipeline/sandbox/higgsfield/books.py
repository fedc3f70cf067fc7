"""The vendor sandbox's books: requests it accepted, keys, cancellations; durable before an answer leaves."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.sandbox.jobs import Job, JobOutcome
from pipeline.sandbox.settings import SandboxError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (request_id TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS keys (key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, request_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS uploads (token TEXT PRIMARY KEY, content_type TEXT NOT NULL, sha256 TEXT);
CREATE TABLE IF NOT EXISTS visits (name TEXT PRIMARY KEY, visits INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(slots=True, kw_only=True)
class VendorRequest:
    """One accepted request. Times are Unix seconds; `started_at` None while it waits for its turn."""

    job: Job
    model: str
    key: str | None = None
    started_at: float | None = None
    canceled_at: float | None = None

    @property
    def request_id(self) -> str:
        """Its id."""
        return self.job.job_set_id


class VendorBooks:
    """The books of one data folder. Every change outlives the process when the call returns."""

    def __init__(self, path: Path, *, token: str | None = None) -> None:
        try:
            self._database = sqlite3.connect(path, timeout=1)
            self._database.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode=WAL")
            # Outlives a killed process, which is what tests do to it, and not a power cut; a sync for each call would
            # be the pace.
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise SandboxError(f"{path}: {error}; does another sandbox use this folder?") from error
        self.requests: dict[str, VendorRequest] = {}
        for (record,) in self._database.execute("SELECT record FROM requests ORDER BY rowid"):
            request = _read(record)
            self.requests[request.request_id] = request
        rows = self._database.execute("SELECT key, fingerprint, request_id FROM keys")
        self.keys: dict[str, tuple[str, str]] = {key: (mark, request_id) for key, mark, request_id in rows}
        self._visits = Counter[str](dict(self._database.execute("SELECT name, visits FROM visits")))
        self._seen = Counter(request.job.fingerprint for request in self.requests.values())
        with self._database:
            default = token or secrets.token_hex(16)
            self._database.execute("INSERT OR IGNORE INTO facts VALUES ('token', ?)", (default,))
        self.token = str(self._database.execute("SELECT value FROM facts WHERE name = 'token'").fetchone()[0])

    @property
    def jobs(self) -> dict[str, Job]:
        """What is drawn for each request, by its id."""
        return {request_id: request.job for request_id, request in self.requests.items()}

    def next_visit(self, fingerprint: str) -> int:
        """Which acceptance of this fingerprint the next one will be, from 1."""
        return self._seen[fingerprint] + 1

    def accept(self, request: VendorRequest, *, keep_key: bool) -> None:
        """Take a request; its key names it from now on, if keys are kept."""
        with self._database:
            self._put(request)
            # MONEY: in the same transaction. A request without its key would be charged a second time when the call is
            # repeated.
            if keep_key and request.key is not None:
                line = (request.key, request.job.fingerprint, request.request_id)
                self._database.execute("INSERT OR REPLACE INTO keys VALUES (?, ?, ?)", line)
                self.keys[request.key] = line[1:]
        self.requests[request.request_id] = request
        self._seen[request.job.fingerprint] += 1

    def save(self, request: VendorRequest) -> None:
        """Keep what became of a request."""
        with self._database:
            self._put(request)

    def _put(self, request: VendorRequest) -> None:
        record = json.dumps({**asdict(request), "job": asdict(request.job)})
        self._database.execute("INSERT OR REPLACE INTO requests VALUES (?, ?)", (request.request_id, record))

    def new_upload(self, token: str, content_type: str) -> None:
        """An address to upload to was given out."""
        with self._database:
            self._database.execute("INSERT INTO uploads VALUES (?, ?, NULL)", (token, content_type))

    def upload(self, token: str) -> tuple[str, str | None] | None:
        """Content type and sha256 (None before the upload) of an address that was given out."""
        row = self._database.execute("SELECT content_type, sha256 FROM uploads WHERE token = ?", (token,)).fetchone()
        return None if row is None else (row[0], row[1])

    def uploaded(self, token: str, sha256: str) -> None:
        """The picture of an address came."""
        with self._database:
            self._database.execute("UPDATE uploads SET sha256 = ? WHERE token = ?", (sha256, token))

    def count(self, hook: str, name: str) -> int:
        """Count a visit, from 1. Written now and then: a restarted storm continues about where it was."""
        key = f"{hook} {name}"
        self._visits[key] += 1
        return self._visits[key]

    def close(self) -> None:
        """Write what is counted and let go of the file."""
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO visits VALUES (?, ?)", list(self._visits.items()))
        self._database.close()


def _read(record: str) -> VendorRequest:
    fields = json.loads(record)
    job = fields.pop("job")
    return VendorRequest(job=Job(**{**job, "fate": JobOutcome(job["fate"])}), **fields)
