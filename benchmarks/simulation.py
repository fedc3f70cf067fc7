"""A gateway in virtual time: exact limiters, latency and jobs, driving the very Pace and PollPlan that real runs use.

No sleeping, no sockets: a heap of events. Everything random comes from one seeded generator.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter, CallInFlight, CallKind, LimitFeedback, Slot
from pipeline.runner.poll_schedule import PollSchedule


class Limiter(Protocol):
    """Lets a call in at `now` (0.0, and counts it) or says in how many seconds an equal call would be let in."""

    def admit(self, now: float) -> float:
        """0.0 = let in and counted; else the seconds to wait."""
        ...


class Bucket:
    """A token bucket: holds at most `burst` tokens, starts full, gains `per_s` a second; refusals are free."""

    def __init__(self, per_s: float, burst: float) -> None:
        self.per_s, self.burst = per_s, burst
        self._tokens, self._seen = float(burst), 0.0

    def admit(self, now: float) -> float:
        self._tokens = min(self.burst, self._tokens + max(0.0, now - self._seen) * self.per_s)
        self._seen = max(now, self._seen)
        if self._tokens >= 1 - 1e-9:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self.per_s


class Fixed:
    """At most `count` calls in each window [phase + k * span_s, phase + (k + 1) * span_s)."""

    def __init__(self, count: int, span_s: float, phase_s: float = 0.0) -> None:
        self.count, self.span_s, self.phase_s = count, span_s, phase_s
        self._window, self._used = -(10**9), 0

    def admit(self, now: float) -> float:
        window = math.floor((now - self.phase_s) / self.span_s)
        if window > self._window:
            self._window, self._used = window, 0
        if self._used < self.count:
            self._used += 1
            return 0.0
        return max(self.phase_s + (self._window + 1) * self.span_s - now, 1e-6)


class Sliding:
    """At most `count` admitted calls in any half-open interval of `span_s`."""

    def __init__(self, count: int, span_s: float) -> None:
        self.count, self.span_s = count, span_s
        self._admitted: deque[float] = deque()

    def admit(self, now: float) -> float:
        while self._admitted and self._admitted[0] <= now - self.span_s:
            self._admitted.popleft()
        if len(self._admitted) < self.count:
            self._admitted.append(now)
            return 0.0
        return max(self._admitted[0] + self.span_s - now, 1e-6)


class Counted(Sliding):
    """A sliding window in which rejected calls count as well."""

    def admit(self, now: float) -> float:
        while self._admitted and self._admitted[0] <= now - self.span_s:
            self._admitted.popleft()
        is_admitted = len(self._admitted) < self.count
        self._admitted.append(now)
        return 0.0 if is_admitted else max(self._admitted[-self.count] + self.span_s - now, 1e-6)


class Weighed:
    """Fixed windows whose count includes the one before, weighed by how much of it a sliding window would still hold.

    After a full window it admits an even flow of `count / span_s`: neither a window nor a bucket explains all of it.
    """

    def __init__(self, count: int, span_s: float, phase_s: float = 0.0) -> None:
        self.count, self.span_s, self.phase_s = count, span_s, phase_s
        self._window, self._used, self._used_before = -(10**9), 0, 0

    def admit(self, now: float) -> float:
        place = (now - self.phase_s) / self.span_s
        window = math.floor(place)
        if window > self._window:
            self._used_before = self._used if window == self._window + 1 else 0
            self._window, self._used = window, 0
        rest = 1 - (place - window)
        if self._used + self._used_before * rest < self.count:
            self._used += 1
            return 0.0
        left = self.count - self._used
        return max((rest - left / self._used_before if left > 0 else rest) * self.span_s, 1e-3)


class Outage:
    """`limiter`, which admits nothing from `begin_s` to `end_s`."""

    def __init__(self, limiter: Limiter, begin_s: float, end_s: float) -> None:
        self._limiter, self._begin_s, self._end_s = limiter, begin_s, end_s

    def admit(self, now: float) -> float:
        if self._begin_s <= now < self._end_s:
            return self._end_s - now
        return self._limiter.admit(now)


class Open:
    """No limit at all."""

    def admit(self, now: float) -> float:
        return 0.0


class Changing:
    """One limiter after another: `stages` are (from second, limiter), in order."""

    def __init__(self, stages: Iterable[tuple[float, Limiter]]) -> None:
        self._stages = list(stages)

    def admit(self, now: float) -> float:
        current = self._stages[0][1]
        for start_s, limiter in self._stages:
            if now >= start_s:
                current = limiter
        return current.admit(now)


Hint = Callable[[float], float | None]
"""What the gateway tells of the true wait: Retry-After in seconds, or None."""


def no_hint(true_wait_s: float) -> float | None:
    """No Retry-After."""
    return None


def whole_seconds(true_wait_s: float) -> float | None:
    """Retry-After as HTTP has it: whole seconds, rounded up."""
    return float(max(1, math.ceil(true_wait_s)))


def misleading(true_wait_s: float) -> float | None:
    """Always an hour."""
    return 3600.0


@dataclass(kw_only=True)
class Latency:
    """Seconds to the gateway and back: `typical_s` with a spread, half of it on the way there."""

    typical_s: float = 0.05
    spread: float = 0.2

    def draw(self, rng: random.Random) -> tuple[float, float]:
        """(there, back)."""
        there = self.typical_s / 2 * rng.lognormvariate(0, self.spread)
        return there, self.typical_s / 2 * rng.lognormvariate(0, self.spread)


class Client:
    """What a real client does to the times that its pace plans: the intent is durable before a call leaves, and now and
    then the whole process is stopped.

    One write to disk at a time, of about `write_s`; what is asked for meanwhile is written by the next one, so that
    several calls leave at once. About every `PAUSE_EVERY_S` it pauses for up to `pause_s`. From `freeze[0]` to
    `freeze[1]` it does nothing at all, like a stopped process.
    """

    PAUSE_EVERY_S = 1.5

    def __init__(
        self,
        rng: random.Random,
        *,
        write_s: float = 0.0,
        pause_s: float = 0.0,
        freeze: tuple[float, float] = (math.inf, math.inf),
    ) -> None:
        self._rng, self._write_s, self._pause_s = rng, write_s, pause_s
        self.freeze = freeze
        self._writing_until = self._next_until = -math.inf
        self._pause = (0.0, 0.0)

    def durable_at(self, now: float) -> float:
        """When an intent that is written from `now` on is on disk."""
        if not self._write_s:
            return now
        if now >= self._writing_until and self._next_until > self._writing_until:
            self._writing_until = self._next_until
        if now >= self._writing_until:
            self._writing_until = self._next_until = now + self._write()
        elif self._next_until <= self._writing_until:
            self._next_until = self._writing_until + self._write()
        return self._next_until

    def _write(self) -> float:
        return self._write_s * self._rng.lognormvariate(0, 0.4)

    def awake_at(self, when_s: float) -> float:
        """`when_s`, or the end of the pause it falls into."""
        if self.freeze[0] <= when_s < self.freeze[1]:
            return self.freeze[1]
        if not self._pause_s:
            return when_s
        while when_s > self._pause[1]:
            begin = self._pause[1] + self._rng.expovariate(1 / self.PAUSE_EVERY_S)
            self._pause = (begin, begin + self._rng.uniform(0.1, 1.0) * self._pause_s)
        return self._pause[1] if when_s > self._pause[0] else when_s


@dataclass(kw_only=True)
class Tally:
    """What one simulated run did."""

    makespan_s: float = 0.0
    sent: int = 0
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    sent_s: list[float] = field(default_factory=list)
    hint_broken: int = 0

    @property
    def refused_share(self) -> float:
        return len(self.refused) / max(self.sent, 1)


def ideal_s(make: Callable[[], Limiter], count: int) -> float:
    """When the last of `count` calls can be let in at best: a caller who knows the limiter, without latency."""
    limiter, now = make(), 0.0
    for _ in range(count):
        while (wait_s := limiter.admit(now)) > 0:
            now += max(wait_s, 1e-9)
    return now


class Timeline:
    """Virtual time: what is to happen, in order."""

    def __init__(self, start_s: float = 0.0) -> None:
        self.now = start_s
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    def at(self, when_s: float, act: Callable[[], None]) -> None:
        """`act` happens at `when_s`."""
        self._order += 1
        heapq.heappush(self._events, (max(when_s, self.now), self._order, act))

    def run(self, until_s: float) -> None:
        """Lets time pass until nothing is left, or until `until_s`."""
        while self._events and self._events[0][0] <= until_s:
            self.now, _, act = heapq.heappop(self._events)
            act()


class Waker:
    """One waiter, as the gate has them: of several times to ask again only the earliest counts."""

    def __init__(self, timeline: Timeline, act: Callable[[], None]) -> None:
        self._timeline, self._act = timeline, act
        self._due = math.inf

    def by(self, when_s: float) -> None:
        """Ask again at `when_s` or before."""
        if when_s < self._due:
            self._due = when_s
            self._timeline.at(when_s, lambda: self._ring(when_s))

    def _ring(self, when_s: float) -> None:
        if when_s == self._due:
            self._due = math.inf
            self._act()


class Calls:
    """Calls of the pace's client on their way to a limiter and back."""

    def __init__(
        self,
        pace: AdaptiveRateLimiter,
        timeline: Timeline,
        *,
        hint: Hint,
        latency: Latency,
        rng: random.Random,
        client: Client | None = None,
    ) -> None:
        self.pace, self.timeline = pace, timeline
        self._client = client or Client(rng)
        self._hint, self._latency, self._rng = hint, latency, rng
        self.silent_until = -math.inf

    def send(self, kind: CallKind, limiter: Limiter, answered: Callable[[float, float | None, bool], None]) -> None:
        """Sends a call; `answered(arrived_s, hint_s, let_in)` is called when its answer is back."""
        there_s, back_s = self._latency.draw(self._rng)
        ticket = self.pace.mark_sent(self.timeline.now, kind)

        def arrive() -> None:
            arrived_s = self.timeline.now
            wait_s = limiter.admit(arrived_s)
            back_at = self._client.awake_at(arrived_s + back_s)
            self.timeline.at(back_at, lambda: self._answer(ticket, arrived_s, wait_s, answered))

        self.timeline.at(self.timeline.now + there_s, arrive)

    def _answer(
        self,
        ticket: CallInFlight,
        arrived_s: float,
        wait_s: float,
        answered: Callable[[float, float | None, bool], None],
    ) -> None:
        now = self.timeline.now
        hint_s = self._hint(wait_s) if wait_s else None
        if hint_s is not None and hint_s <= 60:
            self.silent_until = max(self.silent_until, now + hint_s)
        self.pace.answered(ticket, now, LimitFeedback.THROTTLED if wait_s else LimitFeedback.ACCEPTED, hint_s)
        answered(arrived_s, hint_s, not wait_s)


def run_submits(
    pace: AdaptiveRateLimiter,
    limiter: Limiter,
    count: int,
    *,
    hint: Hint = no_hint,
    latency: Latency | None = None,
    seed: int = 1,
    timer_s: float = 0.001,
    write_s: float = 0.0,
    pause_s: float = 0.0,
    until_s: float = math.inf,
    freeze: tuple[float, float] = (math.inf, math.inf),
    notices_freeze: bool = True,
) -> Tally:
    """Submits `count` calls until each is let in, from time 0; returns what happened. See `Client` for its seconds.

    Args:
        notices_freeze: whether the pace learns that the client was frozen before it sees the answers of that time.
    """
    rng, timeline, tally = random.Random(seed), Timeline(), Tally()
    client = Client(random.Random(seed + 1), write_s=write_s, pause_s=pause_s, freeze=freeze)
    calls = Calls(pace, timeline, hint=hint, latency=latency or Latency(), rng=rng, client=client)
    left = count

    def answered(arrived_s: float, hint_s: float | None, let_in: bool) -> None:
        nonlocal left
        left += not let_in
        (tally.accepted if let_in else tally.refused).append(arrived_s)
        ask()

    def ask() -> None:
        nonlocal left
        if freeze[0] <= timeline.now < freeze[1]:
            timeline.at(freeze[1], ask)
            return
        while left:
            slot = pace.next_slot(timeline.now)
            if not isinstance(slot, Slot):
                waker.by(timeline.now + slot + rng.random() * timer_s)
                return
            left -= 1
            timeline.at(client.awake_at(client.durable_at(timeline.now)), partial(prepared, slot))

    def prepared(slot: Slot) -> None:
        pace.ready(slot, timeline.now)
        if slot.due_at > timeline.now:
            timeline.at(client.awake_at(slot.due_at + rng.random() * timer_s), leave)
        else:
            leave()

    def leave() -> None:
        nonlocal left
        if pace.slot_is_void(timeline.now, CallKind.SUBMIT):
            pace.release(timeline.now, CallKind.SUBMIT)
            left += 1
            ask()
            return
        tally.hint_broken += timeline.now < calls.silent_until
        tally.sent += 1
        tally.sent_s.append(timeline.now)
        calls.send(CallKind.SUBMIT, limiter, answered)

    waker = Waker(timeline, ask)
    waker.by(0.0)
    if notices_freeze and freeze[1] < math.inf:
        timeline.at(freeze[1], lambda: pace.interrupted(timeline.now))
    timeline.run(until_s)
    tally.makespan_s = max(tally.accepted, default=0.0)
    return tally


@dataclass(kw_only=True)
class Batch:
    """What one simulated batch did: submits, polls, and how late each finished job was noticed."""

    submits: int = 0
    submits_refused: int = 0
    submitted_s: float = 0.0
    polls: int = 0
    polls_refused: int = 0
    noticed_s: list[float] = field(default_factory=list)
    lag_s: list[float] = field(default_factory=list)

    @property
    def makespan_s(self) -> float:
        """When the last job was noticed as finished."""
        return max(self.noticed_s, default=0.0)


class BatchRun:
    """One job for each duration, polled until all are noticed as finished. The same limiter twice is a shared one."""

    POLL_CONCURRENCY = 16

    def __init__(
        self,
        pace: AdaptiveRateLimiter,
        plan: PollSchedule,
        *,
        submit_limiter: Limiter,
        poll_limiter: Limiter,
        durations_s: Sequence[float],
        hint: Hint = no_hint,
        latency: Latency | None = None,
        seed: int = 1,
        timer_s: float = 0.001,
    ) -> None:
        self.batch = Batch()
        self._pace, self._plan = pace, plan
        self._submit_limiter, self._poll_limiter = submit_limiter, poll_limiter
        self._durations_s = durations_s
        self._rng, self._timer_s = random.Random(seed), timer_s
        self._timeline = Timeline()
        self._calls = Calls(pace, self._timeline, hint=hint, latency=latency or Latency(), rng=self._rng)
        self._left = list(reversed(range(len(durations_s))))
        self._began_s: dict[int, float] = {}
        self._accepted_s: dict[int, float] = {}
        self._looking: deque[int] = deque()
        self._open_polls = 0
        self._submits_waker = Waker(self._timeline, self._submit)
        self._polls_waker = Waker(self._timeline, self._poll)

    def run(self, until_s: float = math.inf) -> Batch:
        """From time 0 until all is noticed."""
        self._submits_waker.by(0.0)
        self._timeline.run(until_s)
        return self.batch

    def _submit(self) -> None:
        while self._left:
            slot = self._pace.next_slot(self._timeline.now, CallKind.SUBMIT)
            if not isinstance(slot, Slot):
                self._submits_waker.by(self._timeline.now + slot + self._rng.random() * self._timer_s)
                return
            job = self._left.pop()
            self._calls.send(CallKind.SUBMIT, self._submit_limiter, lambda *seen, job=job: self._submitted(job, *seen))

    def _submitted(self, job: int, arrived_s: float, hint_s: float | None, let_in: bool) -> None:
        now = self._timeline.now
        self.batch.submits += 1
        if let_in:
            self._began_s[job], self._accepted_s[job] = arrived_s, now
            self._plan.add(job, "model", now, now)
            self.batch.submitted_s = now
        else:
            self.batch.submits_refused += 1
            self._left.append(job)
        self._submit()
        self._poll()

    def _poll(self) -> None:
        now = self._timeline.now
        self._pace.hurry_polls(self._plan.is_late(now))
        for job in self._plan.take(now, self.POLL_CONCURRENCY - self._open_polls - len(self._looking)):
            self._looking.append(int(str(job)))
        while self._looking:
            slot = self._pace.next_slot(now, CallKind.POLL)
            if not isinstance(slot, Slot):
                self._polls_waker.by(now + slot + self._rng.random() * self._timer_s)
                return
            job = self._looking.popleft()
            self._open_polls += 1
            self._calls.send(CallKind.POLL, self._poll_limiter, lambda *seen, job=job: self._polled(job, *seen))
        due = self._plan.next_due(now)
        if due is not None and self._open_polls < self.POLL_CONCURRENCY:
            self._polls_waker.by(due)

    def _polled(self, job: int, arrived_s: float, hint_s: float | None, let_in: bool) -> None:
        now = self._timeline.now
        self._open_polls -= 1
        self.batch.polls += 1
        finished_s = self._began_s[job] + self._durations_s[job]
        if not let_in:
            self.batch.polls_refused += 1
            self._plan.unclear(job, now, hint_s)
        elif arrived_s < finished_s:
            self._plan.pending(job, now)
        else:
            self._plan.ended(job, now, now - self._accepted_s[job])
            self._pace.job_ended(now)
            self.batch.noticed_s.append(now)
            self.batch.lag_s.append(now - finished_s)
        self._submit()
        self._poll()


def bound_s(durations_s: Sequence[float], *, per_s: float, burst: float) -> float:
    """A lower bound of the makespan under one shared bucket: two calls a job, and the job that lasts longest."""
    count = len(durations_s)
    calls_s = (2 * count - burst) / per_s
    longest_s = max(max(place - burst, 0.0) / per_s + duration_s for place, duration_s in enumerate(durations_s))
    return max(calls_s, longest_s)
