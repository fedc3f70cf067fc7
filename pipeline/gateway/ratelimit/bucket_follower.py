"""Follows a bucket: calls spread evenly at the rate, at most the burst at once, and a growth that tests the rate.

The growth is counted in calls that the bucket would not have had: it doubles every few calls, so a rejection comes
soon after the limit is really exceeded, and once three calls too many were admitted the limit has risen for sure.
"""

from __future__ import annotations

from pipeline.gateway.ratelimit.bucket_growth import SURE_CALLS, RateTest, rate_test
from pipeline.gateway.ratelimit.fits import BucketFit
from pipeline.gateway.ratelimit.latency import LatencyTracker
from pipeline.gateway.ratelimit.times import LONG_AGO

MIN_RATE = 1e-3
"""Calls a second of the slowest guess: a smaller one would hardly ever be tested."""

MAX_LEVEL = 0.9
"""Part of the burst that may go at once after a pause: its estimate is not exact."""
GAP, GAP_CALLS = 0.07, 0.5
"""Calls of a burst are so much of the latency, or of a gap, apart: few are in flight when it turns out too large."""
RAMP, RAMP_S = 0.08, 1.2
"""A rate that no fit has measured grows by this part with each call, or by this over the rate, whichever is smaller."""
BELOW, MAX_BELOW = 0.9, 0.03
"""Where a rejection is dear, a bucket is followed at this part of its rate at least, and this part below what was
measured at most."""
RESERVE_PART, RESERVE_NOISE = 0.2, 3.0
"""Of a dear bucket so much of the burst stays unused, and what flows in within so many standard deviations of an
arrival: calls of a pause that leave together must not meet an empty bucket. Worth 0.009 of small buckets with whole
hints."""


class BucketFollower:
    """Says when the next call may go."""

    def __init__(
        self,
        latency: LatencyTracker,
        *,
        rate: float,
        burst: float,
        now: float,
        level: float = 0.0,
        ramp_after: float | None = None,
        test: RateTest | None = None,
    ) -> None:
        """`level` calls may go at once. After `ramp_after` calls a guessed rate grows until it is rejected."""
        self.rate, self.burst = rate, max(burst, 1.0)
        self.sending_rate = self.rate
        """the rate with its growth"""
        self.quiet = 0
        """calls admitted since the last rejection"""
        self.admitted_total = 0
        self.ramp_after = ramp_after
        self.test = test if test is not None else RateTest()
        self._latency = latency
        self._level, self._level_at = level, now
        self._last_at = LONG_AGO

    def ready_at(self, now: float) -> float:
        """The earliest time of the next call."""
        self._fill(now)
        gap_s = min(GAP * self._latency.latency_s, GAP_CALLS / self.sending_rate)
        short = 1 - self._level
        at = max(now, self._level_at) + short / self.sending_rate if short > 1e-6 else now
        return max(self._last_at + gap_s, at)

    def take(self, due_at: float) -> None:
        """A call will go then."""
        self._last_at = max(self._last_at, due_at)
        self._fill(due_at)
        self._level -= 1

    def give_back(self) -> None:
        """A taken call was not sent."""
        self._level += 1

    def interrupted(self, now: float) -> None:
        """The process stood still until now: the count of calls without a rejection begins again."""
        self.quiet = min(self.quiet, 1)
        self.sending_rate = self.rate

    def empty_until(self, at: float) -> None:
        """The bucket is taken to be empty, and to fill up from then on."""
        self._level, self._level_at = 0.0, at

    def admitted(self) -> None:
        """A call sent after the last rejection was admitted."""
        self.quiet += 1
        self.admitted_total += 1
        if self.ramp_after is not None:
            if self.quiet > self.ramp_after:
                self.sending_rate *= 1 + min(RAMP, RAMP_S / self.sending_rate)
            return
        growth = self.test.growth(self.quiet, self.rate)
        self.sending_rate = self.rate * (1 + min(growth, max(0.5, self.test.unsure)))
        if self.test.has_risen(self.quiet):
            self.ramp_after = 0

    def _fill(self, now: float) -> None:
        if now > self._level_at:
            grown = self._level + self.sending_rate * (now - self._level_at)
            # At least one call, or none could ever go.
            self._level = min(grown, max(1.0, self._max_level()))
            self._level_at = now

    def _max_level(self) -> float:
        if not self.test.excess:
            return MAX_LEVEL * self.burst
        return (1 - RESERVE_PART) * self.burst - 1 - RESERVE_NOISE * self._latency.noise_s * self.rate


def bucket_of_fit(
    fit: BucketFit,
    latency: LatencyTracker,
    *,
    now: float,
    hold_s: float,
    interval: float,
    quiet: int,
    settled_calls: int,
) -> BucketFollower:
    """The bucket that was fitted at a rejection, after `quiet` admitted calls.

    `hold_s` is how long the rejection holds everything (seconds), `interval` the calls until the next test where a
    rejection costs only itself, `settled_calls` those since the limit fell.
    """
    rate = fit.rate
    test = rate_test(fit, rate, hold_s=hold_s, interval=interval, measured_calls=quiet, settled_calls=settled_calls)
    rate = max(rate, MIN_RATE)
    if test.excess:
        rate *= 1 - min(MAX_BELOW, 1 / quiet)
    elif fit.burst < 2:  # rather below, by as much as is unknown
        guard_s = (2.0 if hold_s else 1.0) * latency.noise_s
        rate = max(fit.min_rate, BELOW * rate) * (1 - min(MAX_BELOW, 1 / quiet))
        rate = 1 / (1 / min(fit.min_rate, rate) + guard_s)
    bucket = BucketFollower(latency, rate=rate, burst=fit.burst, now=now, test=test)
    # After a hold the bucket has filled up by as much; nothing is built on that while the rate is unsure.
    bucket.empty_until(now + (hold_s if quiet < SURE_CALLS else 0.0))
    return bucket
