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
from pipeline.errors import ExitCode, UsageError
from pipeline.ledger.run_registry import Run
from pipeline.ledger.workspace import OpenLedger, open_for_reading
from pipeline.records import FAILED_FOR_GOOD, Attempt, State, usd
from pipeline.reports.dataframe import write_parquet
from pipeline.reports.dismissals import dismissals, not_dismissed
from pipeline.reports.junit import write_junit
from pipeline.reports.missing_videos import missing_videos
from pipeline.reports.progress import strip_control_chars
from pipeline.reports.run_ending import near_path, retry_command
from pipeline.reports.run_folder import RunFolder
from pipeline.reports.run_lookup import (
    ending_facts,
    find_request,
    find_run,
    started_by,
    starter_name,
    status_json,
)
from pipeline.reports.run_tables import run_lines, status_lines, table
from pipeline.reports.tables import json_line, write_csv, write_jsonl
from pipeline.reports.writer import PAGE, PAGE_LINES, PICTURES, checks_of, draw, report_rows, write_reports

RATE_SPAN_S = 60.0
"""Seconds over which `status` measures the rate of accepted submits."""

MAX_ROWS = 20
"""Failed or unknown rows that `status` prints; failures.csv lists all."""

REASON_CHARS = 100
"""Characters of a reason in a table; `dop show ROW` prints all of it."""

ID_CHARS = 12
"""Characters of a request id in a command to copy: enough to be the only one."""

UNKNOWN_HELP = (
    "Unknown outcomes: the gateway may have charged for these. Look for each one on its invoice or job list, then say "
    "what you\nfound: --charged (it is there, the video is lost), --adopt JOB_ID (it is there with this id), "
    "--resend (it is not there)."
)
"""Printed above the unknown rows of `dop status`."""


def status(args: argparse.Namespace) -> int:
    """Counts and money of one run, the newest unless named."""
    settings = settings_of(args)
    with open_for_reading(settings) as workspace:
        run = find_run(workspace, args.run)
        totals = workspace.queries.totals(run.run_id)
        missing, lacking = missing_videos(workspace, run), workspace.queries.without_video(run.run_id)
        if args.json:
            rate = workspace.queries.accepted_since(run.run_id, time.time() - RATE_SPAN_S) / RATE_SPAN_S
            checks = checks_of(workspace, run).counts()
            facts = ending_facts(workspace, run)
            # A video whose file is gone is fetched by the next run, so that such a run is not at its end.
            facts["unfinished"] = facts["unfinished"] or bool(missing)
            facts["missing_videos"] = len(missing) + lacking
            facts["started_by"] = started_by(workspace, run) or None
            print_json({**status_json(run, totals, rate_per_s=rate), **facts, "checks": checks})
        else:
            folder = RunFolder(workspace.outputs, run.run_id)
            page = folder.path / PAGE
            sheet = page if page.exists() else None
            checks, starter = checks_of(workspace, run).counts(), started_by(workspace, run)
            lines = status_lines(run, totals, starter=starter, sheet=sheet, checks=checks, not_downloaded=lacking)
            print("\n".join(lines))
            if lacking:
                print(f"\nnot downloaded: paid; `dop collect {run.run_id}` fetches what the gateway still has, free")
            _print_troubles(workspace, run)
            for video in missing:
                print(f"missing: {strip_control_chars(str(video))}; `dop collect {run.run_id}` fetches it again, free")
    return 0


def _print_troubles(workspace: OpenLedger, run: Run) -> None:
    """Failed rows with their reasons, and unknown ones with the commands that settle them."""
    queries = workspace.queries
    failed = not_dismissed(queries.attempts_in(run.run_id, FAILED_FOR_GOOD), dismissals(workspace))
    if failed:
        again = retry_command(run.run_id, failed)
        print(f"\nfailed: {again + ' buys again, ' if again else ''}`dop dismiss ROW` hides a row")
        rows = [[one.row_id, one.state.value, (one.reason or "")[:REASON_CHARS]] for one in failed[:MAX_ROWS]]
        print("\n".join(table(("ROW", "STATE", "REASON"), rows)))
        _print_rest(len(failed))
    unknown = queries.attempts_in(run.run_id, (State.UNKNOWN,))
    if unknown:
        print(f"\n{UNKNOWN_HELP}")
        for attempt in unknown[:MAX_ROWS]:
            row, reason = strip_control_chars(attempt.row_id), strip_control_chars(attempt.reason or "")
            print(f"unknown: {row} {attempt.request_id} (${usd(attempt.price_microusd)}; {reason[:REASON_CHARS]})")
            for words in ("--charged", "--resend", "--adopt JOB_ID"):
                print(f"  dop resolve {attempt.request_id[:ID_CHARS]} {words}")
        _print_rest(len(unknown))
        if len(unknown) > 1:
            print("all at once: dop resolve --all --charged, or dop resolve --from-usage USAGE.csv")


def _print_rest(count: int) -> None:
    if count > MAX_ROWS:
        print(f"... and {count - MAX_ROWS} more; failures.csv lists all")


def list_runs(args: argparse.Namespace) -> int:
    """Every run, newest first."""
    settings = settings_of(args)
    with open_for_reading(settings) as workspace:
        queries = workspace.queries
        found = [(run, queries.totals(run.run_id), queries.without_video(run.run_id)) for run in queries.runs()]
        kept = workspace.ledger.saved_states.load_all(starter_name(""))
    starters = {run_id: str(values.get("user", "")) for run_id, values in kept.items()}
    if args.json:
        runs = [
            {
                **status_json(run, totals),
                "started_at": _iso(run.started_at),
                "started_by": starters.get(run.run_id) or None,
                "manifest": run.manifest_path,
            }
            for run, totals, _ in found
        ]
        print_json({"runs": runs})
        return 0
    print("\n".join(run_lines(found, starters)))
    return 0


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def show(args: argparse.Namespace) -> int:
    """One request's whole history."""
    settings = settings_of(args)
    with open_for_reading(settings) as workspace:
        attempt = find_request(workspace, args.id, run=args.run)
        history = workspace.queries.history(attempt.request_id)
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
    if args.embed and not any(target.suffix.lower() in (".html", ".htm") for target in args.output):
        raise UsageError("--embed makes an .html that holds its clips: name it with -o page.html")
    with open_for_reading(settings) as workspace:
        run = find_run(workspace, args.run)
        folder = RunFolder(workspace.outputs, run.run_id)
        totals = workspace.queries.totals(run.run_id)
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

            if missing := asyncio.run(download_missing(settings, workspace.queries, run.run_id, max_lines=PAGE_LINES)):
                print_notice([f"the page lacks videos of other hosts: {missing}"])
            draw(workspace, run, folder.path / PAGE)
            print_notice([near_path(folder.path / name) for name in ("report.csv", PAGE)])
            problem = _landed(workspace, folder)
            if problem:
                print_notice([problem])
                return ExitCode.UNFINISHED
        if args.into is not None:
            from pipeline.cli.commands.report_into import write_into  # brings the readers of sheets

            rows = report_rows(workspace, run, folder)
            target = write_into(args.into, args.output, run, rows, run_folder=folder.path.resolve(), settings=settings)
            print_notice([str(target)])
            return 0
        for target in args.output:
            _write(workspace, run, folder, target, embed=args.embed)
            print_notice([str(target)])
    return 0


def _landed(workspace: OpenLedger, folder: RunFolder) -> str:
    """Puts the reports into the object store, where one is configured; returns what was wrong."""
    from pipeline.assets.publishing import open_publisher  # brings aiohttp

    landing = open_publisher(workspace.settings)
    return asyncio.run(landing.publish_reports(folder.path)) if landing is not None else ""


def _write(workspace: OpenLedger, run: Run, folder: RunFolder, target: Path, *, embed: bool) -> None:
    if target.suffix.lower() in PICTURES:
        draw(workspace, run, target, embed=embed)
        return
    writer = _writer(target.name.lower(), run, workspace.settings.checks.fail_on)
    if writer is None:
        raise UsageError(
            f"{target}: no such report; write .csv, .jsonl, .parquet, .junit.xml, .html, .zip, .mp4 or .png"
        )
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
