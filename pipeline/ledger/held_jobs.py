"""What the ledger holds of paid calls and the jobs they gave: for finding out what an unclear submit came to."""

from __future__ import annotations

from sqlalchemy import select

from pipeline.ledger.attempt_rows import attempt_of, plain_view
from pipeline.ledger.schema import attempts, history
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import KEPT_CALL
from pipeline.ledger.writer import LedgerWriter
from pipeline.records import Attempt, job_id_spellings


class HeldJobs:
    """Questions about the calls and jobs of one ledger."""

    def __init__(self, ledger: LedgerWriter) -> None:
        self.ledger = ledger

    def kept_call(self, request_id: str, attempt: int) -> str | None:
        """The paid call that was kept with the newest intent of an attempt; None where none was. It is a secret."""
        statement = (
            select(history.c.detail)
            .where(
                history.c.request_id == request_id,
                history.c.attempt == attempt,
                history.c.event == Event.RESERVE.value,
            )
            .order_by(history.c.seq.desc())
            .limit(1)
        )
        found = self.ledger.ask(statement)
        text = str(found[0].detail) if found else ""
        # The newest intent alone counts: its call is the one that was sent last under the attempt's key.
        return text.removeprefix(KEPT_CALL) if text.startswith(KEPT_CALL) else None

    def held_jobs(
        self, gateway: str, *, until: float | None = None, since: float | None = None, limit: int = 3
    ) -> list[Attempt]:
        """Attempts of a gateway that have a job: the newest sent until a moment, or the oldest sent since one."""
        sent_at = attempts.c.submitted_at
        statement = plain_view().where(attempts.c.gateway == gateway, attempts.c.job_set_id.is_not(None)).limit(limit)
        if until is not None:
            statement = statement.where(sent_at <= until).order_by(sent_at.desc())
        if since is not None:
            statement = statement.where(sent_at >= since).order_by(sent_at)
        return [attempt_of(row, None) for row in self.ledger.ask(statement)]

    def owner_of_job(self, gateway: str, job_set_id: str) -> str | None:
        """The request that a gateway's job belongs to; None for a job that the ledger does not know."""
        is_job = attempts.c.job_set_id.in_(job_id_spellings(job_set_id))
        found = self.ledger.ask(select(attempts.c.request_id).where(attempts.c.gateway == gateway, is_job).limit(1))
        return str(found[0].request_id) if found else None
