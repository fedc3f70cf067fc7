"""Runs that the workers start on a schedule (`schedule:`), as a periodic task of the engine: one at a time."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress

import procrastinate

from pipeline.errors import UsageError

SUFFIX = "#schedule"
NAME = "dop.scheduled"


class ScheduledRuns:
    """When to start which command. A run that is still going when its time comes is not started twice."""

    def __init__(self, cron: str, command: Sequence[str], notify: Callable[[str], None]) -> None:
        """`command` is a whole command line; its exit code is logged.

        Raises:
            UsageError: the times can't be read.
        """
        from croniter import croniter  # type: ignore[import-untyped]  # noqa: PLC0415 - comes with the engine

        if not croniter.is_valid(cron):
            raise UsageError(f"schedule.cron: {cron!r} is no time; write e.g. `15 2 * * *` (UTC)")
        self._cron, self._command, self._notify = cron, tuple(command), notify
        self._process: asyncio.subprocess.Process | None = None

    @staticmethod
    def queues(gateway: str) -> list[str]:
        """The queue of a gateway's scheduled runs."""
        return [gateway + SUFFIX]

    def enter(self, app: procrastinate.App, gateway: str) -> None:
        """Registers the periodic task. Its lock is the gateway's: on whichever host, one runs at a time."""
        queue = gateway + SUFFIX
        task = app.task(name=NAME, queue=queue, lock=queue, queueing_lock=queue, pass_context=False)(self._start)
        app.periodic(cron=self._cron)(task)

    async def _start(self, timestamp: int) -> None:
        self._process = await asyncio.create_subprocess_exec(*self._command, stdin=asyncio.subprocess.DEVNULL)
        code = await self._process.wait()
        self._process = None
        self._notify(f"worker: the scheduled run of {timestamp} ended with {code}")

    async def stop(self) -> None:
        """Ends a run that this worker started: the next one continues it."""
        process = self._process
        if process is not None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            await process.wait()
