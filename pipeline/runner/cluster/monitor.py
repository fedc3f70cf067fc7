"""Following a run that workers carry out: what the user sees meanwhile, and how it ended. Buys nothing itself."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from pipeline.errors import ExitCode, LedgerUnavailableError
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import FAILED_FOR_GOOD, IN_FLIGHT, State, Totals, counted
from pipeline.reports.progress import ProgressDisplay, ProgressSnapshot
from pipeline.runner.cluster.job_queue import JobQueue, StopNotice
from pipeline.runner.cluster.shot_keeper import mark_wanted_in
from pipeline.runner.failure_limit import FailureLimit
from pipeline.runner.run_job import StepsResult
from pipeline.runner.signals import SIGNALS, signal_handlers
from pipeline.runner.stop import StopReason, StopScope

if TYPE_CHECKING:
    from sqlalchemy import Connection

REFRESH_INTERVAL_S = 0.5
"""Seconds between two refreshes of the display, each of which asks the database."""
QUIET = 2
"""Polls in a row that find nothing queued and nothing due; after them no worker will continue the run."""
STOPPED = "buying is stopped on every host; what is paid is collected by the workers. The same command continues"
NO_WORKER_NOTICE_S = 10.0
"""Seconds without a sign of any worker before the user is notified."""


@dataclass(slots=True, kw_only=True)
class MonitorOptions:
    """One run that is followed.

    `before`: what the run came to when it was ordered. `silent_s`: a worker without a sign for so long is gone. `rule`
    and `max_duration_s` end the buying on every host; the latter counts from the call of `follow`.
    """

    workspace: OpenLedger
    queue: JobQueue
    run_id: str
    version: int
    buys: bool
    collects: bool
    before: Totals
    window: int
    silent_s: float
    notify: Callable[[str], None]
    rule: FailureLimit | None = None
    max_duration_s: float | None = None


async def follow(this: MonitorOptions, progress: ProgressDisplay) -> StepsResult:
    """Watch until nothing of the run is queued or in a worker's hands, its time is over, or a signal comes."""
    caught: list[signal.Signals] = []
    stop = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        caught.append(number)
        stop.set()

    with signal_handlers(on_signal):
        monitor = RunMonitor(this, progress)
        while not caught and not monitor.over:
            with suppress(psycopg.Error, OSError, LedgerUnavailableError):  # it is waited for, as the workers do
                await monitor.once()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), monitor.pause_s)
        if caught:
            reason = StopNotice(text=f"stopped by {caught[0].name}", exit_code=SIGNALS[caught[0]])
            await this.queue.put_stop_notice(this.run_id, this.version, reason)
        return await _ended(this, left_alone=bool(caught) or monitor.is_cut)


class RunMonitor:
    """Watches one run from this process. `over`: there is nothing to wait for; `is_cut`: its time is over."""

    def __init__(self, this: MonitorOptions, progress: ProgressDisplay) -> None:
        self._this, self._progress = this, progress
        self._began = self._lonely_since = time.monotonic()
        self._quiet = 0
        self._said_lonely = self._ruled = False
        self.is_cut = False

    @property
    def over(self) -> bool:
        """Whether this was the last round."""
        return self.is_cut or self._quiet >= QUIET

    @property
    def pause_s(self) -> float:
        """Seconds until the next round; the end of its time is met."""
        if self.over:
            return 0.0
        limit_s = self._this.max_duration_s
        left_s = REFRESH_INTERVAL_S if limit_s is None else self._began + limit_s - time.monotonic()
        return (
            min(REFRESH_INTERVAL_S, left_s) if left_s > 0 else REFRESH_INTERVAL_S
        )  # past it, the database is away: it is tried again

    async def once(self) -> None:
        """One round; stops the buying on every host where this command must stop it.

        The workers top up the queue. Only where nothing is left in it, this process checks whether all is done.
        """
        this = self._this
        if await self._too_long():
            return
        busy = await this.queue.live(this.run_id) or await self._topped_up()
        totals = await _totals(this)
        await self._judge(totals)
        halted = bool(await this.queue.stop_notices(this.run_id))
        planned = totals.count(State.PLANNED) - await this.queue.set_aside(this.run_id)
        self._quiet = 0 if busy or self._is_due(totals, planned, halted=halted) else self._quiet + 1
        await self._check_workers()
        self._progress.update(_snapshot(totals, this.before, time.monotonic() - self._began, halted=halted))

    async def _topped_up(self) -> int:
        """How many requests were queued here; candidates that a worker did not live to ask for among them."""
        await asyncio.to_thread(mark_wanted_in, self._this.workspace, self._this.run_id)
        return await self._this.queue.top_up(self._this.window)

    def _is_due(self, totals: Totals, planned: int, *, halted: bool) -> bool:
        """Whether the ledger has work for the workers; the queue may be full of other runs' meanwhile.

        `planned` leaves out what the workers set aside: they do not take it up again under this order.
        """
        due = {State.SUBMITTING}
        due |= {State.ACCEPTED} if self._this.collects else set()
        return totals.count(*due) > 0 or (planned > 0 and self._this.buys and not halted)

    async def _too_long(self) -> bool:
        limit_s = self._this.max_duration_s
        if limit_s is None or time.monotonic() - self._began < limit_s:
            return False
        await self._stop(f"--max-duration of {limit_s:g} s is over")
        self.is_cut = True
        return True

    async def _judge(self, totals: Totals) -> None:
        this = self._this
        if self._ruled or this.rule is None or not this.rule.reached(this.before, totals):
            return
        failed = totals.count(*FAILED_FOR_GOOD) - this.before.count(*FAILED_FOR_GOOD)
        await self._stop(f"--halt: {counted(failed, 'request')} failed")
        self._ruled = True

    async def _stop(self, text: str) -> None:
        await self._this.queue.put_stop_notice(
            self._this.run_id, self._this.version, StopNotice(text=text, exit_code=ExitCode.UNFINISHED)
        )

    async def _check_workers(self) -> None:
        if await self._this.queue.workers(self._this.silent_s):
            self._lonely_since = time.monotonic()
        elif not self._said_lonely and time.monotonic() - self._lonely_since > NO_WORKER_NOTICE_S:
            self._said_lonely = True
            self._this.notify("no worker is there: start one with `dop worker`; this command waits")


async def _ended(this: MonitorOptions, *, left_alone: bool) -> StepsResult:
    """How it ended; `left_alone`: the workers go on with what is paid."""
    if left_alone:
        this.notify(STOPPED if this.buys else "the workers go on; the same command follows them again")
    halts = await this.queue.stop_notices(this.run_id)
    if not left_alone:
        await this.queue.close_order(this.run_id, this.version)
    totals = await _totals(this)
    reasons = tuple(StopReason(text=one.text, exit_code=one.exit_code, reach=StopScope.SUBMITS) for one in halts)
    return StepsResult(totals=totals, reasons=reasons, submits=0, polls=0)


def counts_of(connection: Connection, run_id: str) -> Totals:
    """What a run came to, without its money, as the transaction of `connection` sees it."""
    text = (
        "SELECT a.state, count(*) FROM run_rows r JOIN attempts a ON a.request_id = r.request_id AND a.superseded = 0 "
        "WHERE r.run_id = %(run_id)s AND (a.state <> 'planned' OR r.wanted = 1) GROUP BY a.state"
    )
    found = connection.exec_driver_sql(text, {"run_id": run_id})
    return Totals(counts={State(state): number for state, number in found})


async def _totals(this: MonitorOptions) -> Totals:
    return await asyncio.to_thread(this.workspace.queries.totals, this.run_id)


def _snapshot(totals: Totals, before: Totals, seconds: float, *, halted: bool) -> ProgressSnapshot:
    planned = totals.count(State.PLANNED)
    rate = (before.count(State.PLANNED) - planned) / max(seconds, 1.0)
    return ProgressSnapshot(
        phase="buying" if planned and not halted else "collecting",
        total=sum(totals.counts.values()),
        finished=totals.count(State.DONE, *FAILED_FOR_GOOD),
        done=totals.count(State.DONE),
        failed=totals.count(*(FAILED_FOR_GOOD - {State.REFUSED})),
        refused=totals.count(State.REFUSED),
        unknown=totals.count(State.UNKNOWN),
        in_flight=totals.count(*IN_FLIGHT),
        planned=planned,
        confirmed_microusd=totals.confirmed_microusd,
        worst_microusd=totals.worst_microusd,
        rate_per_s=max(rate, 0.0),
        eta_s=None,
    )
