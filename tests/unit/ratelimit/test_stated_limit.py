"""The gateway's own headers spare the first rejections, and wrong ones cost little."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from benchmarks.simulation import Bucket, Fixed, Limiter, Open, Sliding
from pipeline.gateway.allowance_headers import StatedAllowance
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter, CallInFlight, LimitFeedback, Slot

LATENCY_S = 0.05
Headers = Callable[[Limiter, float], StatedAllowance | None]


@dataclass
class Played:
    admitted: list[float] = field(default_factory=list)
    rejected: int = 0


def play(limiter: Limiter, headers: Headers, *, calls: int) -> Played:
    """Sixteen callers at once until so many calls were admitted; rejections carry whole seconds."""
    pace, played, now, number = AdaptiveRateLimiter(rate=None), Played(), 0.0, 0
    events: list[tuple[float, int, CallInFlight, float, StatedAllowance | None]] = []
    while len(played.admitted) < calls:
        slot = pace.next_slot(now)
        if isinstance(slot, Slot):
            ticket = pace.mark_sent(now)
            wait_s = limiter.admit(now + LATENCY_S / 2)
            number += 1
            stated = headers(limiter, now + LATENCY_S / 2)
            heapq.heappush(events, (now + LATENCY_S, number, ticket, wait_s, stated))
            continue
        wake = now + slot
        if events and events[0][0] <= wake:
            now, _, ticket, wait_s, stated = heapq.heappop(events)
            if wait_s:
                played.rejected += 1
                pace.answered(ticket, now, LimitFeedback.THROTTLED, float(math.ceil(wait_s)))
            else:
                played.admitted.append(now)
                pace.answered(ticket, now, LimitFeedback.ACCEPTED, stated=stated)
        else:
            now = wake
        assert now < 100_000
    return played


def nothing(limiter: Limiter, now: float) -> None:
    return None


def left_of(limiter: Limiter, now: float) -> StatedAllowance:
    """What is left, and in how many whole seconds the window begins again."""
    assert isinstance(limiter, Fixed)
    window_ends = limiter.phase_s + (limiter._window + 1) * limiter.span_s
    return StatedAllowance(remaining=limiter.count - limiter._used, reset_s=float(math.ceil(window_ends - now)))


def test_a_fixed_window_with_headers_is_used_up_without_one_rejection() -> None:
    played = play(Fixed(60, 30.0, 11.0), left_of, calls=600)
    assert played.rejected == 0
    assert len(played.admitted) / (60 * (played.admitted[-1] + 19) / 30) > 0.9
    without = play(Fixed(60, 30.0, 11.0), nothing, calls=600)
    assert without.rejected >= 3  # what the headers spare


def test_a_stated_window_is_followed_at_once() -> None:
    def policy(limiter: Limiter, now: float) -> StatedAllowance:
        return StatedAllowance(count=100, span_s=60.0)

    played = play(Sliding(100, 60.0), policy, calls=500)
    assert played.rejected <= 4  # tests whether the limit has risen
    assert played.admitted[-1] < 1.06 * 4 * 60


@pytest.mark.parametrize(
    "headers",
    [
        lambda limiter, now: StatedAllowance(remaining=0, reset_s=30.0),
        lambda limiter, now: StatedAllowance(remaining=0, reset_s=3600.0),
        lambda limiter, now: StatedAllowance(remaining=0, reset_s=None),
        lambda limiter, now: StatedAllowance(remaining=10**9, reset_s=1.0),
    ],
)
def test_headers_about_something_else_cost_one_hold_at_most(headers: Headers) -> None:
    assert play(Open(), headers, calls=400).admitted[-1] < 75.0


def test_a_limit_that_is_really_one_call_in_ten_seconds_costs_one_rejection_to_prove() -> None:
    played = play(Fixed(1, 10.0), left_of, calls=20)
    assert played.rejected <= 3
    assert played.admitted[-1] < 20 * 11.0


def test_a_bucket_whose_headers_are_rounded_up_is_not_slowed_by_them() -> None:
    def full_in(limiter: Limiter, now: float) -> StatedAllowance:
        assert isinstance(limiter, Bucket)
        return StatedAllowance(remaining=int(limiter._tokens), reset_s=1.0)

    with_headers, without = (
        play(Bucket(40.0, 10.0), headers, calls=600).admitted[-1] for headers in (full_in, nothing)
    )
    assert with_headers <= 1.05 * without


def test_headers_that_allow_too_much_cost_no_more_than_none() -> None:
    played = play(Sliding(30, 10.0), lambda limiter, now: StatedAllowance(remaining=999, reset_s=30.0), calls=300)
    silent = play(Sliding(30, 10.0), nothing, calls=300)
    assert played.rejected <= silent.rejected
    assert played.admitted[-1] <= 1.05 * silent.admitted[-1]
