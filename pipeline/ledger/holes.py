"""A ledger with a hole: events are lost that may have been purchases. What it does not know is not bought.

MONEY: every row that such a ledger holds as never sent is recorded as sent, with an unknown outcome. It counts as spent
until the operator settles it, and the opt-in policy that sends unknown outcomes again leaves it alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import func, select, update

from pipeline.ledger.identity import HOLE
from pipeline.ledger.schema import attempts, history, run_rows, runs
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import LedgerChange
from pipeline.ledger.writer import LedgerWriter
from pipeline.records import State

BATCH = 1_000
"""Rows that are recorded in one go: one commit for each batch of the writer."""


def open_hole(ledger: LedgerWriter, events: str) -> int:
    """Marks the ledger as lacking `events`, and doubts every row that was never sent; returns how many rows."""
    earlier = ledger.facts.get(HOLE)
    ledger.mark({HOLE: f"{earlier}, {events}" if earlier else events})
    doubted = doubt_unsent(ledger)
    ledger.transact(lambda connection: connection.execute(update(runs).values(rows_digest=None)) and None)
    return doubted


def is_hole_listed(ledger: LedgerWriter) -> bool:
    """Whether any row was listed as unknown since the ledger lacks the events that it lacks now."""
    reason = _reason(ledger.facts[HOLE])
    return bool(ledger.ask(select(history.c.seq).where(history.c.detail == reason).limit(1)))


def _reason(hole: str) -> str:
    return f"the ledger lacks events {hole}: this row may be bought already"


def doubt_unsent(ledger: LedgerWriter, run_id: str | None = None) -> int:
    """Record as sent, outcome unknown, every row that was never sent, or those of one run; return how many."""
    never_sent = select(attempts.c.request_id, attempts.c.run_id).where(
        attempts.c.superseded == 0, attempts.c.state == State.PLANNED.value, attempts.c.submit_attempts == 0
    )
    if run_id is not None:
        listed = select(run_rows.c.request_id).where(run_rows.c.run_id == run_id)
        never_sent = never_sent.where(attempts.c.request_id.in_(listed))
    found = ledger.ask(never_sent)
    newest = ledger.ask(select(func.max(history.c.at)))[0][0]
    started = ledger.ask(select(func.max(runs.c.started_at)))[0][0]
    # Not the clock of now: the days of budgets never run backwards, and this money was spent in the past.
    at = float(max(newest or 0.0, started or 0.0))
    for first in range(0, len(found), BATCH):
        ledger.apply_all(
            change
            for row in found[first : first + BATCH]
            for change in _doubted(row.request_id, run_id or row.run_id, at, ledger.facts[HOLE])
        )
    return len(found)


def _doubted(request_id: str, run_id: str, at: float, hole: str) -> Iterator[LedgerChange]:
    token = f"hole {request_id}"
    reason = _reason(hole)
    yield LedgerChange(request_id=request_id, event=Event.RESERVE, at=at, token=token, run_id=run_id, detail=reason)
    # Counted as one resend, so that the policy `resend` leaves the row alone.
    values = {"reason": reason, "resends": 1}
    yield LedgerChange(request_id=request_id, event=Event.LOSE, at=at, token=token, values=values, detail=reason)
