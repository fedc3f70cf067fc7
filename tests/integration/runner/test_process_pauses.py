"""A pause of the process says nothing of the gateway's limits; a remembered limit is tested before it is trusted."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable

import pytest

from benchmarks.million import VirtualLoop
from benchmarks.simulation import Bucket, Fixed, Hint, Latency, Limiter, Sliding, ideal_s, no_hint, run_submits
from benchmarks.simulation import whole_seconds as whole
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter, CallKind, LearnedLimits, LimitFeedback
from pipeline.gateway.ratelimit.remembered import MemoryTest
from pipeline.runner.process_pauses import MIN_PAUSE_S, TICK_S, PauseDetector
from pipeline.runner.rate_gate import RateGate
from pipeline.runner.stop import StopSignal

LIMITS: dict[str, tuple[Callable[[], Limiter], float]] = {
    "bucket of 1": (lambda: Bucket(7.6, 1), 7.6),
    "bucket of 5": (lambda: Bucket(10, 5), 10.0),
    "bucket of 40": (lambda: Bucket(40, 40), 40.0),
    "fixed window": (lambda: Fixed(40, 1), 40.0),
    "sliding window": (lambda: Sliding(40, 1), 40.0),
    "long window": (lambda: Sliding(100, 10), 10.0),
}
WRONG = {
    "a 15th": LearnedLimits(submit_per_s=0.5, burst=1.0),
    "one a minute": LearnedLimits(count=1, span_s=60.0),
    "one in 30 s, with a burst": LearnedLimits(submit_per_s=0.03, burst=2.0),
    "45 in 40 s": LearnedLimits(count=45, span_s=40.0),
    "much too high": LearnedLimits(submit_per_s=400.0, burst=400.0),
    "a window that is too high": LearnedLimits(count=500, span_s=1.0),
}
LATENCY = Latency(typical_s=0.03)


def believed_rate(pace: AdaptiveRateLimiter, true: float) -> float:
    """Calls a second that the next run begins with; the true rate where nothing was learned."""
    learned = pace.learned()
    if learned.count is not None and learned.span_s is not None:
        return learned.count / learned.span_s
    return learned.submit_per_s or true


def after_a_freeze(kind: str, hint: Hint, begin_s: float, length_s: float, *, notices: bool) -> tuple[float, float]:
    """(reached after the freeze, believed at the end) as parts of the true rate."""
    make, true = LIMITS[kind]
    pace = AdaptiveRateLimiter(rate=None)
    freeze = (begin_s, begin_s + length_s)
    tally = run_submits(
        pace, make(), 400, hint=hint, latency=LATENCY, freeze=freeze, notices_freeze=notices, until_s=20_000
    )
    after = [at for at in tally.accepted if at > freeze[1]]
    reached = len(after) / max(after[-1] - freeze[1], 1e-9) / true if len(after) > 50 else 1.0
    return reached, believed_rate(pace, true) / true


@pytest.mark.parametrize("seed", range(6))
def test_a_freeze_poisons_neither_this_run_nor_the_next(seed: int) -> None:
    """Random freezes of 3 s to 6 minutes, within the first 12 s, when most is learned."""
    rng, all_reached = random.Random(seed), []
    for _ in range(10):
        kind, hint = rng.choice(sorted(LIMITS)), rng.choice([no_hint, whole])
        begin_s, length_s = rng.uniform(0.01, 12.0), 3.0 * 120 ** rng.random()
        reached, believed = after_a_freeze(kind, hint, begin_s, length_s, notices=True)
        case = f"{kind}, {hint.__name__}, frozen at {begin_s:.2f} for {length_s:.1f} s"
        assert reached > 0.5, case
        assert 0.3 < believed < 4.5, case
        all_reached.append(reached)
    assert sum(all_reached) / len(all_reached) > 0.85


@pytest.mark.parametrize(("kind", "begin_s"), [("bucket of 1", 0.1), ("fixed window", 0.7), ("sliding window", 0.5)])
def test_a_law_that_does_not_hear_of_the_freeze_is_caught(kind: str, begin_s: float) -> None:
    """The broken twin: the time of the freeze is taken for the gateway's."""
    reached, believed = after_a_freeze(kind, no_hint, begin_s, 37.0, notices=False)
    assert reached < 0.2
    assert believed < 0.2
    reached, believed = after_a_freeze(kind, no_hint, begin_s, 37.0, notices=True)
    assert reached > 0.8
    assert believed > 0.8


def with_memory(kind: str, memory: LearnedLimits, hint: Hint, count: int = 400) -> tuple[float, int]:
    """(ideal / reached, refusals) of a run that begins with a remembered limit."""
    make, _ = LIMITS[kind]
    pace = AdaptiveRateLimiter(rate=None, learned=memory)
    tally = run_submits(pace, make(), count, hint=hint, latency=LATENCY, until_s=50_000)
    return ideal_s(make, count) / tally.makespan_s, len(tally.refused)


@pytest.mark.parametrize("hint", [no_hint, whole])
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("kind", LIMITS)
def test_a_wrong_memory_is_doubted_at_once(kind: str, wrong: str, hint: Hint) -> None:
    reached, refused = with_memory(kind, WRONG[wrong], hint)
    assert reached > 0.55
    assert refused < 60


@pytest.mark.parametrize("kind", LIMITS)
def test_a_right_memory_costs_a_few_refusals(kind: str) -> None:
    make, true = LIMITS[kind]
    first = AdaptiveRateLimiter(rate=None)
    run_submits(first, make(), 400, latency=LATENCY)
    reached, refused = with_memory(kind, first.learned(), no_hint, 300)
    assert reached > 0.75
    assert refused <= 20
    assert math.isclose(believed_rate(first, true), true, rel_tol=0.2)


@pytest.mark.parametrize("kind", ["bucket of 40", "sliding window"])
def test_a_memory_that_is_not_tested_is_caught(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: it waits as the remembered limit says, so that nothing ever contradicts it."""
    monkeypatch.setattr(MemoryTest, "test_at", lambda self, ready_at: ready_at)
    assert with_memory(kind, WRONG["a 15th"], no_hint)[0] < 0.1


# --- who notices


def test_a_jump_of_the_loops_clock_is_a_pause() -> None:
    pauses = PauseDetector(lambda: 0.0)
    assert pauses.stood_still(1_000.0) is None, "nothing ticks yet"
    pauses.tick(1_000.0)
    assert pauses.stood_still(1_000.0 + TICK_S + MIN_PAUSE_S - 0.1) is None
    assert pauses.stood_still(1_037.0) == 37.0 - TICK_S
    assert pauses.stood_still(1_037.1) is None, "said once"


def test_a_suspend_is_a_pause_though_the_loops_clock_does_not_move() -> None:
    suspended = [0.0]
    pauses = PauseDetector(lambda: suspended[0])
    pauses.tick(5.0)
    suspended[0] = 3_600.0
    assert pauses.stood_still(5.1) == 0.0
    assert pauses.stood_still(5.2) is None


class Recording(AdaptiveRateLimiter):
    """A pace that writes down what it is called with."""

    def __init__(self) -> None:
        super().__init__(rate=None)
        self.calls: list[str] = []

    def interrupted(self, now: float) -> None:
        self.calls.append("interrupted")

    def answered(self, *arguments: object, **more: object) -> None:
        self.calls.append("answered")


@pytest.mark.parametrize("watched", [True, False])
def test_the_pause_is_noticed_before_the_answer_is_learned_from(watched: bool) -> None:
    suspended = [0.0]

    async def story() -> list[str]:
        pace = Recording()
        gate = RateGate(pace, StopSignal(), PauseDetector(lambda: suspended[0]))
        watch = asyncio.create_task(gate.watch()) if watched else None
        await asyncio.sleep(0.1)
        slot = await gate.slot(CallKind.SUBMIT)
        assert slot is not None
        call = gate.sent(CallKind.SUBMIT)
        suspended[0] = 100.0
        gate.answered(call, LimitFeedback.ACCEPTED)
        if watch is not None:
            watch.cancel()
        return pace.calls

    loop = VirtualLoop()
    try:
        calls = loop.run_until_complete(story())
    finally:
        loop.close()
    assert calls == (["interrupted", "answered"] if watched else ["answered"])
