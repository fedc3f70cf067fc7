"""What one rejection says of the window that it ended. Pure; its hint tells when the first call leaves the window."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.gateway.ratelimit.fits import SPANS_S, is_whole, min_wait_s
from pipeline.gateway.ratelimit.history import History, Rejection

SILENCE = 0.1
"""Part of a span without a call that ends one fill of the window."""
LONGER, MIN_LONG_HINT_S = 1.02, 1.5
"""Times the believed span that a longer one is at least, and the shortest hint (seconds) that tells of one."""


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
        """Whether it began after a silence, with the first call of a fill."""
        is_silent = not self.history.count(self.begin - SILENCE * self.span_s, self.begin)
        return is_silent and self.history.count(self.begin, self.it.at) > 1

    @property
    def could_be(self) -> bool:
        """Whether a window of this span, of whatever count, could have answered with such a hint."""
        last = self.history.nth_last(1)
        least = min_wait_s(self.it.retry_after_s)
        return last is None or least <= last + self.span_s - self.it.at + self.noise_s

    def longer_span_s(self, count: int) -> float | None:
        """The span of the window where it admitted `count` calls and ends later than was believed."""
        hint, it = self.it.retry_after_s, self.it
        if hint is None or hint <= MIN_LONG_HINT_S:
            return None
        first = self.history.nth_last(min(count, len(self.history)))
        if first is None or self.history.count(it.at - 1.1 * self.span_s, it.at + self.noise_s) < count - 1:
            return None
        max_s = it.at + hint - first + self.noise_s
        min_s = max_s - (1.0 if is_whole(hint) else 0.0) - 3 * self.noise_s
        usual = [span for span in SPANS_S if min_s < span <= max_s]
        span_s = usual[-1] if usual else max_s
        # Where more were admitted in so long a time, the limit fell, or the window is a fixed one.
        is_consistent = self.history.count(it.at - span_s, it.at + self.noise_s) <= count + 1
        return span_s if is_consistent and min_s > LONGER * self.span_s else None
