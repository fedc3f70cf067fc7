"""The version space: whatever the limiter, the schedule and the latencies, the true limiter is consistent."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulation import Bucket, Fixed, Limiter, Sliding
from pipeline.gateway.ratelimit.fits import min_wait_s
from pipeline.gateway.ratelimit.history import History, Rejection
from pipeline.gateway.ratelimit.identification import (
    bucket_bounds,
    calls_before,
    events_of,
    fit_bucket,
    fit_windows,
    most_within,
)


def play(limiter: Limiter, *, calls: int, per_s: float, latency_s: float, whole: bool | None, seed: int) -> History:
    """Calls at random times, several at once now and then, each in flight for its own time: they overtake each other.

    `whole` hints are rounded up to seconds, else to milliseconds; None: no hints.
    """
    rng = random.Random(seed)
    now, sent = 0.0, []
    for _ in range(calls):
        now += rng.choice((0.0, 1.0, 3.0)) * rng.expovariate(per_s) if rng.random() < 0.9 else 5 / per_s
        there, back = (latency_s * rng.lognormvariate(0, 0.8) / 2 for _ in range(2))
        sent.append((now, now + there, now + there + back))
    history, answers = History(), []
    for sent_at, arrived, answered in sorted(sent, key=lambda call: call[1]):
        answers.append((answered, sent_at, limiter.admit(arrived)))
    for sent_at, _, _ in sent:
        history.sent(sent_at, latency_s / 2)
    for answered, sent_at, wait_s in sorted(answers):
        if wait_s:
            hint = None if whole is None else (math.ceil(wait_s) if whole else math.ceil(wait_s * 1000) / 1000)
            history.rejected(sent_at, answered, hint)
        else:
            history.admitted(sent_at, answered)
    return history


def tolerance_s(history: History) -> float:
    """Half of the longest round trip: by as much a call's arrival may be misjudged."""
    return max(
        (answered - sent) for sent, answered in zip(history._admitted.sent, history._admitted.arrived, strict=True)
    )


schedules = {
    "calls": st.integers(5, 120),
    "per_s": st.floats(0.5, 200),
    "latency_s": st.floats(0.001, 0.5),
    "whole": st.sampled_from([None, True, False]),
    "seed": st.integers(0, 10**6),
}


@given(rate=st.floats(0.2, 100), burst=st.integers(1, 60), **schedules)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_the_true_bucket_is_always_among_the_consistent_ones(rate: float, burst: int, **drawn: object) -> None:
    history = play(Bucket(rate, burst), **drawn)  # type: ignore[arg-type]
    if not len(history) or not history.rejections:
        return
    slack_s = tolerance_s(history) + max(it.half_s for it in history.rejections)
    low, high = bucket_bounds(events_of(history.arrivals(-math.inf), history.rejections, slack_s), np.array([rate]))
    # An arrival misjudged by t seconds misjudges a backlog by rate * t calls at most, at either end.
    possible = np.flatnonzero(np.array([it.at for it in history.rejections]) > -math.inf)
    assert low[0] <= burst + 2 * rate * slack_s + 1e-6
    assert all(high[0, k] >= burst - 2 * rate * slack_s - 1e-6 or high[0, k] == 0.5 for k in possible)


@given(
    count=st.integers(1, 60),
    span_s=st.sampled_from([1.0, 3.0, 10.0]),
    phase=st.floats(0, 1),
    fixed=st.booleans(),
    **schedules,
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_the_true_window_is_always_among_the_consistent_ones(
    count: int, span_s: float, phase: float, fixed: bool, **drawn: object
) -> None:
    limiter = Fixed(count, span_s, -phase * span_s) if fixed else Sliding(count, span_s)
    history = play(limiter, **drawn)  # type: ignore[arg-type]
    if not len(history) or not history.rejections:
        return
    arrivals, slack_s = history.arrivals(-math.inf), tolerance_s(history)
    assert most_within(arrivals, span_s, slack_s) <= (2 * count if fixed else count)
    assert all(high >= count for high in calls_before(arrivals, history.rejections, span_s, slack_s))


def test_a_bucket_with_a_wrong_rate_is_excluded() -> None:
    """The broken twin of the property: without the backlog of admitted calls any rate would do."""
    history = play(Bucket(10, 5), calls=120, per_s=30, latency_s=0.001, whole=None, seed=1)
    arrivals = history.arrivals(-math.inf)
    low, high = bucket_bounds(events_of(arrivals, history.rejections), np.array([2.0, 10.0, 80.0]))
    least = high.min(axis=1)
    assert least[1] >= low[1] - 0.1
    assert least[0] < low[0] - 1
    assert least[2] < low[2] - 1


def test_two_fills_of_unlike_durations_tell_rate_and_burst() -> None:
    history = History()
    limiter, now = Bucket(40, 10), 0.0
    for gap_s in (0.01, 0.02):
        while not (wait_s := limiter.admit(now)):
            history.sent(now, 0.0)
            history.admitted(now, now)
            now += gap_s
        history.sent(now, 0.0)
        history.rejected(now, now, math.ceil(wait_s))
        now += 1.0
    fit = fit_bucket(history.arrivals(-math.inf), history.rejections, max_rate=200)
    assert fit is not None
    assert fit.min_rate <= 40 <= fit.max_rate
    assert fit.burst == pytest.approx(10, abs=1.5)
    assert fit.misfit == 0


def test_a_window_that_admits_as_many_each_time_is_found() -> None:
    history = History()
    for begin in (0.0, 1.2, 2.4):
        for call in range(20):
            history.sent(begin + call / 100, 0.0)
            history.admitted(begin + call / 100, begin + call / 100)
        history.sent(begin + 0.21, 0.0)
        history.rejected(begin + 0.21, begin + 0.21, None)
    found = fit_windows(history.arrivals(-math.inf), history.rejections, tolerance_s=0.001, since=-math.inf)
    best = min(found, key=lambda it: it.misfit)
    assert (best.count, best.span_s) == (20, 1.0)
    assert best.misfit <= 0


def test_a_hint_says_at_least_how_long_the_wait_is() -> None:
    assert [min_wait_s(hint) for hint in (None, 1.0, 3.0)] == [0.0, 0.0, 2.0]
    assert min_wait_s(0.25) == pytest.approx(0.249)


def test_hints_that_may_be_wrong_are_no_evidence() -> None:
    history = History()
    history.sent(0.0, 0.1)
    assert history.rejected(0.0, 0.2, 3600.0) == Rejection(0.1, 0.1, None)
    assert len(history) == 0


def test_of_a_burst_few_rejections_are_kept() -> None:
    history = History()
    for call in range(20):
        history.sent(call / 1000, 0.05)
    for call in range(10, 20):
        history.rejected(call / 1000, call / 1000 + 0.1, None)
    assert len(history.rejections) == 3
    assert history.rejected_between(0.0, 1.0) == 10
    assert len(history) == 10


def test_a_window_that_was_met_once_is_no_better_explained_by_three_rejections_of_one_burst() -> None:
    """After an outage a window that one burst suggested was followed instead of the bucket that had been measured."""
    arrivals = np.concatenate([np.linspace(0.0, 0.9, 40), np.linspace(1.2, 2.1, 40)])
    burst = [Rejection(at, 0.01, None) for at in (2.11, 2.12, 2.13)]

    def misfit_of(rejections: list[Rejection]) -> float:
        fits = fit_windows(arrivals, rejections, tolerance_s=0.002, since=-math.inf)
        return next(fit.misfit for fit in fits if fit.span_s == 1.0)

    assert misfit_of(burst[:1]) == misfit_of(burst) == 1.0
    assert misfit_of([Rejection(0.92, 0.01, None), *burst]) == 0.0


def test_a_large_window_may_admit_one_call_more_than_it_seemed_to_at_a_rejection() -> None:
    """The 151st call was a misjudged arrival; a bucket of six calls a second was followed for half of the run."""
    arrivals = np.concatenate([np.linspace(0.0, 0.6, 151), np.linspace(1.2, 1.8, 150)])
    rejections = [Rejection(at, 0.001, None) for at in (0.61, 1.81)]
    fits = fit_windows(arrivals[1:], rejections, tolerance_s=0.0, since=-math.inf)
    assert next(fit.misfit for fit in fits if fit.span_s == 1.0) == 0.0
    fits = fit_windows(arrivals, rejections, tolerance_s=0.0, since=-math.inf)
    assert 0.0 < next(fit.misfit for fit in fits if fit.span_s == 1.0) < 0.5
