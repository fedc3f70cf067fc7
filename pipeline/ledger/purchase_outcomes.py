"""What each purchase came to: the attempts that money was recorded for, with their clips' grades and verdicts."""

from __future__ import annotations

import json

from sqlalchemy import Connection, and_, select

from pipeline.ledger.keepers import BAD, KEEP, Candidate, CandidateStatus
from pipeline.ledger.schema import attempts, clip_checks, run_rows
from pipeline.ledger.shots import Verdicts
from pipeline.record_class import record
from pipeline.records import COST_STATE, CostState, KeepIf, State

NOT_BOUGHT = tuple(state.value for state, cost in COST_STATE.items() if cost is CostState.NONE)

_STRENGTH_AT = 4
"""Index of motions_strength in the list that `dump_params` writes."""


@record
class PurchaseOutcome:
    """One attempt that money was recorded for.

    Attributes:
        price_microusd: what is recorded for it: confirmed, disputed or reserved.
        status: KEPT as `keep_if: check` counts it (kept by the user, or passed and not rejected), LOST, or OPEN.
        delivered: its video was made. `passed`: and checked, and is not bad. `picked`: the user kept it.
    """

    gateway: str
    model: str
    motion: str
    strength_hundredths: int
    tags: tuple[str, ...]
    price_microusd: int
    status: CandidateStatus
    delivered: bool
    passed: bool
    picked: bool


def read_outcomes(
    connection: Connection, verdicts: Verdicts, gateway: str | None = None, day_prefix: str = ""
) -> list[PurchaseOutcome]:
    """Every purchase of one gateway, or of all; the oldest first.

    Args:
        day_prefix: a day or month of the spend book (`2026-11`); "" for all.
    """
    listing = and_(run_rows.c.request_id == attempts.c.request_id, run_rows.c.run_id == attempts.c.run_id)
    checked = and_(clip_checks.c.request_id == attempts.c.request_id, clip_checks.c.attempt == attempts.c.attempt)
    columns = (
        *(attempts.c.request_id, attempts.c.superseded, attempts.c.state, attempts.c.gateway, attempts.c.model),
        *(attempts.c.motion, attempts.c.params, attempts.c.price_microusd, run_rows.c.tags, clip_checks.c.grade),
    )
    statement = (
        select(*columns)
        .select_from(attempts.outerjoin(run_rows, listing).outerjoin(clip_checks, checked))
        .where(attempts.c.state.not_in(NOT_BOUGHT))
        .order_by(attempts.c.submitted_at, attempts.c.request_id, attempts.c.attempt)
    )
    if gateway is not None:
        statement = statement.where(attempts.c.gateway == gateway)
    if day_prefix:
        statement = statement.where(attempts.c.spend_day.like(f"{day_prefix}%"))
    found = []
    for row in connection.execute(statement):
        # A verdict is about the clip of the newest attempt.
        state, verdict = State(row.state), None if row.superseded else verdicts.get(row.request_id)
        candidate = Candidate(request_id=row.request_id, state=state, grade=row.grade, verdict=verdict)
        delivered = state in (State.DONE, State.EXPIRED)
        found.append(
            PurchaseOutcome(
                gateway=row.gateway,
                model=row.model,
                motion=row.motion,
                strength_hundredths=json.loads(row.params)[_STRENGTH_AT],
                tags=tuple(json.loads(row.tags or "[]")),
                price_microusd=row.price_microusd,
                status=candidate.status(KeepIf.CHECK),
                delivered=delivered,
                passed=delivered and row.grade is not None and row.grade != BAD,
                picked=state is State.DONE and verdict == KEEP,
            )
        )
    return found
