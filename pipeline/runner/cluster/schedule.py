"""Runs that the workers start on a schedule (`schedule:`): each time by one of them, and one run at a time."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from pipeline.errors import UsageError

CATCH_UP_S = 600.0
"""A time that passed so lately (seconds) while no worker was there is made up for when one starts."""


class TimeClaims(Protocol):
    """Says which worker starts the run of a time."""

    async def claim_time(self, at: float) -> bool:
        """Whether this worker is to start the scheduled run of `at` (Unix seconds): once, and while none runs."""

    async def end_scheduled(self) -> None:
        """The scheduled run that this worker started has ended."""


class ScheduledRuns:
    """When to start which command. A time that comes while the last run is still going is left out."""

    def __init__(self, cron: str, command: Sequence[str], notify: Callable[[str], None]) -> None:
        """`command` is a whole command line; its exit code is logged.

        Raises:
            UsageError: the times can't be read.
        """
        import croniter  # type: ignore[import-untyped]  # noqa: PLC0415 - only who has a schedule needs it

        reader: Any = croniter.croniter
        if not reader.is_valid(cron):
            raise UsageError(f"schedule.cron: {cron!r} is no time; write e.g. `15 2 * * *` (UTC)")
        self._times: Callable[[float], Any] = lambda now: reader(cron, now)
        self._command, self._notify = tuple(command), notify
        self._process: asyncio.subprocess.Process | None = None

    async def run(self, claims: TimeClaims, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        """Starts the command at its times, where no other worker does, for ever."""
        now = time.time()
        at = self._times(now).get_prev(float)
        if now - at > CATCH_UP_S:
            at = self._times(now).get_next(float)
        while True:
            await sleep(max(at - time.time(), 0.0))
            if await claims.claim_time(at):
                await self._start(at)
                await claims.end_scheduled()
            at = self._times(max(time.time(), at)).get_next(float)

    async def _start(self, at: float) -> None:
        self._process = await asyncio.create_subprocess_exec(*self._command, stdin=asyncio.subprocess.DEVNULL)
        code = await self._process.wait()
        self._process = None
        self._notify(f"worker: the scheduled run of {at:.0f} ended with {code}")

    async def stop(self) -> None:
        """Ends a run that this worker started: the next one continues it."""
        process = self._process
        if process is not None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            await process.wait()
