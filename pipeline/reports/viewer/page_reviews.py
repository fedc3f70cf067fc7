"""Reviews that a page sends: they must be of clips that it shows, and are the reviewer's whose server it is."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pipeline.errors import UsageError
from pipeline.ledger.reviews import record, reviews_in
from pipeline.ledger.run_registry import Run
from pipeline.ledger.workspace import OpenLedger
from pipeline.reports.viewer.live_updates import listed_requests


def record_changes(workspace: OpenLedger, runs: Sequence[Run], items: object, *, who: str) -> int:
    """Records changes under the name `who`, whatever the page says; returns how many were new.

    Raises:
        UsageError: they are no reviews, or not of these runs' clips.
    """
    changes = reviews_in(items, who=who, now=time.time())
    named = {change.request_id for change in changes} | {change.rival for change in changes if change.rival}
    strange = named.difference(*(listed_requests(workspace, run.run_id) for run in runs))
    if strange:
        raise UsageError(f"this run has no request {sorted(strange)[0]}")
    return record(workspace.ledger, changes)
