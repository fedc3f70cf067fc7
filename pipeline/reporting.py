"""What a run leaves for people: report.csv, failures.csv and run.json in its folder, always written whole."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pipeline.config import effective
from pipeline.ledger.book import Run, SkippedRow
from pipeline.records import Attempt, State
from pipeline.report.atomic import whole_text
from pipeline.report.summary import run_json
from pipeline.report.table import REPORT_COLUMNS, report_row, write_csv, write_failures_csv
from pipeline.workspace import RunFolder, Workspace


def report_rows(workspace: Workspace, run: Run, folder: RunFolder) -> Iterator[dict[str, object]]:
    """The report's lines as raw values, in the manifest's order."""
    for line in workspace.book.report(run.run_id):
        if isinstance(line, Attempt):
            yield report_row(line, outputs=folder.outputs, run_folder=folder.path)
        else:
            yield _placeholder(line, run)


def _placeholder(line: SkippedRow, run: Run) -> dict[str, object]:
    empty: dict[str, object] = dict.fromkeys(REPORT_COLUMNS)
    return {**empty, "row_id": line.row_id, "status": State.SKIPPED.value, "cost_state": "none", "gateway": run.gateway}


def write_reports(workspace: Workspace, run: Run, folder: RunFolder) -> None:
    """Writes report.csv, failures.csv and run.json."""
    write_csv(report_rows(workspace, run, folder), folder.path / "report.csv")
    write_failures_csv(report_rows(workspace, run, folder), folder.path / "failures.csv")
    now = workspace.book.run(run.run_id) or run
    summary = run_json(
        run=run.run_id,
        gateway=run.gateway,
        totals=workspace.book.totals(run.run_id),
        settings={key: value for key, value, _ in effective(workspace.settings)},
        manifest=run.manifest_path,
        started_at=now.started_at,
        ended_at=now.ended_at,
    )
    with whole_text(folder.path / "run.json") as file:
        json.dump(summary, file, indent=2)
        file.write("\n")
