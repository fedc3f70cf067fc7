"""A worker's session: from one beginning of taking jobs to its end.

Its end is no loss: submits in flight are recorded, and everything else is in the ledger.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import psycopg

from pipeline.assets.publishing import open_publisher
from pipeline.config.gateway_address import is_loopback
from pipeline.config.network import network_environment
from pipeline.config.settings import Settings
from pipeline.errors import DopError
from pipeline.gateway.download import VideoFetcher
from pipeline.gateway.kinds import can_recover
from pipeline.gateway.ratelimit.limiter import parse_rate
from pipeline.gateway.webhook_tokens import CallbackDelivery
from pipeline.ledger.postgres_session import cause_of
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import counted
from pipeline.runner.cluster.callback_relay import CallbackRelay
from pipeline.runner.cluster.executors import RunExecutors
from pipeline.runner.cluster.job_claims import Claim, JobClaims, notifications
from pipeline.runner.cluster.job_queue import JobQueue
from pipeline.runner.cluster.job_taker import JobTaker, Load
from pipeline.runner.cluster.schedule import ScheduledRuns
from pipeline.runner.cluster.shared_limit import SharedPace
from pipeline.runner.cluster.shared_rate import SharedRateLimiter
from pipeline.runner.cluster.shared_rate_row import PostgresRateRow
from pipeline.runner.cluster.worker_pipeline import WorkerResources
from pipeline.runner.engine import gateway_client

MAINTENANCE_INTERVAL_S = 2.0
"""Seconds between two rounds of topping up the queue, taking back requests and signs of life."""

FROZEN_S = 1.0
"""Seconds between two checks of the clock for a gap."""

STOP_S = 10.0
"""Seconds within which the statement that takes jobs ends when the session does, or is given up."""

TROUBLES = (psycopg.Error, OSError, DopError)
"""Errors that end a session: a new one may do better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """What all sessions of a worker share. `key` is the gateway's; `url` the database's."""

    workspace: OpenLedger
    key: str
    url: str
    notify: Callable[[str], None]
    log: logging.Logger
    timetable: ScheduledRuns | None
    calls: CallbackRelay | None


class WorkerSession:
    """One session, which has a name of its own in the queue."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup
        self._settings = setup.workspace.settings
        self._why = ""
        self._over = asyncio.Event()
        self._stack = AsyncExitStack()
        self._silent_s = self._settings.cluster.stalled_after_s
        self._claims = JobClaims(setup.url, setup.workspace.gateway, uuid.uuid4().hex, silent_s=self._silent_s)
        self._taker = JobTaker(
            self._claims,
            load=lambda: Load(held=self._executors.active_count, unsent=self._executors.unsent),
            take_up=self._take_up,
            submits=self._settings.pace.submit_concurrency,
            holds=self._settings.cluster.holds,
        )

    async def __aenter__(self) -> WorkerSession:
        setup, settings = self._setup, self._settings
        stack = self._stack
        gateway, base_url = setup.workspace.gateway, settings.gateway.base_url
        try:
            client = await stack.enter_async_context(gateway_client(settings, base_url, setup.key))
            loopback = is_loopback(urlsplit(base_url).hostname or "")
            fetcher = await stack.enter_async_context(
                VideoFetcher(
                    gateway_is_loopback=loopback,
                    max_bytes=settings.download.max_bytes,
                    network=network_environment(os.environ),
                )
            )
            self.queue = JobQueue(setup.url, gateway, recovers=can_recover(setup.workspace.settings))
            stack.push_async_callback(self.queue.close)
            row = PostgresRateRow(setup.url, gateway)
            shared_rate = SharedRateLimiter(row)
            stack.push_async_callback(shared_rate.close)
            await row.configure(_pace_settings(settings))
            stack.push_async_callback(self._claims.close)
            await self._claims.sign()
        except BaseException:
            await stack.aclose()
            raise
        resources = WorkerResources(
            workspace=setup.workspace,
            queue=self.queue,
            shared_rate=shared_rate,
            client=client,
            fetcher=fetcher,
            publisher=open_publisher(settings),
            base_url=base_url,
            notify=setup.notify,
            on_failure=self.end,
            on_end=self._taker.ended,
            on_sent=self._taker.room_changed,
            log=setup.log,
            callbacks=setup.calls,
        )
        self._executors = RunExecutors(resources)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def active_count(self) -> int:
        """Requests in this worker's hands."""
        return self._executors.active_count

    def end(self, why: str) -> None:
        """End this session, for a reason (none: the worker must stop)."""
        self._why = self._why or why
        self._taker.stop()
        self._executors.start_no_more()
        self._over.set()

    def called(self, delivery: CallbackDelivery) -> bool:
        """A callback named this request; whether this worker processes it."""
        return self._executors.called(delivery)

    async def run(self) -> str:
        """Works until the session is stopped or the database is away; returns why."""
        taking = asyncio.create_task(self._end_on_trouble(self._taker.run()))
        gateway = self._setup.workspace.gateway
        work: list[Coroutine[None, None, None]] = [
            self._end_on_trouble(self._keep_signing()),
            self._maintain_queue(),
            self._watch_clock(),
            notifications(self._setup.url, gateway, self._taker.jobs_came),
        ]
        if self._setup.timetable is not None:
            work.append(self._end_on_trouble(self._setup.timetable.run(self._claims)))
        aside = [asyncio.create_task(one) for one in work]
        try:
            await self._over.wait()
        finally:
            await self._wind_up(taking, aside)
        return self._why

    async def _end_on_trouble(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - whatever it was, this session does half of its work: begin again
            self.end(cause_of(error))

    async def _wind_up(self, taking: asyncio.Task[None], aside: Sequence[asyncio.Task[None]]) -> None:
        self._taker.stop()
        self._over.set()
        # First: it may be handing on what it took. A statement that is cut off leaves its connection unusable.
        await asyncio.wait([taking], timeout=STOP_S)
        taking.cancel()
        await self._executors.close()
        if self._setup.timetable is not None:
            await self._setup.timetable.stop()
        for task in aside:
            task.cancel()
        await asyncio.gather(taking, *aside, return_exceptions=True)
        with suppress(*TROUBLES):  # the others go on with what is left, at once
            await self._taker.flush()
            await self.queue.top_up(self._settings.cluster.window)

    async def _take_up(self, claim: Claim) -> None:
        """One request's whole life begins here, from wherever the ledger says it is."""
        executor = await self._executors.of(claim.run_id)
        if executor is not None and claim.attempt is not None:
            executor.take_up(claim.attempt)
        else:
            self._taker.ended(claim.request_id, is_finished=not self._over.is_set())

    async def _keep_signing(self) -> None:
        """The sign of life that the other workers look for."""
        while True:
            await asyncio.wait_for(self._claims.sign(), self._silent_s / 2)
            await asyncio.sleep(self._silent_s / 5)

    # -- beside the work

    async def _maintain_queue(self) -> None:
        """Jobs of dead workers come back, and the queue follows the ledger. Every worker does both."""
        settings = self._settings.cluster
        while True:
            try:
                taken = await self.queue.take_back(self._silent_s)
                await self.queue.top_up(settings.window)
                await self._executors.maintain()
            except Exception as error:  # noqa: BLE001 - without this round no worker would take over: restart
                self.end(cause_of(error))
                return
            if taken:
                self._setup.notify(f"worker: takes over {counted(taken, 'request')} of a worker that is gone")
            await asyncio.sleep(MAINTENANCE_INTERVAL_S)

    async def _watch_clock(self) -> None:
        """A gap means that this process was frozen, and others may have taken over: nothing of before holds."""
        loop, limit_s = asyncio.get_running_loop(), self._silent_s / 2
        last = loop.time()
        while True:
            await asyncio.sleep(FROZEN_S)
            now = loop.time()
            if now - last > limit_s:
                self.end(f"was frozen for {now - last:.0f} s")
                return
            last = now


def _pace_settings(settings: Settings) -> SharedPace:
    pace = settings.pace
    return SharedPace(rate=parse_rate(pace.rate), burst=pace.burst, job_cap=pace.max_in_flight)
