"""What a ledger on a server owes while its server is away: outcomes that wait in the spool, and a commit in doubt.

MONEY: an outcome of a submit is on this host's disk before its caller learns that the server is away. It is recorded
when the server is back; one that cannot be recorded any more becomes a note with the paid id, and its file is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, select

from pipeline.ledger import postgres_session
from pipeline.ledger.schema import attempts
from pipeline.ledger.spool import Spool
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied, Conflict, JobTaken, LedgerChange
from pipeline.ledger.write_queue import QueuedWrite, WriteResult
from pipeline.records import job_id_spellings


def backoff_delays(patience_s: float) -> Iterator[float]:
    """Growing pauses in seconds that add up to about `patience_s`."""
    pause_s, left_s = 0.1, patience_s
    while left_s > 0:
        yield min(pause_s, left_s)
        left_s -= pause_s
        pause_s = min(2 * pause_s, 5.0)


def is_intent(job: QueuedWrite) -> bool:
    """Whether it records an intent, after which a POST would go."""
    return job.change is not None and job.change.event is Event.RESERVE


class InDoubtCommit(NamedTuple):
    """A commit that was not answered: its last line of the journal, and what it would tell."""

    seq: int
    line: str
    results: list[WriteResult]

    def took_place(self, connection: Connection) -> bool:
        """Whether the journal holds its very line.

        Not by the number of the transaction: a server that crashed gives the number of one that it undid to the next.
        """
        return postgres_session.is_in_journal(connection, self.seq, self.line)


class LockLostError(Exception):
    """Another run holds the ledger now."""


@dataclass(frozen=True, slots=True)
class Unbookable:
    """An outcome that names a paid job and could not be recorded, with the reason."""

    change: LedgerChange
    job_set_id: str
    why: str

    def note(self) -> LedgerChange:
        """The note that keeps the job's id in the ledger, whatever became of the request."""
        text = f"paid job {self.job_set_id} belongs to this request too: {self.why}"
        return LedgerChange(
            request_id=self.change.request_id,
            event=Event.NOTE,
            at=self.change.at,
            values={"reason": text},
            detail=self.change.detail or text,
        )

    def __str__(self) -> str:
        return f"paid job {self.job_set_id} of request {self.change.request_id} could not be recorded: {self.why}"


RecordChanges = Callable[[Sequence[QueuedWrite]], list[WriteResult]]
"""Writes a batch within the transaction that is open, and says what became of each change."""


class PendingOutcomes:
    """The spool of a process, and whether it holds what is not recorded. Without a folder nothing is kept."""

    def __init__(self, folder: Path | None, notify: Callable[[str], None]) -> None:
        self._spool = Spool(folder) if folder is not None else None
        self._notify = notify
        self.is_behind = False

    @property
    def path(self) -> Path | None:
        """The spool's file, where something is in it."""
        return self._spool.path if self._spool else None

    def mark_behind(self) -> None:
        """The spool holds what is not recorded."""
        self.is_behind = True

    def mark_recorded(self) -> None:
        """Everything is recorded, or about to be."""
        self.is_behind = False

    def inherit(self) -> bool:
        """Takes over what dead processes left here; False when they left nothing."""
        if self._spool is None or not self._spool.inherit():
            return False
        self.is_behind = True
        return True

    def keep_outcomes(self, batch: Sequence[QueuedWrite]) -> bool:
        """MONEY: what a POST came to survives this process; recorded twice, the second time changes nothing.

        Only what bears a token: everything else can be asked of the gateway again, for nothing.
        """
        changes = [job.change for job in batch if job.change is not None and job.change.token is not None]
        return self.keep([change for change in changes if change.event is not Event.RESERVE])

    def keep(self, changes: Sequence[LedgerChange]) -> bool:
        """Puts changes on this host's disk; False when there are none, or they could not be written."""
        if self._spool is None or not changes:
            return False
        try:
            self._spool.put(changes)
        except OSError as error:
            self._notify(f"{self._spool.path} can't be written either ({error.strerror})")
            return False
        return True

    def flush(self, connection: Connection, record: RecordChanges) -> list[str]:
        """Records everything within an open transaction; what was recorded already changes nothing. Returns warnings.

        The caller calls `done` once the transaction was committed.
        """
        if self._spool is None:
            return []
        changes = list(self._spool.changes())
        results = record([QueuedWrite.unawaited(change) for change in changes])
        lost = [
            found
            for change, result in zip(changes, results, strict=True)
            if (found := _unbookable(connection, change, result)) is not None
        ]
        if lost:
            record([QueuedWrite.unawaited(one.note()) for one in lost])
        return [str(one) for one in lost] + self._spool.damage

    def done(self, warnings: Sequence[str]) -> None:
        """Everything is recorded: the files go, or are kept under another name where something could not be."""
        self.is_behind = False
        if self._spool is not None:
            kept = self._spool.clear(keep=bool(warnings))
            for path in kept:
                self._notify(f"what it said is kept in {path}")

    def forget(self) -> None:
        """What was kept for a batch was recorded by the batch itself."""
        if self._spool is not None and not self.is_behind:
            self._spool.clear()

    def close(self) -> None:
        """Leaves the files to the next process."""
        if self._spool is not None:
            self._spool.close()


def _unbookable(connection: Connection, change: LedgerChange, result: WriteResult) -> Unbookable | None:
    """What is lost with a change that was refused; None when it was recorded, now or before, or names no job."""
    job = change.values.get("job_set_id")
    outcome, error = result
    if not isinstance(job, str) or isinstance(outcome, Applied):
        return None
    is_job = attempts.c.job_set_id.in_(job_id_spellings(job))
    owner = connection.execute(
        select(attempts.c.request_id).where(attempts.c.request_id == change.request_id, is_job)
    ).first()
    # The row has this very job: the outcome was recorded before, and its second time changes nothing.
    if owner is not None:
        return None
    if isinstance(outcome, JobTaken):
        why = f"request {outcome.owner_request_id} has it"
    elif isinstance(outcome, Conflict):
        why = f"the request was settled meanwhile and is {outcome.state}" if outcome.state else "the request is unknown"
    else:
        why = str(error)
    return Unbookable(change, job, why)
