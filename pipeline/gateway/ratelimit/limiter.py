"""When the next call to the gateway may be sent: one Pace for all workers, as fast as the gateway allows.

It must never read a clock, sleep, or know what a call is for beyond its kind. Times are seconds of one monotonic clock.
The caller asks; 0.0 hands out a slot, anything else is the seconds after which to ask again (or at once when an answer,
a `give_back` or a `job_ended` came in between). Every slot ends in `give_back`, or in `sent` and then `answered`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from pipeline.gateway.allowance_headers import StatedAllowance
from pipeline.gateway.ratelimit.channel import RateChannel
from pipeline.gateway.ratelimit.concurrency import InFlightLimit
from pipeline.gateway.ratelimit.latency import SlotLeadTime
from pipeline.gateway.ratelimit.learned import LearnedLimits, begin_with, learned_limits
from pipeline.gateway.ratelimit.rates import Rate, parse_rate
from pipeline.gateway.ratelimit.sharing import CallKind, SubmitPollSharing

__all__ = [
    "AdaptiveRateLimiter",
    "CallInFlight",
    "CallKind",
    "LearnedLimits",
    "LimitFeedback",
    "Rate",
    "Slot",
    "parse_rate",
]

LOOK_AGAIN_S = 0.05
"""Longest wait handed out while only an answer can free a slot."""
YIELD_S = 0.005
"""Wait handed out to one kind while the next call belongs to the other."""
SHARED_WITHIN_S = 60.0
"""Polls and submits refused within this time of each other: they are taken to use one allowance."""
RATE_OVER_S = 60.0
"""Seconds that `rate_now` looks back, so that the display follows a change within a minute."""
RATE_OVER_CALLS = 256
"""`rate_now` looks back this far, whichever is shorter."""


class LimitFeedback(StrEnum):
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
class Slot:
    """One call that may go at `due_at`, handed out somewhat before, at `taken_at`, to be got ready."""

    kind: CallKind
    taken_at: float
    due_at: float


@dataclass(frozen=True, slots=True)
class CallInFlight:
    """One call in flight."""

    kind: CallKind
    sent_at: float
    channel: RateChannel = field(repr=False, compare=False)


class AdaptiveRateLimiter:
    """One pace for all workers of a gateway: rate, hints and the cap on jobs in flight."""

    def __init__(
        self,
        *,
        rate: Rate | None,
        burst: int | None = None,
        learned: LearnedLimits | None = None,
        max_in_flight: int | None = None,
        submit_concurrency: int = 16,
        poll_concurrency: int = 16,
        poll_rate: Rate | None = None,
        shared: bool | None = None,
        jobs_in_flight: int = 0,
        now: float = 0.0,
    ) -> None:
        """Starts with nothing in use.

        Args:
            rate: the configured rate of submits, None to measure it; it goes before a learned rate.
            burst: submits that may go at once where their rate is configured; None for the rate's default.
            learned: what an earlier run handed over.
            poll_rate: the polls' own rate, None to measure it.
            shared: whether polls and submits use one allowance; None to find that out.
            jobs_in_flight: jobs that earlier runs left in flight.
        """
        learned = learned or LearnedLimits()
        self._submits = RateChannel(rate=rate, burst=burst, max_open=submit_concurrency)
        self._polls = RateChannel(rate=poll_rate, burst=None, max_open=poll_concurrency)
        self._turns = SubmitPollSharing()
        self._may_share = shared is None and poll_rate is None
        self._refused_at = dict.fromkeys(CallKind, float("-inf"))
        self._throttled = dict.fromkeys(CallKind, 0)
        self._sent = dict.fromkeys(CallKind, 0)
        if shared or (self._may_share and learned.shared):
            self._share()
        self._jobs = InFlightLimit(configured=max_in_flight, learned=learned.in_flight_cap, in_flight=jobs_in_flight)
        self._submits_in_flight = 0
        self._lead = SlotLeadTime()
        self._sent_at: deque[float] = deque(maxlen=RATE_OVER_CALLS)
        if rate is None:
            begin_with(self._submits.law, learned, now)

    @property
    def sent_total(self) -> int:
        """Submits sent."""
        return self._sent[CallKind.SUBMIT]

    @property
    def throttled_total(self) -> int:
        """Submits refused by the rate limit."""
        return self._throttled[CallKind.SUBMIT]

    @property
    def is_shared(self) -> bool:
        """Whether polls and submits use one allowance, as configured or measured."""
        return self._polls is self._submits

    def next_slot(self, now: float, kind: CallKind = CallKind.SUBMIT) -> Slot | float:
        """The slot of the next call of this kind, which is taken by that; or seconds to wait before asking again."""
        lane = self._lane(kind)
        ready_at = lane.ready_at(now)
        if kind is CallKind.SUBMIT:
            jobs_at = self._jobs.ready_at(now, self._submits_in_flight)
            if jobs_at > now:  # held back by jobs, not by the allowance: it waits for no turn
                return _wait_s(max(ready_at, jobs_at), now)
        # A submit's slot is handed out before it is due: meanwhile its intent is made durable.
        take_at = ready_at - (self._lead.s if kind is CallKind.SUBMIT else 0.0)
        if take_at <= now and self.is_shared and self._turns.must_yield(kind, now):
            take_at = now + YIELD_S
        if take_at > now:
            wait_s = _wait_s(take_at, now)
            self._turns.wants(kind, now + wait_s)
            return wait_s
        due_at = max(ready_at, now)
        lane.take(due_at)
        self._turns.took(kind)
        self._submits_in_flight += kind is CallKind.SUBMIT
        return Slot(kind, now, due_at)

    def release(self, now: float, kind: CallKind = CallKind.SUBMIT) -> None:
        """A taken slot that was not used: the budget refused, or nothing was sent."""
        self._lane(kind).give_back(now)
        self._submits_in_flight -= kind is CallKind.SUBMIT

    def ready(self, slot: Slot, now: float) -> None:
        """The call is ready to go, and waits until it is due."""
        self._lead.ready(now - slot.taken_at)

    def slot_is_void(self, now: float, kind: CallKind = CallKind.SUBMIT) -> bool:
        """Whether a slot taken earlier is void by now: a hint came, or the limit was met. Asked before sending."""
        lane = self._lane(kind)
        return lane.hold.must_wait_until(now) > now or lane.law.calls.is_settling

    def mark_sent(self, now: float, kind: CallKind = CallKind.SUBMIT) -> CallInFlight:
        """The slot is used: the call goes out now."""
        lane = self._lane(kind)
        lane.sent(now)
        self._sent[kind] += 1
        if kind is CallKind.SUBMIT:
            self._sent_at.append(now)
        return CallInFlight(kind, now, lane)

    def answered(
        self,
        ticket: CallInFlight,
        now: float,
        outcome: LimitFeedback,
        wait_s: float | None = None,
        *,
        job_cap: int | None = None,
        stated: StatedAllowance | None = None,
    ) -> None:
        """Learn from an answer.

        Args:
            wait_s: the gateway's wait hint (seconds), unclamped, where it gave one.
            job_cap: the jobs in flight that it says it allows, as in "concurrent requests (4) has been reached".
            stated: what its headers say of the allowance.
        """
        self._submits_in_flight -= ticket.kind is CallKind.SUBMIT
        if outcome is LimitFeedback.THROTTLED:
            ticket.channel.throttled(ticket.sent_at, now, wait_s)
            self._count_throttled(ticket.kind, now)
            return
        # The ticket's own channel: polls that were in flight when the two were joined are still counted where they were
        # sent.
        ticket.channel.let_in(ticket.sent_at, now)
        if stated is not None:
            ticket.channel.stated(stated, ticket.sent_at, now)
        if ticket.kind is CallKind.SUBMIT and outcome is LimitFeedback.ACCEPTED:
            self._jobs.accepted()
        elif ticket.kind is CallKind.SUBMIT and outcome is LimitFeedback.CONCURRENCY:
            self._jobs.refused(now, wait_s, job_cap)

    def interrupted(self, now: float) -> None:
        """The process stood still until now (a laptop's lid, a debugger, SIGSTOP).

        Must be said before any answer of that time: how long calls took says nothing of the gateway's limits."""
        # Both may be the same one, which must hear of it once.
        for channel in {id(channel): channel for channel in (self._submits, self._polls)}.values():
            channel.interrupted(now)
        self._sent_at.clear()

    def hurry_polls(self, hurry: bool) -> None:
        """Whether polls get a larger share of a shared allowance: videos are noticed later than they may be."""
        self._turns.hurry(hurry)

    def in_flight_cap(self) -> int | None:
        """The most jobs in flight, as configured or learned; None while no cap is known."""
        return self._jobs.cap

    def job_ended(self, now: float) -> None:
        """A job of this gateway reached its end: one more may be in flight."""
        self._jobs.ended()

    def learned(self) -> LearnedLimits:
        """What to keep for the next run against the same gateway."""
        return learned_limits(
            self._submits.law, in_flight_cap=self._jobs.learned, shared=self._may_share and self.is_shared
        )

    def rate_now(self, now: float) -> float:
        """Submits a second that went out lately, for the progress line."""
        recent = [at for at in self._sent_at if at > now - RATE_OVER_S]
        return len(recent) / max(now - recent[0], 1e-3) if len(recent) > 1 else 0.0

    def _count_throttled(self, kind: CallKind, now: float) -> None:
        self._throttled[kind] += 1
        self._refused_at[kind] = now
        if self._may_share and now - min(self._refused_at.values()) <= SHARED_WITHIN_S:
            self._share()

    def _share(self) -> None:
        """Polls use the submits' allowance from now on; polls in flight are still recorded where they were sent."""
        self._polls = self._submits
        self._submits.share()

    def _lane(self, kind: CallKind) -> RateChannel:
        return self._submits if kind is CallKind.SUBMIT else self._polls


def _wait_s(ready_at: float, now: float) -> float:
    return LOOK_AGAIN_S if ready_at == float("inf") else ready_at - now
