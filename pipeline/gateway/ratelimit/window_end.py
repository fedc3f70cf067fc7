"""What one rejection says of the window that it ended. Pure; its hint tells when the first call leaves the window."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.gateway.ratelimit.fits import min_wait_s
from pipeline.gateway.ratelimit.history import History, Rejection

SILENCE = 0.1
"""Part of a span without a call that ends one fill of the window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowEnd:
    """The rejection `it` of a window of `span_s` seconds; calls before `opened_at` were in an earlier one.

    `noise_s` is the standard deviation of an arrival.
    """

    it: Rejection
    history: History
    noise_s: float
    span_s: float
    opened_at: float

    @property
    def _margin_s(self) -> float:
        return 2.5 * self.noise_s + 0.002

    @property
    def begin(self) -> float:
        """The earliest begin of the window."""
        return self.it.at + min_wait_s(self.it.retry_after_s) - self.span_s - self._margin_s

    @property
    def calls(self) -> int:
        """Most calls that were in it."""
        it = self.it
        calls = self.history.count(self.begin, it.at + self._margin_s)
        if it.at - self.opened_at < self.span_s:
            calls = min(calls, self.history.count(self.opened_at - 1e-9, it.at + self.noise_s))
        return calls

    @property
    def rejected(self) -> int:
        """Rejected calls that were in it, if those count."""
        return self.history.rejected_between(max(self.begin, self.opened_at), self.it.at - self.it.half_s)

    @property
    def is_whole_fill(self) -> bool:
        """Whether it began after a silence, with the first call of a fill.

        A fall that is believed without this costs three of 50 windows that count rejected calls half of their pace.
        """
        is_silent = not self.history.count(self.begin - SILENCE * self.span_s, self.begin)
        return is_silent and self.history.count(self.begin, self.it.at) > 1

    @property
    def could_be(self) -> bool:
        """Whether a window of this span, of whatever count, could have answered with such a hint."""
        last = self.history.nth_last(1)
        least = min_wait_s(self.it.retry_after_s)
        return last is None or least <= last + self.span_s - self.it.at + self.noise_s
