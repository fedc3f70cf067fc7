"""When to look next, for the whole batch: which of the jobs in flight is worth a poll now. Pure.

It must never decide a job's fate, read a clock or send anything. A waiting job is a row of this plan, not a task.
Times are seconds of one monotonic clock, handed in.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

SAMPLES = 512
"""Generation times kept a model: the latest ones."""
ENOUGH = 5
"""Ended jobs of a model before its own generation times are believed."""
TAKEN = float("inf")


@dataclass(slots=True)
class _Row:
    model: str
    accepted_at: float
    due: float
    looks: int = 0
    trouble: int = 0
    waited_s: float = 0.0


class GenerationTimes:
    """The latest generation times of one model, in order, for quantiles."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque()
        self._ordered: list[float] = []

    def __len__(self) -> int:
        return len(self._ordered)

    def add(self, duration_s: float) -> None:
        """One more job took `duration_s`."""
        self._latest.append(duration_s)
        insort(self._ordered, duration_s)
        if len(self._latest) > SAMPLES:
            del self._ordered[bisect_left(self._ordered, self._latest.popleft())]

    def quantile(self, q: float, longer_than_s: float = 0.0) -> float | None:
        """The q-quantile of those that took longer than `longer_than_s`; None when none did."""
        start = bisect_left(self._ordered, longer_than_s)
        left = len(self._ordered) - start
        return self._ordered[start + min(int(q * left), left - 1)] if left else None


class PollPlan:
    """The plan of all polls: `add` a job, `take` those due, then say `pending`, `unclear` or `ended` for each."""

    def __init__(
        self, *, first_s: float, min_s: float, max_s: float, deadline_s: float, max_lag_s: float | None = None
    ) -> None:
        self._first_s, self._min_s, self._max_s = first_s, min_s, max_s
        self._deadline_s = deadline_s
        self._max_lag_s = max_lag_s
        self._rows: dict[Hashable, _Row] = {}
        self._heap: list[tuple[float, int, Hashable]] = []
        self._order = 0
        self._times: dict[str, GenerationTimes] = {}
        self._silent_since: float | None = None
        self._silent_s = 0.0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, job: Hashable, model: str, accepted_at: float, now: float) -> None:
        """A job is in flight since `accepted_at` (which may lie before `now`, after a restart)."""
        row = _Row(model, accepted_at, 0.0, waited_s=self._silent_s)
        self._rows[job] = row
        self._plan(job, row, max(now, self._first_look(row)))

    def next_due(self, now: float) -> float | None:
        """When the next job is due (a time, perhaps past); None when nothing waits."""
        while self._heap and not self._is_current(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, now: float, limit: int) -> list[Hashable]:
        """At most `limit` jobs that are due, the most overdue first; each comes again only once answered for."""
        taken: list[Hashable] = []
        while len(taken) < limit and (due := self.next_due(now)) is not None and due <= now:
            job = heapq.heappop(self._heap)[2]
            self._rows[job].due = TAKEN
            taken.append(job)
        return taken

    def put_back(self, job: Hashable, now: float) -> None:
        """A taken job that was not looked at: it is due at once again."""
        self._plan(job, self._rows[job], now)

    def pending(self, job: Hashable, now: float, phase: str = "running") -> None:
        """The poll was answered: still at work (`phase` is the judged word: pending or running)."""
        self._answered(now)
        row = self._rows[job]
        row.looks, row.trouble = row.looks + 1, 0
        self._plan(job, row, self._next_look(row, now))

    def unclear(self, job: Hashable, now: float, wait_s: float | None = None) -> None:
        """The poll failed: that says nothing about the job. Next look after `wait_s` or a growing pause."""
        if self._silent_since is None:
            self._silent_since = now
        row = self._rows[job]
        row.trouble += 1
        self._plan(job, row, now + (wait_s or min(self._min_s * 2**row.trouble, self._max_s)))

    def ended(self, job: Hashable, now: float, duration_s: float | None = None) -> None:
        """The job is finished, whatever became of it. `duration_s`: its generation time, where that is known."""
        self._answered(now)
        row = self._rows.pop(job)
        if duration_s is not None:
            self._times.setdefault(row.model, GenerationTimes()).add(duration_s)

    def forget(self, job: Hashable) -> None:
        """The job is no longer waited for (stalled); nothing is learned."""
        self._rows.pop(job, None)

    def is_overdue(self, job: Hashable, now: float) -> bool:
        """Whether the deadline has passed, counting only time in which polls were being answered."""
        row = self._rows[job]
        silent_s = self._silent_s - row.waited_s + (now - self._silent_since if self._silent_since is not None else 0.0)
        return row.looks > 0 and now - row.accepted_at - silent_s >= self._deadline_s

    def hint(self, job: Hashable, now: float) -> None:
        """Somebody says that the job may be finished (a callback): look now."""
        if job in self._rows and self._rows[job].due != TAKEN:
            self._plan(job, self._rows[job], now)

    def quantile(self, model: str, q: float) -> float | None:
        """The q-quantile of the model's generation time in seconds; None while it is not known."""
        times = self._times.get(model)
        return times.quantile(q) if times is not None and len(times) >= ENOUGH else None

    def eta_s(self, now: float, q: float = 0.9) -> float | None:
        """Seconds until the jobs in flight are finished, by the q-quantile of each model; None while unknown."""
        latest: float | None = None
        for row in self._rows.values():
            times = self._times.get(row.model)
            if times is None or len(times) < ENOUGH:
                return None
            age_s = now - row.accepted_at
            left_s = max((times.quantile(q, age_s) or age_s + self._max_s) - age_s, 0.0)
            latest = max(latest or 0.0, left_s)
        return latest if self._rows else 0.0

    def _is_current(self, entry: tuple[float, int, Hashable]) -> bool:
        row = self._rows.get(entry[2])
        return row is not None and row.due == entry[0]

    def _plan(self, job: Hashable, row: _Row, due: float) -> None:
        row.due = due
        self._order += 1
        heapq.heappush(self._heap, (due, self._order, job))

    def _first_look(self, row: _Row) -> float:
        return row.accepted_at + (self.quantile(row.model, 0.75) or self._first_s)

    def _next_look(self, row: _Row, now: float) -> float:
        times = self._times.get(row.model)
        age_s = now - row.accepted_at
        then_s = times.quantile(0.75, age_s) if times is not None and len(times) >= ENOUGH else None
        pause_s = then_s - age_s if then_s is not None else self._min_s * 1.5**row.looks
        if self._max_lag_s is not None:
            pause_s = min(pause_s, self._max_lag_s)
        return now + min(max(pause_s, self._min_s), self._max_s)

    def _answered(self, now: float) -> None:
        if self._silent_since is not None:
            self._silent_s += now - self._silent_since
            self._silent_since = None
