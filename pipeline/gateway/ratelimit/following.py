"""The limiter that is followed once one is known: when the next call may go, and what a rejection means.

A rejection that the follower did not expect leads to a refit (`refitting`). Where nothing is admitted for long, the
limiter is not what it was taken for: it is probed again, as after a first fill. A hint longer than the followed limiter
could ask for is an outage, which says nothing of the limit.
"""

from __future__ import annotations

from pipeline.gateway.ratelimit.bucket_follower import BucketFollower
from pipeline.gateway.ratelimit.fits import min_wait_s
from pipeline.gateway.ratelimit.history import History, Rejection
from pipeline.gateway.ratelimit.latency import LatencyTracker
from pipeline.gateway.ratelimit.model_choice import RATE_MARGIN, Follower
from pipeline.gateway.ratelimit.open_calls import OpenCalls
from pipeline.gateway.ratelimit.probe import Probe, is_no_bucket, pause_s
from pipeline.gateway.ratelimit.probing import InitialFill
from pipeline.gateway.ratelimit.refitting import FELL, Refitting, is_measured
from pipeline.gateway.ratelimit.times import LONG_AGO, NEVER
from pipeline.gateway.ratelimit.window_follower import Verdict, WindowFollower

FILL_OPEN = 10
"""Open calls while the kind of the limit is unknown: the second fill must be quicker than the first."""
SHUT_PART, SHUT_FAILS = 0.25, 3
"""A window that stays shut for this part of its span, by so many rejections, is something else."""
OUTAGE_CALLS, OUTAGE_BURSTS = 20, 4
"""Two outages are at least so many calls apart, and so many bursts of a bucket. Without the second a window of 22 in
10 s with exact hints was taken for a bucket for long: a third of its calls were rejected."""


class Following:
    """One follower at a time, and what is needed to replace it."""

    def __init__(self, history: History, latency: LatencyTracker, probe: Probe) -> None:
        self.follower: Follower | None = None
        self._history, self._latency, self._probe = history, latency, probe
        self._refitting = Refitting(history, latency)
        self._outage_at, self._is_out = -1_000_000, False
        self.not_before = LONG_AGO
        """when the pause after a rejection ends"""

    @property
    def is_measured(self) -> bool:
        """Whether the limit is more than a guess."""
        return self.follower is not None and is_measured(self.follower)

    def begin(self, follower: Follower) -> None:
        """Follow this limiter."""
        self.follower = follower

    def ready_at(self, now: float, calls: OpenCalls) -> float:
        """The earliest time of the next call."""
        busy = calls.busy
        # After a rejection one call at a time, until one is admitted.
        if busy and (calls.fails or (busy >= FILL_OPEN and self._is_filling())):
            return NEVER
        # Nothing beside a test, or it would not be known which of them exceeded the limit.
        if busy and isinstance(self.follower, WindowFollower) and self.follower.is_testing:
            return NEVER
        return self.allowed_at(now, calls.unsent, busy)

    def allowed_at(self, now: float, unsent: int, busy: int) -> float:
        """When the followed limiter allows the next call."""
        if isinstance(self.follower, WindowFollower):
            return self.follower.ready_at(now, unsent, busy)
        return now if self.follower is None else self.follower.ready_at(now)

    def _is_filling(self) -> bool:
        """Whether it is not known yet what kind of limit it is."""
        if isinstance(self.follower, WindowFollower):
            return self.follower.trial_gap_s > 0
        return self.follower is not None and self.follower.ramp_after is not None

    def take(self, due_at: float, unsent: int) -> None:
        """A call will go then; `unsent` counts it."""
        if isinstance(self.follower, WindowFollower):
            self.follower.take(due_at, unsent)
        elif self.follower is not None:
            self.follower.take(due_at)

    def give_back(self) -> None:
        """A taken call was not sent, or a test proves nothing."""
        if self.follower is not None:
            self.follower.give_back()

    def interrupted(self, now: float) -> None:
        """The process stood still until now: the limit stays as it was measured."""
        self.not_before = LONG_AGO
        self._probe.reopened(now)
        self._refitting.choice.begin_at(now)
        if self.follower is not None:
            self.follower.interrupted(now)

    def admitted(self, arrived: float, *, in_flight: int) -> None:
        """A call sent after the last rejection was admitted."""
        assert self.follower is not None
        if self._is_out:
            # Not before: the hints of an outage would exclude every limiter that admits as much as this one did.
            self._refitting.choice.begin_at(arrived)
        self._is_out = False
        self.follower.admitted()
        if isinstance(self.follower, WindowFollower) and self.follower.trial_gap_s:
            self._probe.judge_trial(self.follower, in_flight=in_flight)

    def rejected(
        self, it: Rejection, calls: OpenCalls, now: float, *, hold_s: float, answers: int
    ) -> InitialFill | None:
        """Judge the rejection `it`, which holds everything for `hold_s` seconds, after so many answers.

        Returns:
            The fill after which to probe again, where the limiter is not what it was taken for.
        """
        window = self.follower if isinstance(self.follower, WindowFollower) else None
        # Another rejection in a row says that it is still shut. The history keeps it for the next fit; alone it is no
        # reason for one.
        if calls.fails > 1:
            fails = calls.fails
            fill = self._stays_shut(it, calls) if fails >= SHUT_FAILS and not hold_s else None
            if fill is None:
                self.back_off(now, fails=fails, hold_s=hold_s)
            else:
                self.not_before = LONG_AGO
            return fill
        if self._is_outage(it, answers):
            self._outage_at, self._is_out = answers, True
            if isinstance(self.follower, BucketFollower):
                self.follower.empty_until(now + hold_s)
            return None
        if window is None or window.rejected(it, hold_s=hold_s) is Verdict.REFIT:
            self._refit(it, now, hold_s=hold_s, answers=answers)
        self.back_off(now, fails=calls.fails, hold_s=hold_s)
        return None

    def back_off(self, now: float, *, fails: int, hold_s: float) -> None:
        """Pause after the `fails`-th rejection in a row; a hint's hold is kept elsewhere."""
        if not hold_s:
            self.not_before = now + pause_s(self.follower, fails=fails, noise_s=self._latency.noise_s)

    def _is_outage(self, it: Rejection, answers: int) -> bool:
        if it.retry_after_s is None or answers - self._outage_at < OUTAGE_CALLS:
            return False
        if isinstance(self.follower, WindowFollower):
            return self.follower.is_proven and not self.follower.could_ask_for(it)
        bucket = self.follower
        assert bucket is not None
        # What admitted no more than its burst, or stops again and again, may as well be a window that is used up.
        is_known = self._refitting.choice.fits > 0 and bucket.quiet > bucket.burst
        is_again = answers - self._outage_at < OUTAGE_BURSTS * bucket.burst
        return is_known and not is_again and min_wait_s(it.retry_after_s) > 2 / bucket.rate

    def _refit(self, it: Rejection, now: float, *, hold_s: float, answers: int) -> None:
        assert self.follower is not None
        bucket = self.follower if isinstance(self.follower, BucketFollower) else None
        self.follower = self._refitting.refit(
            it,
            self.follower,
            now=now,
            hold_s=hold_s,
            answers=answers,
            max_rate=self._probe.fill.max_rate if bucket is None else bucket.sending_rate * RATE_MARGIN,
            reopened_at=self._probe.reopened_at,
        )

    def _stays_shut(self, it: Rejection, calls: OpenCalls) -> InitialFill | None:
        """Nothing is admitted though the limiter should be open."""
        if isinstance(self.follower, WindowFollower):
            return self._window_stays_shut(self.follower, it, calls)
        assert self.follower is not None
        if not is_no_bucket(self.follower, it.at - calls.blocked_at, self._latency.noise_s):
            return None
        self._refitting.choice.refute_bucket()
        reopened_at = self._probe.reopened_at
        return InitialFill(max(self._history.count(reopened_at - 1e-9, it.at), 1), reopened_at, calls.blocked_at)

    def _window_stays_shut(self, window: WindowFollower, it: Rejection, calls: OpenCalls) -> InitialFill | None:
        """The limit fell, or the span is another one: when it is open again tells which."""
        if window.tests.has_surplus:
            window.tests.surplus_failed()  # it is shut because more was sent than is proven: that is no fall
            calls.fell()
            return None
        if it.at - calls.blocked_at < SHUT_PART * window.span_s:
            return None
        # A whole span before a rejection holds as many calls as the window, or more; a part of one says nothing.
        late = self._history.count(it.at - window.span_s, it.at)
        if 0 < late < FELL * window.count and window.is_proven:
            window.tests.fall_to(late)
            calls.fell()
            return None
        before = self._history.count(calls.blocked_at - window.span_s, calls.blocked_at)
        if window.is_proven and 0 < before < window.count:
            # One that came a moment too early would have been admitted since: the window holds fewer.
            window.tests.lower_to(before)
            return None
        # The first call of the fill: one more than a span before it was in another one.
        count = before if before >= FELL * window.count else min(window.count, len(self._history))
        first = self._history.nth_last(count)
        begin = max(it.at if first is None else first, self._probe.reopened_at)
        return InitialFill(max(self._history.count(begin - 1e-9, it.at), 1), begin, it.at)
