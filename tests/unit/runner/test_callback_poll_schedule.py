"""The plan of polls with callbacks on: called jobs are polled now, others late, and broken callbacks are noticed."""

from __future__ import annotations

from pipeline.runner.callback_poll_schedule import CallbackPollSchedule


def make_plan() -> CallbackPollSchedule:
    return CallbackPollSchedule(first_s=1.0, min_s=0.25, max_s=10.0, deadline_s=1200.0)


def first_look(plan: CallbackPollSchedule, job: str, start: float) -> float:
    """When the plan polls a job without a callback."""
    now = start
    while not (taken := plan.take(now, 10)):
        due = plan.next_due(now)
        assert due is not None
        now = max(due, now + 0.01)
    assert taken == [job]
    return now


def test_a_job_without_a_callback_is_left_alone_for_twice_the_longest_wait() -> None:
    plan = make_plan()
    plan.add("a", "dop-lite", 0.0, 0.0)
    assert 20.0 <= first_look(plan, "a", 0.0) < 21.0


def test_after_the_first_call_jobs_are_left_alone_for_longer() -> None:
    plan = make_plan()
    plan.add("a", "dop-lite", 0.0, 0.0)
    plan.nudge("a", 3.0)
    assert plan.take(3.0, 10) == ["a"]
    plan.ended("a", 3.1, 3.1)
    plan.add("b", "dop-lite", 4.0, 4.0)
    assert 54.0 <= first_look(plan, "b", 4.0) < 55.0


def test_a_net_is_never_wider_than_half_the_deadline() -> None:
    plan = CallbackPollSchedule(first_s=1.0, min_s=0.25, max_s=10.0, deadline_s=8.0)
    plan.add("a", "dop-lite", 0.0, 0.0)
    assert 4.0 <= first_look(plan, "a", 0.0) < 5.0


def test_three_jobs_that_end_without_a_call_bring_the_usual_plan_back() -> None:
    plan = make_plan()
    for number in range(3):
        assert not plan.gave_up
        plan.add(number, "dop-lite", 0.0, 0.0)
        plan.ended(number, 20.0, 20.0)
    assert plan.gave_up
    plan.add("a", "dop-lite", 30.0, 30.0)
    assert first_look(plan, "a", 30.0) < 50.0


def test_a_job_that_was_called_about_twice_counts_once() -> None:
    plan = make_plan()
    for number in range(9):
        plan.add(number, "dop-lite", 0.0, 0.0)
    plan.nudge(0, 1.0)
    plan.nudge(0, 1.0)
    for number in range(5):
        plan.ended(number, 20.0, 20.0)
    assert plan.gave_up
