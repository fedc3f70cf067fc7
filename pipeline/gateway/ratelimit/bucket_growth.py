"""How a bucket's rate is tested: how the flow grows while nothing is rejected, and when the limit has risen.

A rejection costs itself where the calls of its hold are made up for by the burst; then the flow grows to the highest
possible rate at once, and tests are frequent. Else it is dear: it costs `hold_s * rate - burst` calls. A flow at the
measured rate with a steady growth exceeds the bucket by its burst only after many calls, which then tell the rate
better than the fit before did: `n` calls tell it to 1 / n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.gateway.ratelimit.fits import BucketFit

DEAR_CALLS = 4.0
"""A rejection is dear when its hold costs more calls than this, beyond those that a burst makes up for. The rules for
such buckets are worth 0.017 of small buckets with whole hints."""
DOUBLINGS, EXCESS_CALLS = 5, 3.0
"""Between two tests the growth doubles so often; by the end of it so many calls were sent beyond the rate."""
SURE_CALLS, MIN_SURE_CALLS, SURE_S = 50, 6, 4.0
"""Calls in which the flow rises to the highest possible rate: what flows in within so many seconds, in bounds."""
RISEN_AFTER = 1.3
"""Times `calls` without a rejection: the limit has risen for sure, and the rate ramps from there on."""

COST_INTERVAL = 5.0
"""Calls that a hold costs for which the interval is as long again."""
MAX_UNSURE = 3.0
"""The flow never grows to more than this times above the measured rate before a fit says so."""

DEAR_EXCESS = 3.0
"""Calls beyond its burst by which a dear bucket is exceeded at the end of a test: one or two are misjudged arrivals."""
DEAR_UNSURE, DEAR_SURE_CALLS = 0.1, 60
"""A dear rate that is unsure by more than this part rises to its highest possible value within so many calls."""
TESTS_PER_CALL = 15.0
"""A dear bucket is tested after so many times the calls that measured it. With 8 and 5 the median of 40/s holding 10
with whole-second hints is 0.90 and 0.89, with 15 it is 0.91."""
FELL_CALLS, FELL_COST, FELL_PART = 30.0, 20.0, 0.5
"""After a fall: so many calls, as many again for each of this many calls of cost, or this part of the calls since."""
DEAR_RISEN_AFTER = 1.4
"""As `RISEN_AFTER`, for dear buckets: half as many calls again are beyond the fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateTest:
    """How the rate of a fit is tested.

    Attributes:
        unsure: by which part the rate may be higher than was measured.
        calls: from one rejection to the next, as they are wanted.
        excess: calls beyond the measured rate after `calls`, where rejections are dear; else 0.
    """

    unsure: float = 0.0
    calls: float = 250.0
    excess: float = 0.0

    def growth(self, quiet: int, rate: float) -> float:
        """The part of the rate that is added to it after `quiet` calls without a rejection."""
        if self.excess:
            unsure = self.unsure if self.unsure > DEAR_UNSURE else 0.0
            return unsure * min(quiet / DEAR_SURE_CALLS, 1.0) + 2 * self.excess * quiet / self.calls**2
        doubling = self.calls / DOUBLINGS
        first = EXCESS_CALLS * math.log(2) / (doubling * 2.0**DOUBLINGS)
        crept = first * 2.0 ** min(quiet / doubling, 2.0 * DOUBLINGS)
        explored = quiet / min(SURE_CALLS, max(MIN_SURE_CALLS, SURE_S * rate))
        return float(self.unsure * min(explored, 1.0) * 2.0 ** min(max(0.0, explored - 1), 6.0) + crept)

    def has_risen(self, quiet: int) -> bool:
        """Whether the limit must be higher, as `quiet` calls were admitted."""
        return quiet > (DEAR_RISEN_AFTER if self.excess else RISEN_AFTER) * self.calls


def rate_test(
    fit: BucketFit, rate: float, *, hold_s: float, interval: float, measured_calls: int, settled_calls: int
) -> RateTest:
    """The test of a fitted bucket that is taken to gain `rate`.

    Args:
        hold_s: how long a rejection holds everything (seconds).
        interval: calls between two tests where a rejection costs only itself.
        measured_calls: admitted calls between the last two rejections.
        settled_calls: calls since the limit fell.
    """
    unsure = min(max(fit.max_rate / rate - 1, 0.0), MAX_UNSURE)
    cost = max(hold_s * rate - fit.burst, 0.0)
    calls = interval * (1 + cost / COST_INTERVAL)
    is_dear = cost > DEAR_CALLS and fit.burst >= 2  # with one, refusals rose sixfold after an outage
    if is_dear:
        calls = max(calls, TESTS_PER_CALL * measured_calls)
        calls = min(calls, max(FELL_CALLS * (1 + cost / FELL_COST), FELL_PART * settled_calls))
    return RateTest(
        unsure=unsure,
        calls=calls,
        excess=fit.burst + DEAR_EXCESS if is_dear else 0.0,
    )
