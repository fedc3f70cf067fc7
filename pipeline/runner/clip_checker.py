"""Checks clips during a run: in worker processes, so that the event loop never waits for a decoder."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from pipeline.ledger.run_registry import Run
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import Attempt
from pipeline.reports.checks.findings import ClipCheck, Grade, Key, unchecked

if TYPE_CHECKING:
    from pipeline.reports.checks.jobs import CheckJob
    from pipeline.reports.checks.pool import CheckPool

OFF = "the checks are off (checks.enabled)"
NOT_HERE = "the clip is not on this machine"


class ClipChecker(Protocol):
    """Where a run's clips are checked."""

    async def check(self, attempt: Attempt) -> ClipCheck:
        """What is found in the clip of an attempt alone; never raises for what a clip may hold."""

    async def review(self) -> Mapping[Key, ClipCheck]:
        """What is known of all clips of the run, repeated clips included."""

    async def close(self) -> None:
        """Give up what is not checked yet."""


class PooledChecker:
    """The checker of a run on this machine. One core is left to the run itself."""

    def __init__(self, workspace: OpenLedger, run: Run) -> None:
        self._workspace, self._run = workspace, run
        self._stop = threading.Event()
        self._pool: CheckPool | None = None
        self._begun: set[str] = set()

    async def check(self, attempt: Attempt) -> ClipCheck:
        """What is found in the clip, now or by an earlier run."""
        from pipeline.reports.checks.check_run import SAMPLES  # noqa: PLC0415 - a run without shots needs no decoder
        from pipeline.reports.checks.run_checks import clip_path, job_of  # noqa: PLC0415
        from pipeline.reports.checks.store import load_check  # noqa: PLC0415

        settings = self._workspace.settings.checks
        if not settings.enabled:
            return unchecked(OFF)
        clip = clip_path(attempt, self._workspace.outputs)
        if clip is None or not clip.is_file():
            return unchecked(NOT_HERE)
        known = load_check(clip)
        if known is None or known.grade is Grade.UNCHECKED:
            image = attempt.params.input_images[0]
            wants_start = image not in self._begun
            self._begun.add(image)
            await self._in_pool(job_of(attempt, clip, settings, samples=SAMPLES, wants_start=wants_start))
            known = load_check(clip)
        return known or unchecked("the result could not be kept")

    async def _in_pool(self, job: CheckJob) -> None:
        from pipeline.reports.checks.pool import CheckPool, cores  # noqa: PLC0415

        if self._pool is None:
            self._pool = CheckPool(workers=max(1, cores() - 1), stop=self._stop)
        loop, checked = asyncio.get_running_loop(), asyncio.Event()

        def done() -> None:
            with suppress(RuntimeError):  # the loop is closed: the run was stopped
                loop.call_soon_threadsafe(checked.set)

        self._pool.put(job, done)
        await checked.wait()

    async def review(self) -> Mapping[Key, ClipCheck]:
        """What is known of all clips of the run, repeated clips included."""
        from pipeline.reports.writer import checks_of  # noqa: PLC0415

        return (await asyncio.to_thread(checks_of, self._workspace, self._run)).found

    async def close(self) -> None:
        """Give up what is not checked yet; a later run checks it."""
        self._stop.set()
        if self._pool is not None:
            await asyncio.to_thread(self._pool.close)


CheckerFactory = Callable[[OpenLedger, Run], ClipChecker]
