"""A worker's session: from one start of the queue's engine to its end.

Its end is no loss: submits in flight are recorded, and everything else is in the ledger.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import procrastinate
import psycopg
from procrastinate import jobs
from procrastinate.exceptions import ProcrastinateException
from procrastinate.manager import JobManager

from pipeline.assets.publishing import open_publisher
from pipeline.config.gateway_address import is_loopback
from pipeline.config.network import network_environment
from pipeline.config.settings import Settings
from pipeline.errors import DopError
from pipeline.gateway.download import VideoFetcher
from pipeline.gateway.kinds import can_recover
from pipeline.gateway.ratelimit.limiter import parse_rate
from pipeline.gateway.webhook_tokens import CallbackDelivery
from pipeline.ledger.postgres_session import cause_of, client
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import Attempt, counted
from pipeline.runner.cluster.callback_relay import CallbackRelay
from pipeline.runner.cluster.executors import RunExecutors
from pipeline.runner.cluster.job_queue import COLLECT_SUFFIX, TASK, JobQueue, queues
from pipeline.runner.cluster.run_executor import RunExecutor
from pipeline.runner.cluster.schedule import ScheduledRuns
from pipeline.runner.cluster.shared_limit import SharedPace
from pipeline.runner.cluster.shared_rate import PostgresRateRow, SharedRateLimiter
from pipeline.runner.cluster.worker_pipeline import WorkerResources
from pipeline.runner.engine import gateway_client

FETCH_INTERVAL_S = 0.5
"""Seconds between two questions for the next job while none is there."""

MAINTENANCE_INTERVAL_S = 2.0
"""Seconds between two rounds of topping up the queue, taking back requests and signs of life."""

FROZEN_S = 1.0
"""Seconds between two checks of the clock for a gap."""

TROUBLES = (psycopg.Error, ProcrastinateException, OSError, DopError)
"""Errors that end a session: a new one may do better."""


class _RequestReleasedError(Exception):
    """This worker let go of a request before its end: the job goes back into the queue."""


class ThrottledJobManager(JobManager):
    """The engine's manager, which fetches nothing to buy while enough waits here, and nothing once it is stopped."""

    def __init__(self, connector: procrastinate.BaseConnector, has_room: Callable[[], bool]) -> None:
        super().__init__(connector)
        self._has_room = has_room
        self._stopped = False
        self.to_buy = 0
        """jobs handed out to buy that are not taken up yet"""

    def stop(self) -> None:
        """Fetch no more jobs."""
        self._stopped = True

    def taken_up(self) -> None:
        """A job that was handed out is taken up by its run's executor."""
        self.to_buy = max(0, self.to_buy - 1)

    async def fetch_job(self, queues: Sequence[str] | None, worker_id: int) -> jobs.Job | None:  # type: ignore[override]
        """The next job that this worker can use."""
        if self._stopped:
            return None
        if queues is not None and not self._has_room():
            queues = [name for name in queues if name.endswith(COLLECT_SUFFIX)]
        job = await super().fetch_job(queues=queues, worker_id=worker_id)
        self.to_buy += job is not None and job.task_name == TASK and not job.queue.endswith(COLLECT_SUFFIX)
        return job


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
    """From one start of the engine to its end."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup
        self._settings = setup.workspace.settings
        self._why = ""
        self._over = asyncio.Event()
        self._stack = AsyncExitStack()
        connector = procrastinate.PsycopgConnector(
            conninfo=setup.url, min_size=1, max_size=8, kwargs=client(setup.url), timeout=10
        )
        self._app = procrastinate.App(connector=connector)
        self._manager = ThrottledJobManager(connector, self._has_room)
        self._app.job_manager = self._manager
        again = procrastinate.RetryStrategy(retry_exceptions={_RequestReleasedError})
        self._app.task(name=TASK, retry=again)(self.process_request)
        if setup.timetable is not None:
            setup.timetable.enter(self._app, setup.workspace.gateway)

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
            await stack.enter_async_context(self._app.open_async())
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
        self._manager.stop()
        self._executors.start_no_more()
        self._over.set()

    def called(self, delivery: CallbackDelivery) -> bool:
        """A callback named this request; whether this worker processes it."""
        return self._executors.called(delivery)

    def _has_room(self) -> bool:
        """A worker takes up little more than it can submit soon, so that others have their share."""
        unsent = self._manager.to_buy + self._executors.unsent
        return unsent < 2 * self._settings.pace.submit_concurrency

    async def run(self) -> str:
        """Works until the engine ends or the session is stopped; returns why."""
        settings = self._settings.cluster
        engine = asyncio.create_task(
            self._app.run_worker_async(
                queues=[*queues(self._setup.workspace.gateway), *self._more_queues()],
                concurrency=settings.holds,
                fetch_job_polling_interval=FETCH_INTERVAL_S,
                delete_jobs="successful",
                install_signal_handlers=False,
                update_heartbeat_interval=settings.stalled_after_s / 5,
                stalled_worker_timeout=settings.stalled_after_s,
            )
        )
        aside = [asyncio.create_task(work) for work in (self._maintain_queue(), self._watch_clock(), self._over.wait())]
        try:
            await asyncio.wait([engine, aside[-1]], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._wind_up(engine, aside)
        return self._why

    def _more_queues(self) -> list[str]:
        return self._setup.timetable.queues(self._setup.workspace.gateway) if self._setup.timetable is not None else []

    async def _wind_up(self, engine: asyncio.Task[None], aside: Sequence[asyncio.Task[object]]) -> None:
        self._manager.stop()
        self._over.set()
        # Before the engine is cancelled: its jobs wait for what the executors are doing.
        await self._executors.close()
        if self._setup.timetable is not None:
            await self._setup.timetable.stop()
        engine.cancel()  # the engine's own way to stop: it waits for its jobs, which have ended
        for task in aside:
            task.cancel()
        ended = await asyncio.gather(engine, *aside, return_exceptions=True)
        if isinstance(ended[0], Exception):
            self._why = self._why or cause_of(ended[0])
        with suppress(*TROUBLES):  # the others go on with what is left, at once
            await self.queue.top_up(self._settings.cluster.window)

    async def process_request(self, request_id: str, run_id: str) -> None:
        """The engine's task: one request's whole life, from wherever the ledger says it is.

        Raises:
            _RequestReleasedError: it is not over; another worker takes it up.
        """
        try:
            found = await self._found(request_id, run_id)
            if found is not None:
                executor, attempt = found
                if not await executor.process_request(attempt):
                    raise _RequestReleasedError
            elif self._over.is_set():
                raise _RequestReleasedError
        except TROUBLES as error:
            self.end(cause_of(error))
            raise _RequestReleasedError from None

    async def _found(self, request_id: str, run_id: str) -> tuple[RunExecutor, Attempt] | None:
        try:
            executor = await self._executors.of(run_id)
            if executor is None:
                return None
            attempt = await asyncio.to_thread(self._setup.workspace.queries.listed, run_id, request_id)
            return None if attempt is None else (executor, attempt)
        finally:
            self._manager.taken_up()

    # -- beside the work

    async def _maintain_queue(self) -> None:
        """Jobs of dead workers come back, and the queue follows the ledger. Every worker does both."""
        settings = self._settings.cluster
        while True:
            try:
                taken = await self.queue.take_back(settings.stalled_after_s)
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
        loop, limit_s = asyncio.get_running_loop(), self._settings.cluster.stalled_after_s / 2
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
