"""Following a run that workers carry out: what a person sees meanwhile, and how it ended. Buys nothing itself."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psycopg

from pipeline.cluster.jobqueue import Halted, JobQueue
from pipeline.errors import LedgerAwayError
from pipeline.records import FAILED_FOR_GOOD, IN_FLIGHT, State, Totals
from pipeline.report.progress import Progress, Snapshot
from pipeline.run import SIGNALS, Result
from pipeline.steps.halt import Reach, Reason
from pipeline.workspace import Workspace

LOOK_S = 0.5
QUIET = 2
"""Looks in a row that find nothing queued and nothing to queue: then nobody will go on by himself."""
LONELY_S = 10.0
"""How long no worker may be heard of before a person is told."""


@dataclass(slots=True, kw_only=True)
class Following:
    """One run that is followed. `silent_s`: a worker not heard of for so long is gone."""

    workspace: Workspace
    queue: JobQueue
    run_id: str
    version: int
    window: int
    silent_s: float
    say: Callable[[str], None]


async def follow(this: Following, progress: Progress) -> Result:
    """Looks until nothing of the run is queued or in a worker's hands, or a signal comes."""
    heard: list[signal.Signals] = []
    stop = asyncio.Event()
    with _signals(heard, stop):
        quiet, lonely_since, told = 0, time.monotonic(), False
        began, before = time.monotonic(), await _totals(this)
        totals = before
        while not heard and quiet < QUIET:
            with suppress(psycopg.Error, OSError, LedgerAwayError):  # it is waited for, as the workers do
                topped = await this.queue.top_up(this.window)
                live = await this.queue.live(this.run_id)
                totals = await _totals(this)
                quiet = 0 if live or topped else quiet + 1
                if await this.queue.workers(this.silent_s):
                    lonely_since = time.monotonic()
                elif not told and time.monotonic() - lonely_since > LONELY_S:
                    told = True
                    this.say("no worker is there: start one with `dop worker`; this command waits")
                progress.update(_snapshot(totals, before, time.monotonic() - began))
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_S)
        return await _ended(this, heard)


async def _ended(this: Following, heard: list[signal.Signals]) -> Result:
    if heard:
        reason = Halted(text=f"stopped by {heard[0].name}", exit_code=SIGNALS[heard[0]])
        await this.queue.halt(this.run_id, this.version, reason)
        this.say("buying is stopped on every host; what is paid is collected by the workers. The same command goes on")
    halts = await this.queue.halts(this.run_id)
    if not heard:
        await this.queue.close_order(this.run_id, this.version)
    totals = await _totals(this)
    reasons = tuple(Reason(text=one.text, exit_code=one.exit_code, reach=Reach.SUBMITS) for one in halts)
    return Result(totals=totals, reasons=reasons, submits=0, polls=0)


async def _totals(this: Following) -> Totals:
    return await asyncio.to_thread(this.workspace.book.totals, this.run_id)


def _snapshot(totals: Totals, before: Totals, seconds: float) -> Snapshot:
    planned = totals.count(State.PLANNED)
    rate = (before.count(State.PLANNED) - planned) / max(seconds, 1.0)
    return Snapshot(
        phase="buying" if planned else "collecting",
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


@contextmanager
def _signals(heard: list[signal.Signals], stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def caught(number: signal.Signals) -> None:
        heard.append(number)
        stop.set()

    for number in SIGNALS:
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, caught, number)
    try:
        yield
    finally:
        for number in SIGNALS:
            with suppress(NotImplementedError, RuntimeError, ValueError):
                loop.remove_signal_handler(number)
