"""Follows a bucket: calls spread evenly at the rate, at most the burst at once, and a growth that tests the rate.

The growth is counted in calls that the bucket would not have had: it doubles every few calls, so a rejection comes
soon after the limit is really exceeded, and once three calls too many were admitted the limit has risen for sure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.gateway.ratelimit.fits import BucketFit
from pipeline.gateway.ratelimit.history import Rejection
from pipeline.gateway.ratelimit.latency import LatencyTracker

LONG_AGO = float("-inf")

MIN_RATE = 1e-3
"""Calls a second of the slowest guess: a smaller one would hardly ever be tested."""

MAX_LEVEL = 0.9
"""Part of the burst that may go at once after a pause: its estimate is not exact."""
GAP, GAP_CALLS = 0.07, 0.5
"""Calls of a burst are so much of the latency, or of a gap, apart: few are in flight when it turns out too large."""
DEAR_CALLS = 4.0
"""A rejection is dear when its hold costs more calls than this, beyond those that a burst makes up for."""
RAMP, RAMP_S = 0.08, 1.2
"""A rate that no fit has measured grows by this part with each call, or by this over the rate, whichever is smaller."""
DOUBLINGS, EXCESS_CALLS = 5, 3.0
"""Between two tests the growth doubles so often; by the end of it so many calls were sent beyond the rate."""
RISEN_AFTER = 1.3
"""Times that many calls without a rejection: the limit has risen for sure, and the rate ramps from there on."""
SURE_CALLS, MIN_SURE_CALLS, SURE_S = 50, 6, 4.0
"""Calls in which the flow rises to the highest possible rate: what flows in within so many seconds, in bounds."""

HORIZON_CALLS = 500
"""A rate that may be higher is tried at once when that gains more in so many calls than a rejection costs."""
COST_INTERVAL = 5.0
"""Calls that a hold costs for which the interval is as long again."""
MAX_UNSURE = 3.0
"""The flow never grows to more than this times above the measured rate before a fit says so."""
BELOW, MAX_BELOW = 0.9, 0.03
"""A dear bucket is followed at this part of its rate at least, and this part below what was measured at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateTest:
    """How the rate of a fit is tested.

    Attributes:
        unsure: by which part the rate may be higher than was measured.
        is_eager: whether the highest possible rate is worth trying at once.
        calls: from one rejection to the next, as they are wanted.
    """

    unsure: float = 0.0
    is_eager: bool = True
    calls: float = 250.0


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
        growth = self._growth()
        self.sending_rate = self.rate * (1 + min(growth, max(0.5, self.test.unsure)))
        if self.quiet > RISEN_AFTER * self.test.calls:
            self.ramp_after = 0

    def _growth(self) -> float:
        test = self.test
        doubling = test.calls / DOUBLINGS
        first = EXCESS_CALLS * math.log(2) / (doubling * 2.0**DOUBLINGS)
        crept = first * 2.0 ** min(self.quiet / doubling, 2.0 * DOUBLINGS)
        wait = 0.0 if test.is_eager else test.calls / 4
        explored = max(0.0, self.quiet - wait) / min(SURE_CALLS, max(MIN_SURE_CALLS, SURE_S * self.rate))
        if test.is_eager:
            explored = min(explored, 1.0) * 2.0 ** min(max(0.0, explored - 1), 6.0)
        return float(test.unsure * (explored if test.is_eager else min(explored, 1.0)) + crept)

    def _fill(self, now: float) -> None:
        if now > self._level_at:
            grown = self._level + self.sending_rate * (now - self._level_at)
            self._level = min(grown, max(1.0, MAX_LEVEL * self.burst))
            self._level_at = now


def bucket_of_fit(
    fit: BucketFit,
    it: Rejection,
    latency: LatencyTracker,
    *,
    now: float,
    hold_s: float,
    interval: float,
    quiet: int,
) -> BucketFollower:
    """The bucket that was fitted at the rejection `it`, after `quiet` admitted calls.

    `hold_s` is how long the rejection holds everything (seconds), `interval` the calls until the next test where a
    rejection costs only itself.
    """
    rate = fit.rate
    if it.retry_after_s is not None:  # in a wait that short a third of a call flows in
        least = 0.3 / max(it.retry_after_s, 0.001)
        rate = max(rate, least) if fit.max_rate > least else rate
    fit_rate = rate
    unsure = min(max(fit.max_rate / rate - 1, 0.0), MAX_UNSURE)
    hold_cost = hold_s * rate - fit.burst  # calls that a rejection costs
    test = RateTest(
        unsure=unsure,
        is_eager=unsure * HORIZON_CALLS > hold_cost,
        calls=interval * (1 + max(hold_cost, 0.0) / COST_INTERVAL),
    )
    rate = max(rate, MIN_RATE)
    if hold_cost > DEAR_CALLS or fit.burst < 2:  # rather a little below, by as much as is unknown
        rate = max(fit.min_rate, BELOW * fit_rate) * (1 - min(MAX_BELOW, 1 / quiet))
        if fit.burst < 2:
            guard_s = (2.0 if hold_s else 1.0) * latency.noise_s
            rate = 1 / (1 / min(fit.min_rate, rate) + guard_s)
    bucket = BucketFollower(latency, rate=rate, burst=fit.burst, now=now, test=test)
    # After a hold the bucket has filled up by as much; nothing is built on that while the rate is unsure.
    bucket.empty_until(now + (hold_s if quiet < SURE_CALLS else 0.0))
    return bucket
