"""The control law: how fast one allowance of the gateway may be used when nobody says how large it is. Pure.

It must never read a clock: every time is seconds of one monotonic clock, handed in.
"""

from __future__ import annotations

GROWTH = 1 / 8
"""Open calls gained for each accepted one while no limit was met: the overshoot at the limit is bounded by it."""
BACK_OFF = 0.85
RECOVER = 0.002
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 60.0
MEMORY = 256


class Law:
    """One allowance: sends are accepted or throttled; `ready_at` says when the next may go."""

    def __init__(self, *, most_open: int, rate_per_s: float | None = None) -> None:
        self.most_open = most_open
        self.open = 0
        self.window = 1.0
        self.rate_per_s = rate_per_s
        self._next_at = float("-inf")
        self._pause_s = FIRST_PAUSE_S
        self._paced_from = float("-inf")
        self._accepted: list[float] = []

    def ready_at(self, now: float) -> float:
        """The earliest time a call may be sent; infinity while only an answer can change that."""
        room = self.most_open if self.rate_per_s is not None else min(self.most_open, int(self.window))
        return float("inf") if self.open >= room else max(now, self._next_at)

    def take(self, now: float) -> None:
        """A call goes now."""
        self.open += 1
        if self.rate_per_s is not None:
            self._next_at = max(self._next_at, now) + 1 / self.rate_per_s

    def give_back(self) -> None:
        """A taken call was not sent."""
        self.open -= 1

    def accepted(self, sent_at: float, now: float) -> None:
        """The call sent at `sent_at` was let in."""
        self.open -= 1
        self._pause_s = FIRST_PAUSE_S
        self._accepted = [*self._accepted[-MEMORY:], sent_at]
        if self.rate_per_s is None:
            self.window = min(self.window + GROWTH, self.most_open)
        else:
            self.rate_per_s *= 1 + RECOVER

    def throttled(self, sent_at: float, now: float) -> None:
        """The call sent at `sent_at` met the limit."""
        self.open -= 1
        if sent_at < self._paced_from:
            return
        if self.rate_per_s is None:
            span_s = max(now - self._accepted[0], 1.0) if self._accepted else 10.0
            self.rate_per_s = max(len(self._accepted), 1) / span_s
        self.rate_per_s *= BACK_OFF
        self._paced_from = now
        self._next_at = max(self._next_at, now + self._pause_s)
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
