"""Several workers find a limit as well as one run does: the same law, whose state they share. In virtual time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.pacegrid import HINTS, bucket, fixed, sliding
from benchmarks.simulation import Bucket, Latency, Limiter, run_submits
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter
from pipeline.gateway.ratelimit.rates import Rate
from pipeline.runner.cluster import shared_limit, shared_rate
from pipeline.runner.cluster.shared_limit import ABSENT_S, IDLE_S, RowState, SharedPace, Visit, visit
from pipeline.runner.cluster.shared_rate_row import Check
from tests.support.shared_workers import EPOCH_S, SUBMIT, Line, MemoryRow, together

LATENCY = Latency(typical_s=0.05, spread=0.3)


def alone_s(make: Callable[[], Limiter], hint: str, *, calls: int, seed: int) -> float:
    tally = run_submits(
        AdaptiveRateLimiter(rate=None), make(), calls, hint=HINTS[hint], latency=LATENCY, seed=seed, write_s=0.003
    )
    return tally.makespan_s


@pytest.mark.parametrize("workers", [2, pytest.param(3, marks=pytest.mark.long)])
def test_two_or_three_workers_reach_what_one_run_reaches(workers: int) -> None:
    _, make = bucket(40, 1, 10)
    line = Line(limiter=make(), hint=HINTS["whole"], latency=LATENCY, seed=3)
    it = together(line, calls=60, workers=workers)
    assert len(it.admitted_at) == 60
    assert max(it.admitted_at) <= alone_s(make, "whole", calls=60, seed=3) / 0.9
    assert len(it.rejected_at) <= 12
    assert it.sent_too_early == 0
    assert min(it.by_worker.values()) >= 60 / workers / 3, "no worker is starved"


def visits_without_a_limit(calls: int) -> int:
    row = MemoryRow()
    line = Line(limiter=Bucket(10_000, 10_000), hint=HINTS["none"], latency=Latency(typical_s=0.02, spread=0.3))
    assert len(together(line, calls=calls, workers=1, row=row).admitted_at) == calls
    return row.visits


@pytest.mark.long
def test_calls_that_come_within_milliseconds_share_a_visit(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = visits_without_a_limit(600)  # the first hundreds wait for each other's answers
    assert visits_without_a_limit(1_000) - begun <= 400 / 5
    monkeypatch.setattr(shared_rate, "GATHER_S", 0.0)
    assert visits_without_a_limit(1_000) - visits_without_a_limit(600) > 400 / 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("limit", "hint"),
    [
        (bucket(40, 1, 40), "none"),
        (bucket(40, 1, 10), "whole"),
        (bucket(10, 1, 10), "whole"),
        (sliding(40, 1), "none"),
        (sliding(120, 3), "whole"),
        (fixed(60, 3), "none"),
    ],
    ids=lambda it: it if isinstance(it, str) else it[0],
)
def test_a_whole_batch_takes_three_workers_as_long_as_one_run(
    limit: tuple[str, Callable[[], Limiter]], hint: str
) -> None:
    _, make = limit
    line = Line(limiter=make(), hint=HINTS[hint], latency=LATENCY, seed=3)
    it = together(line, calls=1200, workers=3)
    assert len(it.admitted_at) == 1200
    assert max(it.admitted_at) <= alone_s(make, hint, calls=1200, seed=3) / 0.92
    assert len(it.rejected_at) <= 48
    assert it.sent_too_early == 0
    assert it.row.visits <= 2.5 * 1200


@pytest.mark.long
def test_a_rejection_that_one_worker_saw_holds_all() -> None:
    """The broken twin: workers whose reads say nothing of the others' rejections send before the hint has passed."""

    class Deaf(MemoryRow):
        async def check(self) -> Check:
            return Check(0.0, 0.0, None, 0)

    _, make = bucket(40, 1, 5)
    rows = [MemoryRow(), Deaf(trip_s=0.03)]
    early = []
    for row in rows:
        line = Line(limiter=make(), hint=HINTS["whole"], latency=LATENCY, seed=5)
        early.append(together(line, calls=100, workers=3, row=row).sent_too_early)
    assert early[0] == 0
    assert early[1] > 0


@pytest.mark.long
def test_a_worker_that_dies_holds_its_slots_for_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    took_s = []
    for absent_s in (ABSENT_S, 3 * ABSENT_S):  # the broken twin waits for the dead worker's answers for longer
        monkeypatch.setattr(shared_limit, "ABSENT_S", absent_s)
        line = Line(limiter=bucket(10, 1, 10)[1](), hint=HINTS["whole"], latency=LATENCY, seed=3, killed_at={0: 0.3})
        it = together(line, calls=60, workers=3)
        assert len(it.admitted_at) >= 60 - 16
        took_s.append(max(it.admitted_at))
    assert took_s[0] <= 5.0 + ABSENT_S
    assert took_s[1] > took_s[0] + ABSENT_S


def at(now: float, **more: object) -> Visit:
    return Visit(**({"worker": "a", "now": EPOCH_S + now, "reports": (), "wanted": (SUBMIT,)} | more))  # type: ignore[arg-type]


def test_what_an_earlier_run_learned_is_tested_first() -> None:
    line = Line(limiter=bucket(10, 1, 10)[1](), hint=HINTS["whole"], latency=LATENCY, seed=3)
    row = together(line, calls=30, workers=2).row.row
    followed = shared_limit._opened(row, EPOCH_S).channel.law
    assert followed._memory is None
    again = shared_limit._opened(row, EPOCH_S + IDLE_S + 60.0).channel.law
    assert again.follower is not None
    assert followed.follower is not None
    assert again.follower.rate == followed.follower.rate
    assert again._memory is not None


def test_other_settings_begin_with_a_new_state() -> None:
    row, _ = visit(RowState(settings=SharedPace()), at(0.0))
    changed = RowState(settings=SharedPace(job_cap=3), state=row.state)
    assert list(shared_limit._opened(row, EPOCH_S).in_use) == ["a:1"]
    assert not shared_limit._opened(changed, EPOCH_S).in_use


def test_a_configured_rate_is_kept_in_every_second_of_slots_that_are_not_used_yet() -> None:
    """Each worker takes slots before they are due, and the others cannot know yet when their calls will leave."""
    row, due_at = RowState(settings=SharedPace(rate=Rate(25, 1))), []
    for number in range(40):
        now = EPOCH_S + number * 0.05
        row, granted = visit(row, Visit(worker=f"w{number % 3}", now=now, reports=[], wanted=[SUBMIT] * 30))
        due_at += [slot.due_at for slot in granted.slots]
    assert max(sum(1 for at in due_at if begin <= at < begin + 0.999) for begin in due_at) <= 25
    assert len(due_at) >= 25 * 2, "and the rate is used"
