"""How many canaries may be lost: few where nothing is accepted, and no long wait where the gateway is there."""

from __future__ import annotations

from pipeline.runner.canary_budget import (
    MAX_SILENT_PROVED,
    MAX_SILENT_UNPROVED,
    SHORT_PAUSES_S,
    SILENT_PAUSE_S,
    CanaryBudget,
)


def lost(budget: CanaryBudget, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        budget.note_silent(now)


def accepted(budget: CanaryBudget, times: int = 100) -> None:
    for _ in range(times):
        budget.note_accepted()


def waits(budget: CanaryBudget, times: int) -> list[float]:
    """The seconds from each lost canary to the next one that may be sent."""
    found, now = [], 0.0
    for _ in range(times):
        began = now
        while not budget.may_test(now):
            now += 1.0
        found.append(now - began)
        budget.note_silent(now)
    return found


def test_a_few_may_be_lost_at_once() -> None:
    budget = CanaryBudget()
    assert waits(budget, MAX_SILENT_UNPROVED) == [0.0] * MAX_SILENT_UNPROVED
    assert not budget.may_test(0.0)


def test_a_gateway_that_accepts_nothing_is_asked_rarely() -> None:
    budget = CanaryBudget()
    lost(budget, MAX_SILENT_UNPROVED)
    assert waits(budget, 3) == [SILENT_PAUSE_S] * 3


def test_a_gateway_that_loses_answers_by_chance_is_asked_soon_and_then_rarely() -> None:
    budget = CanaryBudget()
    accepted(budget)
    lost(budget, MAX_SILENT_UNPROVED)
    assert waits(budget, 5) == [*SHORT_PAUSES_S, SILENT_PAUSE_S, SILENT_PAUSE_S]


def test_fewer_accepted_submits_than_lost_canaries_are_no_sign_of_life() -> None:
    budget = CanaryBudget()
    accepted(budget, MAX_SILENT_UNPROVED)
    lost(budget, MAX_SILENT_UNPROVED)
    assert waits(budget, 1) == [SILENT_PAUSE_S]


def test_an_answer_begins_the_count_again_with_more_room() -> None:
    budget = CanaryBudget()
    lost(budget, MAX_SILENT_UNPROVED)
    budget.note_answer()
    assert waits(budget, MAX_SILENT_PROVED) == [0.0] * MAX_SILENT_PROVED
    assert budget.is_used_up
