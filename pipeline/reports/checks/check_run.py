"""Check the clips of a run that have no result yet, with progress. Blocks: call it in a thread."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from tqdm import tqdm

from pipeline.ledger.run_registry import Run
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import State
from pipeline.reports.checks.findings import RunChecks
from pipeline.reports.checks.pool import check_all
from pipeline.reports.checks.run_checks import jobs_of

SAMPLES = Path(__file__).resolve().parents[2] / "sandbox" / "photos"
"""The pictures that a manifest names `sandbox:NAME`."""


def check_run(
    workspace: OpenLedger,
    run: Run,
    *,
    again: bool = False,
    show_bar: bool = True,
    stop: threading.Event | None = None,
) -> int:
    """Check what has no result, or with `again` everything; returns the number of clips that were checked.

    Writes: results, posters and start frames beside the clips. Never touches the ledger.
    """
    settings = workspace.settings.checks
    attempts = workspace.queries.report_attempts(run.run_id, (State.DONE,))
    jobs = jobs_of(attempts, workspace.outputs, settings, samples=SAMPLES, again=again)
    if not jobs:
        return 0
    hidden = not (show_bar and sys.stderr.isatty())
    with tqdm(total=len(jobs), desc="checking clips", unit="clip", leave=False, disable=hidden) as bar:
        check_all(jobs, done=bar.update, stop=stop)
    return len(jobs)


def check_rows(workspace: OpenLedger, run: Run, found: RunChecks) -> list[dict[str, object]]:
    """The run's checked clips, in the manifest's order: grade, reasons and figures of each."""
    return [
        {
            "row_id": line.row_id,
            "request_id": line.request_id,
            "local_path": line.local_path,
            "check": known.grade.value,
            "reasons": list(known.reasons),
            "said": "; ".join(known.reasons),
            "metrics": dict(known.metrics),
        }
        for line in workspace.queries.report_attempts(run.run_id, (State.DONE,))
        if (known := found.of(line)) is not None
    ]
