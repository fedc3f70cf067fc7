"""Whole batches in virtual time: the plan of polls learns, and shares one limit with submits fairly and fully."""

from __future__ import annotations

import random

import pytest

from benchmarks.simulation import Batch, BatchRun, Bucket, Hint, Open, bound_s, no_hint, whole_seconds
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter, parse_rate
from pipeline.runner.poll_schedule import PollSchedule


def run_plan(
    *, count: int, median_s: float, spread: float, first_s: float, max_lag_s: float | None = None, seed: int = 7
) -> tuple[Batch, PollSchedule]:
    rng = random.Random(seed)
    plan = PollSchedule(first_s=first_s, min_s=median_s / 20, max_s=3 * median_s, deadline_s=1e6, max_lag_s=max_lag_s)
    durations_s = [median_s * rng.lognormvariate(0, spread) for _ in range(count)]
    run = BatchRun(
        AdaptiveRateLimiter(rate=None), plan, submit_limiter=Open(), poll_limiter=Open(), durations_s=durations_s
    )
    batch = run.run()
    assert len(batch.noticed_s) == count
    return batch, plan


@pytest.mark.parametrize("first_s", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("spread", [0.2, 0.5, 0.8])
def test_generation_times_are_learned_whatever_the_first_guess(first_s: float, spread: float) -> None:
    batch, plan = run_plan(count=600, median_s=10, spread=spread, first_s=first_s)
    assert batch.polls <= 1.75 * 600
    median_s, slow_s = plan.quantile("model", 0.5), plan.quantile("model", 0.9)
    assert median_s is not None
    assert slow_s is not None
    assert 7 <= median_s <= (13 if first_s <= 10 else 17)  # who first looks at 20 s cannot tell 10 from 17
    assert slow_s > median_s


def test_a_bound_on_the_lag_is_kept() -> None:
    drawn = {"count": 300, "median_s": 10.0, "spread": 0.4, "first_s": 5.0}
    lags_s = []
    for seed in range(10):
        batch, _ = run_plan(**drawn, max_lag_s=2.0, seed=seed)  # type: ignore[arg-type]
        lags_s += batch.lag_s
    assert sum(lag_s <= 2.3 for lag_s in lags_s) >= 0.96 * len(lags_s)
    cheap, _ = run_plan(**drawn, seed=seed)  # type: ignore[arg-type]
    assert cheap.polls < batch.polls


@pytest.mark.parametrize(
    ("rate", "shared", "hint"), [("40/1s", True, no_hint), (None, None, no_hint), (None, None, whole_seconds)]
)
def test_a_shared_bucket_is_used_fairly_and_fully(rate: str | None, shared: bool | None, hint: Hint) -> None:
    rng = random.Random(1)
    durations_s = [10 * rng.lognormvariate(0, 0.3) for _ in range(1200)]
    limiter = Bucket(40, 40)
    pace = AdaptiveRateLimiter(rate=parse_rate(rate) if rate else None, shared=shared)
    plan = PollSchedule(first_s=5, min_s=0.5, max_s=30, deadline_s=1e6)
    batch = BatchRun(pace, plan, submit_limiter=limiter, poll_limiter=limiter, durations_s=durations_s, hint=hint).run(
        10_000
    )
    assert len(batch.noticed_s) == 1200
    assert batch.polls <= 1.3 * 1200
    assert batch.makespan_s <= (1.10 if hint is no_hint else 1.14) * bound_s(durations_s, per_s=40, burst=40)
    assert batch.noticed_s[0] <= 20
    # Of three calls that are in flight at 50 ms all are refused at once.
    assert batch.submits_refused + batch.polls_refused <= (0.02 if hint is no_hint else 0.04) * 2400
