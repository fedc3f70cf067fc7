"""The end of a run: its clips are checked, its reports written, its exit code found, the result printed."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.assets.publishing import download_missing, open_publisher
from pipeline.errors import ExitCode, LedgerError
from pipeline.files import remedy
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.reviews import latest_verdicts
from pipeline.ledger.run_registry import Run
from pipeline.ledger.shots import NO_SHOTS, Shots
from pipeline.records import FAILED_FOR_GOOD, Attempt, State, Totals
from pipeline.reports.checks.findings import RunChecks
from pipeline.reports.run_ending import RENDERING, RunSummary
from pipeline.reports.run_lookup import ending_name, started_by
from pipeline.reports.summary import checks_line, summary_line
from pipeline.reports.writer import PAGE, PAGE_LINES, checks_of, write_page, write_reports
from pipeline.runner.exit_code import RunEnding
from pipeline.runner.keeper_results import keep_results, next_purchase
from pipeline.runner.run_job import RunJob, SpendingSession, StepsResult
from pipeline.runner.run_log import append_end


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """What a command made of a run: its exit code, why it stopped early if it did, and what the ledger says then."""

    run_id: str
    folder: Path
    totals: Totals
    reasons: tuple[str, ...]
    exit_code: int
    summary: RunSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStart:
    """What a run was when a command began: what this command did is the difference.

    Attributes:
        failed: (request_id, attempt) of what had failed for good before.
        had_work: whether there was anything to buy or to collect.
        at: monotonic seconds.
    """

    totals: Totals
    failed: frozenset[tuple[str, int]]
    had_work: bool
    at: float


def start_of(session: SpendingSession, run: Run) -> RunStart:
    """The run as it is now, before the command does anything with it."""
    queries = session.workspace.queries
    failed = queries.attempts_in(run.run_id, FAILED_FOR_GOOD)
    return RunStart(
        totals=queries.totals(run.run_id),
        failed=frozenset((one.request_id, one.attempt) for one in failed),
        had_work=queries.has_open(run.run_id),
        at=time.monotonic(),
    )


async def finish(session: SpendingSession, job: RunJob, result: StepsResult, start: RunStart) -> RunOutcome:
    """End the run where nothing is left, write its reports, print the result.

    A contact sheet that can't be made is a warning: it changes neither the exit code nor the tables.
    """
    workspace, run = job.workspace, job.run
    queries = workspace.queries
    shots = await _shots_after_checks(session, job)
    totals = queries.totals(run.run_id)
    failed = _failed_now(queries, run, start, shots)
    ending = RunEnding(
        totals=totals,
        failed=len(failed),
        reasons=result.reasons,
        missing_videos=queries.without_video(run.run_id) if workspace.settings.download.enabled else 0,
        nothing_to_do=job.options.error_on_nothing and not start.had_work,
        collects=job.options.collect,
        keepers=shots.summary,
    )
    if not ending.is_open:
        queries.end_run(run.run_id, time.time())
    with suppress(LedgerError):  # a full disk: the reports say the rest
        workspace.ledger.saved_states.save(ending_name(run.run_id), ending.facts)
    reported = _reported(session, job)
    if missing := await download_missing(workspace.settings, queries, run.run_id, max_lines=PAGE_LINES):
        session.notify(f"the page lacks videos of other hosts: {missing}")
    if await _checked(session, job):  # the tables are there already, should the machine stop meanwhile
        reported = _reported(session, job)
    checks = checks_of(workspace, run)
    with suppress(LedgerError):
        keep_results(workspace, run, checks)
    for note in write_page(workspace, run, job.folder):
        if note.is_wrong or not job.options.quiet:
            session.notify(note.text)
    reported = await _landed(session, job) and reported
    for reason in result.reasons:
        session.notify(reason.text)
    failing = bool(checks.failing(workspace.settings.checks.fail_on))
    code = _exit_code(ending, has_failing_clips=failing, is_reported=reported)
    summary = _summary(
        job, start, totals=totals, failed=failed, ending=ending, checks=checks, exit_code=code, shots=shots
    )
    _print_end(session, job, summary)
    session.ended(summary)
    if job.options.show_end:
        session.announce(summary)
    return RunOutcome(
        run_id=run.run_id,
        folder=job.folder.path,
        totals=totals,
        reasons=summary.reasons,
        exit_code=code,
        summary=summary,
    )


def _exit_code(ending: RunEnding, *, has_failing_clips: bool, is_reported: bool) -> ExitCode:
    """The run's code; a run that ended well fails by its clips, and is unfinished without its reports."""
    code = ending.exit_code
    if code in (ExitCode.DONE, ExitCode.NOTHING) and has_failing_clips:
        return ExitCode.FAILED
    return ExitCode.UNFINISHED if code is ExitCode.DONE and not is_reported else code


def _failed_now(queries: LedgerQueries, run: Run, start: RunStart, shots: Shots) -> list[Attempt]:
    """What failed for good in this command, but for candidates that others of their shot replaced."""
    gone, replaced = queries.attempts_in(run.run_id, FAILED_FOR_GOOD), shots.summary.replaced
    return [one for one in gone if _key(one) not in start.failed and one.request_id not in replaced]


def _key(attempt: Attempt) -> tuple[str, int]:
    return attempt.request_id, attempt.attempt


def _summary(
    job: RunJob,
    start: RunStart,
    *,
    totals: Totals,
    failed: Sequence[Attempt],
    ending: RunEnding,
    checks: RunChecks,
    exit_code: int,
    shots: Shots,
) -> RunSummary:
    workspace, run = job.workspace, job.run
    unknown = workspace.queries.attempts_in(run.run_id, (State.UNKNOWN,)) if totals.count(State.UNKNOWN) else []
    page = job.folder.path / PAGE
    # Code 3 hides a budget and what is not bought, code 8 a signal; the other codes and the first line say it all.
    is_hiding = exit_code == ExitCode.UNKNOWN or bool(ending.facts["budget_reached"] and ending.facts["stopped_by"])
    return RunSummary(
        run=workspace.queries.run(run.run_id) or run,
        folder=job.folder.path,
        sheet=page if page.exists() else job.folder.path / "report.csv",
        before=start.totals,
        totals=totals,
        exit_code=exit_code,
        elapsed_s=time.monotonic() - start.at,
        collects=job.options.collect,
        rendering_microusd=workspace.queries.price_in(run.run_id, RENDERING),
        unknown_microusd=sum(one.price_microusd for one in unknown),
        failed=tuple(failed),
        unknown=tuple(one.row_id for one in unknown),
        facts=ending.facts,
        hidden=ending.words if is_hiding else "",
        reasons=tuple(reason.text for reason in ending.reasons),
        missing_videos=ending.missing_videos,
        bad_clips=checks.failing(workspace.settings.checks.fail_on),
        checks=checks.counts(),
        started_by=started_by(workspace, run),
        keepers=shots.summary,
        next_candidates="" if job.options.buy else next_purchase(workspace, run, shots),
    )


def _print_end(session: SpendingSession, job: RunJob, summary: RunSummary) -> None:
    """The result in the run's log, as a line for programs, and on the terminal, as lines for the user."""
    line = summary_line(summary.totals, job.run.run_id)
    fields = {"summary": line, "checks": checks_line(summary.checks), "exit_code": summary.exit_code}
    with suppress(OSError):  # a full disk
        append_end(job.folder.path / "run.log", fields, also=sys.stderr if job.options.log_json else None)
    is_silent = job.options.log_json or not job.options.show_end
    if is_silent or (job.options.quiet and summary.exit_code in (ExitCode.DONE, ExitCode.NOTHING)):
        return
    for text in summary.lines():
        session.notify(text)


async def _shots_after_checks(session: SpendingSession, job: RunJob) -> Shots:
    """Where the run's shots stand once every clip is checked; a run without shots is checked after its tables."""
    workspace, run = session.workspace, job.run
    if not workspace.queries.shots(run.run_id, {}).statuses:
        return NO_SHOTS
    await _checked(session, job)
    try:
        return keep_results(workspace, run, checks_of(workspace, run))
    except LedgerError:  # a full disk: what is kept already says where they stand
        return workspace.queries.shots(run.run_id, latest_verdicts(workspace.ledger))


async def _landed(session: SpendingSession, job: RunJob) -> bool:
    """Put the reports into the object store, if configured; False, and a message for the user, if it is away."""
    landing = open_publisher(session.workspace.settings)
    problem = await landing.publish_reports(job.folder.path) if landing is not None else ""
    if problem:
        again = f"nothing is lost: `dop report {job.run.run_id}` puts it there"
        session.notify(f"{problem}; the report is in {job.folder.path} only; {again}")
    return not problem


async def _checked(session: SpendingSession, job: RunJob) -> bool:
    """Checks the new clips off the event loop; returns whether there were any.

    What goes wrong is a warning, and costs the run neither its tables nor its exit code.
    """
    if not session.workspace.settings.checks.enabled:
        return False
    from pipeline.reports.checks.check_run import check_run  # noqa: PLC0415 - brings numpy and the decoder

    stop = threading.Event()
    try:
        show_bar = job.options.show_bar and not job.options.quiet
        return await asyncio.to_thread(check_run, session.workspace, job.run, show_bar=show_bar, stop=stop) > 0
    except OSError as error:
        session.notify(f"warning: the clips could not be checked ({error}); `dop check {job.run.run_id}` does it")
        return False
    finally:
        # Also when this task is cancelled: the thread can't be, and would continue to check while the process wants to
        # end.
        stop.set()


def _reported(session: SpendingSession, job: RunJob) -> bool:
    """Writes the tables; False, and a message for the user, when the disk does not take them. The ledger has it all."""
    try:
        write_reports(session.workspace, job.run, job.folder)
    except OSError as error:
        again = f"nothing is lost: {remedy(error)}; `dop report {job.run.run_id}` writes it as well"
        session.notify(f"{job.folder.path}: the report can't be written ({error.strerror or error}); {again}")
        return False
    return True
