"""One allowance of the gateway: its told rate, its wait hints, and its control law. Pure."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from pipeline.errors import UsageError
from pipeline.gateway.ratelimit.controller import RateController
from pipeline.gateway.ratelimit.retry_after import RetryAfterHold

_RATE = re.compile(r"([1-9]\d*)/([1-9]\d*)?([smh])")
CATCH_UP_GAPS, CATCH_UP_S = 0.5, 0.02
"""How late a call may go and still be made up for: the smaller of these (gaps, seconds)."""
SILENCE_S, LONGEST_PATIENCE_S, SILENT_LATENCIES, MOST_SILENT = 5.0, 60.0, 8.0, 4
"""A call is passed over after this long, or this many usual latencies, without an answer; and how many at a time: each
may turn out to be a purchase of unknown outcome."""
_UNIT_S = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` calls in `per_s` seconds."""

    count: int
    per_s: float

    @property
    def per_second(self) -> float:
        """Calls a second."""
        return self.count / self.per_s


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
    """A told rate: evenly spaced, at most `burst` at once after a pause (GCRA, ITU-T I.371).

    A call that went late is made up for, so that timers do not cost rate; two calls are never closer than half a gap.
    """

    def __init__(self, rate: Rate, burst: int) -> None:
        self._interval_s = rate.per_s / rate.count
        self._tolerance_s = (burst - 1) * self._interval_s
        self._due = float("-inf")

    def ready_at(self) -> float:
        return self._due - self._tolerance_s

    def take(self, now: float) -> None:
        catch_up_s = min(CATCH_UP_GAPS * self._interval_s, CATCH_UP_S)
        begin = self._due if now - self._due <= catch_up_s else now
        self._due = begin + self._interval_s

    def give_back(self) -> None:
        self._due -= self._interval_s


class RateChannel:
    """One allowance: its told rate, its hints, its law, and its counters."""

    def __init__(self, *, told: Rate | None, burst: int, most_open: int) -> None:
        self.spacing = GcraSpacing(told, burst) if told is not None else None
        self.law = RateController(
            most_open=most_open,
            open_at_first=float(most_open) if told is not None else 1.0,
        )
        self.hold = RetryAfterHold()
        self._open: deque[float] = deque()
        self._silent: list[float] = []

    def ready_at(self, now: float) -> float:
        self._pass_over(now)
        spaced_at = self.spacing.ready_at() if self.spacing is not None else now
        return max(spaced_at, self.hold.ready_at(now), self.law.ready_at(now))

    def take(self, due_at: float) -> None:
        self.law.take(due_at)
        self.hold.take(due_at)
        if self.spacing is not None:
            self.spacing.take(due_at)

    def give_back(self, now: float) -> None:
        self.law.give_back(now)
        self.hold.give_back(now)
        if self.spacing is not None:
            self.spacing.give_back()

    def sent(self, now: float) -> None:
        self.law.sent(now)
        self._open.append(now)

    def _pass_over(self, now: float) -> None:
        """A call that stays without an answer for long holds nobody up; only a few at a time may be passed over."""
        while self._open and len(self._silent) < MOST_SILENT and now - self._open[0] > self._patience_s():
            self._silent.append(self._open.popleft())
            self.law.passed_over(now)

    def _patience_s(self) -> float:
        return min(max(SILENCE_S, SILENT_LATENCIES * self.law.travel.latency_s), LONGEST_PATIENCE_S)

    def _rejoin(self, sent_at: float) -> None:
        if sent_at in self._silent:
            self._silent.remove(sent_at)
            self.law.rejoined()
        else:
            self._open.remove(sent_at)

    def throttled(self, sent_at: float, now: float, wait_s: float | None) -> None:
        self._rejoin(sent_at)
        self.hold.refused(sent_at)
        hold_s = self.hold.hint(now, wait_s) if wait_s is not None else 0.0
        self.law.throttled(sent_at, now, hold_s)

    def let_in(self, sent_at: float, now: float) -> None:
        self._rejoin(sent_at)
        self.law.accepted(sent_at, now)
        if self.hold.let_in(sent_at, now):
            self.law.restart()
