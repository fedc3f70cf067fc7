"""Wait hints of the gateway, for everybody at once: until when nothing may be sent, and which hints are not believed.

Rules (ours; the API document gives none). A hint is clamped to 1 s .. 15 min. Up to 60 s it is obeyed exactly.
Beyond 60 s nothing is sent for 60 s, then one probing call a minute. A probe that is let in refutes the hint: the hold
ends for all, and further hints beyond 60 s count as no hint, until one call sent 60 s or more after such a hint is throttled.
"""

from __future__ import annotations

SHORTEST_S = 1.0
OBEYED_S = 60.0
"""Hints up to here are obeyed to the second."""
LONGEST_S = 900.0
PROBE_EVERY_S = 60.0


class Hold:
    """One allowance's hold: `ready_at` is the earliest time a call may be sent."""

    def __init__(self) -> None:
        self._until = float("-inf")
        self._probe_at = float("inf")
        self._long_since: float | None = None
        self._doubted = False

    def ready_at(self, now: float) -> float:
        """The earliest time a call may go: the end of the hold, or the next probe within it."""
        return min(self._until, self._probe_at)

    def is_probing(self, now: float) -> bool:
        """Whether a call sent now would be a probe inside a long hold."""
        return now < self._until

    def take(self, now: float) -> None:
        """A call goes now; inside a long hold that was the minute's probe."""
        if self.is_probing(now):
            self._probe_at = now + PROBE_EVERY_S

    def hint(self, now: float, wait_s: float) -> bool:
        """The gateway said: come back in `wait_s`. False when the hint is not believed, and nothing is held."""
        wait_s = min(max(wait_s, SHORTEST_S), LONGEST_S)
        if wait_s <= OBEYED_S:
            self._until = max(self._until, now + wait_s)
            self._probe_at = max(self._probe_at, self._until) if self._long_since is None else self._probe_at
            return True
        if self._doubted:
            return False
        if self._long_since is None:
            self._long_since = now
            self._probe_at = now + OBEYED_S
        self._until = max(self._until, now + wait_s)
        return True

    def let_in(self, sent_at: float) -> None:
        """A call sent at `sent_at` was accepted: inside a long hold that refutes the hint."""
        if self._long_since is None or sent_at < self._long_since + OBEYED_S:
            return
        self._doubted = self._doubted or sent_at < self._until
        self._until, self._probe_at, self._long_since = float("-inf"), float("inf"), None
