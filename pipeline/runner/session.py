"""One run from an open ledger to its report and exit code: what every verb that spends or collects goes through."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from pipeline.assets import image_checks
from pipeline.ledger.run_registry import Run
from pipeline.reports.missing_videos import mark_missing, missing_videos
from pipeline.reports.run_ending import near_path
from pipeline.reports.run_folder import RunFolder
from pipeline.runner import event_loop
from pipeline.runner.engine import execute
from pipeline.runner.finish import RunOutcome, finish, start_of
from pipeline.runner.run_job import RunInputs, RunJob, RunOptions, SpendingSession

MAX_NAMED = 10
"""Missing videos that are named one by one, so that a removed folder does not fill the terminal."""


def prepare(
    session: SpendingSession,
    inputs: RunInputs,
) -> RunJob:
    """The run's folder made and everything in place to carry it out.

    Raises:
        UsageError: the folder can't be written; nothing was sent.
    """
    folder = RunFolder(session.workspace.outputs, inputs.run.run_id)
    folder.make(inputs.manifest)
    return RunJob(
        workspace=session.workspace,
        run=inputs.run,
        folder=folder,
        caps=inputs.caps,
        key=session.key,
        sha256_of=dict(inputs.sha256_of),
        options=inputs.options,
        needs_user=partial(session.needs_user, inputs.run),
    )


async def run_session_async(
    session: SpendingSession,
    inputs: RunInputs,
) -> RunOutcome:
    """Carries a run out and reports it in the caller's event loop. Pays when `options.buy` is set.

    Raises:
        UsageError: the run's folder can't be written; nothing was sent.
        ManifestError: an image that no video can be made of; nothing was sent.
    """
    if inputs.options.collect:
        fetch_missing_again(session, inputs.run)
    # After missing videos were marked: to fetch them again is work of this command.
    start = start_of(session, inputs.run)
    if inputs.options.buy and inputs.options.preflight:
        await check_images(session, inputs.run, inputs.options)
    job = prepare(session, inputs)
    result = await execute(job)
    return await finish(session, job, result, start)


def fetch_missing_again(session: SpendingSession, run: Run) -> None:
    """Write to the ledger which videos of the run are gone, so that this session fetches them again, free of charge."""
    workspace = session.workspace
    missing = missing_videos(workspace, run) if workspace.settings.download.enabled else []
    mark_missing(workspace, missing, now=time.time())
    for video in missing[:MAX_NAMED]:
        session.notify(f"{video}; it is fetched again, free of charge")
    if len(missing) > MAX_NAMED:
        session.notify(f"so are {len(missing) - MAX_NAMED} other videos")


async def check_images(session: SpendingSession, run: Run, options: RunOptions) -> None:
    """MONEY: before the first submit; a picture that is not there would be paid for and refused."""
    workspace = session.workspace
    if not image_checks.wanted(workspace.settings):
        return
    warnings = await image_checks.check_images(
        workspace.settings,
        workspace.queries,
        run.run_id,
        manifest=Path(near_path(Path(run.manifest_path))),
        only=options.agreement,
        now=time.time(),
    )
    for warning in warnings:
        session.notify(f"warning: {warning}")


def run_session(
    session: SpendingSession,
    inputs: RunInputs,
) -> int:
    """The same for a command, which has no event loop of its own; returns the exit code. Pays likewise."""
    return event_loop.run(run_session_async(session, inputs)).exit_code
