"""The control law against limiters of each kind, in virtual time. The simulator drives the very Pace that runs use."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulation import (
    Bucket,
    Changing,
    Fixed,
    Hint,
    Latency,
    Limiter,
    Open,
    Sliding,
    Tally,
    ideal_s,
    misleading,
    no_hint,
    run_submits,
    whole_seconds,
)
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter, LearnedLimits, parse_rate

QUICK = Latency(typical_s=0.005)

Make = Callable[[], Limiter]
FORTY: dict[str, Make] = {
    "bucket": lambda: Bucket(40, 40),
    "small bucket": lambda: Bucket(40, 5),
    "fixed window": lambda: Fixed(40, 1),
    "sliding window": lambda: Sliding(40, 1),
}


def race(
    make: Make, count: int, *, hint: Hint = no_hint, pace: AdaptiveRateLimiter | None = None
) -> tuple[float, Tally]:
    """(ideal / reached, tally) of `count` submits."""
    tally = run_submits(pace or AdaptiveRateLimiter(rate=None), make(), count, hint=hint, latency=QUICK, until_s=20_000)
    assert len(tally.accepted) == count
    return ideal_s(make, count) / tally.makespan_s, tally


def most_refused(count: int, share: float = 0.01) -> float:
    """The calls in flight when the limit is first met, and a share of all."""
    return 6 + share * count


@pytest.mark.parametrize("kind", FORTY)
def test_an_unknown_limit_is_used_up_with_few_refusals(kind: str) -> None:
    ratio, tally = race(FORTY[kind], 1200)
    assert ratio >= 0.97
    assert len(tally.refused) <= most_refused(1200)


@pytest.mark.parametrize(
    ("kind", "least"), [("bucket", 0.96), ("small bucket", 0.85), ("fixed window", 0.98), ("sliding window", 0.98)]
)
def test_hints_are_obeyed_to_the_second_and_cost_little(kind: str, least: float) -> None:
    ratio, tally = race(FORTY[kind], 1200, hint=whole_seconds)
    assert tally.hint_broken == 0
    assert ratio >= least
    assert tally.refused_share <= 0.01


@pytest.mark.parametrize("tenths", range(10))
def test_a_fill_that_reaches_into_the_next_window_is_no_flow(tenths: int) -> None:
    ratio, tally = race(lambda: Fixed(40, 1, -0.018 - tenths / 10), 1200, hint=whole_seconds)
    assert tally.hint_broken == 0
    assert ratio >= (0.75 if tenths == 9 else 0.92)
    assert tally.refused_share <= 0.02


@pytest.mark.parametrize(
    "make",
    [lambda: Bucket(10 / 60, 10), lambda: Fixed(10, 60), lambda: Sliding(10, 60)],
    ids=["bucket", "fixed", "sliding"],
)
def test_thirty_rows_at_ten_a_minute_waste_no_minute(make: Make) -> None:
    tally = run_submits(AdaptiveRateLimiter(rate=None), make(), 30, hint=whole_seconds, latency=Latency(typical_s=0.4))
    assert len(tally.accepted) == 30
    assert tally.makespan_s <= 1.1 * ideal_s(make, 30) + 1
    assert len(tally.refused) <= 16


@pytest.mark.parametrize("hint", [no_hint, whole_seconds])
@pytest.mark.parametrize("kind", ["bucket", "fixed window", "sliding window"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_client_that_writes_first_and_pauses_now_and_then_gets_nearly_as_much(
    kind: str, hint: Hint, seed: int
) -> None:
    """Slots are taken well before their calls go, several calls leave at once, and answers come late."""
    slow = {"latency": QUICK, "write_s": 0.004, "pause_s": 0.05}
    tally = run_submits(AdaptiveRateLimiter(rate=None), FORTY[kind](), 1200, hint=hint, seed=seed, **slow)  # type: ignore[arg-type]
    assert tally.hint_broken == 0
    assert ideal_s(FORTY[kind], 1200) / tally.makespan_s >= (0.975 if hint is no_hint else 0.945)
    assert len(tally.refused) <= most_refused(1200, 0.02)


def test_what_was_learned_spares_the_next_run_its_refusals() -> None:
    first = AdaptiveRateLimiter(rate=None)
    race(FORTY["fixed window"], 400, pace=first)
    learned = LearnedLimits.from_json(first.learned().as_json())
    assert learned == first.learned()
    assert (learned.count, learned.span_s) == (40, 1.0)
    _, again = race(FORTY["fixed window"], 400, pace=AdaptiveRateLimiter(rate=None, learned=learned))
    assert len(again.refused) <= 4


@pytest.mark.parametrize("hint", [no_hint, whole_seconds])
@pytest.mark.parametrize("kind", ["bucket", "fixed window", "sliding window"])
def test_a_limit_that_falls_and_rises_is_followed(kind: str, hint: Hint) -> None:
    kinds: dict[str, Callable[[int], Limiter]] = {
        "bucket": lambda per_s: Bucket(per_s, per_s),
        "fixed window": lambda per_s: Fixed(per_s, 1),
        "sliding window": lambda per_s: Sliding(per_s, 1),
    }
    make = kinds[kind]
    ratio, tally = race(lambda: Changing([(0, make(40)), (20, make(15)), (40, make(60))]), 2000, hint=hint)
    assert ratio >= 0.9
    assert tally.refused_share <= (0.025 if kind == "bucket" else 0.0275)  # what moves is tested more often
    assert tally.hint_broken == 0


@pytest.mark.parametrize(
    "make",
    [lambda: Sliding(5, 1), lambda: Sliding(10, 10), lambda: Bucket(1, 10), lambda: Bucket(3, 10), lambda: Fixed(5, 1)],
    ids=["5 a second", "10 in 10 s", "1/s, 10 at once", "3/s, 10 at once", "5 a second, fixed"],
)
@pytest.mark.parametrize("latency_s", [0.005, 0.05])
def test_other_limits_are_used_up_too(make: Make, latency_s: float) -> None:
    tally = run_submits(
        AdaptiveRateLimiter(rate=None), make(), 600, latency=Latency(typical_s=latency_s), until_s=20_000
    )
    assert len(tally.accepted) == 600
    assert ideal_s(make, 600) / tally.makespan_s >= 0.94
    assert tally.refused_share <= 0.06


def test_without_a_limit_the_start_is_quick() -> None:
    tally = run_submits(AdaptiveRateLimiter(rate=None), Open(), 5000, latency=Latency(typical_s=0.01))
    assert tally.refused == []
    assert tally.makespan_s <= 5.0


def test_a_misleading_hint_of_an_hour_stops_the_run_for_a_minute_at_most() -> None:
    tally = run_submits(AdaptiveRateLimiter(rate=None), Bucket(40, 40), 400, hint=misleading, latency=QUICK)
    assert len(tally.accepted) == 400
    assert 60 <= tally.makespan_s <= 100


@given(count=st.integers(1, 120), span_s=st.sampled_from([1.0, 10.0, 60.0]), kind=st.sampled_from(["b", "f", "s"]))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_configured_rate_is_used_up_and_never_exceeded(count: int, span_s: float, kind: str) -> None:
    rate = parse_rate(f"{count}/{span_s:.0f}s")
    limiters: dict[str, Limiter] = {
        "b": Bucket(count / span_s, count),
        "f": Fixed(count, span_s),
        "s": Sliding(count, span_s),
    }
    calls = min(2 * count + 2, 150)
    tally = run_submits(AdaptiveRateLimiter(rate=rate), limiters[kind], calls, latency=QUICK, until_s=10_000)
    sent = tally.sent_s
    assert len(tally.refused) <= (0 if span_s >= 10 else 3), "arrivals scatter more than was seen so far"
    assert all(sum(at <= other < at + span_s - 1e-9 for other in sent) <= count for at in sent)
    assert tally.makespan_s <= ideal_s(lambda: Sliding(count, span_s), calls) * 1.01 + 0.1 + len(tally.refused) * span_s


def test_a_configured_rate_reaches_99_percent_of_itself_and_nearly_so_where_the_span_is_a_few_seconds() -> None:
    cases = (("10/1m", 0.4, 0.99), ("10/1m", 0.05, 0.998), ("60/1m", 0.2, 0.99), ("600/1h", 0.4, 0.999))
    short = (("40/1s", 0.02, 0.985), ("120/3s", 0.05, 0.98))  # the guard against overtaking is a larger part of a span
    for text, latency_s, least in cases + short:
        rate = parse_rate(text)
        assert rate is not None
        calls, latency = 20 * rate.count, Latency(typical_s=latency_s)
        tally = run_submits(AdaptiveRateLimiter(rate=rate), Open(), calls, latency=latency, until_s=1e6)
        assert (calls - rate.default_burst) / tally.makespan_s >= least * rate.count / rate.per_s, text


@given(
    per_span=st.integers(2, 400),
    span_s=st.sampled_from([1.0, 3.3, 10.0, 60.0]),
    burst_share=st.floats(0.1, 1.0),
    kind=st.sampled_from(["bucket", "fixed", "sliding"]),
    latency_s=st.floats(0.003, 0.3),
    hint=st.sampled_from([no_hint, whole_seconds]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_no_limiter_starves_the_run(  # noqa: PLR0917 - drawn by name
    per_span: int, span_s: float, burst_share: float, kind: str, latency_s: float, hint: Hint, seed: int
) -> None:
    """At least a tenth of what the limiter, or the open calls, would let through; hints are kept to the last."""

    def make() -> Limiter:
        if kind == "bucket":
            return Bucket(per_span / span_s, max(1, int(per_span * burst_share)))
        return Fixed(per_span, span_s, -span_s * burst_share) if kind == "fixed" else Sliding(per_span, span_s)

    count = min(4 * per_span, 600)
    most_s = 10 * (max(ideal_s(make, count), count * latency_s / 16) + 2 * span_s + 10)
    tally = run_submits(
        AdaptiveRateLimiter(rate=None),
        make(),
        count,
        hint=hint,
        latency=Latency(typical_s=latency_s),
        seed=seed,
        until_s=most_s,
    )
    assert len(tally.accepted) == count
    assert tally.hint_broken == 0


@pytest.mark.parametrize("latency_s", [0.02, 0.2])
@pytest.mark.parametrize(
    "learned",
    [None, LearnedLimits(submit_per_s=40, burst=40), LearnedLimits(count=60, span_s=60.0)],
    ids=["first start", "remembered bucket", "remembered window"],
)
def test_a_start_during_a_long_block_costs_few_calls_and_the_block_teaches_nothing(
    learned: LearnedLimits | None, latency_s: float
) -> None:
    """Everything is rejected for the first five minutes, without hints: the limit is found afterwards all the same."""
    limiter = Changing([(0.0, Fixed(0, 1e9)), (300.0, Bucket(40, 40))])
    pace = AdaptiveRateLimiter(rate=None, learned=learned)
    tally = run_submits(pace, limiter, 400, latency=Latency(typical_s=latency_s), until_s=400)
    assert sum(at < 30 for at in tally.refused) <= 4
    assert len(tally.accepted) == 400
    assert min(tally.accepted) < 332, "the longest pause is half a minute"


@pytest.mark.parametrize("kind", FORTY)
def test_half_a_minute_after_an_outage_the_limit_is_used_again(kind: str) -> None:
    """All but one call is refused from 10 s to 20 s."""
    make = FORTY[kind]
    stages = [(0.0, make()), (10.0, Fixed(1, 1e9, -1.0)), (20.0, make())]
    tally = run_submits(AdaptiveRateLimiter(rate=None), Changing(stages), 1500, latency=QUICK, until_s=100)
    late = [at for at in tally.accepted if 50 <= at < 60]
    assert len(late) >= (300 if len(tally.accepted) < 1500 else 0)
    assert sum(10 <= at < 20 for at in tally.refused) <= 40
