"""When to poll while callbacks are on: when called, and otherwise late, as a safety net.

Until the first callback the fallback polls come sooner. When jobs end time after time without a callback, the usual
schedule is in force again.
"""

from __future__ import annotations

from collections.abc import Hashable

from pipeline.runner.poll_schedule import PollSchedule, _Row

UNPROVEN, PROVEN = 2.0, 5.0
"""How long a job is not polled, as a multiple of `max_s`: before the first callback of the run, and after it."""
MAX_MISSED = 3
"""Jobs that ended without a callback, beyond those that had one, before callbacks count as broken."""


class CallbackPollSchedule(PollSchedule):
    """A poll plan that waits to be called. `gave_up` says that it does so no longer."""

    def __init__(
        self, *, first_s: float, min_s: float, max_s: float, deadline_s: float, max_lag_s: float | None = None
    ) -> None:
        super().__init__(first_s=first_s, min_s=min_s, max_s=max_s, deadline_s=deadline_s, max_lag_s=max_lag_s)
        self._nudged: set[Hashable] = set()
        self._called = 0
        self._missed = 0

    @property
    def gave_up(self) -> bool:
        """Whether too many jobs ended without a call."""
        return self._missed >= MAX_MISSED + self._called

    def nudge(self, job: Hashable, now: float) -> None:
        """A callback came about the job: poll it now, and trust callbacks more."""
        super().nudge(job, now)
        if job not in self._nudged:
            self._nudged.add(job)
            self._called += 1

    def ended(self, job: Hashable, now: float, duration_s: float | None = None) -> None:
        """The job is finished; a missing callback counts against the callbacks."""
        super().ended(job, now, duration_s)
        if job not in self._nudged:
            self._missed += 1
        self._nudged.discard(job)

    def forget(self, job: Hashable) -> None:
        """The job is no longer waited for."""
        super().forget(job)
        self._nudged.discard(job)

    def _worth_at(self, row: _Row) -> float:
        usual = super()._worth_at(row)
        if self.gave_up:
            return usual
        patience_s = (PROVEN if self._called else UNPROVEN) * self._max_s
        # Half of the deadline at most: a safety net after the deadline would leave a job stalled whose callback was
        # lost.
        return max(usual, row.planned_at + min(patience_s, self._deadline_s / 2))
