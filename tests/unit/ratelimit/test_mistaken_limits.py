"""Limits over a quick connection: what was taken for something else is recognised soon."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from benchmarks.simulation import (
    Bucket,
    Changing,
    Fixed,
    Hint,
    Latency,
    Limiter,
    Outage,
    Sliding,
    Tally,
    Weighed,
    no_hint,
    run_submits,
    whole_seconds,
)
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter

CALLS = 1_200


@dataclass(kw_only=True)
class BusyGateway(Latency):
    """One call in eighty, and some after it, take up to 30 ms longer, on the way there or back."""

    slow_calls: int = 0
    slow_there: bool = False

    def draw(self, rng: random.Random) -> tuple[float, float]:
        """(there, back)."""
        there, back = super().draw(rng)
        if not self.slow_calls and rng.random() < 1 / 80:
            self.slow_calls, self.slow_there = rng.randint(3, 20), rng.random() < 0.5
        if not self.slow_calls:
            return there, back
        self.slow_calls -= 1
        more = rng.uniform(0.003, 0.03)
        return (there + more, back) if self.slow_there else (there, back + more)


def carried_out(
    limiter: Limiter,
    *,
    latency_s: float,
    seed: int,
    hint: Hint = no_hint,
    latency: type[Latency] = Latency,
    calls: int = CALLS,
    write_s: float = 0.001,
    pause_s: float = 0.003,
) -> Tally:
    """The tally of all calls, each of which was admitted in the end."""
    tally = run_submits(
        AdaptiveRateLimiter(rate=None),
        limiter,
        calls,
        latency=latency(typical_s=latency_s, spread=0.5),
        seed=seed,
        hint=hint,
        write_s=write_s,
        pause_s=pause_s,
    )
    assert len(tally.accepted) == calls
    return tally


@pytest.mark.parametrize(("part", "latency_s"), [(0.55, 0.002), (0.8, 0.002), (0.55, 0.005)])
def test_a_bucket_that_gained_nothing_in_a_silence_is_none(part: float, latency_s: float) -> None:
    """The first fill reached into the next window: 150 calls were rejected, five in each second."""
    for seed in (1, 2):
        assert len(carried_out(Fixed(40, 1.0, -part), latency_s=latency_s, seed=seed).refused) <= 40


def test_a_window_is_tried_before_a_bucket_that_needs_long_to_fill() -> None:
    """Both explained two fills; the bucket of two calls a second was followed, and half a minute lost."""
    for seed in (1, 2):
        assert carried_out(Sliding(80, 2.0), latency_s=0.02, seed=seed).makespan_s < 36  # 28 s are needed


def test_a_window_of_one_call_hands_out_one_slot() -> None:
    """Several slots were handed out while the first was not sent yet: more calls were rejected than admitted."""
    for seed in (1, 2):
        assert len(carried_out(Sliding(1, 1.0), latency_s=0.001, seed=seed).refused) <= 60


def test_a_count_that_was_believed_too_high_by_one_is_lowered() -> None:
    """Each window ended with a rejection, which looked like a call that was early: 350 rejections, a third."""
    assert len(carried_out(Fixed(5, 5.0, 0.0), latency_s=0.035, seed=4).refused) <= 200


@pytest.mark.parametrize("latency_s", [0.002, 0.02])
def test_one_fit_of_a_bucket_does_not_outweigh_a_window(latency_s: float) -> None:
    """Whole hints, and a first fill that reached into the next window: a bucket of 25 to 45 a second was followed."""
    for seed in (1, 2):
        tally = carried_out(Fixed(40, 1.0, -0.95), latency_s=latency_s, seed=seed, hint=whole_seconds)
        assert tally.makespan_s < 36  # 29 s are needed


def test_calls_that_took_long_do_not_cost_a_hold_each() -> None:
    """A slow call arrived later than was thought; the one a second after it was early and cost a hold of a second."""
    for seed in (1, 2):
        tally = carried_out(Sliding(40, 1.0), latency_s=0.007, seed=seed, hint=whole_seconds, latency=BusyGateway)
        assert tally.makespan_s < 30.6  # 29 s are needed; 32 were


def test_a_bucket_of_few_calls_is_no_window() -> None:
    """Followed as a window of four calls a second, it lost half: each test was admitted, and the count fell again."""
    for seed in (1, 2):
        assert carried_out(Bucket(13.0, 4), latency_s=0.006, seed=seed, hint=whole_seconds).makespan_s < 106  # of 92


def test_the_hints_of_an_outage_are_no_evidence_of_the_limit_after_it() -> None:
    """A hint of three seconds excluded every bucket for the rest of the run: 35 calls were rejected."""
    tally = carried_out(Outage(Bucket(40.0, 10), 12.0, 15.0), latency_s=0.02, seed=2, hint=whole_seconds)
    assert tally.makespan_s < 37  # 32.5 s are needed, 40 were


def test_a_window_that_is_shut_while_more_is_tried_has_not_fallen() -> None:
    """The rise to 60 a second was lost again as a fall to a few."""
    stages = [(0.0, Sliding(40, 1.0)), (10.0, Sliding(15, 1.0)), (25.0, Sliding(60, 1.0))]
    assert carried_out(Changing(stages), latency_s=0.006, seed=2).makespan_s < 42  # 34 s are needed, 71 were


def test_a_window_has_fallen_to_what_it_admitted_in_a_whole_span_and_not_in_half_of_one() -> None:
    """Half a span before a rejection of an outage held one call; five a second were followed as one or two."""
    for seed in (1, 2, 3):
        limiter = Outage(Sliding(5, 1.0), 13.4, 19.4)
        assert carried_out(limiter, latency_s=0.002, seed=seed, calls=300).makespan_s < 68  # 65 s are needed


def test_a_window_that_fell_is_lowered_to_what_the_next_ones_admit() -> None:
    """It fell to 17 instead of 15, and was replaced by a bucket after three windows that ended early."""
    stages = [(0.0, Fixed(40, 1.0, -0.4)), (10.0, Fixed(15, 1.0, -0.4)), (25.0, Fixed(60, 1.0, -0.4))]
    tally = carried_out(Changing(stages), latency_s=0.02, seed=24, write_s=0.003, pause_s=0.05)
    assert tally.makespan_s < 40  # 34 s are needed, 46 were


def test_a_rise_to_four_times_the_count_is_followed_within_a_few_windows() -> None:
    """At most twice the proven count was tried at once, so that the rise from 15 to 60 took two seconds more."""
    for seed in (1, 2):
        stages = [(0.0, Sliding(40, 1.0)), (10.0, Sliding(15, 1.0)), (25.0, Sliding(60, 1.0))]
        tally = carried_out(Changing(stages), latency_s=0.02, seed=seed, hint=whole_seconds)
        assert tally.makespan_s < 38.5  # 34 s are needed, 39.2 were


@pytest.mark.parametrize("seed", [221385, 818183])
def test_a_window_whose_first_fill_reached_into_the_next_is_not_taken_for_a_bucket_with_outages(seed: int) -> None:
    window = Fixed(22, 10.0, -9.277)
    tally = carried_out(
        window, latency_s=0.1067, seed=seed, hint=lambda wait_s: wait_s, calls=300, write_s=0.003, pause_s=0.05
    )
    assert len(tally.refused) <= 60
    assert tally.makespan_s < 140


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("phase", [0.2, 0.5])
def test_a_limiter_that_is_neither_window_nor_bucket_and_hints_wrong_is_followed_all_the_same(
    seed: int, phase: float
) -> None:
    tally = carried_out(Weighed(100, 60.0, -60 * phase), latency_s=0.05, seed=seed, hint=lambda wait_s: 1.0, calls=300)
    evenly_s = (300 - 100) / 100 * 60 + (1 - phase) * 60
    assert tally.makespan_s < 3 * evenly_s
