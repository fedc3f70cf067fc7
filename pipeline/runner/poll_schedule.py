"""When to poll next, for the whole batch: which of the jobs in flight is worth a poll now.

It must never say what became of a job, read a clock or send anything. A waiting job is a row of this plan, not a task.
A job is polled when it is likely to be finished: at the age by which a share `sureness` of the jobs of its model
that had come as far are done. That makes about 1 / sureness polls a job. The first jobs of a model, and a few later
ones, are sampled: polled often, so that the distribution is known. What is known grows while a job waits, so each
plan is reviewed half way. Times are seconds of one monotonic clock, handed in.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from dataclasses import dataclass

from pipeline.runner.generation_times import GenerationTimes

SURENESS = ((50, 0.8), (10, 0.5), (0, 0.3))
"""(jobs in flight at least, share of jobs expected to be done when polled): the last jobs delay a whole run."""
SAMPLED_JOBS = 6
"""First jobs of a model, which are polled often."""
SAMPLE_EVERY = 50
"""Of the later jobs each fiftieth is polled often, so that a model that becomes slower or faster is noticed."""
SAMPLE_STEP = 1.25
"""Factor by which a sampled job's age grows from poll to poll."""
SAMPLE_QUANTILES = (0.2, 0.4, 0.6, 0.8)
"""Shares of finished jobs at whose ages a sampled job is polled, once enough jobs have ended to know them."""
EARLIEST = 0.01
"""Share of jobs that are finished at the age from which `max_lag_s` counts."""
KNOWN = 5
"""Ended jobs of a model before its own times are shown to the user."""
TYPICAL = 1.5
"""The guess of a generation time before any job ended, as a multiple of `first_s`."""
MAX_FAILED_POLLS = 16
"""Failed polls that are counted: the pause doubles with each, and 2 ** 16 is beyond every longest pause."""
ILL_POLLS, ILL_ANSWERS = 5, 3
"""Failed polls in a row of one job, and answers about others meanwhile: the job is at fault, not the gateway."""
SILENT_POLLS = 16
"""Polls in a row without an answer, of any jobs; from then on one poll at a time asks whether the gateway is back."""
TAKEN = float("inf")
"""Due time of a job that is being polled: it is due never, until its poll has ended."""
NEVER_POLLED = -1.0
"""Age, in seconds, that means that a job was not polled yet; real ages are positive."""


@dataclass(slots=True)
class _Row:
    model: str
    accepted_at: float
    silent_s: float
    due: float = 0.0
    polled_s: float = NEVER_POLLED
    polls: int = 0
    trouble: int = 0
    answers: int = 0
    """about whatever job, when its trouble began"""
    scout: bool = False
    planned_at: float = 0.0
    forced: bool = False

    @property
    def seen_s(self) -> float | None:
        """The age at the last poll that found the job at work."""
        return None if self.polled_s == NEVER_POLLED else self.polled_s


class _Silence:
    """Whether the gateway answers polls at all: how long it has not, and how long to wait before asking again."""

    def __init__(self, min_s: float, max_s: float) -> None:
        self._min_s, self._max_s = min_s, max_s
        self._since: float | None = None
        self._total_s = 0.0
        self._unanswered = 0
        self.quiet_until = float("-inf")
        """no poll before, whosever it is"""
        self.answers = 0

    @property
    def is_long(self) -> bool:
        """Whether so many polls in a row had no answer that one at a time is enough."""
        return self._unanswered >= SILENT_POLLS

    def polled(self, now: float) -> None:
        """A poll goes. While nothing at all is answered the pause before the next one doubles up to `max_s`."""
        beyond = self._unanswered - SILENT_POLLS
        if beyond >= 0:
            self.quiet_until = now + min(self._min_s * 2 ** min(beyond, MAX_FAILED_POLLS), self._max_s)

    def failed(self, now: float) -> None:
        """A poll had no answer."""
        if self._since is None:
            self._since = now
        self._unanswered += 1
        self.polled(now)

    def total_s(self, now: float) -> float:
        """Seconds in which nothing was answered, in all."""
        if self._since is None:
            return self._total_s  # the same number for all of 100,000 jobs, instead of one for each
        return self._total_s + max(now - self._since, 0.0)

    def answered(self, now: float) -> None:
        """A poll was answered, about whatever job."""
        self.answers += 1
        self._total_s = self.total_s(now)
        self._since = None
        self._unanswered, self.quiet_until = 0, float("-inf")


class PollSchedule:
    """The plan of all polls: `add` a job, `take` those due, then say `pending`, `unclear` or `ended` for each."""

    def __init__(
        self,
        *,
        first_s: float,
        min_s: float,
        max_s: float,
        deadline_s: float,
        max_lag_s: float | None = None,
    ) -> None:
        """`max_lag_s`: how late a finished video may be noticed; None is as late as makes polls cheap."""
        self._first_s, self._min_s, self._max_s = first_s, min_s, max_s
        self._deadline_s = deadline_s
        self._max_lag_s = max_lag_s
        self._rows: dict[Hashable, _Row] = {}
        self._heap: list[tuple[float, int, Hashable]] = []
        self._order = 0
        self._times: dict[str, GenerationTimes] = {}
        self._added: dict[str, int] = {}
        self._newest_at: dict[str, float] = {}
        self._silence = _Silence(min_s, max_s)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, job: Hashable, model: str, accepted_at: float, now: float) -> None:
        """A job is in flight since `accepted_at` (which may lie before `now`, after a restart)."""
        row = _Row(model, accepted_at, self._silence.total_s(now))
        number = self._added.get(model, 0)
        self._added[model] = number + 1
        self._newest_at[model] = max(self._newest_at.get(model, accepted_at), accepted_at)
        row.scout = number < SAMPLED_JOBS or number % SAMPLE_EVERY == 0
        self._rows[job] = row
        row.planned_at = now
        self._review(job, row, now)

    def next_due(self, now: float) -> float | None:
        """When the next job is due (a time, perhaps past); None when nothing waits."""
        # A job that is planned again leaves its old entry in the heap, since a heap finds none but its first. Such an
        # entry is dropped when it comes up: its time is no longer the row's.
        while self._heap and not self._is_current(self._heap[0]):
            heapq.heappop(self._heap)
        return max(self._heap[0][0], self._silence.quiet_until) if self._heap else None

    def take(self, now: float, limit: int) -> list[Hashable]:
        """At most `limit` jobs that are due, the most overdue first; each comes again only once answered for."""
        taken: list[Hashable] = []
        # While nothing is answered, one poll at a time shows as well as many that the gateway is back.
        limit = min(limit, 1) if self._silence.is_long else limit
        while len(taken) < limit and (due := self.next_due(now)) is not None and due <= now:
            job = heapq.heappop(self._heap)[2]
            row = self._rows[job]
            # More is known than when this poll was planned: jobs that were polled meanwhile have ended, or have not.
            # Where it is worth waiting by now, the job gets a new plan instead of a poll.
            if not row.forced and (at := self._worth_at(row)) > now:
                self._plan(job, row, self._half_way(now, at))
                continue
            row.due, row.forced = TAKEN, False
            taken.append(job)
            self._silence.polled(now)
        return taken

    def is_late(self, now: float) -> bool:
        """Whether a job has been due for longer than `max_lag_s`: polls should get a larger share of a shared limit."""
        due = self.next_due(now)
        return self._max_lag_s is not None and due is not None and now - due > self._max_lag_s

    def put_back(self, job: Hashable, now: float) -> None:
        """A taken job that was not polled: it is due at once again."""
        if (row := self._rows.get(job)) is not None:
            self._force(job, row, now)

    def pending(self, job: Hashable, now: float, phase: str = "running") -> None:
        """The poll was answered: still at work (`phase` is the judged word: pending or running)."""
        self._silence.answered(now)
        row = self._rows[job]
        age_s = max(now - row.accepted_at, 0.0)
        self._model(row.model).at_work(age_s, row.seen_s)
        row.polled_s, row.polls, row.trouble = age_s, row.polls + 1, 0
        row.planned_at = now
        self._review(job, row, now)

    def unclear(self, job: Hashable, now: float, wait_s: float | None = None) -> None:
        """The poll failed: that says nothing about the job. Next poll after `wait_s` or a growing pause."""
        self._silence.failed(now)
        row = self._rows[job]
        if not row.trouble:
            row.answers = self._silence.answers
        row.trouble = min(row.trouble + 1, MAX_FAILED_POLLS)
        self._force(job, row, now + (wait_s or min(self._min_s * 2**row.trouble, self._max_s)))

    def ended(self, job: Hashable, now: float, duration_s: float | None = None) -> None:
        """The job is finished, whatever became of it. `duration_s`: its age when noticed; None teaches nothing."""
        self._silence.answered(now)
        row = self._rows.pop(job)
        times = self._model(row.model)
        if duration_s is None:
            times.remove(row.seen_s)
        else:
            times.finished(duration_s, row.seen_s)

    def forget(self, job: Hashable) -> None:
        """The job is no longer waited for (stalled); nothing is learned."""
        row = self._rows.pop(job, None)
        if row is not None:
            self._model(row.model).remove(row.seen_s)

    def is_overdue(self, job: Hashable, now: float) -> bool:
        """Whether the deadline has passed, counting only time in which polls were being answered.

        Where polls of this job alone fail, all time counts: a run must end when everything else has.
        """
        row = self._rows[job]
        # The gateway answers about other jobs and never about this one: waiting would keep the run open for ever.
        if row.trouble >= ILL_POLLS and self._silence.answers - row.answers >= ILL_ANSWERS:
            return now - row.accepted_at >= self._deadline_s
        silent_s = self._silence.total_s(now) - row.silent_s
        return row.polls > 0 and now - row.accepted_at - silent_s >= self._deadline_s

    def nudge(self, job: Hashable, now: float) -> None:
        """A callback says that the job may be finished: poll it now."""
        self.bring_forward(job, now)

    def bring_forward(self, job: Hashable, now: float) -> None:
        """Poll the job now, whatever the schedule says."""
        if job in self._rows and self._rows[job].due != TAKEN:
            self._force(job, self._rows[job], now)

    def quantile(self, model: str, q: float) -> float | None:
        """The q-quantile of the model's generation time in seconds; None while it is not known."""
        times = self._times.get(model)
        return times.quantile(q) if times is not None and times.ended >= KNOWN else None

    def eta_s(self, now: float, q: float = 0.9) -> float | None:
        """Seconds until all jobs in flight are finished, with probability `q`; None while that is not known.

        Beyond the deadline nothing is known: jobs that are stuck would be expected in days, and no run waits for that.
        The newest job of each model and the oldest job of all stand for the rest.
        """
        if not self._rows:
            return 0.0
        oldest = next(iter(self._rows.values()))
        waits_s = []
        for model, accepted_at in (*self._newest_at.items(), (oldest.model, oldest.accepted_at)):
            times = self._times.get(model)
            if times is None or times.ended < KNOWN:
                return None
            age_s = max(now - accepted_at, 0.0)
            # n independent jobs are all done with probability q where each one is with q ** (1 / n).
            waits_s.append(times.quantile(q ** (1 / len(self._rows)), age_s) - age_s)
        found_s = max(waits_s)
        return found_s if found_s <= self._deadline_s else None

    def _model(self, model: str) -> GenerationTimes:
        if model not in self._times:
            self._times[model] = GenerationTimes(TYPICAL * self._first_s)
        return self._times[model]

    def _worth_at(self, row: _Row) -> float:
        """When the next poll is worth its cost, as far as is known now."""
        at = row.accepted_at + self._poll_age(row, max(row.polled_s, 0.0))
        # The first poll is not bound by `max_s`: it comes when the job is likely to be done, so most jobs cost one
        # poll.
        if row.polls == 0:
            return max(min(at, row.accepted_at + self._deadline_s), row.planned_at)
        return min(max(at, row.planned_at + self._min_s), row.planned_at + self._max_s)

    def _review(self, job: Hashable, row: _Row, now: float) -> None:
        self._plan(job, row, self._half_way(now, self._worth_at(row)))

    def _half_way(self, now: float, at: float) -> float:
        """When a plan to poll at `at` is reviewed."""
        # Half of the way there: reviews are rare while the moment is far, and frequent when it is near. So a plan costs
        # a few reviews whatever its length, and is never followed for long on old knowledge.
        return min(at, max(now + self._min_s, (now + at) / 2), now + self._max_s)

    def _force(self, job: Hashable, row: _Row, at: float) -> None:
        row.forced = True
        self._plan(job, row, at)

    def _poll_age(self, row: _Row, age_s: float) -> float:
        """The age at which the next poll is worth its cost."""
        times = self._model(row.model)
        if row.scout:
            at_s = self._scout_age(times, age_s)
        else:
            sureness = next(share for least, share in SURENESS if len(self._rows) >= least)
            at_s = times.quantile(sureness, age_s)
        if self._max_lag_s is not None:
            # A job can't have been finished for longer than since the last poll, or since the earliest age at which any
            # is.
            at_s = min(at_s, max(age_s, times.quantile(EARLIEST)) + self._max_lag_s)
        return at_s

    def _scout_age(self, times: GenerationTimes, age_s: float) -> float:
        if times.ended < SAMPLED_JOBS:
            return max(self._first_s, SAMPLE_STEP * age_s)
        marks = (times.quantile(q) for q in SAMPLE_QUANTILES)
        # 2 % beyond the present age: a mark at which the job was just polled is not polled once more.
        return next((mark for mark in marks if mark > 1.02 * age_s), max(SAMPLE_STEP * age_s, self._min_s))

    def _is_current(self, entry: tuple[float, int, Hashable]) -> bool:
        row = self._rows.get(entry[2])
        return row is not None and row.due == entry[0]

    def _plan(self, job: Hashable, row: _Row, due: float) -> None:
        row.due = due
        # Ties are broken by the order of planning, and jobs, which need not be comparable, are never compared.
        self._order += 1
        heapq.heappush(self._heap, (due, self._order, job))
