"""A configured rate: `10/1m`, and when its next call may go."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.errors import UsageError

_RATE = re.compile(r"([1-9]\d*)/([1-9]\d*)?([smh])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600}
MAX_BURST_S = 60.0
"""The default burst is what a rate allows in so many seconds, at most its whole count: `10/1m` sends 10 at once after a
pause, `600/1h` 10 as well."""
CATCH_UP_GAPS, CATCH_UP_S = 0.5, 0.02
"""How late a call may go and still be made up for: the smaller of these (gaps, seconds). Timers are rarely later."""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` calls in `per_s` seconds."""

    count: int
    per_s: float

    @property
    def default_burst(self) -> int:
        """Calls that may go at once after a pause, unless `pace.burst` says otherwise."""
        return max(1, int(self.count * min(1.0, MAX_BURST_S / self.per_s)))


def parse_rate(text: str) -> Rate | None:
    """The rate of `10/1m`, `5/s`, `600/1h`; None for `auto`.

    Raises:
        UsageError: anything else.
    """
    if text == "auto":
        return None
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"pace: {text!r} is not a rate; write auto, or e.g. 10/1m, 5/1s, 600/1h")
    return Rate(int(match[1]), float(int(match[2] or 1) * _UNIT_S[match[3]]))


class GcraSpacing:
    """Evenly spaced calls, at most `burst` at once after a pause (GCRA, ITU-T I.371).

    A call that went late is made up for, so that timers do not cost rate; two calls are never closer than half a gap,
    unless they are of a burst.
    """

    def __init__(self, rate: Rate, burst: int) -> None:
        self._interval_s = rate.per_s / rate.count
        self._tolerance_s = (burst - 1) * self._interval_s
        self._due = float("-inf")

    def space_evenly(self) -> None:
        """From now on nothing goes at once: two kinds of calls take turns."""
        self._tolerance_s = 0.0

    def ready_at(self) -> float:
        """The earliest time of the next call."""
        return self._due - self._tolerance_s

    def take(self, now: float) -> None:
        """A call will go then."""
        catch_up_s = min(CATCH_UP_GAPS * self._interval_s, CATCH_UP_S)
        begin = self._due if now - self._due <= catch_up_s else now
        self._due = begin + self._interval_s

    def give_back(self) -> None:
        """A taken call was not sent."""
        self._due -= self._interval_s
