"""`status`, `list`, `show` and `report`: what the ledger knows of runs and requests. Nothing is sent or spent."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipeline.cli.arguments import print_json, print_notice, settings_of
from pipeline.errors import UsageError
from pipeline.ledger.run_registry import Run
from pipeline.ledger.workspace import OpenLedger, open_for_reading
from pipeline.records import Attempt, State, usd
from pipeline.reports.dataframe import write_parquet
from pipeline.reports.junit import write_junit
from pipeline.reports.missing_videos import missing_videos
from pipeline.reports.progress import strip_control_chars
from pipeline.reports.run_folder import RunFolder
from pipeline.reports.run_lookup import ending_facts, find_request, find_run, status_json
from pipeline.reports.summary import checks_line, summary_line
from pipeline.reports.tables import json_line, write_csv, write_jsonl
from pipeline.reports.writer import PAGE, PAGE_LINES, PICTURES, checks_of, draw, report_rows, write_reports

RATE_SPAN_S = 60.0
"""Over which `status` tells the rate of accepted submits."""


def status(args: argparse.Namespace) -> int:
    """Counts and money of one run, the newest unless named."""
    settings = settings_of(args)
    with open_for_reading(settings) as workspace:
        run = find_run(workspace, args.run)
        totals = workspace.book.totals(run.run_id)
        missing = missing_videos(workspace, run)
        if args.json:
            rate = workspace.book.accepted_since(run.run_id, time.time() - RATE_SPAN_S) / RATE_SPAN_S
            checks = checks_of(workspace, run).counts()
            facts = ending_facts(workspace, run)
            facts["unfinished"] = facts["unfinished"] or bool(missing)
            facts["missing_videos"] = len(missing)
            print_json({**status_json(run, totals, rate_per_s=rate), **facts, "checks": checks})
        else:
            print(summary_line(totals, run.run_id))
            if line := checks_line(checks_of(workspace, run).counts()):
                print(line)
            _tell_unknowns(workspace, run)
            for video in missing:
                print(f"missing: {strip_control_chars(str(video))}; `dop collect {run.run_id}` fetches it again, free")
    return 0


def _tell_unknowns(workspace: OpenLedger, run: Run) -> None:
    for page in workspace.book.iter_attempts(run.run_id, (State.UNKNOWN,)):
        for attempt in page:
            row, reason = strip_control_chars(attempt.row_id), strip_control_chars(attempt.reason or "")
            print(f"unknown: {row} {attempt.request_id} ({reason})")


def list_runs(args: argparse.Namespace) -> int:
    """Every run, newest first."""
    settings = settings_of(args)
    with open_for_reading(settings) as workspace:
        found = [(run, workspace.book.totals(run.run_id)) for run in workspace.book.runs()]
    if args.json:
        print_json({"runs": [status_json(run, totals) for run, totals in found]})
        return 0
    for run, totals in found:
        state = "ended" if run.ended_at is not None else "open"
        print(f"{state:<6} {summary_line(totals, run.run_id)} gateway={run.gateway}")
    return 0


def show(args: argparse.Namespace) -> int:
    """One request's whole history."""
    settings = settings_of(args)
    with open_for_reading(settings) as workspace:
        attempt = find_request(workspace, args.id)
        history = workspace.book.history(attempt.request_id)
    if args.json:
        print_json({**_attempt_json(attempt), "history": history})
        return 0
    for name, value in _attempt_json(attempt).items():
        if value is not None:
            print(f"{name}: {strip_control_chars(str(value))}")
    for line in history:
        moment = datetime.fromtimestamp(float(str(line["at"])), UTC).strftime("%Y-%m-%d %H:%M:%S")
        detail = strip_control_chars(str(line["detail"]))
        print(f"  {moment}  {line['event']} -> {line['state']}  {detail if args.verbose else detail[:100]}")
    return 0


def _attempt_json(attempt: Attempt) -> dict[str, object]:
    return {
        "request_id": attempt.request_id,
        "attempt": attempt.attempt,
        "row_id": attempt.row_id,
        "status": attempt.state.value,
        "gateway": attempt.gateway,
        "run": attempt.run_id,
        "model": attempt.params.model,
        "seed": attempt.params.seed,
        "prompt": attempt.params.prompt,
        "price_usd": usd(attempt.price_microusd),
        "cost_state": attempt.cost_state.value,
        "job_set_id": attempt.job_set_id,
        "video_url": attempt.video_url,
        "local_path": attempt.local_path,
        "reason": attempt.reason,
    }


def report(args: argparse.Namespace) -> int:
    """The run's tables, the format by the file's extension."""
    settings = settings_of(args)
    with open_for_reading(settings) as workspace:
        run = find_run(workspace, args.run)
        folder = RunFolder(workspace.outputs, run.run_id)
        totals = workspace.book.totals(run.run_id)
        if args.json:
            print_json(
                {
                    **status_json(run, totals),
                    "rows": [json.loads(json_line(row)) for row in report_rows(workspace, run, folder)],
                }
            )
            return 0
        if not args.output and args.into is None:
            folder.path.mkdir(parents=True, exist_ok=True)
            write_reports(workspace, run, folder)
            from pipeline.assets.publishing import download_missing

            if missing := asyncio.run(download_missing(settings, workspace.book, run.run_id, max_lines=PAGE_LINES)):
                print_notice([f"the page lacks videos of other hosts: {missing}"])
            draw(workspace, run, folder.path / PAGE)
            print_notice([f"{folder.path / name}" for name in ("report.csv", PAGE)])
            problem = _landed(workspace, folder)
            if problem:
                print_notice([problem, summary_line(totals, run.run_id)])
                return 5
        if args.into is not None:
            from pipeline.cli.commands.report_into import write_into  # brings the readers of sheets

            rows = report_rows(workspace, run, folder)
            target = write_into(args.into, args.output, run, rows, run_folder=folder.path.resolve(), settings=settings)
            print_notice([str(target), summary_line(totals, run.run_id)])
            return 0
        for target in args.output:
            _write(workspace, run, folder, target)
            print_notice([str(target)])
        print_notice([summary_line(totals, run.run_id)])
    return 0


def _landed(workspace: OpenLedger, folder: RunFolder) -> str:
    """Puts the reports into the object store, where one is configured; returns what was wrong."""
    from pipeline.assets.publishing import open_publisher  # brings aiohttp

    landing = open_publisher(workspace.settings)
    return asyncio.run(landing.publish_reports(folder.path)) if landing is not None else ""


def _write(workspace: OpenLedger, run: Run, folder: RunFolder, target: Path) -> None:
    if target.suffix.lower() in PICTURES:
        draw(workspace, run, target)
        return
    writer = _writer(target.name.lower(), run, workspace.settings.checks.fail_on)
    if writer is None:
        raise UsageError(f"{target}: no such report; write .csv, .jsonl, .parquet, .junit.xml, .html, .mp4 or .png")
    writer(report_rows(workspace, run, folder), target)


def _writer(
    name: str, run: Run, fail_on: Sequence[str]
) -> Callable[[Iterable[dict[str, object]], Path], object] | None:
    if name.endswith(".csv"):
        return write_csv
    if name.endswith(".jsonl"):
        return write_jsonl
    if name.endswith(".xml"):
        return lambda rows, path: write_junit(rows, path, run=run.run_id, fail_on=fail_on)
    if name.endswith(".parquet"):
        return write_parquet
    return None
