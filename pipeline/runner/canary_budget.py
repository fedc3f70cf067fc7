"""How many canaries may stay unanswered. Pure: the time is an argument.

MONEY: a canary whose answer is lost may have bought again, where the gateway honours no keys. So only a few may be lost
in a row before the next one waits. The wait is short where the gateway accepted submits of this run: then it is there,
and loses answers by chance. Waiting for minutes would leave unclear what the next canary shows.
"""

from __future__ import annotations

MAX_SILENT_UNPROVED, MAX_SILENT_PROVED = 3, 10
"""Repeated calls in a row without an answer, before and after a canary of this run came back: each may have bought."""

SILENT_PAUSE_S = 300.0
"""Seconds until the next canary after so many of them."""

SHORT_PAUSES_S = (5.0, 10.0, 20.0)
"""Seconds until the next three canaries instead, where submits are accepted. In a storm that loses 30 % of the answers
three in a row are lost once in forty runs, and six once in a thousand."""


class CanaryBudget:
    """The unanswered canaries of one run."""

    def __init__(self) -> None:
        self.silent = 0
        """canaries and repeated calls in a row without an answer"""
        self.limit = MAX_SILENT_UNPROVED
        self._until, self._accepted = float("-inf"), 0

    def may_test(self, now: float) -> bool:
        """Whether a canary may be sent now. Pays: True may buy again, where keys are not honoured."""
        if self.is_used_up and now >= self._until:
            # Set with the permission: one more canary each pause, not one for each case that waits.
            self._until = now + self._pause_s()
            return True
        return not self.is_used_up

    @property
    def is_used_up(self) -> bool:
        """Whether the next canary has to wait."""
        return self.silent >= self.limit

    def note_accepted(self) -> None:
        """A submit of this run was accepted."""
        self._accepted += 1

    def note_silent(self, now: float) -> None:
        """A repeated call had no answer."""
        self.silent += 1
        self._until = now + self._pause_s()

    def note_proof(self) -> None:
        """Keys were shown to be honoured for free."""
        self.silent = 0

    def note_answer(self) -> None:
        """A canary came back with its own job."""
        self.silent, self._until, self.limit = 0, float("-inf"), MAX_SILENT_PROVED

    def _pause_s(self) -> float:
        late = self.silent - self.limit
        is_there = self._accepted > self.silent
        return SHORT_PAUSES_S[max(0, late)] if is_there and late < len(SHORT_PAUSES_S) else SILENT_PAUSE_S
