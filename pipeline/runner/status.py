"""What the user is shown during a run: counts, money, rate and an honest time of arrival. Reads only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pipeline.records import FAILED_FOR_GOOD, IN_FLIGHT, State
from pipeline.reports.progress import ProgressSnapshot
from pipeline.runner.context import RunContext
from pipeline.runner.poll_schedule import PollSchedule
from pipeline.runner.submit_permits import SubmitPermits

SLOW = 0.9
"""The quantile of generation time that an arrival time is computed from: most videos come sooner."""


class ProgressSampler:
    """Samples a run's moving parts. `buys` is False for `collect`."""

    def __init__(
        self,
        context: RunContext,
        schedule: PollSchedule,
        permits: SubmitPermits,
        *,
        models: Sequence[str],
        buys: bool,
    ) -> None:
        self._context, self._schedule, self._permits = context, schedule, permits
        self._models = models
        self._buys = buys

    def now(self, phase: str) -> ProgressSnapshot:
        """This moment of the run."""
        totals, pace = self._context.recorder.totals, self._context.gate.pace
        loop_now = asyncio.get_running_loop().time()
        return ProgressSnapshot(
            phase=phase,
            total=sum(totals.counts.values()),
            finished=totals.count(State.DONE, *FAILED_FOR_GOOD),
            done=totals.count(State.DONE),
            failed=totals.count(*(FAILED_FOR_GOOD - {State.REFUSED})),
            refused=totals.count(State.REFUSED),
            unknown=totals.count(State.UNKNOWN),
            in_flight=totals.count(*IN_FLIGHT),
            planned=totals.count(State.PLANNED),
            confirmed_microusd=totals.confirmed_microusd,
            worst_microusd=totals.worst_microusd,
            rate_per_s=pace.rate_now(loop_now),
            throttled=pace.throttled_total,
            eta_s=self._eta_s(loop_now),
            pause="" if self._context.stop.submits else self._pause_text,
        )

    @property
    def _pause_text(self) -> str:
        return self._context.reachability.pause_text or self._permits.pause_text

    def _eta_s(self, now: float) -> float | None:
        """Until the last video: the time to submit the rest, then a slow generation; None while nothing is known."""
        planned = self._context.recorder.totals.count(State.PLANNED)
        flying_s = self._schedule.eta_s(now, SLOW)
        if not self._buys or not planned or self._context.stop.submits:
            return flying_s
        rate = self._context.gate.pace.rate_now(now)
        known = [self._schedule.quantile(model, SLOW) for model in self._models]
        slow_s = max((one for one in known if one is not None), default=None)
        if rate <= 0 or slow_s is None:
            return None
        return max(planned / rate + slow_s, flying_s or 0.0)
