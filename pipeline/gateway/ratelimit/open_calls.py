"""The calls of one allowance that are not answered yet, and the rejections that are judged once they are.

When the limit is met, calls in flight are rejected as well. They are one piece of evidence: the first rejection is
judged when no call is open that was sent before it.
"""

from __future__ import annotations

from pipeline.gateway.ratelimit.history import Rejection
from pipeline.gateway.ratelimit.times import LONG_AGO


class OpenCalls:
    """Counts calls from slot to answer, and rejections in a row."""

    def __init__(self) -> None:
        self.sent = self.unsent = 0
        """calls without an answer; slots that are not used yet"""
        self.fails = 0
        """bursts of rejections since a call was admitted that was sent after one"""
        self.blocked_at = LONG_AGO
        """arrival of the first of them"""
        self.is_settling = False
        """whether the limit was met, and calls in flight are waited for"""
        self._met: Rejection | None = None

    @property
    def busy(self) -> int:
        """Calls on their way, or about to go."""
        return self.sent + self.unsent

    def take(self) -> None:
        """A call will go."""
        self.unsent += 1

    def give_back(self) -> None:
        """A taken call was not sent."""
        self.unsent -= 1

    def send(self) -> None:
        """A taken call was sent."""
        self.unsent -= 1
        self.sent += 1

    def answered(self) -> None:
        """A call is answered, or does not count as open any more."""
        self.sent -= 1

    def rejoined(self) -> None:
        """A call that did not count as open does again."""
        self.sent += 1

    def admitted(self) -> None:
        """A call was admitted after the last rejection."""
        self.fails = 0

    def rejected(self, it: Rejection) -> None:
        """A call was rejected; what was in flight with it is waited for."""
        if self.is_settling:
            return
        self.is_settling, self._met = True, it
        if not self.fails:
            self.blocked_at = it.at
        self.fails += 1

    def settled(self) -> Rejection | None:
        """The rejection to be judged now, once."""
        if not self.is_settling or self.busy:
            return None
        self.is_settling = False
        met, self._met = self._met, None
        return met

    def fell(self) -> None:
        """The rejections so far are explained by a limit that fell."""
        self.fails = 1

    def forget(self) -> None:
        """No rejection waits to be judged, and none was before."""
        self.is_settling, self._met, self.fails, self.blocked_at = False, None, 0, LONG_AGO
