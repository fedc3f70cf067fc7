"""`run`, `submit` and `collect` with --cluster: orders the work, follows the workers, reports. Buys nothing itself."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.assets import image_checks
from pipeline.assets.publishing import open_publisher
from pipeline.cli.announce import Endings, print_offer
from pipeline.cli.arguments import ask_to_trust, print_notice, print_warnings, seconds
from pipeline.cli.notifier import notifying
from pipeline.cli.spending import agreed, buying_account, spending_session
from pipeline.config.api_key import read_key
from pipeline.config.settings import Settings
from pipeline.errors import ExitCode, UsageError
from pipeline.gateway.kinds import can_recover, kind_of
from pipeline.ledger.budget import NO_CAPS, Caps, lowest
from pipeline.ledger.run_registry import Run
from pipeline.ledger.workspace import OpenLedger, open_shared
from pipeline.planning.against_ledger import Offer, make_offer
from pipeline.planning.run_setup import PurchaseOrder, list_run, open_run, runs_to_collect, worst_exit_code
from pipeline.records import Totals
from pipeline.reports.progress import ProgressDisplay
from pipeline.reports.run_folder import RunFolder
from pipeline.runner import event_loop
from pipeline.runner.cluster.requirements import database
from pipeline.runner.credentials import resolve_api_key
from pipeline.runner.finish import RunStart, finish, start_of
from pipeline.runner.price_check import check_prices
from pipeline.runner.run_job import RunInputs, RunOptions, SpendingSession, StepsResult
from pipeline.runner.session import check_images, prepare

if TYPE_CHECKING:
    from sqlalchemy import Connection

LOCK_MAX_WAIT_S = 60.0
"""The first worker checks the whole ledger before it lets others in; a plain run may be about to end."""

NOT_HERE = {
    "pilot": "buy a few with --first N, look at them, then run the whole manifest",
    "max_new": "bound it by rows (--first N) or money (--max-cost USD)",
    "webhook": "the workers take the calls: start them with `dop worker --webhook`",
    "no_download": "set download.enabled: false in the workers' configuration",
    "rate": "set pace.rate in the workers' configuration: they share one pace",
    "max_in_flight": "set pace.max_in_flight in the workers' configuration: they share one bound",
    "log_json": "what is done is done, and logged, by the workers",
}
"""Flags that belong to one machine, or to the workers' configuration, and what to do instead."""


def check(args: argparse.Namespace, settings: Settings) -> str:
    """The database's URL, once nothing speaks against a cluster.

    Raises:
        UsageError: a flag or a setting does; nothing was sent.
    """
    for name, instead in NOT_HERE.items():
        if getattr(args, name, None):
            raise UsageError(f"--{name.replace('_', '-')} is not for --cluster: {instead}; nothing was sent")
    return database(settings)


def run_ordered(args: argparse.Namespace, settings: Settings, order: PurchaseOrder, options: RunOptions) -> int:
    """Orders a manifest's run, in the transaction that writes its rows down, and follows it. Leads to purchases."""
    endings = Endings()
    with _session(args, settings, endings) as opened:
        workspace = opened.workspace
        # MONEY: read before the offer is made: what workers give back meanwhile is in this sum, or in the offer.
        origin = str(order.bound.manifest.origin.resolve())
        earlier = workspace.queries.unfinished_run(origin, workspace.gateway, order.bound.selection.part)
        spent = workspace.queries.totals(earlier.run_id).worst_microusd if earlier is not None else 0
        offer = make_offer(order.bound, settings, workspace.queries, announced=order.plan, must_be_checked=True)
        print_offer(args, settings, order, offer)
        _check_prices(settings, offer)
        if not agreed(args, order, offer, settings, workspace):
            return ExitCode.USAGE

        before: list[Totals] = []
        caps = NO_CAPS

        def put(connection: Connection, run_id: str) -> None:
            if offer.summary.sha256_of:
                raise UsageError(
                    "a cluster's images must be at addresses that the gateway can read: local files are on one "
                    "machine only; nothing was sent"
                )
            # MONEY: workers may spend what is spent already, and what was agreed, and not a cent more.
            most = Caps(run_microusd=spent + offer.agreement.price_microusd)
            before.append(_put(connection, workspace.settings, run_id, options, lowest((caps, most))))

        if options.preflight and image_checks.wanted(settings):  # before anything is queued: a worker may be quick
            asyncio.run(check_images(opened, open_run(workspace, order, offer), options))
        if options.buy and (problem := _store_problem(workspace, order, offer)):
            print_notice([f"nothing is bought: {problem}"])
            return ExitCode.UNFINISHED
        # Listed first without an order: its caps are those of a run, and a worker must not begin before they are known.
        listed, caps = list_run(workspace, order, offer)
        # Before the order: what workers do from then on is this command's doing.
        start = start_of(opened, listed)
        found = open_run(workspace, order, offer, put)
        _measure(workspace)
        print_warnings(offer.summary.warnings)
        manifest = order.bound.manifest.path
        code = _followed(opened, found, caps, options, before=before[-1], start=start, manifest=manifest)
    endings.print_json(args, code)
    return code


def _check_prices(settings: Settings, offer: Offer) -> None:
    """Compare prices where this host has a key; the workers' hosts have one, this one need not."""
    if read_key(os.environ, Path.home(), kind_of(settings).credential) is None:
        return
    key = resolve_api_key(settings, ask=ask_to_trust)
    print_warnings(asyncio.run(check_prices(settings, key, offer.models)))


def _store_problem(workspace: OpenLedger, order: PurchaseOrder, offer: Offer) -> str:
    """MONEY: before a worker may buy: what is wrong with the store that is to take it; "" where there is none."""
    landing = open_publisher(workspace.settings)
    if landing is None:
        return ""
    folder = RunFolder(workspace.outputs, open_run(workspace, order, offer).run_id)
    folder.make(order.bound.manifest.path)
    return asyncio.run(landing.check_writable(folder.path))


def collect_on_cluster(args: argparse.Namespace, settings: Settings, options: RunOptions) -> int:
    """Has the workers poll and fetch what is bought. Never spends."""
    check(args, settings)
    codes, endings = [], Endings()
    with _session(args, settings, endings) as opened:
        workspace = opened.workspace
        for run in runs_to_collect(workspace, args.run):
            start = start_of(opened, run)
            before = _put_alone(workspace, run.run_id, options)
            _measure(workspace)
            codes.append(_followed(opened, run, NO_CAPS, options, before=before, start=start, manifest=None))
    code = worst_exit_code(codes, nothing=args.error_on_nothing)
    endings.print_json(args, code, several=True)
    return code


def _put(connection: Connection, settings: Settings, run_id: str, options: RunOptions, caps: Caps) -> Totals:
    """Orders a run; what it came to before any worker could know."""
    from pipeline.config.loader import gateway_id
    from pipeline.runner.cluster.job_queue import put_order
    from pipeline.runner.cluster.monitor import counts_of

    put_order(
        connection,
        run_id=run_id,
        gateway=gateway_id(settings),
        buy=options.buy,
        collect=options.collect,
        caps=caps,
        window=settings.cluster.window,
        files=settings.download.enabled,
        recovers=can_recover(settings),
    )
    return counts_of(connection, run_id)


def _put_alone(workspace: OpenLedger, run_id: str, options: RunOptions) -> Totals:
    before: list[Totals] = []
    workspace.ledger.transact(
        lambda connection: before.append(_put(connection, workspace.settings, run_id, options, NO_CAPS))
    )
    return before[-1]


def _measure(workspace: OpenLedger) -> None:
    """Have the server analyze the tables that have just grown.

    Without this it takes some minutes. Until then it takes them for empty, and each query for the next job, and for
    the counts of a run, costs it a second of its time for some thousands of rows.
    """
    workspace.ledger.transact(
        lambda connection: connection.exec_driver_sql("ANALYZE run_rows, attempts, dop_jobs"), alone=False
    )


@contextmanager
def _session(args: argparse.Namespace, settings: Settings, endings: Endings) -> Iterator[SpendingSession]:
    """The ledger beside the workers. Nothing is sent from here; a key, where there is one, names the account."""
    from pipeline.runner.cluster.tables import prepare

    url = database(settings)
    lock_wait_s = seconds(args.lock_wait, "--lock-wait")
    wait_s = LOCK_MAX_WAIT_S if lock_wait_s is None else lock_wait_s
    account = buying_account(settings, read_key(os.environ, Path.home(), kind_of(settings).credential), args)
    with (
        notifying(settings, args.verb) as notifier,
        open_shared(settings, wait_s=wait_s, now=time.time(), account=account) as workspace,
    ):
        prepare(url)
        print_notice(workspace.notices)
        yield spending_session(workspace, "", endings, notifier)


def _followed(
    opened: SpendingSession,
    run: Run,
    caps: Caps,
    options: RunOptions,
    *,
    before: Totals,
    start: RunStart,
    manifest: Path | None,
) -> int:
    async def all_of_it() -> int:
        job = prepare(opened, RunInputs(run=run, caps=caps, options=options, manifest=manifest))
        with ProgressDisplay(clock=time.monotonic, show_bar=options.show_bar, quiet=options.quiet) as progress:
            result = await _result(opened, run, options, before, progress)
        return (await finish(opened, job, result, start)).exit_code

    return event_loop.run(all_of_it())


async def _result(
    opened: SpendingSession, run: Run, options: RunOptions, before: Totals, progress: ProgressDisplay
) -> StepsResult:
    from pipeline.runner.cluster.job_queue import JobQueue
    from pipeline.runner.cluster.monitor import MonitorOptions, follow

    workspace = opened.workspace
    settings = workspace.settings
    queue = JobQueue(settings.ledger.url or "", workspace.gateway, recovers=can_recover(settings))
    try:
        order = await queue.order(run.run_id)
        if order is None:
            raise UsageError(f"run {run.run_id} was closed by another command meanwhile")
        return await follow(
            MonitorOptions(
                workspace=workspace,
                queue=queue,
                run_id=run.run_id,
                version=order.version,
                buys=options.buy,
                collects=options.collect,
                before=before,
                window=settings.cluster.window,
                silent_s=settings.cluster.stalled_after_s,
                notify=progress.print_line,
                rule=options.halt,
                max_duration_s=options.max_duration_s,
            ),
            progress,
        )
    finally:
        await queue.close()
