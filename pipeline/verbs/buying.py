"""`run`, `submit` and `collect`: the only words that spend are here, and each of them goes through one door."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path

from pipeline.config import read_key
from pipeline.ending import Ending
from pipeline.errors import FatalError, UsageError
from pipeline.ledger.book import Run
from pipeline.ledger.budget import NO_CAPS, Caps
from pipeline.listing import Listing, listing
from pipeline.records import usd
from pipeline.report.summary import summary_line
from pipeline.reporting import write_reports
from pipeline.run import Job, Result, Wishes, carry_out
from pipeline.settings import Settings
from pipeline.verbs.planning import plan_text, planned
from pipeline.verbs.told import money, seconds, settings_of, tell
from pipeline.workspace import RunFolder, Workspace, run_name, spending

LOCAL_MARK = "local:"
"""Begins the digest of rows that depend on files of this machine: they are read anew each time."""


def run(args: argparse.Namespace) -> int:
    """Submit, poll, download, report. The same command again continues."""
    return _buy(args, _wishes(args, buy=True, collect=True))


def submit(args: argparse.Namespace) -> int:
    """Buy and leave."""
    return _buy(args, _wishes(args, buy=True, collect=False))


def collect(args: argparse.Namespace) -> int:
    """Poll, download and report what is already bought. Never spends."""
    settings = settings_of(args)
    key = _key(settings)
    wishes = _wishes(args, buy=False, collect=True)
    with spending(settings, lock_wait_s=_lock_wait_s(args), now=time.time()) as workspace:
        tell(workspace.notices)
        codes = [
            _carried_out(workspace, run, caps=NO_CAPS, key=key, wishes=wishes, manifest=None)
            for run in _runs_to_collect(workspace, args.run)
        ]
    order = (7, 3, 8, 129, 130, 143, 5, 1)
    return next((code for code in order if code in codes), 9 if args.error_on_nothing and not codes else 0)


def _wishes(args: argparse.Namespace, *, buy: bool, collect: bool) -> Wishes:
    return Wishes(
        buy=buy,
        collect=collect,
        max_new=args.max_new if buy else None,
        max_duration_s=seconds(args.max_duration, "--max-duration"),
        quiet=args.quiet,
        show_bar=not args.no_progress,
        log_json=args.log_json,
    )


def _lock_wait_s(args: argparse.Namespace) -> float:
    return seconds(args.lock_wait, "--lock-wait") or 0.0


def _key(settings: Settings) -> str:
    """The gateway's key; the sandbox has one of its own, and the person's is never sent to it.

    Raises:
        FatalError: a live gateway and no key.
    """
    if settings.gateway.is_embedded:
        return settings.sandbox.key
    key = read_key(os.environ, Path.home())
    if key is None:
        raise FatalError(
            "no key: put it into the environment variable PIXAZO_API_KEY or the file ~/.pixazo/api-key (chmod 600); "
            "nothing was sent"
        )
    return key


def _buy(args: argparse.Namespace, wishes: Wishes) -> int:
    settings = settings_of(args)
    bound = listing(args.manifest, settings)
    caps = bound.caps(money(args.max_cost, "--max-cost"))
    if args.dry_run:
        print(plan_text(args.manifest, planned(bound, settings), caps, settings))
        return 0
    key = _key(settings)
    if not settings.gateway.is_embedded and not args.yes and not _agreed(args.manifest, bound, caps, settings):
        tell(["not bought: the answer was no"])
        return 2
    with spending(settings, lock_wait_s=_lock_wait_s(args), now=time.time()) as workspace:
        tell(workspace.notices)
        found = _open_run(workspace, bound)
        tell(f"warning: {warning}" for warning in bound.warnings)
        return _carried_out(
            workspace,
            found,
            caps=caps,
            key=key,
            wishes=wishes,
            manifest=args.manifest,
            sha256_of=bound.binder.sha256_of,
            error_on_nothing=args.error_on_nothing,
        )


def _agreed(path: Path, bound: Listing, caps: Caps, settings: Settings) -> bool:
    """Whether the person agrees to the price; a budget is an agreement made beforehand.

    Raises:
        UsageError: nobody is there to ask, and nothing bounds the spending.
    """
    if not sys.stdin.isatty():
        if caps.any:
            return True
        raise UsageError(
            f"{settings.gateway.base_url} charges for this: give --yes or a budget (--max-cost USD, or `budget` in the "
            "manifest or the configuration) to run without a terminal; nothing was sent"
        )
    found = planned(bound, settings)
    if found.new == 0:
        return True
    tell([plan_text(path, found, caps, settings)])
    print(f"buy {found.new} videos for ${usd(found.new_price_microusd)}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _open_run(workspace: Workspace, bound: Listing) -> Run:
    """The unfinished run of this manifest, or a new one, listing what the manifest says now."""
    manifest = bound.manifest
    path = str(manifest.path.resolve())
    found = workspace.book.unfinished_run(path, workspace.gateway)
    if found is None:
        now = time.time()
        found = Run(
            run_id=run_name(manifest.name, now),
            name=manifest.name,
            gateway=workspace.gateway,
            manifest_path=path,
            rows_digest=None,
            started_at=now,
            ended_at=None,
            sheet=_sheet(bound),
        )
        workspace.book.start_run(found)
    digest = bound.digest()
    if found.rows_digest != digest:
        workspace.book.list_rows(found.run_id, bound.rows(), rows_digest=lambda: _mark(bound) + digest)
    return found


def _mark(bound: Listing) -> str:
    return LOCAL_MARK if bound.binder.sha256_of else ""


def _sheet(bound: Listing) -> dict[str, str] | None:
    sheet = bound.manifest.sheet
    if sheet is None:
        return None
    named = {"x": sheet.x, "y": sheet.y, "tabs": sheet.tabs}
    return {place: axis for place, axis in named.items() if axis is not None}


def _runs_to_collect(workspace: Workspace, wanted: str | None) -> list[Run]:
    book = workspace.book
    if wanted is None:
        return [run for run in book.runs() if run.gateway == workspace.gateway and book.has_open(run.run_id)]
    name = Path(wanted).name
    if name == "latest":
        name = (workspace.outputs / "latest").resolve().name
    run = book.run(name)
    if run is None:
        raise UsageError(f"no run is called {wanted!r}; `dop list` shows them")
    if run.gateway != workspace.gateway:
        raise UsageError(f"run {name} belongs to {run.gateway}, and the configuration is for {workspace.gateway}")
    return [run]


def _carried_out(
    workspace: Workspace,
    run: Run,
    *,
    caps: Caps,
    key: str,
    wishes: Wishes,
    manifest: Path | None,
    sha256_of: dict[str, str] | None = None,
    error_on_nothing: bool = False,
) -> int:
    folder = RunFolder(workspace.outputs, run.run_id)
    folder.make(manifest)
    job = Job(workspace=workspace, run=run, folder=folder, caps=caps, key=key, sha256_of=sha256_of or {}, wishes=wishes)
    open_before = workspace.book.has_open(run.run_id)
    result = asyncio.run(carry_out(job))
    return _finish(job, result, nothing_to_do=error_on_nothing and not open_before)


def _finish(job: Job, result: Result, *, nothing_to_do: bool) -> int:
    """The report, the summary line and the exit code."""
    workspace, run = job.workspace, job.run
    book = workspace.book
    fetches = workspace.settings.download.enabled
    totals = book.totals(run.run_id)
    ending = Ending(
        totals=totals,
        reasons=result.reasons,
        missing_videos=book.without_video(run.run_id) if fetches else 0,
        nothing_to_do=nothing_to_do,
    )
    if not ending.is_open:
        book.end_run(run.run_id, time.time())
    write_reports(workspace, run, job.folder)
    tell(reason.text for reason in result.reasons)
    code = ending.exit_code
    if not (job.wishes.quiet and code in (0, 9)):
        tell([summary_line(totals, run.run_id)])
    return code
