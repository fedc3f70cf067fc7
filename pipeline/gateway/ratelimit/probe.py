"""After the limit was met: when to try again, and what to follow once a call is admitted.

The first fill tells how many calls the limit took. The time at which it takes calls again, or the hint of a rejection,
tells the kind of limit (`probing` has the arithmetic).
"""

from __future__ import annotations

from pipeline.gateway.ratelimit.bucket_follower import MIN_RATE, BucketFollower
from pipeline.gateway.ratelimit.fits import SPANS_S, WindowFit
from pipeline.gateway.ratelimit.history import History, Rejection
from pipeline.gateway.ratelimit.latency import LatencyTracker
from pipeline.gateway.ratelimit.model_choice import Follower
from pipeline.gateway.ratelimit.probing import (
    InitialFill,
    next_probe_at,
    second_fill_rate,
    spans_between,
    window_by_hint,
)
from pipeline.gateway.ratelimit.times import LONG_AGO, NEVER
from pipeline.gateway.ratelimit.window_follower import WindowFollower

SURE_CALLS = 4.0
"""Fewer calls that a bucket would have admitted in a second fill: it is none."""
SHORT_WINDOW_S = 2.0
"""Up to this span (seconds) only a second fill distinguishes a window from a bucket."""

BACKOFF, MAX_BACKOFF_S = 2.5, 30.0
"""Factor between two pauses after rejections without hints, and the longest pause (seconds)."""
BLOCKED_S, BLOCKED_BACKOFF = 2.0, 2.0
"""Pause (seconds) after a run's first call was rejected without a hint, and its growth: four calls in half a minute."""
WRONG_HINTS = 3
"""Probes in a row that were rejected after the hint's time: the hints say nothing of when the limit opens again."""
SHUT_CALLS, SETTLED_CALLS = 5, 100
"""A bucket that gained nothing for so many calls is something else, unless it was followed for so many."""


def is_no_bucket(bucket: BucketFollower, shut_s: float, noise_s: float) -> bool:
    """Whether nothing flowed in for so long (seconds) that the limiter is no bucket."""
    too_short = shut_s < max(SHUT_CALLS / bucket.rate, 4 * noise_s)
    return not too_short and bucket.admitted_total <= SETTLED_CALLS


def pause_s(follower: Follower | None, *, fails: int, noise_s: float) -> float:
    """Seconds until the next try after the `fails`-th rejection in a row that came without a hint."""
    if isinstance(follower, WindowFollower):
        first_s = max(noise_s, 0.003 * follower.span_s)
    else:
        rate = follower.rate if follower is not None else 1.0
        first_s = max(0.3 * noise_s, min(0.5 / max(rate or 1.0, 1e-3), 0.25))
    return min(first_s * BACKOFF ** (min(fails, 10) - 1), MAX_BACKOFF_S)


def blocked_pause_s(fails: int) -> float:
    """Seconds until the next try after the `fails`-th rejection before any call was admitted, without a hint."""
    return min(BLOCKED_S * BLOCKED_BACKOFF ** min(fails - 1, 10), MAX_BACKOFF_S)


class Probe:
    """The calls of the first fill, and the probes that follow them."""

    def __init__(self, history: History, latency: LatencyTracker) -> None:
        self.fill = InitialFill(0, 0.0, 0.0)
        self.reopened_at = LONG_AGO
        """arrival of the call that was admitted after the last fill"""
        self._history, self._latency = history, latency
        self._window: WindowFit | None = None
        self._failed_age_s = 0.0
        self._failed = 0

    def begin_known(self, count: int, now: float) -> None:
        """The limit is known: nothing has to be probed."""
        self.fill = InitialFill(count, now, now)
        self.reopened_at = now

    def begin(self, fill: InitialFill) -> None:
        """Probe after this fill, after which no hint has named the window."""
        self.fill, self._window, self._failed = fill, None, 0

    def reopened(self, at: float) -> None:
        """What was admitted before does not count any more."""
        self.reopened_at = at

    def limit_met(self, it: Rejection, *, hold_s: float) -> None:
        """The rejection that ended the first fill."""
        first = self._history.nth_last(len(self._history)) if len(self._history) else None
        self.fill = InitialFill(max(len(self._history), 1), it.at if first is None else first, it.at)
        self._window, self._failed = self._by_hint(it, hold_s), 0

    def rejected(self, it: Rejection, *, hold_s: float) -> None:
        """A probe was rejected; its hint may tell the window."""
        self._failed += 1
        if self._are_hints_wrong:
            self._window = None
        elif self._window is None:
            self._window = self._by_hint(it, hold_s)

    @property
    def _are_hints_wrong(self) -> bool:
        return self._failed >= WRONG_HINTS

    def _by_hint(self, it: Rejection, hold_s: float) -> WindowFit | None:
        return window_by_hint(self.fill, it, self._latency.noise_s) if hold_s else None

    def next_at(self, it: Rejection, now: float, *, hold_s: float) -> float:
        """When to probe next after the rejection `it`; a hint's hold is kept elsewhere."""
        self._failed_age_s = it.at - self.fill.begin
        if hold_s and not self._are_hints_wrong:
            return now
        return next_probe_at(self.fill, now, self._latency.latency_s / 2, self._latency.noise_s)

    def admitted(self, follower: Follower | None, arrived: float, now: float, *, hold_s: float) -> Follower:
        """A probe was admitted: follow what the hints or the time it took suggest, else fill a second time."""
        self.reopened_at = arrived
        if self._are_hints_wrong:
            hold_s = 0.0
        noise_s, fill = self._latency.noise_s, self.fill
        age_s = arrived - fill.begin
        if isinstance(follower, WindowFollower):
            if not follower.is_proven and 1.2 * follower.span_s < age_s < 8 * follower.span_s:
                follower.lengthen(spans_between(self._failed_age_s, age_s, noise_s), age_s + 2 * noise_s)
            follower.reopen(arrived)
            return follower
        window = self._window
        if window is None:
            inside = spans_between(self._failed_age_s, age_s, noise_s)
            span_s = inside[-1] if inside else next((span for span in SPANS_S if age_s <= span), age_s)
            if hold_s or span_s <= SHORT_WINDOW_S:
                return self._second_fill(span_s, now, hold_s)
            window = WindowFit(fill.count, span_s, 0.0)
        is_guess = hold_s > 0 and window.span_s <= SHORT_WINDOW_S
        # Admitted while a sliding window would still be shut: what went before the probe does not count.
        is_early = age_s < window.span_s - 3 * noise_s - 0.01
        return WindowFollower(
            self._history,
            self._latency,
            count=window.count,
            span_s=window.span_s,
            opened_at=arrived - 1e-9 if is_guess or is_early else LONG_AGO,
            trial_gap_s=0.5 * fill.took_s / fill.count if is_guess else 0.0,
            hold_s=hold_s,
        )

    def _second_fill(self, span_s: float, now: float, hold_s: float) -> BucketFollower:
        rate = second_fill_rate(self.fill, span_s)
        if not hold_s:  # one call flowed in since the rejection, at least
            rate = max(rate, 1 / max(self.reopened_at - self.fill.rejected_at, 1e-3))
        count = self.fill.count
        return BucketFollower(self._latency, rate=max(rate, MIN_RATE), burst=count, now=now, ramp_after=count + 2)

    def judge_trial(self, window: WindowFollower, *, in_flight: int) -> None:
        """All of the first fill were admitted again: a window, unless a bucket would have admitted as many, too."""
        if self._history.count(self.reopened_at - 1e-9, NEVER) - in_flight < window.count:
            return
        last = self._history.nth_last(1)
        again_s = (self.reopened_at if last is None else last) - self.reopened_at
        fewer = self.fill.count * (self.fill.took_s - again_s) / (1 + again_s)
        window.end_trial(is_sure=fewer >= SURE_CALLS)
