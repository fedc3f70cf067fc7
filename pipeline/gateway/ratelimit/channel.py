"""One allowance of the gateway: its configured rate, its wait hints, and its control law."""

from __future__ import annotations

from collections import deque

from pipeline.gateway.allowance_headers import StatedAllowance
from pipeline.gateway.ratelimit.controller import RateController
from pipeline.gateway.ratelimit.rates import GcraSpacing, Rate
from pipeline.gateway.ratelimit.retry_after import RetryAfterHold
from pipeline.gateway.ratelimit.stated_limit import StatedLimit
from pipeline.gateway.ratelimit.window_follower import WindowFollower

SILENCE_S, MAX_PATIENCE_S, SILENT_LATENCIES, MAX_SILENT = 5.0, 60.0, 8.0, 4
"""A call is passed over after this long (seconds), or this many usual latencies, without an answer; and how many at a
time: each may turn out to be a purchase of unknown outcome."""
GUARD_JITTERS, LONG_JITTERS, LONG_SPAN_S, GUARD_LATENCY = 3.0, 6.0, 5.0, 0.6
"""Usual differences between round trips that are kept between a call and the one `count` places before, a span later,
so that calls that travel at unlike speeds do not meet in one window of the gateway: for spans below so many seconds,
and for longer ones, where it costs nothing; there it is at least this part of a latency, while few have been seen."""
MAX_STATED_SPAN_S = 3600.0
"""A stated window that is longer is a quota of a day or a month, which no run fills at once."""


class RateChannel:
    """One allowance: its configured rate, Retry-After hold, controller and counters."""

    def __init__(self, *, rate: Rate | None, burst: int | None, max_open: int) -> None:
        """`rate` is the configured rate, None for auto; `burst` how many of it may go at once, None for its default."""
        self._rate = rate
        self._has_default_burst = burst is None
        self.spacing = GcraSpacing(rate, burst or rate.default_burst) if rate is not None else None
        self.law = RateController(max_open=max_open, open_at_first=float(max_open) if rate is not None else 1.0)
        self.hold = RetryAfterHold()
        self._stated = StatedLimit()
        self._resumed_at = float("-inf")
        self._open: deque[float] = deque()
        self._silent: list[float] = []

    def share(self) -> None:
        """Several use it, kinds of calls or workers: a default burst would let the first of them take all of it."""
        if self.spacing is not None and self._has_default_burst:
            self.spacing.space_evenly()
            self._rate = None  # even spacing keeps the rate; waiting for a span's end as well would cost a tenth of it

    def ready_at(self, now: float) -> float:
        self._pass_over(now)
        at = max(self._spaced_at(now), self.hold.ready_at(now), self.law.ready_at(now))
        return at if self.law.follower is not None else max(at, self._stated.ready_at(now))

    def _spaced_at(self, now: float) -> float:
        """When the configured rate allows a call: spaced, and never more than its count within its span.

        The call `count` places before must have arrived a whole span before this one arrives; while that call is not
        sent yet, which a slow disk may hold up, no time is known.
        """
        if self.spacing is None:
            return now
        at = self.spacing.ready_at()
        if self._rate is None:
            return at
        place = self._rate.count - self.law.calls.unsent
        if place <= 0:
            return float("inf")
        sent_at, arrived = (
            self.law.history.nth_last_sent(place),
            self.law.history.nth_last(place, counting_rejected=True),
        )
        if sent_at is None or arrived is None:
            return at
        latency = self.law.latency
        guard_s = GUARD_JITTERS * latency.jitter_s
        if self._rate.per_s >= LONG_SPAN_S:
            guard_s = max(LONG_JITTERS * latency.jitter_s, GUARD_LATENCY * latency.latency_s)
        return max(at, sent_at + self._rate.per_s, arrived + self._rate.per_s + guard_s - latency.latency_s / 2)

    def take(self, due_at: float) -> None:
        self.law.take(due_at)
        self.hold.take(due_at)
        self._stated.take()
        if self.spacing is not None:
            self.spacing.take(due_at)

    def give_back(self, now: float) -> None:
        self.law.give_back(now)
        self.hold.give_back(now)
        self._stated.give_back()
        if self.spacing is not None:
            self.spacing.give_back()

    def sent(self, now: float) -> None:
        self.law.sent(now)
        self._stated.sent(now)
        self._open.append(now)

    def _pass_over(self, now: float) -> None:
        """Stop counting calls without a response for long as in flight, so that a hung call does not block the rest.

        At most MAX_SILENT calls at a time: each may be a paid submit.
        """
        while self._open and len(self._silent) < MAX_SILENT and self._silent_s(now) > self._patience_s():
            self._silent.append(self._open.popleft())
            self.law.passed_over(now)

    def _silent_s(self, now: float) -> float:
        """How long the oldest open call has had no answer; while the process stood still none could be seen."""
        return now - max(self._open[0], self._resumed_at)

    def interrupted(self, now: float) -> None:
        """The process stood still until now; see `RateController.interrupted`."""
        self._resumed_at = now
        self.law.interrupted(now)

    def _patience_s(self) -> float:
        return min(max(SILENCE_S, SILENT_LATENCIES * self.law.latency.latency_s), MAX_PATIENCE_S)

    def _rejoin(self, sent_at: float) -> None:
        if sent_at in self._silent:
            self._silent.remove(sent_at)
            self.law.calls.rejoined()
        else:
            self._open.remove(sent_at)

    def throttled(self, sent_at: float, now: float, wait_s: float | None, *, unseen: bool = False) -> None:
        """The call was rejected; `unseen`: its answer came while the process that sent it was frozen."""
        self._rejoin(sent_at)
        self.hold.refused(sent_at)
        self._stated.rejected()
        hold_s = self.hold.hint(now, wait_s) if wait_s is not None else 0.0
        if unseen or sent_at < self._resumed_at:
            self.law.answered_unseen(sent_at, now, is_rejected=True)
            return
        self.law.throttled(sent_at, now, hold_s, wait_s)

    def lost(self, sent_at: float, now: float) -> None:
        """The process that sent the call is gone: it may have counted, and its answer is not known."""
        self._rejoin(sent_at)
        if isinstance(self.law.follower, WindowFollower):
            self.law.follower.give_back()  # if it was the test, it proved nothing
        self.law.answered_unseen(sent_at, now, is_rejected=False)

    def let_in(self, sent_at: float, now: float, *, unseen: bool = False) -> None:
        """The call was admitted; `unseen` as in `throttled`."""
        self._rejoin(sent_at)
        if unseen or sent_at < self._resumed_at:
            self.law.answered_unseen(sent_at, now, is_rejected=False)
            self.hold.let_in(sent_at, now)
            return
        self.law.accepted(sent_at, now)
        self._stated.let_in(sent_at)
        # The rejections that a refuted hint came with were no limit: what was learned of them is forgotten.
        if self.hold.let_in(sent_at, now):
            self.law.restart()

    def stated(self, allowance: StatedAllowance, sent_at: float, now: float) -> None:
        """The headers of the answer to a call that was let in; used only while the limit itself is not known."""
        # A limit that was measured or configured goes before headers.
        if self.law.follower is not None or self.law.history.rejections or self.spacing is not None:
            return
        count, span_s = allowance.count, allowance.span_s
        if count is not None and span_s is not None and span_s <= MAX_STATED_SPAN_S:
            self.law.begin_window(now, count=count, span_s=span_s)
        elif allowance.remaining is not None:
            in_flight = self.law.calls.busy
            self._stated.on_response(
                allowance.remaining, allowance.reset_s, sent_at=sent_at, now=now, in_flight=in_flight
            )
