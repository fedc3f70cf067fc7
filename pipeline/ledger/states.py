"""The life of one attempt as a table: which event may happen in which state, and what state follows.

A pair that is not in the table is forbidden: it raises and nothing changes. docs/internals/states.md shows it.
Source: spec of states (closed list); the order of reserve and accept is what prevents a double charge.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from pipeline.errors import InvariantError
from pipeline.records import State


class Event(StrEnum):
    """What happened to an attempt; each is one durable line of the ledger's history."""

    RESERVE = "reserve"
    """The intent and its money are recorded; the POST may follow. MONEY: always before the POST."""
    RELEASE = "release"
    """Proof that nothing was created (not sent, throttled, key refused): free to be bought again."""
    ACCEPT = "accept"
    """The gateway gave an id."""
    REJECT = "reject"
    """A 4xx for this one request: never created, not worth sending again unchanged."""
    LOSE = "lose"
    """The outcome is not known: perhaps paid."""
    COMPLETE = "complete"
    """The gateway says the video is ready."""
    SAVE = "save"
    """The video is verified and has its final name."""
    FAIL = "fail"
    REFUSE = "refuse"
    CANCEL = "cancel"
    STALL = "stall"
    """Deadline passed; still collectable."""
    EXPIRE = "expire"
    """Paid, and the video cannot be had; a later collect asks the gateway once more."""
    ADOPT = "adopt"
    """An unknown outcome was matched to a job."""
    CHARGE = "charge"
    """The operator says that an unknown outcome was charged and is lost."""
    RESEND = "resend"
    """The operator (or the opt-in policy) says that an unknown outcome was not charged."""
    NOTE = "note"
    """Counters, a fresh URL or a reason; the state stays."""


OUTCOMES_OF_A_SUBMIT = frozenset({Event.ACCEPT, Event.RELEASE, Event.REJECT, Event.LOSE})
"""What a POST came to. Reported late, by its token, it counts as long as the request is not resolved otherwise."""

S, E = State, Event

_ENDINGS = {E.COMPLETE: S.DONE, E.FAIL: S.FAILED, E.REFUSE: S.REFUSED, E.CANCEL: S.CANCELED}

TRANSITIONS: Mapping[State, Mapping[Event, State]] = MappingProxyType(
    {
        S.PLANNED: {
            E.RESERVE: S.SUBMITTING,
            # A submit that was refused and released is rejected later, under its token: other rows showed that this row
            # is meant.
            E.REJECT: S.REJECTED,
            # MONEY: a submit that was settled as not charged is proved to be paid before it is sent again.
            E.ADOPT: S.ACCEPTED,
            E.NOTE: S.PLANNED,
        },
        S.SUBMITTING: {
            E.ACCEPT: S.ACCEPTED,
            E.RELEASE: S.PLANNED,
            E.REJECT: S.REJECTED,
            E.LOSE: S.UNKNOWN,
            E.NOTE: S.SUBMITTING,
        },
        S.ACCEPTED: {**_ENDINGS, E.STALL: S.STALLED, E.EXPIRE: S.EXPIRED, E.NOTE: S.ACCEPTED},
        S.STALLED: {
            **_ENDINGS,
            E.STALL: S.STALLED,
            E.EXPIRE: S.EXPIRED,
            E.NOTE: S.STALLED,
        },  # checked again, still not there
        S.UNKNOWN: {
            # MONEY: the late answer of the very submit that was given up: it proves as much as one in time does, and
            # only under its token. No other submit can be meant: each has a token of its own.
            E.ACCEPT: S.ACCEPTED,
            E.RELEASE: S.PLANNED,
            E.REJECT: S.REJECTED,
            E.LOSE: S.UNKNOWN,
            E.ADOPT: S.ACCEPTED,
            E.CHARGE: S.WRITTEN_OFF,
            E.RESEND: S.PLANNED,
            E.NOTE: S.UNKNOWN,
        },
        S.DONE: {E.SAVE: S.DONE, E.EXPIRE: S.EXPIRED, E.NOTE: S.DONE},
        # The gateway names a living link again: the video is fetched free of charge.
        S.EXPIRED: {E.SAVE: S.DONE, E.NOTE: S.EXPIRED},
        # The gateway called the job done and named no video for some polls, and names one now.
        S.FAILED: {E.COMPLETE: S.DONE, E.NOTE: S.FAILED},
        S.REFUSED: {E.NOTE: S.REFUSED},
        S.CANCELED: {E.NOTE: S.CANCELED},
        S.REJECTED: {E.NOTE: S.REJECTED},
        S.WRITTEN_OFF: {E.NOTE: S.WRITTEN_OFF},
        S.SKIPPED: {},
    }
)


def next_state(state: State, event: Event) -> State:
    """The state that follows `event` in `state`.

    Raises:
        InvariantError: the pair is forbidden.
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise InvariantError(f"{event} is not possible for a request that is {state}; nothing was changed") from None
