"""A limit that was taken for a bucket and gained nothing in a silence is no bucket."""

from __future__ import annotations

import pytest

from benchmarks.simulation import Fixed, Latency, run_submits
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter

CALLS = 1_200


@pytest.mark.parametrize("phase_s", [0.55, 0.8])
@pytest.mark.parametrize("latency_s", [0.002, 0.005])
def test_a_fixed_window_that_looked_like_a_bucket_at_first_is_recognised(phase_s: float, latency_s: float) -> None:
    """The first fill reached into the next window: 150 of 1,200 calls were rejected, five in each second."""
    for seed in (1, 2):
        tally = run_submits(
            AdaptiveRateLimiter(rate=None),
            Fixed(40, 1.0, -phase_s),
            CALLS,
            latency=Latency(typical_s=latency_s, spread=0.5),
            seed=seed,
            write_s=0.001,
            pause_s=0.002,
        )
        assert len(tally.accepted) == CALLS
        assert len(tally.refused) <= 40
