"""When the next call to the gateway may be sent: one Pace for all workers, as fast as the gateway allows. Pure.

It must never read a clock, sleep or know what a call is for beyond its kind. Times are seconds of one monotonic clock.
The caller asks; 0.0 hands out a slot, anything else is the seconds after which to ask again (or at once when an answer,
`give_back` or `job_ended` came in between). Every slot ends in `give_back`, or in `sent` and then `answered`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from pipeline.errors import UsageError
from pipeline.gateway.pacehold import Hold
from pipeline.gateway.pacelaw import Law

LOOK_AGAIN_S = 0.05
"""Longest wait handed out while only an answer can free a slot."""
CAP_PATIENCE = 2
"""Jobs that must end, as a multiple of the learned cap, before one more than the cap is tried."""
CONCURRENCY_PAUSE_S = 5.0

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
    """What a call is: only whose turn it is depends on it."""

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
    """What a run found out about a gateway, for the next run. `as_json` and `from_json` are each other's inverse."""

    submit_per_s: float | None = None
    in_flight_cap: int | None = None

    def as_json(self) -> dict[str, float | int | None]:
        """A flat object of numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, object]) -> Learned:
        """Reads `as_json`; anything unreadable counts as not learned."""
        rate, cap = raw.get("submit_per_s"), raw.get("in_flight_cap")
        return cls(
            submit_per_s=float(rate) if isinstance(rate, int | float) and rate > 0 else None,
            in_flight_cap=cap if isinstance(cap, int) and cap > 0 else None,
        )


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

    def late(self, by_s: float) -> None:
        """The slot was used later than it was taken: what follows moves with it."""
        self._due += by_s


class _Jobs:
    """The learned cap on jobs in flight: what was reached when the gateway said too many."""

    def __init__(self, *, told: int | None, learned: int | None, in_flight: int) -> None:
        self.told = told
        self.learned = learned
        self.in_flight = in_flight
        self.pause_until = float("-inf")
        self._ended = 0
        self._patience = CAP_PATIENCE

    @property
    def cap(self) -> int | None:
        return min((cap for cap in (self.told, self.learned) if cap is not None), default=None)

    def ready_at(self, now: float, open_submits: int) -> float:
        if self.cap is not None and self.in_flight + open_submits >= self.cap:
            return float("inf")
        return max(now, self.pause_until)

    def refused(self, now: float, wait_s: float | None) -> None:
        self.learned = max(self.in_flight, 1)
        self._ended, self._patience = 0, min(self._patience * 2, 32)
        if wait_s is not None or self.in_flight == 0:
            self.pause_until = max(self.pause_until, now + min(wait_s or CONCURRENCY_PAUSE_S, 60.0))

    def ended(self) -> None:
        self.in_flight = max(0, self.in_flight - 1)
        self._ended += 1
        if self.learned is not None and self._ended >= self._patience * self.learned:
            self.learned, self._ended = self.learned + 1, 0


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
        jobs_in_flight: int = 0,
    ) -> None:
        learned = learned or Learned()
        self._spacing = _Spacing(told, burst) if told is not None else None
        self._law = Law(most_open=submit_concurrency, rate_per_s=None if told else learned.submit_per_s)
        self._polls = Law(most_open=submit_concurrency)
        self._hold, self._poll_hold = Hold(), Hold()
        self._jobs = _Jobs(told=max_in_flight, learned=learned.in_flight_cap, in_flight=jobs_in_flight)
        self._told = told
        self._sent_at: list[float] = []
        self.sent_total = 0
        self.throttled_total = 0
        self.polls_throttled_total = 0

    def ask(self, now: float, kind: Kind = Kind.SUBMIT) -> float:
        """0.0: a call of this kind may go now and its slot is taken. Else seconds to wait before asking again."""
        law, hold = self._lane(kind)
        ready_at = max(law.ready_at(now), hold.ready_at(now))
        if kind is Kind.SUBMIT:
            ready_at = max(ready_at, self._jobs.ready_at(now, law.open))
            if self._spacing is not None:
                ready_at = max(ready_at, self._spacing.ready_at())
        if ready_at > now:
            return min(ready_at - now, LOOK_AGAIN_S) if ready_at == float("inf") else ready_at - now
        law.take(now)
        hold.take(now)
        if kind is Kind.SUBMIT and self._spacing is not None:
            self._spacing.take(now)
        return 0.0

    def give_back(self, now: float, kind: Kind = Kind.SUBMIT) -> None:
        """A taken slot that was not used: the budget refused, or nothing was sent."""
        self._lane(kind)[0].give_back()
        if kind is Kind.SUBMIT and self._spacing is not None:
            self._spacing.give_back()

    def hold_left_s(self, now: float, kind: Kind = Kind.SUBMIT) -> float:
        """Seconds of a hint still to wait: look once more right before sending on a slot taken earlier."""
        return max(0.0, self._lane(kind)[1].ready_at(now) - now)

    def sent(self, now: float, kind: Kind = Kind.SUBMIT) -> Ticket:
        """The slot is used: the call goes out now."""
        if kind is Kind.SUBMIT:
            self.sent_total += 1
            self._sent_at = [*self._sent_at[-32:], now]
        return Ticket(kind, now)

    def answered(self, ticket: Ticket, now: float, outcome: Outcome, wait_s: float | None = None) -> None:
        """What the answer said; `wait_s` is the gateway's hint, unclamped, where it gave one."""
        law, hold = self._lane(ticket.kind)
        if outcome is Outcome.THROTTLED:
            self._count_throttled(ticket.kind)
            if wait_s is not None:
                hold.hint(now, wait_s)
            law.throttled(ticket.sent_at, now)
            return
        law.accepted(ticket.sent_at, now)
        if outcome is Outcome.ACCEPTED:
            hold.let_in(ticket.sent_at)
        if ticket.kind is Kind.SUBMIT:
            self._book_job(now, outcome, wait_s)

    def hold_until(self, now: float, wait_s: float, kind: Kind = Kind.SUBMIT) -> None:
        """A hint seen elsewhere (another worker, another answer) holds this pace too."""
        self._lane(kind)[1].hint(now, wait_s)

    def in_flight_cap(self) -> int | None:
        """The most jobs in flight, as told or learned; None while no cap is known."""
        return self._jobs.cap

    def job_ended(self, now: float) -> None:
        """A job of this gateway reached its end: one more may be in flight."""
        self._jobs.ended()

    def learned(self) -> Learned:
        """What to keep for the next run against the same gateway."""
        return Learned(submit_per_s=self._law.rate_per_s, in_flight_cap=self._jobs.learned)

    def rate_now(self, now: float) -> float:
        """Submits a second that went out lately, for the progress line."""
        recent = [at for at in self._sent_at if at > now - 60.0]
        return len(recent) / max(now - recent[0], 1e-3) if len(recent) > 1 else 0.0

    def _lane(self, kind: Kind) -> tuple[Law, Hold]:
        return (self._law, self._hold) if kind is Kind.SUBMIT else (self._polls, self._poll_hold)

    def _count_throttled(self, kind: Kind) -> None:
        if kind is Kind.SUBMIT:
            self.throttled_total += 1
        else:
            self.polls_throttled_total += 1

    def _book_job(self, now: float, outcome: Outcome, wait_s: float | None) -> None:
        if outcome is Outcome.ACCEPTED:
            self._jobs.in_flight += 1
        elif outcome is Outcome.CONCURRENCY:
            self._jobs.refused(now, wait_s)
