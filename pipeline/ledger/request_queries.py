"""What is known of requests, whichever run lists them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import or_, select

from pipeline.ledger.attempt_rows import (
    attempt_of,
    plain_view,
)
from pipeline.ledger.schema import (
    attempts,
    history,
    run_rows,
)
from pipeline.ledger.transitions import KEPT_CALL
from pipeline.ledger.writer import LedgerWriter
from pipeline.records import Attempt, State, job_id_spellings

CHUNK = 2_000
"""Rows that are fetched at a time by a question whose answer does not fit in memory."""


class RequestQueries:
    """Questions about requests."""

    ledger: LedgerWriter

    def states(self, request_ids: Sequence[str]) -> dict[str, State]:
        """The state of each request that the ledger knows."""
        statement = select(attempts.c.request_id, attempts.c.state).where(
            attempts.c.request_id.in_(request_ids), attempts.c.superseded == 0
        )
        return {row.request_id: State(row.state) for row in self.ledger.ask(statement)}

    def row_names(self, request_ids: Sequence[str]) -> dict[str, str]:
        """The row for which each request was first planned."""
        statement = select(attempts.c.request_id, attempts.c.row_id).where(attempts.c.request_id.in_(request_ids))
        return {row.request_id: row.row_id for row in self.ledger.ask(statement)}

    def row_ids(self, limit: int = 5_000) -> list[str]:
        """Names of rows that any run lists, for suggestions."""
        return [row.row_id for row in self.ledger.ask(select(run_rows.c.row_id).distinct().limit(limit))]

    def find(self, wanted: str) -> list[Attempt]:
        """Latest attempts whose request id begins with `wanted`, or whose row or job id is `wanted`; newest first."""
        listed = select(run_rows.c.request_id).where(run_rows.c.row_id == wanted)
        statement = (
            plain_view()
            .where(
                attempts.c.superseded == 0,
                or_(
                    attempts.c.request_id.startswith(wanted, autoescape=True),
                    attempts.c.row_id == wanted,
                    attempts.c.job_set_id.in_(job_id_spellings(wanted)),
                    attempts.c.request_id.in_(listed),
                ),
            )
            .order_by(attempts.c.submitted_at.desc())
            .limit(50)
        )
        return [attempt_of(row, None) for row in self.ledger.ask(statement)]

    def latest_attempts(self, request_ids: Sequence[str]) -> list[Attempt]:
        """The latest attempt of each request that the ledger knows, in no order."""
        statement = plain_view().where(attempts.c.request_id.in_(request_ids), attempts.c.superseded == 0)
        return [attempt_of(row, None) for row in self.ledger.ask(statement)]

    def attempts_of(self, request_id: str) -> list[Attempt]:
        """Every attempt of one request, the latest last."""
        statement = plain_view().where(attempts.c.request_id == request_id).order_by(attempts.c.attempt)
        return [attempt_of(row, None) for row in self.ledger.ask(statement)]

    def history(self, request_id: str) -> list[dict[str, object]]:
        """Everything that happened to a request, oldest first."""
        statement = select(history).where(history.c.request_id == request_id).order_by(history.c.seq)
        return [_without_call(dict(row._mapping)) for row in self.ledger.ask(statement)]

    def resent_among(self, request_ids: Sequence[str]) -> frozenset[str]:
        """Those of the requests that were sent again after an unknown outcome, in any run."""
        found: set[str] = set()
        for start in range(0, len(request_ids), CHUNK):
            some = request_ids[start : start + CHUNK]
            statement = select(attempts.c.request_id).where(attempts.c.resends > 0, attempts.c.request_id.in_(some))
            found.update(row.request_id for row in self.ledger.ask(statement))
        return frozenset(found)


def _without_call(line: dict[str, object]) -> dict[str, object]:
    """A line of history without the call that is kept with an intent: that is a secret, and for no reader."""
    if str(line["detail"]).startswith(KEPT_CALL):
        line["detail"] = "the call is kept, to be sent again under its key if its answer is lost"
    return line
