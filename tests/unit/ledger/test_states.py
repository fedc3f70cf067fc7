"""Which event may happen in which state: every one of the pairs, written out apart from the table."""

from __future__ import annotations

import pytest

from pipeline.errors import InvariantError
from pipeline.ledger.states import TRANSITIONS, Event, next_state
from pipeline.records import COST_STATE, CostState, State

ALLOWED = """
planned      reserve   submitting
planned      reject    rejected
submitting   accept    accepted
submitting   release   planned
submitting   reject    rejected
submitting   lose      unknown
accepted     complete  done
accepted     fail      failed
accepted     refuse    refused
accepted     cancel    canceled
accepted     stall     stalled
accepted     expire    expired
stalled      stall     stalled
stalled      complete  done
stalled      fail      failed
stalled      refuse    refused
stalled      cancel    canceled
stalled      expire    expired
planned      adopt     accepted
unknown      accept    accepted
unknown      release   planned
unknown      reject    rejected
unknown      lose      unknown
unknown      adopt     accepted
unknown      charge    written_off
unknown      resend    planned
done         save      done
done         expire    expired
expired      save      done
failed       complete  done
"""
PAIRS = {(State(a), Event(b)): State(c) for a, b, c in (line.split() for line in ALLOWED.split("\n") if line)}
NOTES = {(state, Event.NOTE): state for state in State if state is not State.SKIPPED}
EVERY_PAIR = [(state, event) for state in State for event in Event]


@pytest.mark.parametrize(("state", "event"), EVERY_PAIR, ids=str)
def test_every_pair_of_state_and_event_is_as_written_here(state: State, event: Event) -> None:
    after = (PAIRS | NOTES).get((state, event))
    if after is not None:
        assert next_state(state, event) is after
        return
    with pytest.raises(InvariantError, match=f"{event} is not possible for a request that is {state}"):
        next_state(state, event)


def test_only_a_planned_request_may_be_reserved() -> None:
    assert [state for state in State if Event.RESERVE in TRANSITIONS[state]] == [State.PLANNED]


def test_only_proof_or_a_decision_leads_back_to_planned() -> None:
    ways = {(state, event) for state, row in TRANSITIONS.items() for event, after in row.items() if after == "planned"}
    assert ways == {
        (State.PLANNED, Event.NOTE),
        (State.SUBMITTING, Event.RELEASE),
        (State.UNKNOWN, Event.RELEASE),
        (State.UNKNOWN, Event.RESEND),
    }


def test_money_that_may_be_owed_is_never_forgotten_without_proof_or_a_decision() -> None:
    forgotten = {
        (state, event)
        for state, row in TRANSITIONS.items()
        for event, after in row.items()
        if COST_STATE[state] is not CostState.NONE and COST_STATE[after] is CostState.NONE
    }
    assert forgotten == {
        (State.SUBMITTING, Event.RELEASE),
        (State.SUBMITTING, Event.REJECT),
        (State.UNKNOWN, Event.RELEASE),
        (State.UNKNOWN, Event.REJECT),
        (State.UNKNOWN, Event.RESEND),
    }


def test_the_table_cannot_be_changed_by_accident() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[State.DONE] = {}  # type: ignore[index]
