"""docs/internals/states.md says what the table says."""

from __future__ import annotations

from pipeline.ledger.states import Event
from pipeline.records import State
from tests.support.states_doc import EVENT_WORDS, PAGE, STATE_WORDS, drawn


def test_the_page_of_states_is_drawn_from_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == drawn(), "python -m tests.support.states_doc"


def test_every_state_and_event_is_explained() -> None:
    assert set(STATE_WORDS) == set(State)
    assert set(EVENT_WORDS) == set(Event)
