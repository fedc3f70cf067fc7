"""What was bought of each gateway: submits and what they came to, jobs, money by day."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import and_, func, select

from pipeline.ledger.attempt_rows import (
    SpendLine,
    attempt_of,
    plain_view,
    sums_of,
)
from pipeline.ledger.schema import (
    attempts,
    history,
    spend,
)
from pipeline.ledger.states import Event
from pipeline.ledger.writer import LedgerWriter
from pipeline.records import Attempt, State, Totals

CHUNK = 2_000
"""Rows that are fetched at a time by a question whose answer does not fit in memory."""

_OUTCOMES = (Event.ACCEPT.value, Event.REJECT.value, Event.LOSE.value)


@dataclass(frozen=True, slots=True)
class SubmitRecord:
    """What one submit came to: event number `seq` of the ledger."""

    seq: int
    request_id: str
    event: Event


class PurchaseQueries:
    """Questions about the purchases of all runs."""

    ledger: LedgerWriter

    def spent(self, gateway: str, day_prefix: str) -> Totals:
        """The money of a gateway on a day or in a month (`2026-11`), without counts."""
        with self.ledger.reader.connect() as connection:
            where = and_(spend.c.gateway == gateway, spend.c.day.like(f"{day_prefix}%"))
            return Totals(counts={}, **sums_of(connection, where))

    def spend_lines(self, day_prefix: str = "") -> list[SpendLine]:
        """The spend book by day, run and model."""
        statement = select(spend).where(spend.c.day.like(f"{day_prefix}%")).order_by(spend.c.day, spend.c.run_id)
        return [SpendLine(**row._mapping) for row in self.ledger.ask(statement)]

    def jobs(self, gateway: str) -> Iterator[Attempt]:
        """Every attempt of a gateway that has a job id."""
        statement = plain_view().where(attempts.c.gateway == gateway, attempts.c.job_set_id.is_not(None))
        with self.ledger.reader.connect() as connection:
            for row in connection.execution_options(yield_per=CHUNK).execute(statement):
                yield attempt_of(row, None)

    def latest_job(self, gateway: str) -> tuple[str, str | None] | None:
        """Id and polling URL of the latest job this gateway ever gave; None when it gave none."""
        statement = (
            select(attempts.c.job_set_id, attempts.c.polling_url)
            .where(attempts.c.gateway == gateway, attempts.c.job_set_id.is_not(None))
            .order_by(attempts.c.accepted_at.desc())
            .limit(1)
        )
        found = self.ledger.ask(statement)
        return (found[0].job_set_id, found[0].polling_url) if found else None

    def newest_outcomes(self, gateway: str, limit: int) -> list[tuple[Event, float]]:
        """What the latest submits of this gateway came to (accept, reject or lose), oldest first, with Unix seconds."""
        # The history does not name the gateway; the attempt does.
        is_ours = (
            select(attempts.c.request_id)
            .where(attempts.c.request_id == history.c.request_id, attempts.c.gateway == gateway)
            .exists()
        )
        statement = (
            select(history.c.event, history.c.at)
            .where(history.c.event.in_(_OUTCOMES), is_ours)
            .order_by(history.c.seq.desc())
            .limit(limit)
        )
        return [(Event(row.event), float(row.at)) for row in reversed(self.ledger.ask(statement))]

    def outcomes_after(self, gateway: str, seq: int) -> list[SubmitRecord]:
        """What the submits of a gateway came to (accept, reject or lose) after event `seq`, of all processes."""
        is_ours = (
            select(attempts.c.request_id)
            .where(attempts.c.request_id == history.c.request_id, attempts.c.gateway == gateway)
            .exists()
        )
        statement = (
            select(history.c.seq, history.c.request_id, history.c.event)
            .where(history.c.seq > seq, history.c.event.in_(_OUTCOMES), is_ours)
            .order_by(history.c.seq)
        )
        return [SubmitRecord(row.seq, row.request_id, Event(row.event)) for row in self.ledger.ask(statement)]

    def last_event(self) -> int:
        """The number of the newest line of history; every change of an attempt makes a higher one."""
        return int(self.ledger.ask(select(func.coalesce(func.max(history.c.seq), 0)))[0][0])

    def mean_video_bytes(self, gateway: str) -> int | None:
        """What a video of this gateway weighs on average; None before the first one."""
        statement = select(func.avg(attempts.c.size_bytes)).where(attempts.c.gateway == gateway)
        mean = self.ledger.ask(statement)[0][0]
        return None if mean is None else int(mean)

    def abandoned_submits(self) -> list[str]:
        """Requests whose submit was in flight when their run died."""
        # A row is `submitting` from before its POST until its outcome is recorded. With no process alive that waits for
        # it, the outcome is not known.
        statement = select(attempts.c.request_id).where(attempts.c.state == State.SUBMITTING)
        return [row.request_id for row in self.ledger.ask(statement)]

    def unknowns(self, gateway: str) -> list[Attempt]:
        """Every request of a gateway whose outcome is unresolved."""
        statement = plain_view().where(
            attempts.c.state == State.UNKNOWN, attempts.c.superseded == 0, attempts.c.gateway == gateway
        )
        return [attempt_of(row, None) for row in self.ledger.ask(statement)]
