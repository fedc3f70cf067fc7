"""`dop worker`: one more machine of a cluster, its health, and the queue rebuilt."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time

from pipeline.cli.arguments import print_notice, settings_of
from pipeline.cli.commands.run_on_cluster import LOCK_MAX_WAIT_S
from pipeline.cli.spending import buying_account
from pipeline.config.loader import gateway_id
from pipeline.config.settings import Settings
from pipeline.gateway.kinds import can_recover
from pipeline.ledger.postgres_session import address
from pipeline.ledger.workspace import open_shared
from pipeline.records import counted
from pipeline.runner import event_loop
from pipeline.runner.cluster.requirements import database
from pipeline.runner.credentials import resolve_api_key

UNHEALTHY = 5
"""Exit code of `dop worker health` when the worker shows no recent sign of life."""


def worker(args: argparse.Namespace) -> int:
    """Processes requests until a signal ends it. Pays, as far as runs are ordered."""
    settings = settings_of(args)
    url = database(settings)
    if args.health:
        return _health(settings, url)
    if args.rebuild_queue:
        return _rebuild(settings, url)
    return _work(args, settings, url)


def _health(settings: Settings, url: str) -> int:
    from pipeline.runner.cluster.heartbeat import HeartbeatFiles

    signs, now = HeartbeatFiles(f"{address(url)} {gateway_id(settings)}"), time.time()
    workers = [
        {"pid": one.pid, "state": one.state, "holding": one.holding, "silent_s": round(now - one.at, 1)}
        for one in signs.read()
    ]
    well = signs.healthy(now)
    print(json.dumps({"healthy": well, "workers": workers}))
    return 0 if well else UNHEALTHY


def _rebuild(settings: Settings, url: str) -> int:
    from pipeline.runner.cluster.job_queue import JobQueue
    from pipeline.runner.cluster.tables import prepare

    async def rebuild() -> tuple[int, int]:
        queue = JobQueue(url, gateway_id(settings), recovers=can_recover(settings))
        try:
            return await queue.rebuild(settings.cluster.window, settings.cluster.stalled_after_s)
        finally:
            await queue.close()

    with open_shared(settings, wait_s=LOCK_MAX_WAIT_S, now=time.time()) as workspace:
        print_notice(workspace.notices)
        prepare(url)
        dropped, queued = asyncio.run(rebuild())
    print_notice([f"{counted(dropped, 'job')} dropped, {queued} queued from the ledger"])
    return 0


def _work(args: argparse.Namespace, settings: Settings, url: str) -> int:
    from pipeline.runner.cluster.callback_relay import CallbackRelay
    from pipeline.runner.cluster.schedule import ScheduledRuns
    from pipeline.runner.cluster.worker import Worker

    def notify(line: str) -> None:
        print_notice([line])

    key = resolve_api_key(settings)
    timetable = None
    if settings.schedule.cron is not None:
        timetable = ScheduledRuns(settings.schedule.cron, _scheduled(args, settings), notify)
    account = buying_account(settings, key, args)
    with open_shared(settings, wait_s=LOCK_MAX_WAIT_S, now=time.time(), account=account) as workspace:
        print_notice(workspace.notices)
        workspace.ledger.report_to(notify)
        notify(f"worker: ready for {workspace.gateway}")

        async def run_worker() -> int:
            calls = CallbackRelay(settings, url, workspace.gateway, warn=notify) if args.webhook else None
            return await Worker(
                workspace=workspace, key=key, url=url, notify=notify, timetable=timetable, calls=calls
            ).run()

        return event_loop.run(run_worker())


def _scheduled(args: argparse.Namespace, settings: Settings) -> list[str]:
    """The command line of the scheduled run: this worker's configuration, and no agreement but a budget."""
    command = [sys.executable, "-m", "pipeline", "run", str(settings.schedule.manifest), "--cluster", "--no-progress"]
    if args.config is not None:
        command += ["--config", str(args.config)]
    if args.outputs is not None:
        command += ["--outputs", args.outputs]
    for pair in args.set or []:
        command += ["--set", pair]
    return command
