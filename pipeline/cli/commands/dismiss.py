"""`dismiss`: failed rows that need nothing more from the operator. Changes neither states nor money."""

from __future__ import annotations

import argparse
import time

from pipeline.cli.arguments import settings_of
from pipeline.errors import UsageError
from pipeline.ledger.workspace import open_for_reading
from pipeline.records import FAILED_FOR_GOOD, Attempt, counted
from pipeline.reports.dismissals import dismiss as remember
from pipeline.reports.dismissals import dismissals, not_dismissed
from pipeline.reports.run_ending import named
from pipeline.reports.run_lookup import find_request, find_run


def dismiss(args: argparse.Namespace) -> int:
    """Mark failed rows as dismissed: one by its name, or every one of a run."""
    with open_for_reading(settings_of(args)) as workspace:
        chosen: list[Attempt]
        if args.all:
            failed = workspace.queries.attempts_in(find_run(workspace, args.row).run_id, FAILED_FOR_GOOD)
            chosen = not_dismissed(failed, dismissals(workspace))
        elif args.row is None:
            raise UsageError("name the row: dop dismiss ROW [RUN], or every failed row of a run: dop dismiss --all RUN")
        else:
            chosen = [_failed_row(find_request(workspace, args.row, run=args.run, states=tuple(FAILED_FOR_GOOD)))]
        remember(workspace, chosen, now=time.time())
    names = f": {named([attempt.row_id for attempt in chosen])}" if chosen else ""
    print(f"{counted(len(chosen), 'failed row')} dismissed{names}")
    return 0


def _failed_row(attempt: Attempt) -> Attempt:
    if attempt.state not in FAILED_FOR_GOOD:
        raise UsageError(f"{attempt.row_id} is {attempt.state}, not failed: there is nothing to dismiss")
    return attempt
