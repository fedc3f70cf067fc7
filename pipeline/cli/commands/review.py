"""`review import` and `review export`: what reviewers said of the clips, as a file. Buys nothing and needs no lock."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from pipeline.cli.arguments import print_notice, settings_of
from pipeline.errors import UsageError
from pipeline.files import whole_text
from pipeline.ledger.reviews import Review, all_reviews, batches, record
from pipeline.ledger.workspace import OpenLedger, open_for_reading
from pipeline.records import counted
from pipeline.reports.picks import Picks
from pipeline.reports.review_file import (
    MAX_FILE_BYTES,
    bounded_text,
    parse_reviews,
    picks_as_reviews,
    reviewer_name,
    reviews_text,
)
from pipeline.reports.run_lookup import find_run

BATCH = 500
"""Changes of one write: it takes milliseconds, and a run that buys meanwhile waits for no more than that."""


def import_reviews(args: argparse.Namespace) -> int:
    """Adds the changes of files to the ledger; those that it holds already are not added again."""
    settings, who = settings_of(args), reviewer_name(args.reviewer)
    with open_for_reading(settings) as workspace:
        for path in args.files:
            changes = _changes(workspace, path, who=who)
            added = sum(record(workspace.ledger, part) for part in batches(changes, BATCH))
            known = len(changes) - added
            print_notice(
                [
                    f"{path}: {counted(added, 'review')} added"
                    + (f", {known} {'was' if known == 1 else 'were'} there already" if known else "")
                ]
            )
    return 0


def _changes(workspace: OpenLedger, path: Path, *, who: str) -> list[Review]:
    found = parse_reviews(bounded_text(path, MAX_FILE_BYTES), who=who, now=time.time())
    if not isinstance(found, Picks):
        ids = sorted({change.request_id for change in found} | {change.rival for change in found if change.rival})
        known = {name for part in batches(ids, BATCH) for name in workspace.queries.states(part)}
        strange = [name for name in ids if name not in known]
        if strange:
            more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
            raise UsageError(f"{path}: this ledger has no request {', '.join(strange[:5])}{more}; nothing was added")
        return found
    run = find_run(workspace, found.run)
    return picks_as_reviews(found, workspace.queries.report_attempts(run.run_id), who=who, at=path.stat().st_mtime)


def export_reviews(args: argparse.Namespace) -> int:
    """Prints every change ever made, or those of one run's clips, as `review import` reads them."""
    settings = settings_of(args)
    with open_for_reading(settings) as workspace:
        changes = all_reviews(workspace.ledger)
        if args.run is not None:
            run = find_run(workspace, args.run)
            listed = {attempt.request_id for attempt in workspace.queries.report_attempts(run.run_id)}
            changes = [change for change in changes if change.request_id in listed]
    text = reviews_text(changes)
    if args.output is None:
        print(text, end="")
        return 0
    try:
        with whole_text(args.output) as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"{args.output} can't be written ({error.strerror})") from None
    print_notice([f"{args.output}: {counted(len(changes), 'review')}"])
    return 0
