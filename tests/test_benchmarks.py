"""The benchmarks' measure and rivals on cases small enough to count by hand; and the document is what was measured."""

from __future__ import annotations

import pytest

from benchmarks import document
from benchmarks.bout import Bout, judged
from benchmarks.fixedpause import PAUSE_S, FixedPause
from benchmarks.gateway import Tally
from benchmarks.ideal import Kind, Limit, Stage, last_s, shared_s
from pipeline.sandbox.rate_limiters import Limiter, make_limiter
from pipeline.sandbox.settings import Rate

KINDS: tuple[Kind, ...] = ("bucket", "fixed", "sliding")


def greedy_s(limiter: Limiter, count: int, start_s: float) -> float:
    """When a caller that waits exactly as long as demanded gets its last call in."""
    now = start_s
    for _ in range(count):
        while (wait_s := limiter.admit(now)) > 0:
            now += wait_s
    return now - start_s


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "start_s"), [(1, 0.0), (5, 0.25), (6, 0.25), (11, 1.75), (31, 0.5)])
def test_the_ideal_is_what_the_limiter_itself_grants(kind: Kind, count: int, start_s: float) -> None:
    limit = Limit(kind=kind, limit=5, period_s=2.0)
    granted = greedy_s(make_limiter(kind, Rate(limit=5, period_s=2.0)), count, start_s)
    assert limit.last_s(count, start_s % 2.0) == pytest.approx(granted, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("span_s", [0.5, 2.0, 3.9, 8.0])
def test_what_is_offered_in_a_span_is_the_most_that_is_let_in_before_its_end(kind: Kind, span_s: float) -> None:
    limit = Limit(kind=kind, limit=5, period_s=2.0)
    offered = limit.offered(span_s)
    assert limit.last_s(offered) < span_s <= limit.last_s(offered + 1) + 1e-9


def test_windows_by_hand() -> None:
    assert Limit(kind="fixed", limit=40).last_s(1200) == 29.0
    assert Limit(kind="fixed", limit=40).last_s(1200, phase_s=0.75) == 28.25
    assert Limit(kind="sliding", limit=40).last_s(41) == 1.0
    assert Limit(kind="bucket", limit=40).last_s(1200) == 29.0
    assert Limit(kind="bucket", limit=40, burst=1).last_s(41) == 1.0


def test_a_changed_limit_begins_with_a_full_allowance() -> None:
    stages = [Stage(from_s=at, limit=Limit(kind="bucket", limit=rate)) for at, rate in ((0.0, 40), (15.0, 15))]
    assert last_s(stages, 639) == pytest.approx(14.975)
    assert last_s(stages, 640) == 15.0  # the last one of the first stage would come at its very end
    assert last_s(stages, 639 + 15 + 30) == pytest.approx(17.0)


def test_no_shared_batch_ends_before_two_calls_a_job_or_its_longest_job() -> None:
    assert shared_s([0.0] * 600, per_s=40, burst=40) == 29.0
    assert shared_s([8.0] * 10, per_s=40, burst=40) == 8.0
    assert shared_s([1.0] * 79 + [9.0], per_s=40, burst=40) == 9.0


def test_the_cookbook_starts_nothing_for_fifteen_seconds_after_the_last_refusal() -> None:
    pause = FixedPause(per_minute=600, now=0.0)
    assert pause.ask(0.0) == 0.0
    pause.refused(1.0)
    pause.refused(2.0)
    assert pause.ask(2.5) == PAUSE_S - 0.5
    assert pause.ask(17.0) == 0.0


def test_the_cookbook_starts_with_a_whole_minute_of_its_configured_rate_and_then_keeps_to_it() -> None:
    pause = FixedPause(per_minute=60, now=0.0)
    started = sum(pause.ask(0.0) == 0.0 for _ in range(100))
    assert started == 60
    assert pause.ask(0.5) > 0.0
    assert pause.ask(1.0) == 0.0


@pytest.mark.long
def test_botocore_limits_itself_after_the_first_refusal_and_continues_until_it_is_let_in() -> None:
    pytest.importorskip("botocore")
    from benchmarks.rivals import Adaptive

    adaptive, answers, slept = Adaptive(), iter([(429, b""), (429, b""), (200, b"yes")]), list[float]()
    assert adaptive.call(lambda: next(answers), slept.append) == b"yes"
    assert len(slept) == 2
    assert all(0.0 <= pause_s <= 2.0 for pause_s in slept)


def tally(*submits: tuple[float, int, float | None]) -> Tally:
    return Tally(submits=[(at, at + 0.01, status, hint) for at, status, hint in submits])


class Usage:
    """What a process used."""

    ru_utime = ru_stime = 0.5
    ru_maxrss = 2048


def test_a_score_counts_what_the_gateway_answered_and_what_came_before_its_hint_was_over() -> None:
    seen = tally((10.0, 200, None), (10.5, 429, 2.0), (10.55, 429, 1.0), (11.5, 429, 1.0), (13.0, 200, None))
    score = judged("x", Bout(count=2), seen, ended_at=99.0, usage=Usage)
    assert (score.accepted, score.rejected, score.whole) == (2, 3, True)
    assert score.early == 1, "10.55 was on its way when the hint was given, 11.5 was not"
    assert score.elapsed_s == pytest.approx(3.01)
    assert score.memory_mb == 2.0


def test_a_bout_that_was_cut_off_counts_up_to_its_end() -> None:
    score = judged("x", Bout(count=3), tally((10.0, 200, None), (11.0, 429, None)), ended_at=40.0, usage=Usage)
    assert (score.accepted, score.whole, score.elapsed_s) == (1, False, 30.0)


def test_the_document_says_what_was_measured() -> None:
    written = document.DOCUMENT.read_text(encoding="utf-8") if document.DOCUMENT.exists() else document.page()
    assert written == document.page(), "run `python -m benchmarks`"
