"""When the next call to the gateway may be sent: one Pace for all workers, as fast as the gateway allows. Pure.

It must never read a clock, sleep, or know what a call is for beyond its kind. Times are seconds of one monotonic clock.
The caller asks; 0.0 hands out a slot, anything else is the seconds after which to ask again (or at once when an answer,
a `give_back` or a `job_ended` came in between). Every slot ends in `give_back`, or in `sent` and then `answered`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from pipeline.errors import UsageError
from pipeline.gateway.pacehold import Hold
from pipeline.gateway.pacejobs import JobsCap
from pipeline.gateway.pacelaw import Law

LOOK_AGAIN_S = 0.05
"""Longest wait handed out while only an answer can free a slot."""
RATE_OVER_S = 60.0
RATE_OVER_CALLS = 256
"""`rate_now` looks back this far, whichever is shorter."""

_RATE = re.compile(r"([1-9]\d*)/([1-9]\d*)?([smh])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` calls in `per_s` seconds."""

    count: int
    per_s: float

    @property
    def per_second(self) -> float:
        """Calls a second."""
        return self.count / self.per_s


def parse_rate(text: str) -> Rate | None:
    """The rate of `10/1m`, `5/s`, `600/1h`; None for `auto`.

    Raises:
        UsageError: anything else.
    """
    if text == "auto":
        return None
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"pace: {text!r} is not a rate; write auto, or e.g. 10/1m, 5/1s, 600/1h")
    return Rate(int(match[1]), float(int(match[2] or 1) * _UNIT_S[match[3]]))


class Kind(StrEnum):
    """What a call is: only whose allowance it uses depends on it."""

    SUBMIT = "submit"
    POLL = "poll"


class Outcome(StrEnum):
    """What an answer says about the allowance, not about the request."""

    ACCEPTED = "accepted"
    """a submit was taken, or a poll was answered"""
    THROTTLED = "throttled"
    """the rate limit"""
    CONCURRENCY = "concurrency"
    """too many jobs in flight (400 "concurren...", 423, queue full)"""
    UNKNOWN = "unknown"
    """no answer that could be read: it may have counted"""
    OTHER = "other"
    """refused for a reason of its own: it may have counted"""


@dataclass(frozen=True, slots=True)
class Ticket:
    """One call under way."""

    kind: Kind
    sent_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What a run found out about a gateway, for the next run: a rate, or a window of `count` calls in `span_s`.

    `as_json` and `from_json` are each other's inverse.
    """

    submit_per_s: float | None = None
    burst: float | None = None
    count: int | None = None
    span_s: float | None = None
    in_flight_cap: int | None = None

    def as_json(self) -> dict[str, float | int | None]:
        """A flat object of numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, object]) -> Learned:
        """Reads `as_json`; anything unreadable counts as not learned."""
        return cls(
            submit_per_s=_positive(raw.get("submit_per_s")),
            burst=_positive(raw.get("burst")),
            count=_count(raw.get("count")),
            span_s=_positive(raw.get("span_s")),
            in_flight_cap=_count(raw.get("in_flight_cap")),
        )


def _positive(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 < value < float("inf") else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


class _Spacing:
    """A told rate: evenly spaced, at most `burst` at once after a pause (GCRA, ITU-T I.371)."""

    def __init__(self, rate: Rate, burst: int) -> None:
        self._interval_s = rate.per_s / rate.count
        self._tolerance_s = (burst - 1) * self._interval_s
        self._due = float("-inf")

    def ready_at(self) -> float:
        return self._due - self._tolerance_s

    def take(self, now: float) -> None:
        self._due = max(self._due, now) + self._interval_s

    def give_back(self) -> None:
        self._due -= self._interval_s


class _Lane:
    """One allowance: its told rate, its hints, its law, and its counters."""

    def __init__(self, *, told: Rate | None, burst: int, most_open: int) -> None:
        self.spacing = _Spacing(told, burst) if told is not None else None
        self.law = Law(
            most_open=most_open,
            open_at_first=float(most_open) if told is not None else 1.0,
        )
        self.hold = Hold()
        self.throttled_total = 0
        self.sent_total = 0

    def ready_at(self, now: float) -> float:
        spaced_at = self.spacing.ready_at() if self.spacing is not None else now
        return max(spaced_at, self.hold.ready_at(now), self.law.ready_at(now))

    def take(self, now: float) -> None:
        self.law.take(now)
        self.hold.take(now)
        if self.spacing is not None:
            self.spacing.take(now)

    def give_back(self, now: float) -> None:
        self.law.give_back()
        self.hold.give_back(now)
        if self.spacing is not None:
            self.spacing.give_back()

    def throttled(self, sent_at: float, now: float, wait_s: float | None) -> None:
        self.throttled_total += 1
        self.hold.refused(sent_at)
        hold_s = self.hold.hint(now, wait_s) if wait_s is not None else 0.0
        self.law.throttled(sent_at, now, hold_s)

    def let_in(self, sent_at: float, now: float) -> None:
        self.law.accepted(sent_at, now)
        if self.hold.let_in(sent_at, now):
            self.law.restart()


class Pace:
    """One pace for all workers of a gateway: rate, hints and the cap on jobs in flight."""

    def __init__(
        self,
        *,
        told: Rate | None,
        burst: int = 1,
        learned: Learned | None = None,
        max_in_flight: int | None = None,
        submit_concurrency: int = 16,
        poll_concurrency: int = 16,
        poll_told: Rate | None = None,
        jobs_in_flight: int = 0,
        now: float = 0.0,
    ) -> None:
        """`learned` is what an earlier run handed over; a told rate goes before what was learned of the rate."""
        learned = learned or Learned()
        self._submits = _Lane(told=told, burst=burst, most_open=submit_concurrency)
        self._polls = _Lane(told=poll_told, burst=1, most_open=poll_concurrency)
        self._jobs = JobsCap(told=max_in_flight, learned=learned.in_flight_cap, in_flight=jobs_in_flight)
        self._sent_at: deque[float] = deque(maxlen=RATE_OVER_CALLS)
        if told is None:
            _begin(self._submits.law, learned, now)

    @property
    def sent_total(self) -> int:
        """Submits sent."""
        return self._submits.sent_total

    @property
    def throttled_total(self) -> int:
        """Submits refused by the rate limit."""
        return self._submits.throttled_total

    @property
    def polls_throttled_total(self) -> int:
        """Polls refused by the rate limit."""
        return self._polls.throttled_total

    def ask(self, now: float, kind: Kind = Kind.SUBMIT) -> float:
        """0.0: a call of this kind may go now and its slot is taken. Else seconds to wait before asking again."""
        lane = self._lane(kind)
        ready_at = lane.ready_at(now)
        if kind is Kind.SUBMIT:
            ready_at = max(ready_at, self._jobs.ready_at(now, lane.law.open + lane.law.unsent))
        if ready_at > now:
            return LOOK_AGAIN_S if ready_at == float("inf") else ready_at - now
        lane.take(now)
        return 0.0

    def give_back(self, now: float, kind: Kind = Kind.SUBMIT) -> None:
        """A taken slot that was not used: the budget refused, or nothing was sent."""
        self._lane(kind).give_back(now)

    def hold_left_s(self, now: float, kind: Kind = Kind.SUBMIT) -> float:
        """Seconds of a hint still to wait: look once more right before sending on a slot taken earlier."""
        return max(0.0, self._lane(kind).hold.must_wait_until(now) - now)

    def sent(self, now: float, kind: Kind = Kind.SUBMIT) -> Ticket:
        """The slot is used: the call goes out now."""
        lane = self._lane(kind)
        lane.law.sent(now)
        lane.sent_total += 1
        if kind is Kind.SUBMIT:
            self._sent_at.append(now)
        return Ticket(kind, now)

    def answered(self, ticket: Ticket, now: float, outcome: Outcome, wait_s: float | None = None) -> None:
        """What the answer said; `wait_s` is the gateway's hint, unclamped, where it gave one."""
        lane = self._lane(ticket.kind)
        if outcome is Outcome.THROTTLED:
            lane.throttled(ticket.sent_at, now, wait_s)
            return
        lane.let_in(ticket.sent_at, now)
        if ticket.kind is Kind.SUBMIT and outcome is Outcome.ACCEPTED:
            self._jobs.accepted()
        elif ticket.kind is Kind.SUBMIT and outcome is Outcome.CONCURRENCY:
            self._jobs.refused(now, wait_s)

    def hold_until(self, now: float, wait_s: float, kind: Kind = Kind.SUBMIT) -> None:
        """A hint seen elsewhere (another worker, another answer) holds this pace too."""
        self._lane(kind).hold.hint(now, wait_s)

    def in_flight_cap(self) -> int | None:
        """The most jobs in flight, as told or learned; None while no cap is known."""
        return self._jobs.cap

    def job_ended(self, now: float) -> None:
        """A job of this gateway reached its end: one more may be in flight."""
        self._jobs.ended()

    def limit_per_s(self) -> float | None:
        """The submit limit as it is believed to be; None while none was met."""
        return self._submits.law.per_s

    def learned(self) -> Learned:
        """What to keep for the next run against the same gateway."""
        law = self._submits.law
        cycle, even = law.cycle, law.even
        return Learned(
            submit_per_s=even.rate if even is not None else None,
            burst=even.burst if even is not None else None,
            count=cycle.count if cycle is not None else None,
            span_s=cycle.span_s if cycle is not None else None,
            in_flight_cap=self._jobs.learned,
        )

    def rate_now(self, now: float) -> float:
        """Submits a second that went out lately, for the progress line."""
        recent = [at for at in self._sent_at if at > now - RATE_OVER_S]
        return len(recent) / max(now - recent[0], 1e-3) if len(recent) > 1 else 0.0

    def _lane(self, kind: Kind) -> _Lane:
        return self._submits if kind is Kind.SUBMIT else self._polls


def _begin(law: Law, learned: Learned, now: float) -> None:
    if learned.count is not None and learned.span_s is not None:
        law.begin_cycle(now, count=learned.count, span_s=learned.span_s)
    elif learned.submit_per_s is not None:
        law.begin_even(now, per_s=learned.submit_per_s, burst=learned.burst or 1.0)
