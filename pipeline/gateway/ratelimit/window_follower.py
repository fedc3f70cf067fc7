"""Follows a window: each call waits until the call `count` places before it has left the window.

That rule is right for sliding windows, for fixed ones of any phase, and for buckets that hold as much. When a call
arrived is not known, but it surely had by its answer. Where a rejection costs a hold, its successor leaves a span after
that answer, and cannot be early; without hints it leaves so that it is early now and then, which costs itself only. Two
things are corrected on the way: the guard and, by tests, the count.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto

from pipeline.gateway.ratelimit.fits import SPANS_S, is_telling, is_whole
from pipeline.gateway.ratelimit.history import History, Rejection
from pipeline.gateway.ratelimit.latency import LatencyTracker
from pipeline.gateway.ratelimit.times import LONG_AGO, NEVER
from pipeline.gateway.ratelimit.window_end import WindowEnd
from pipeline.gateway.ratelimit.window_growth import WindowCount

UNHINTED_GUARD = 1.8
"""Guard without hints, in standard deviations of the arrival (3 costs 0.02 of sliding 40 in 1 s)."""
GUARD_STEP = 0.7
"""Standard deviations by which the guard grows after a call that came too early."""
GUARD_DECAY = 0.006
"""Part of that growth forgotten with each call admitted: a tracked quantile (Robbins and Monro 1951)."""
MAX_GUARD_SPAN, MAX_GUARD_S = 0.1, 0.15
"""The guard never grows beyond this part of a span, nor this long."""
GAP, LONG_GAP, GAP_SPAN = 0.2, 0.07, 0.15
"""Calls of a window are a part of the latency apart (windows below 5 s; longer ones), or of the span over the count,
whichever is smaller: when the limit fell, few are in flight."""
COUNTED = 0.9
"""Part of its count that a window reaches with the rejected calls in it, when these count: where it began is not exact.
At 1 two seeds of forty of the counted windows were refitted to a bucket, and lost a tenth and a half."""
LATE_TEST = 0.5
"""Part of the wait for the next window after which a test goes: it also finds a window shorter than believed."""
MAX_CUTS, NEAR_SPANS = 3, 8
"""So many windows cut short (with hints: or calls too early) within so many spans: it is not this window."""


class Verdict(Enum):
    """What a rejection means for the model."""

    KEEP = auto()
    REFIT = auto()


class WindowFollower:
    """Says when the next call may go, and what a rejection means."""

    def __init__(
        self,
        history: History,
        latency: LatencyTracker,
        *,
        count: int,
        span_s: float,
        opened_at: float = LONG_AGO,
        trial_gap_s: float = 0.0,
        hold_s: float = 0.0,
    ) -> None:
        """Follow `count` calls in `span_s` seconds.

        Args:
            opened_at: calls that arrived before do not count: a fixed window opened then.
            trial_gap_s: while the model is one guess of two, calls are exactly this far apart.
            hold_s: how long the last rejection holds everything; 0 where rejections come without hints.
        """
        self.tests, self.span_s = WindowCount(count), span_s
        self.opened_at = opened_at
        self.trial_gap_s = trial_gap_s
        self._is_hinted = hold_s > 0
        self._rounds_hints = self._is_hinted and is_whole(hold_s)
        self.counts_rejected = False
        """whether rejected calls count as well, as it once seemed"""
        self._history, self._latency = history, latency
        self._extra_guard_s = 0.0
        self._last_at = LONG_AGO
        self._cuts: deque[float] = deque(maxlen=MAX_CUTS)

    @property
    def count(self) -> int:
        """Calls in a span."""
        return self.tests.believed

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.count / self.span_s

    @property
    def is_proven(self) -> bool:
        """Whether it explained several windows."""
        return self.tests.is_model_proven

    @property
    def is_testing(self) -> bool:
        """Whether the call in flight is one more than the model allows."""
        return self.tests.is_testing

    def ready_at(self, now: float, unsent: int, busy: int) -> float:
        """The earliest time of the next call."""
        at = max(self._last_at + self._gap_s(), self._opens_at(unsent))
        if at > now and not busy and self._may_test():
            return min(at, self._test_at(now, at))
        return at

    def take(self, due_at: float, unsent: int) -> None:
        """A call will go then; `unsent` counts it."""
        self._last_at = max(self._last_at, due_at)
        # Without this call, which `unsent` counts already.
        if self._may_test() and due_at < self._opens_at(unsent - 1) - 1e-6:
            self.tests.begin_test()

    def give_back(self) -> None:
        """A taken call was not sent."""
        self.tests.withdraw_test()

    def interrupted(self, now: float) -> None:
        """The process stood still until now: a test in flight, and what it seemed to prove, do not count."""
        self.tests.interrupted()
        self._cuts.clear()

    def admitted(self) -> None:
        """A call sent after the last rejection was admitted."""
        self.tests.admitted()
        self._extra_guard_s *= 1 - GUARD_DECAY

    def rejected(self, it: Rejection, *, hold_s: float) -> Verdict:
        """The first rejection in a row, which holds everything for `hold_s` seconds."""
        self._is_hinted = hold_s > 0
        self._rounds_hints = it.retry_after_s is not None and is_whole(it.retry_after_s)
        end = self._end(it)
        calls = end.calls
        # The likeliest explanation first: our own test, our own surplus, rejected calls that count, a
        # call that arrived too early. Only then a smaller limit, which costs throughput if it is wrong.
        if self.tests.rejected():
            self.tests.test_failed(calls)
            return Verdict.KEEP
        if self.tests.has_surplus:
            is_none = self.tests.has_risen
            self.tests.surplus_failed()
            return Verdict.REFIT if is_none and self._is_hinted else Verdict.KEEP
        counted = calls + end.rejected
        if not self.counts_rejected and calls < self.count and calls < counted and counted >= COUNTED * self.count:
            self.counts_rejected = True
            return Verdict.KEEP
        if calls >= self.count - (0 if self.trial_gap_s else 1):
            return self._came_early(it)
        return self._cut_short(end)

    def reopen(self, at: float) -> None:
        """A probe that arrived at `at` opened the window: calls before it do not count."""
        # A moment before, so that the probe itself counts.
        self.opened_at = at - 1e-9

    def end_trial(self, *, is_sure: bool) -> None:
        """The first fill was admitted again. `is_sure`: no bucket would have admitted as many."""
        self.trial_gap_s = 0.0
        self.tests.doubt_model(is_sure=is_sure)

    def lengthen(self, usual: list[float], max_s: float) -> None:
        """The span is longer than was believed: one of the usual ones, or about `max_s`."""
        self.span_s = usual[-1] if usual else next((span for span in SPANS_S if max_s <= span), max_s)
        self.opened_at = LONG_AGO

    def _gap_s(self) -> float:
        if self.trial_gap_s:
            return self.trial_gap_s
        part = GAP if self.span_s < 5 else LONG_GAP
        return min(part * self._latency.latency_s, GAP_SPAN * self.span_s / self.count)

    @property
    def _is_careful(self) -> bool:
        """Whether no call may be early: its rejection costs a hold, or would look like a surplus that does not hold."""
        return self._is_hinted or self.tests.has_surplus

    def guard_s(self) -> float:
        """Seconds between a window's end and the expected arrival of the first call of the next."""
        usual_s = self._latency.latency_s if self._is_careful else UNHINTED_GUARD * self._latency.noise_s
        return usual_s + self._extra_guard_s

    def _opens_at(self, unsent: int) -> float:
        """When a call may leave so that it arrives after the one `count` places before it has left the window."""
        if unsent >= self.count:
            # That call is a slot which is not sent yet: it goes by the last one's time at the latest.
            return self._last_at + self.span_s + self.guard_s()
        place = self.count - unsent
        arrived = self._history.nth_last(place, counting_rejected=self.counts_rejected)
        if arrived is None or arrived < self.opened_at:
            return LONG_AGO
        if self._is_careful:
            answered = self._history.nth_last_answered(place, counting_rejected=self.counts_rejected)
            return answered + self.span_s + self._extra_guard_s
        return arrived + self.span_s + self.guard_s() - self._latency.latency_s / 2

    def _test_at(self, now: float, opens_at: float) -> float:
        """When a test costs least: a whole-second hint outlasts the window, unless what is left of it is whole too."""
        rest_s = opens_at - self.guard_s() - now
        if not self.tests.is_sure:  # in the silence after a window, when a bucket would hold two calls again
            return max(now, self._last_at + min(2 * self.span_s / self.count, 0.6 * self.span_s))
        if self.tests.is_surging:
            return now
        if not self._rounds_hints:
            return now + (LATE_TEST * max(rest_s, 0.0) if self.span_s > SPANS_S[0] else 0.0)
        if rest_s < 1:
            return now if self.tests.is_worth((1 - rest_s) * self.rate) else NEVER
        return now + rest_s % 1 + int(LATE_TEST * rest_s) + 2 * self._latency.noise_s

    def _may_test(self) -> bool:
        return not self.trial_gap_s and self.tests.may_test(hinted=self._is_hinted)

    def _end(self, it: Rejection) -> WindowEnd:
        return WindowEnd(
            it=it,
            history=self._history,
            noise_s=self._latency.noise_s,
            span_s=self.span_s,
            opened_at=self.opened_at,
        )

    def could_ask_for(self, it: Rejection) -> bool:
        """Whether this window, or a smaller one of the same span, could have answered with such a hint."""
        return self._end(it).could_be

    def _came_early(self, it: Rejection) -> Verdict:
        noise_s = self._latency.noise_s
        most_s = min(MAX_GUARD_SPAN * self.span_s + 0.01, MAX_GUARD_S)
        self._extra_guard_s = min(self._extra_guard_s + GUARD_STEP * noise_s, most_s)
        return Verdict.REFIT if self._is_hinted and self._fails_often(it) else Verdict.KEEP

    def _fails_often(self, it: Rejection) -> bool:
        self._cuts.append(it.at)
        return len(self._cuts) == MAX_CUTS and self._cuts[0] > it.at - NEAR_SPANS * self.span_s

    def _cut_short(self, end: WindowEnd) -> Verdict:
        if self._fails_often(end.it) or self.trial_gap_s:
            return Verdict.REFIT
        if self._is_hinted and self.tests.has_grown and not is_telling(end.it.retry_after_s):
            return Verdict.REFIT  # more was admitted for whole windows: no window of any count explains both
        if not (end.is_whole_fill if is_telling(end.it.retry_after_s) else self.is_proven):
            return Verdict.REFIT
        self.tests.fall_to(end.calls)
        return Verdict.KEEP
