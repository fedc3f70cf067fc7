"""What the gateway's own headers say is left of an allowance, while nothing better is known of the limit.

They are evidence, not orders. Headers may speak of another allowance, be rounded, or be wrong, and a limit that has
been measured is known better than they say; so they are used only until the first rejection, to avoid that one.

- `remaining` calls less those in flight may still go before the reset; then nothing goes until it.
- A reset in whole seconds is rounded up, on average by half a second. Where that is much of the wait, it is not obeyed.
- Twice in a row a hold after which one call used everything up is doubted: one call goes anyway. If it is let in, the
  headers are about something else, and are never obeyed again.
"""

from __future__ import annotations

from pipeline.gateway.ratelimit.times import LONG_AGO

MAX_RESET_S = 60.0
"""Longer waits (seconds) are left to the hint of a rejection, which is probed: an hour must not be lost to a header."""

MIN_WHOLE_RESET_S = 10.0
"""Whole seconds below this lose more than 5 % by their rounding; a measured window loses 3 %."""

POOR_HOLD_CALLS, MAX_POOR_HOLDS = 2, 2
"""So many holds in a row after which at most so many calls went: the headers are put to the test."""


class StatedLimit:
    """Counts down what the newest answer said is left. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._left: int | None = None
        self._until = self._held_until = self._as_of = LONG_AGO
        self._believed = True
        self._calls = 0
        self._poor_holds = 0
        self._test_sent_at: float | None = None

    def ready_at(self, now: float) -> float:
        """The earliest time a call may go."""
        return self._until if self._is_used_up and now < self._until else now

    @property
    def _is_used_up(self) -> bool:
        return self._believed and self._left is not None and self._left <= 0

    def take(self) -> None:
        """A call goes."""
        if self._left is not None:
            self._left -= 1

    def give_back(self) -> None:
        """The call did not go."""
        if self._left is not None:
            self._left += 1

    def sent(self, now: float) -> None:
        """The call is sent now."""
        self._calls += 1
        if self._test_sent_at == LONG_AGO:
            self._test_sent_at = now

    def on_response(self, remaining: int, reset_s: float | None, *, sent_at: float, now: float, in_flight: int) -> None:
        """The answer to a call sent at `sent_at`: so many calls are left until `reset_s` seconds from now.

        Args:
            in_flight: calls without an answer; the gateway may not have counted them yet.
        """
        # Answers overtake each other: what an earlier call was answered is older than what is known.
        if not self._believed or sent_at < self._as_of or self._test_sent_at is not None:
            return
        if reset_s is None or not _is_worth_it(reset_s):
            self._left = None
            return
        begins = remaining == 0 and now >= self._held_until
        self._left, self._until, self._as_of = remaining - in_flight, now + reset_s, sent_at
        if begins:
            self._held_until = self._until
            self._begin_hold()

    def _begin_hold(self) -> None:
        self._poor_holds = self._poor_holds + 1 if self._calls <= POOR_HOLD_CALLS else 0
        self._calls = 0
        if self._poor_holds >= MAX_POOR_HOLDS:
            self._left, self._test_sent_at = 1, LONG_AGO

    def let_in(self, sent_at: float) -> None:
        """A call was let in; if it was the test of the headers, they are wrong."""
        if self._test_sent_at is not None and sent_at >= self._test_sent_at > LONG_AGO:
            self._believed = False

    def rejected(self) -> None:
        """A call was rejected: from now on the limit is measured, and what the headers said is not needed."""
        self._left = self._test_sent_at = None


def _is_worth_it(reset_s: float) -> bool:
    is_whole = abs(reset_s - round(reset_s)) < 1e-6
    return reset_s <= MAX_RESET_S and (not is_whole or reset_s >= MIN_WHOLE_RESET_S)
