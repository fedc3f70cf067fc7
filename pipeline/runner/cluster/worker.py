"""A worker: takes requests from the queue and processes them until it receives a stop signal.

The worker restarts its session when it ends (the database restarted, this process was frozen, a step broke):
submits in flight are recorded, everything else is dropped, and after a pause a new session starts. The ledger outlives
sessions: it waits for its server. The queue does not prevent that a request is bought twice; the ledger does.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field

from pipeline.gateway.webhook_tokens import CallbackDelivery
from pipeline.ledger.postgres_session import address, cause_of
from pipeline.ledger.workspace import OpenLedger
from pipeline.runner.cluster.callback_relay import CallbackRelay
from pipeline.runner.cluster.heartbeat import HeartbeatFiles
from pipeline.runner.cluster.schedule import ScheduledRuns
from pipeline.runner.cluster.tables import prepare
from pipeline.runner.cluster.worker_session import MAINTENANCE_INTERVAL_S, TROUBLES, WorkerSession, WorkerSetup
from pipeline.runner.signals import signal_handlers

FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 30.0
"""Seconds before a new session; doubled from one to the next, up to the second."""

WELL_S = 60.0
"""A session that lasted so many seconds was a good one: the next pause is short again."""


@dataclass(slots=True, kw_only=True)
class Worker:
    """One worker process. `key` is the gateway's; `url` the database's; `calls` where callbacks are wanted."""

    workspace: OpenLedger
    key: str
    url: str
    notify: Callable[[str], None]
    timetable: ScheduledRuns | None = None
    calls: CallbackRelay | None = None
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("pipeline.run"))
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    heartbeats: HeartbeatFiles = field(init=False)
    state: str = "starting"
    session: WorkerSession | None = None

    def __post_init__(self) -> None:
        self.heartbeats = HeartbeatFiles(f"{address(self.url)} {self.workspace.gateway}")

    async def run(self) -> int:
        """Lives until a signal ends it: 0 then. Pays, as far as runs are ordered.

        Raises:
            UsageError: callbacks are wanted, and can't be taken as configured.
        """
        loop = asyncio.get_running_loop()
        if self.calls is not None:
            await self.calls.open(self._called)
        loop.set_exception_handler(self._on_loop_error)
        aside = [asyncio.create_task(self._heartbeat())]
        aside += [asyncio.create_task(self.calls.run())] if self.calls is not None else []
        try:
            with signal_handlers(lambda _: self.stop()):
                await self._run_forever()
        finally:
            for task in aside:
                task.cancel()
            await asyncio.gather(*aside, return_exceptions=True)
            if self.calls is not None:
                await self.calls.close()
            self.heartbeats.remove()
        return 0

    def stop(self) -> None:
        """No new request is taken up; submits in flight end and are recorded, then the worker ends."""
        self.stopping.set()
        if self.session is not None:
            self.session.end("")

    def _called(self, delivery: CallbackDelivery) -> bool:
        return self.session is not None and self.session.called(delivery)

    def _on_loop_error(self, _: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """Tasks that nothing awaits fail when the database goes or others took over: that is no news for the user."""
        self.log.info("stray", extra={"fields": {"what": _stray(context)}})

    async def _run_forever(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self.stopping.is_set():
            began = time.monotonic()
            try:
                why = await self._run_session()
            except TROUBLES as error:
                why = cause_of(error)
            if self.stopping.is_set():
                return
            pause_s = FIRST_PAUSE_S if time.monotonic() - began > WELL_S else min(2 * pause_s, MAX_PAUSE_S)
            self.state = "waiting"
            self.notify(f"worker: restarts its session ({why or 'it ended'})")
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - spread

    def _setup(self) -> WorkerSetup:
        return WorkerSetup(
            workspace=self.workspace,
            key=self.key,
            url=self.url,
            notify=self.notify,
            log=self.log,
            timetable=self.timetable,
            calls=self.calls,
        )

    async def _run_session(self) -> str:
        await asyncio.to_thread(prepare, self.url)
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(WorkerSession(self._setup()))
            self.session = session
            try:
                self.state = "working"
                return await session.run()
            finally:
                self.state = "stopping" if self.stopping.is_set() else "waiting"
                self.session = None

    async def _heartbeat(self) -> None:
        while True:
            self.heartbeats.write(self.state, self.session.active_count if self.session is not None else 0)
            await asyncio.sleep(MAINTENANCE_INTERVAL_S)


def _stray(context: Mapping[str, object]) -> str:
    """What the event loop reports of a task that failed: the error in our words, else the loop's own text."""
    error = context.get("exception")
    return cause_of(error) if isinstance(error, BaseException) else str(context.get("message"))
