"""Draws docs/internals/states.md from the ledger's table.

`python -m tests.support.states_doc` writes it, a test notices a stale one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.ledger.states import TRANSITIONS, Event
from pipeline.records import COST_STATE, State

PAGE = Path(__file__).parents[2] / "docs" / "internals" / "states.md"

STATE_WORDS = {
    State.PLANNED: "listed, not sent",
    State.SUBMITTING: "the intent is on the disk; the POST may be in flight",
    State.ACCEPTED: "the gateway gave an id; it is being made",
    State.STALLED: "no result before the deadline; still collectable",
    State.DONE: "the gateway named a video; it is fetched or being fetched",
    State.EXPIRED: "paid, but the link is dead; `dop collect RUN` asks again, free of charge",
    State.FAILED: "the gateway could not make it, or named no video; then `dop collect RUN` asks again, free of charge",
    State.REFUSED: "moderation (nsfw)",
    State.CANCELED: "canceled at the gateway",
    State.REJECTED: "refused with a 4xx: never created",
    State.UNKNOWN: "perhaps paid; `dop resolve` settles it",
    State.WRITTEN_OFF: "settled with `dop resolve --charged`",
    State.SKIPPED: "a placeholder of the sheet; never in the ledger",
}

EVENT_WORDS = {
    Event.RESERVE: "the intent and its money are recorded; the POST follows",
    Event.RELEASE: "proof that nothing was created: not sent, throttled, key refused",
    Event.ACCEPT: "a 2xx answer with an id",
    Event.REJECT: "a 4xx for this one request",
    Event.LOSE: "sent, and no answer that says what became of it",
    Event.COMPLETE: "a poll says that the video is ready",
    Event.SAVE: "the video is verified and has its final name",
    Event.FAIL: "a poll says failed",
    Event.REFUSE: "a poll says nsfw",
    Event.CANCEL: "a poll says canceled",
    Event.STALL: "the deadline passed",
    Event.EXPIRE: "the link stayed dead over five tries, or gave no video a day after; fresh polls gave no other one",
    Event.ADOPT: "an unknown outcome was matched to a job",
    Event.CHARGE: "the operator says that it was charged and is lost",
    Event.RESEND: "the operator (or `on_unknown: resend`) says that it may be sent again",
    Event.NOTE: "counters, a fresh link or a reason",
}


def drawn() -> str:
    """The whole page."""
    return "\n".join([*_head(), *_states(), *_pairs(), *_events(), *_diagram()]) + "\n"


def _head() -> Iterator[str]:
    yield "# The states of a request"
    yield ""
    yield "Drawn from the table in `pipeline/ledger/states.py`; `python -m tests.support.states_doc` draws it again."
    yield "A pair that is not listed is forbidden: it raises and changes nothing. Every event is one durable line of"
    yield "the history (`dop show ID`), written before the next step acts on it."
    yield ""


def _states() -> Iterator[str]:
    yield "| state | means | its price counts as |"
    yield "|---|---|---|"
    for state in State:
        yield f"| `{state}` | {STATE_WORDS[state]} | {COST_STATE[state]} |"
    yield ""
    yield "Caps count confirmed + disputed + reserved. `failed`, `refused`, `expired`, `canceled` and `rejected` are"
    yield "bought again only by `dop retry`, as a new attempt with a row, a price and an idempotency key of its own."
    yield ""


def _pairs() -> Iterator[str]:
    yield "## Which event leads where"
    yield ""
    yield "| in state | event | leads to |"
    yield "|---|---|---|"
    for state, row in TRANSITIONS.items():
        for event, after in row.items():
            if event is not Event.NOTE:
                yield f"| `{state}` | {event} | `{after}` |"
    yield ""
    yield "`note` is possible in every state but `skipped` and leaves it as it is."
    yield ""


def _events() -> Iterator[str]:
    yield "## What the events mean"
    yield ""
    yield "| event | happens when |"
    yield "|---|---|"
    for event in Event:
        yield f"| {event} | {EVENT_WORDS[event]} |"
    yield ""


def _diagram() -> Iterator[str]:
    yield "## The same as a picture"
    yield ""
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield "    [*] --> planned"
    for state, row in TRANSITIONS.items():
        for event, after in row.items():
            if event is not Event.NOTE:
                yield f"    {state} --> {after}: {event}"
    yield "```"


if __name__ == "__main__":
    PAGE.write_text(drawn(), encoding="utf-8")
