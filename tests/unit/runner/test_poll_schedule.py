"""The plan of polls: learns how long a model takes, looks when it is worth it, and never decides a job's fate."""

from __future__ import annotations

import random
from collections import deque
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.runner.generation_times import GenerationTimes
from pipeline.runner.poll_schedule import PollSchedule


def make_plan(**only_what_matters: float) -> PollSchedule:
    settings_s = {"first_s": 15.0, "min_s": 3.0, "max_s": 60.0, "deadline_s": 1200.0} | only_what_matters
    return PollSchedule(**settings_s)


def test_the_first_poll_waits_as_long_as_configured() -> None:
    plan = make_plan()
    plan.add("a", "m", 0.0, 0.0)
    assert plan.take(14.9, 10) == []
    assert plan.take(15.0, 10) == ["a"]


def test_a_taken_job_comes_again_only_when_it_was_answered_for() -> None:
    plan = make_plan()
    plan.add("a", "m", 0.0, 0.0)
    assert plan.take(100.0, 10) == ["a"]
    assert plan.take(900.0, 10) == []
    plan.put_back("a", 900.0)
    assert plan.take(900.0, 10) == ["a"]


def test_pauses_stay_between_the_configured_bounds() -> None:
    plan = make_plan()
    plan.add("a", "m", 0.0, 0.0)
    now, looks = 0.0, []
    while now < 1000.0:
        now += 0.5
        for job in plan.take(now, 1):
            looks.append(now)
            plan.pending(job, now)
    gaps = [later - earlier for earlier, later in pairwise(looks)]
    assert min(gaps) >= 3.0
    assert max(gaps) <= 60.5


def noticed(plan: PollSchedule, accepted_at: list[float], done_at: float) -> dict[object, float]:
    """When each of these jobs, all done at the same moment, was seen finished; answers take a moment of their own."""
    drawn = random.Random(len(accepted_at))
    seen: dict[object, float] = {}
    waiting = deque(enumerate(accepted_at))
    now = 0.0
    while (waiting or len(plan)) and now < 600.0:
        while waiting and waiting[0][1] <= now:
            plan.add(waiting[0][0], "m", waiting.popleft()[1], now)
        for job in plan.take(now, 16):
            answered_at = now + drawn.uniform(0, 0.05)
            if now < done_at:
                plan.pending(job, answered_at)
            else:
                seen[job] = now
                plan.ended(job, answered_at, answered_at - accepted_at[int(str(job))])
        now += 0.05
    return seen


@pytest.mark.parametrize("done_at", [1.0, 4.0, 6.6, 8.0, 8.5, 30.0])
def test_jobs_that_take_many_times_as_long_as_expected_are_all_noticed(done_at: float) -> None:
    """Scouts have looked in vain so often that their ends are less than a tenth of all looks; they must count."""
    drawn = random.Random(1)
    accepted_at = sorted(drawn.uniform(0, 1.7) for _ in range(18))
    seen = noticed(make_plan(first_s=0.05, min_s=0.05, max_s=0.2), accepted_at, done_at)
    assert len(seen) == len(accepted_at)
    assert max(seen.values()) < 2 * done_at + 1


def test_whatever_is_expected_each_job_is_polled_by_its_deadline() -> None:
    plan = make_plan(first_s=5000.0)
    plan.add("a", "m", 0.0, 0.0)
    assert [plan.take(float(now), 1) for now in range(1190, 1201, 10)] == [[], ["a"]]
    plan.pending("a", 1200.0)
    assert plan.is_overdue("a", 1200.0)


def test_an_error_of_a_poll_backs_off_and_decides_nothing() -> None:
    plan = make_plan()
    plan.add("a", "m", 0.0, 0.0)
    now, pauses = 15.0, []
    assert plan.take(now, 1) == ["a"]
    for _ in range(8):
        plan.unclear("a", now)
        due = plan.next_due(now)
        assert due is not None
        pauses.append(due - now)
        now = due
        assert plan.take(now, 1) == ["a"]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 60.0
    assert len(plan) == 1


def test_while_nothing_at_all_is_answered_one_poll_at_a_time_asks() -> None:
    plan = make_plan()
    for number in range(500):
        plan.add(number, "m", 0.0, 0.0)
    now, asked = 15.0, 0
    while now < 1815.0:
        for job in plan.take(now, 16):
            asked += 1
            plan.unclear(job, now)
        now += 0.5
    assert asked <= 16 + 16 + 1800 / 60 + 10
    back = plan.take(now + 60.0, 16)
    assert len(back) == 1
    plan.pending(back[0], now + 60.0)
    assert len(plan.take(now + 60.0, 16)) == 16


def test_a_hint_to_wait_is_obeyed_by_the_job_it_was_given_for() -> None:
    plan = make_plan()
    plan.add("a", "m", 0.0, 0.0)
    plan.take(15.0, 1)
    plan.unclear("a", 15.0, 33.0)
    assert plan.next_due(15.0) == 48.0


def test_the_deadline_counts_only_time_in_which_polls_were_answered() -> None:
    plan = make_plan(deadline_s=100.0)
    plan.add("a", "m", 0.0, 0.0)
    plan.pending("a", 50.0)
    plan.unclear("a", 60.0)
    assert not plan.is_overdue("a", 500.0)
    plan.unclear("a", 1060.0)
    plan.pending("a", 1070.0)
    assert not plan.is_overdue("a", 1100.0)
    assert plan.is_overdue("a", 1110.0)


def test_a_job_that_was_never_polled_is_not_overdue() -> None:
    plan = make_plan(deadline_s=100.0)
    plan.add("a", "m", 0.0, 5000.0)
    assert not plan.is_overdue("a", 5000.0)
    plan.pending("a", 5000.0)
    assert plan.is_overdue("a", 5000.0)


@pytest.mark.parametrize("answers", [0, 8])
def test_a_job_whose_looks_alone_fail_is_overdue_at_its_deadline_but_not_in_an_outage(answers: int) -> None:
    plan = make_plan(deadline_s=600.0)
    for job in ("well", "ill"):
        plan.add(job, "m", 0.0, 0.0)
    for number in range(8):
        plan.unclear("ill", 20.0 + 5 * number)
        if number < answers:
            plan.pending("well", 21.0 + 5 * number)
    if answers:
        plan.ended("well", 60.0)  # from now on nothing is answered any more
    for minute in range(2, 30):
        plan.unclear("ill", 60.0 * minute)
        assert plan.is_overdue("ill", 60.0 * minute) == (answers > 0 and minute >= 10)


def test_a_callback_makes_a_job_due_at_once() -> None:
    plan = make_plan()
    plan.add("a", "m", 0.0, 0.0)
    plan.nudge("a", 1.0)
    assert plan.take(1.0, 1) == ["a"]
    plan.nudge("absent", 1.0)


def test_a_forgotten_job_is_never_taken() -> None:
    plan = make_plan()
    plan.add("a", "m", 0.0, 0.0)
    plan.forget("a")
    plan.forget("a")
    assert plan.take(1e6, 5) == []
    assert plan.next_due(1e6) is None


def test_the_time_left_is_a_quantile_and_unknown_before_anything_ended() -> None:
    plan = make_plan(first_s=5.0)
    assert plan.eta_s(0.0) == 0.0
    for job in range(30):
        plan.add(job, "m", 0.0, 0.0)
    assert plan.eta_s(1.0) is None
    for job in range(20):
        plan.ended(job, 20.0 + job, 20.0 + job)
    late, sure = plan.eta_s(30.0, 0.5), plan.eta_s(30.0, 0.95)
    assert late is not None
    assert sure is not None
    assert 0 < late < sure


def test_no_time_left_is_promised_for_jobs_that_are_stuck() -> None:
    plan = make_plan(first_s=0.3, deadline_s=60.0)
    for job in range(30):
        plan.add(job, "m", 0.0, 0.0)
    for job in range(25):
        plan.ended(job, 1.0, 1.0)
    for now in (5.0, 20.0, 59.0):
        left_s = plan.eta_s(now, 0.95)
        assert left_s is None or left_s <= 60.0


def test_the_most_overdue_jobs_are_taken_first_and_no_more_than_asked() -> None:
    plan = make_plan()
    for job in range(2_000):
        plan.add(job, "m", 0.0, 0.0)
        plan.nudge(job, 2_000.0 - job)
    assert plan.take(1_000.0, 3) == [1999, 1998, 1997]
    assert len(plan.take(1_000.0, 5_000)) == 997
    assert len(plan) == 2_000


@given(ages=st.lists(st.floats(0.1, 5000), min_size=1, max_size=40), q=st.floats(0.05, 0.95), older=st.floats(0, 3000))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_quantiles_rise_with_their_share_and_pass_the_age_reached(ages: list[float], q: float, older: float) -> None:
    times = GenerationTimes(30.0)
    for age_s in ages:
        times.at_work(age_s / 2, None)
        times.finished(age_s, age_s / 2)
    assert times.quantile(q, older) >= older
    assert times.quantile(q) <= times.quantile(min(q + 0.05, 0.99)) + 1e-6
    assert 0.0 <= times.done_share(older) <= 1.0


def test_jobs_still_at_work_make_the_estimate_longer() -> None:
    hasty, patient = GenerationTimes(10.0), GenerationTimes(10.0)
    for _ in range(10):
        hasty.finished(12.0, 8.0)
        patient.finished(12.0, 8.0)
        patient.at_work(30.0, None)
    assert patient.quantile(0.8) > 2 * hasty.quantile(0.8)
