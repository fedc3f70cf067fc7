"""Wait hints, for everybody at once: until when nothing may be sent, and which hints are not believed.

Rules (ours; the API document gives none). A hint is at most 15 min. Up to 60 s it is obeyed exactly, however short.
Beyond 60 s nothing is sent for 60 s, then one probing call a minute. A probe that is let in refutes the hint: the hold
ends for all, and from then on hints beyond 60 s count as no hint at all. They are believed again once a call was
refused that was sent 60 s or more after the last one let in.
"""

from __future__ import annotations

from pipeline.gateway.ratelimit.times import LONG_AGO

OBEYED_S = 60.0
"""Hints up to here are obeyed to the second. Source: our ruling."""
MAX_HINT_S = 900.0
"""Seconds of the longest wait that is believed (15 minutes): more is a wrong clock or a wrong unit."""
PROBE_EVERY_S = 60.0
"""Seconds between two single calls that test, during a long wait, whether it still holds."""


class RetryAfterHold:
    """One allowance's hold: `ready_at` is the earliest time a call may be sent."""

    def __init__(self) -> None:
        self._until = LONG_AGO
        self._long_since = self._long_until = LONG_AGO
        self._probe_at = LONG_AGO
        self._probe_taken = False
        self._doubted_since: float | None = None

    def ready_at(self, now: float) -> float:
        """The earliest time a call may go: after the hint, or the next probe within a long one."""
        if now >= self._long_until:
            return self._until
        return max(self._until, min(self._probe_at, self._long_until))

    def must_wait_until(self, now: float) -> float:
        """Until when a slot taken before a hint came may not be used; a minute's probe may."""
        if now < self._long_until and self._probe_taken:
            return self._until
        return self.ready_at(now)

    def take(self, now: float) -> None:
        """A call goes now; inside a long hold that is the minute's probe."""
        if now < self._long_until:
            self._probe_at, self._probe_taken = now + PROBE_EVERY_S, True

    def give_back(self, now: float) -> None:
        """The call did not go: its turn as a probe is free again."""
        if now < self._long_until and self._probe_at > now:
            self._probe_at, self._probe_taken = (
                max(now, self._long_since + OBEYED_S),
                False,
            )

    def hint(self, now: float, wait_s: float) -> float:
        """The gateway said: come back in `wait_s`.

        Returns:
            The seconds during which nothing will be sent; 0 for a hint that is not believed.
        """
        wait_s = min(max(wait_s, 0.0), MAX_HINT_S)
        if wait_s <= OBEYED_S:
            # A shorter hint does not end a longer one: calls in flight together are answered in any order.
            self._until = max(self._until, now + wait_s)
            return wait_s
        if self._doubted_since is not None:
            return 0.0
        if now >= self._long_until:
            self._probe_at, self._long_since, self._probe_taken = (
                now + OBEYED_S,
                now,
                False,
            )
        self._long_until = max(self._long_until, now + wait_s)
        return max(0.0, min(self._probe_at, self._long_until) - now)

    def let_in(self, sent_at: float, now: float) -> bool:
        """A call sent at `sent_at` was let in; True when that refutes a long hint, and the hold is over."""
        if self._doubted_since is not None:
            self._doubted_since = sent_at
        # A call from before the hint says nothing of it.
        if now >= self._long_until or sent_at <= self._long_since:
            return False
        self._long_until, self._doubted_since = LONG_AGO, sent_at
        return True

    def refused(self, sent_at: float) -> None:
        """A call was refused: long after the last one that was let in, doubted hints are believed again."""
        if self._doubted_since is not None and sent_at >= self._doubted_since + OBEYED_S:
            self._doubted_since = None
