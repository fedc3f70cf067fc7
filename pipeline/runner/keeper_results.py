"""What the checks found, kept in the ledger; where the shots of a run then stand, and what would be bought next."""

from __future__ import annotations

import time
from collections.abc import Mapping

from sqlalchemy import Connection

from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.reviews import latest_verdicts
from pipeline.ledger.run_registry import Run
from pipeline.ledger.shots import CheckRecord, Shots, mark_wanted, save_checks
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import counted, usd
from pipeline.reports.checks.findings import ClipCheck, Grade, Key, RunChecks

MAX_NAMES = 20
"""Candidates that one line names."""


def record_of(request_id: str, attempt: int, check: ClipCheck) -> CheckRecord:
    """What the ledger keeps of a check."""
    return CheckRecord(request_id=request_id, attempt=attempt, grade=check.grade.value, reasons=check.reasons)


def changed_records(queries: LedgerQueries, found: Mapping[Key, ClipCheck]) -> list[CheckRecord]:
    """The results that the ledger does not have like that.

    A clip that was not checked yet says nothing: its candidate is open.
    """
    known = queries.checks(sorted({request_id for request_id, _ in found}))
    return [
        record_of(*key, check)
        for key, check in found.items()
        if check.grade is not Grade.UNCHECKED and (key not in known or known[key].grade != check.grade.value)
    ]


def keep_results(workspace: OpenLedger, run: Run, checks: RunChecks) -> Shots:
    """Keep what changed since it was last kept, and settle which candidates are wanted; in one transaction."""
    changed = changed_records(workspace.queries, checks.found)
    verdicts, now = latest_verdicts(workspace.ledger), time.time()

    def work(connection: Connection) -> Shots:
        save_checks(connection, changed, now)
        return mark_wanted(connection, run.run_id, verdicts)

    return workspace.ledger.transact(work)


def next_purchase(workspace: OpenLedger, run: Run, shots: Shots) -> str:
    """What the next `dop run` would buy for the shots, by name and price; "" when that is nothing."""
    prices = workspace.settings.prices_microusd
    found = [attempt for one in shots.needed if (attempt := workspace.queries.listed(run.run_id, one)) is not None]
    if not found:
        return ""
    names = [attempt.row_id for attempt in found]
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    price = sum(prices.get(attempt.params.model, attempt.price_microusd) for attempt in found)
    return f"`dop run` buys {counted(len(names), 'candidate')} for ${usd(price)}: {', '.join(names[:MAX_NAMES])}{more}"
