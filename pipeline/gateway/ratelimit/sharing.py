"""Whose turn it is when submits and polls use one allowance: submits first, with a share for polls.

Submits go first because what is bought sooner is finished sooner, and a poll of an older job is the more likely to find
it done; the share lets the first results in while submits still go on, and keeps polls from starving. It costs nothing:
each poll must be made some time.
"""

from __future__ import annotations

from enum import StrEnum

POLL_SHARE = 0.15
"""Share of the calls that are polls while submits wait."""
HURRIED_SHARE = 0.5
"""The same share while finished videos are noticed later than they may be."""
MAX_CREDIT, MIN_CREDIT = 2.0, -1.0
"""Bounds, in polls, of what polls are owed or have used in advance, so that a pause does not end in a burst."""
WANT_S = 0.1
"""Seconds after its next permitted request during which a kind counts as still waiting."""


class CallKind(StrEnum):
    """What a call is: only whose allowance it uses, and whose turn it is, depend on it."""

    SUBMIT = "submit"
    POLL = "poll"


class SubmitPollSharing:
    """Who waits, and how many calls polls are owed."""

    def __init__(self) -> None:
        self._hurries_polls = False
        self._owed_polls = 0.0
        self._wanted_until = dict.fromkeys(CallKind, float("-inf"))

    def hurry(self, hurries: bool) -> None:
        """Whether finished videos are noticed later than they may be: polls get a larger share."""
        self._hurries_polls = hurries

    def wants(self, kind: CallKind, until: float) -> None:
        """A call of this kind waits, and will ask again by `until`."""
        self._wanted_until[kind] = until + WANT_S

    def must_yield(self, kind: CallKind, now: float) -> bool:
        """Whether the next call belongs to the other kind, which waits for it."""
        other = CallKind.POLL if kind is CallKind.SUBMIT else CallKind.SUBMIT
        if self._wanted_until[other] < now:
            return False
        polls_turn = self._owed_polls >= 1
        return polls_turn is (kind is CallKind.SUBMIT)

    def took(self, kind: CallKind) -> None:
        """A call of this kind goes now."""
        self._wanted_until[kind] = float("-inf")
        spent = 1.0 if kind is CallKind.POLL else 0.0
        share = HURRIED_SHARE if self._hurries_polls else POLL_SHARE
        owed = self._owed_polls + share - spent
        self._owed_polls = min(max(owed, MIN_CREDIT), MAX_CREDIT)
