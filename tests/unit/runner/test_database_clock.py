"""What a worker knows of the database's clock: the quickest answer counts, and a clock that was set is followed."""

from __future__ import annotations

import random

import pytest

from pipeline.gateway.ratelimit.limiter import CallKind
from pipeline.runner.cluster.shared_limit import SharedSlot
from pipeline.runner.cluster.shared_rate import DatabaseClock

AHEAD_S = 1_000.0


@pytest.mark.parametrize("seed", range(5))
def test_a_slot_is_due_at_the_same_moment_for_every_worker_whose_answers_took_different_times(seed: int) -> None:
    rng = random.Random(seed)
    due = []
    for _ in range(3):
        clock = DatabaseClock()
        delays_s = [rng.uniform(0.0, 0.03) for _ in range(20)] + [0.0002]
        for at, delay_s in enumerate(delays_s):
            clock.seen(AHEAD_S + at, at + delay_s)
        slot = SharedSlot(slot="w:1", kind=CallKind.SUBMIT, taken_at=AHEAD_S + 30, due_at=AHEAD_S + 30)
        due.append(clock.our_slot(slot).due_at)
    assert max(due) - min(due) <= 0.001
    assert due == pytest.approx([30.0] * 3, abs=0.001)


def test_a_database_whose_clock_was_set_back_is_followed_at_once() -> None:
    clock = DatabaseClock()
    clock.seen(AHEAD_S, 0.001)
    clock.seen(AHEAD_S - 60, 1.001)
    assert clock.ours(AHEAD_S - 60) == pytest.approx(1.001)


def test_one_slow_answer_moves_nothing() -> None:
    clock = DatabaseClock()
    clock.seen(AHEAD_S, 0.0)
    clock.seen(AHEAD_S + 1, 1.2)
    assert clock.ours(AHEAD_S) == pytest.approx(0.0, abs=0.001)
