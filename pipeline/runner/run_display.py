"""What a run on this machine shows and logs while its steps work. Nothing here can stop a run but its time limit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from pipeline.errors import ExitCode
from pipeline.records import State
from pipeline.reports.progress import FINISHED, STOPPED, ProgressDisplay
from pipeline.runner.callback_poll_schedule import CallbackPollSchedule
from pipeline.runner.run_job import RunJob
from pipeline.runner.run_pipeline import RunPipeline
from pipeline.runner.status import ProgressSampler
from pipeline.runner.stop import StopScope, StopSignal

REFRESH_INTERVAL_S = 0.25
"""Seconds between two refreshes of the progress line."""

NEEDS_USER = frozenset({7, 8})
"""Exit codes of reasons after which nothing is bought until the operator acts; what is paid is still collected."""


class RunDisplay:
    """The progress of one run, on the terminal and in its log."""

    def __init__(
        self,
        job: RunJob,
        pipeline: RunPipeline,
        stop: StopSignal,
        *,
        log: logging.Logger,
        notify: Callable[[str], None],
    ) -> None:
        self._job, self._pipeline, self._stop = job, pipeline, stop
        self._log, self._notify = log, notify
        self._sampler = ProgressSampler(
            pipeline.context,
            pipeline.schedule,
            pipeline.permits,
            models=job.workspace.settings.models,
            buys=job.options.buy,
        )

    def end(self, progress: ProgressDisplay) -> None:
        """Show the last state of the run."""
        with suppress(BaseException):
            progress.update(self._sampler.now(STOPPED if self._stop.all else FINISHED))

    async def log_stops(self) -> None:
        """Log each reason to stop; the run's time limit is such a reason."""
        limit_s = self._job.options.max_duration_s
        if limit_s is not None:
            asyncio.get_running_loop().call_later(limit_s, self._time_is_over, limit_s)
        async for reason in self._stop.follow():
            if reason.exit_code in NEEDS_USER and len(self._pipeline.poller):
                with suppress(BaseException):
                    self._job.needs_user(reason.text)
            with suppress(BaseException):
                self._log.warning("stop", extra={"fields": {"reasons": [reason.text for reason in self._stop.reasons]}})

    def _time_is_over(self, limit_s: float) -> None:
        self._stop.request(
            f"--max-duration of {limit_s:g} s is over", exit_code=ExitCode.UNFINISHED, reach=StopScope.ALL
        )

    async def show_progress(self, progress: ProgressDisplay) -> None:
        schedule, notified = self._pipeline.schedule, False
        while True:
            with suppress(BaseException):  # a terminal that is closed stops nothing
                progress.update(self._sampler.now(self._phase()))
            with suppress(BaseException):  # a full disk stops the run by its ledger, not by its log
                for handler in self._log.handlers:
                    handler.flush()
            if not notified and isinstance(schedule, CallbackPollSchedule) and schedule.gave_up:
                notified = True
                self._notify("jobs end without a callback: polling as usual; check webhook.public_url")
            await asyncio.sleep(REFRESH_INTERVAL_S)

    def _phase(self) -> str:
        totals = self._pipeline.context.recorder.totals
        if self._stop.submits:
            return "stopping" if self._stop.all else "collecting"
        if self._job.options.buy and totals.count(State.PLANNED, State.SUBMITTING):
            return "buying"
        return "collecting" if self._job.options.collect and len(self._pipeline.poller) else "fetching"
