"""The allowance read as a window: so many calls in each span of time, as fast as one likes. Pure.

A caller who never sends more than the window's count within any window's length is let in by fixed windows of any
phase, by sliding windows, and by buckets that hold as much: each call waits until a span after the one `count` places
before. Spans are taken to be round (a second, a minute, an hour) where the evidence allows it: then one look gives the
rate exactly. Within a window calls go a third of a latency apart, so that a limit that fell refuses few of them.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto

from pipeline.gateway.ratelimit.latency import LatencyTracker
from pipeline.gateway.ratelimit.send_log import SendLog
from pipeline.gateway.ratelimit.window_spans import ROUND_SPANS_S, span_above

NEVER = float("inf")
PATIENCE_FIRST, PATIENCE_MOST = 120.0, 300.0
"""calls between two tests whether the window holds one more; doubles when it does not"""
HINTED_PATIENCE = 3.0
"""times as much where each refusal holds everybody for a hint's whole second"""
MOST_MORE = 1.0
"""of the count: let in beyond it within one window; more may belong to the next one, so it must hold there first"""
TEST_COST = 120
"""calls between two tests for each call that the last one cost"""
UNSETTLED_WINDOWS, UNSETTLED_TESTS = 2.0, 16
"""between two tests after the fall of the count, for so many tests: what moves is tested more often"""
LEAST_GUARD_S = 0.002
SURE_PART = 0.7
"""of the shortest latency: so much earlier may a call go than when the one before it was answered and a span is over;
not all of it, since of calls that leave together the first is quick on its way there and the last on its way back"""
PROMPT = 0.015
"""of the span: answers that come as soon as that cost little when calls count from them on"""
MOST_GUARD = 0.05
"""of the span: kept between two windows, against calls that travel at unlike speeds"""
JITTERS, LEAST_JITTERS, GUARD_KEPT = 2.0, 0.7, 0.9995
"""the guard in usual differences between travel times: at first, and at least; it shrinks by each call let in"""
EXTRAS, EXTRA_PART = 3, 0.4
"""calls, and part of the count, let in during one window's silence, and a full count again in the next: no window"""
FORGIVEN_AFTER = 8
"""windows: a first refusal in the middle of one is put down to calls that overtook each other, the next one is not"""
ROUNDED_S = 1.0
"""by which hints are rounded up"""
FELL = 0.85
"""of the count: a window cut short before it has a smaller limit; later, the last test went too far"""
CUTS = 3
"""refusals in the middle of so many windows, soon after each other, each with a hold: it is no window"""
HELD = 3
"""windows that went as expected: then this span is believed for good"""
NEAR = 1.05
"""times the span: a window that opens by then is the one that was expected"""
GAP_LATENCIES, HINTED_GAP, GAP_SPAN, HINTED_SPAN = 1 / 5, 0.3, 0.15, 0.3
MOST_FILL = 0.6
"""between two calls of a window: the smaller of this part of a latency, and of the span over the count"""


class ModelCheck(Enum):
    """What became of the reading."""

    KEPT = auto()
    DEAD = auto()
    """it was no window"""
    GONE = auto()
    """a window that held before lets nothing in at all: an outage"""


class WindowModel:
    """A count, a span, and the window under way: since `start`, of which `used` calls are sent."""

    def __init__(
        self,
        *,
        count: int,
        least_s: float,
        most_s: float | None,
        start: float,
        used: int,
        proven: bool,
        travel: LatencyTracker,
        sent_at: float | None = None,
        fill_s: float = 0.0,
    ) -> None:
        self.count = count
        self.start, self.used = start, used
        self._least_s, self._most_s = least_s, most_s
        self._proven = proven
        self._travel = travel
        self._guard_s = max(LEAST_GUARD_S, JITTERS * self._travel.jitter_s)
        self._gap_s = 0.0
        self._sure = self._count_before = count
        self._least_gap_s = fill_s / count
        self._sent_at = start if sent_at is None else sent_at
        self._not_before = self._taken_at = float("-inf")
        self._cuts: deque[int] = deque(maxlen=CUTS)
        self._closed, self._begun, self._reopened = False, used > 0, False
        self._held, self._opened, self._cut_in = 0, 0, -FORGIVEN_AFTER
        self._extras = self._extras_before = 0
        self._since_test = 0
        self._unsettled = 0
        self._windows, self._early_every = 0, 1
        self._hinted = fill_s > 0
        self._trying_early = False
        self._early_wins = 0
        self._early_s = 0.0
        self._start_before = start
        self.span_s = self._best_span_s() or most_s or 1.0
        patience = min(PATIENCE_FIRST, UNSETTLED_WINDOWS * count)
        self._patience = max(patience, TEST_COST * count * fill_s / self.span_s)

    @property
    def has_held(self) -> bool:
        """Whether windows went as expected for so long that a refusal means a change."""
        return self._held >= HELD

    def now_per_s(self) -> float:
        """Calls a second over a whole window."""
        return self.count / self._period_s

    def ready_at(self, now: float, trail: SendLog, *, unsent: int, under_way: int) -> float:
        """The earliest time the next call may be taken; infinity while an answer must come first."""
        at = max(now, self._not_before)
        back_at = self._back_at(trail, unsent)
        if self._is_full(unsent):
            test_at = self._test_at(at, under_way)
            next_at = max(at, self.start + self._period_s, back_at)
            return min(test_at, next_at) if under_way == 0 or self._held >= HELD else test_at
        if under_way and self.used + unsent <= 1 and self._held < HELD:
            return NEVER  # the first of a window goes alone
        gap_s = self._gap_s if self.used + unsent < self._sure else max(self._gap_s, self._travel.latency_s)
        return max(at, self._taken_at + gap_s, back_at)

    def _back_at(self, trail: SendLog, unsent: int) -> float:
        """When the call `count` places before has left the window, be it a sliding one.

        It arrived between its sending and its answer. The later of them counts where answers are prompt, and where a
        refusal costs a hold; less the shortest latency, since as long as the answer's way back and the next call's way
        there take at least, nothing is lost by sending before.
        """
        nth = trail.nth_last(self.count - unsent)
        if nth is None:
            return -NEVER
        if self._early_s or (not self._hinted and self._travel.latency_s > PROMPT * self.span_s):
            return nth + (self._early_s or self._period_s)
        by = max(nth, (trail.nth_last_by(self.count - unsent) or nth) - SURE_PART * self._travel.least_latency_s)
        return min(by, nth + MOST_GUARD * self.span_s) + self.span_s + LEAST_GUARD_S

    def take(self, due_at: float) -> None:
        """A call will go then: the next one keeps its distance from it."""
        self._taken_at = due_at

    def sent(self, now: float) -> None:
        """A call goes out: the next of this window, or the first of a new one."""
        age_s = now - self.start
        early_s = self._early_age_s() or NEVER
        early = self._begun and self._is_full(0) and age_s >= early_s - LEAST_GUARD_S
        if early or age_s >= self.span_s:
            self._open_window(now)
        self.used += 1
        self._sent_at = now

    def dropped(self, sent_at: float) -> None:
        """The call sent at `sent_at` was refused and does not count."""
        if sent_at >= self.start:
            self.used -= 1

    def accepted(self) -> ModelCheck:
        """A call sent after the last refusal was let in."""
        self._since_test += 1
        self._guard_s = max(
            self._guard_s * GUARD_KEPT, (1 + self._hinted) * max(LEAST_GUARD_S, LEAST_JITTERS * self._travel.jitter_s)
        )
        part, span_part = (HINTED_GAP, HINTED_SPAN) if self._hinted else (GAP_LATENCIES, GAP_SPAN)
        self._gap_s = min(part * self._travel.latency_s, span_part * self.span_s / self.count)
        if not self._proven:
            self._gap_s = max(self._gap_s, min(self._least_gap_s, MOST_FILL * self.span_s / self.count))
        if not self._begun:
            self._begin()
        if self.used > self.count:
            self._extras += 1
            if self._proven:
                self.count = self.used
        if self.used >= self.count and self._extras_before >= self._telling:
            return ModelCheck.DEAD
        return ModelCheck.KEPT

    def refused(
        self,
        *,
        refused_at: float,
        now: float,
        fails: int,
        hold_s: float,
    ) -> ModelCheck:
        """A call sent at `refused_at` was refused, the `fails`-th in a row; `hold_s` is the hint obeyed."""
        self._hinted = hold_s > 0
        if self.used == 0:
            return self._start_refused(refused_at, now, fails, hold_s)
        if self.used >= self.count:
            self._extra_refused(now, hold_s)
        else:
            return self._cut_short(now, fails, hold_s)
        return ModelCheck.KEPT

    @property
    def _period_s(self) -> float:
        return self.span_s + self._guard_s

    @property
    def _telling(self) -> float:
        return max(EXTRAS, EXTRA_PART * self.count)

    def _is_full(self, unsent: int) -> bool:
        return self._closed or self.used + unsent >= self.count

    def _best_span_s(self) -> float | None:
        span = span_above(self._least_s)
        if self._most_s is None or (span is not None and span <= 1.005 * self._most_s):
            return span
        return self._most_s

    def _test_at(self, at: float, under_way: int) -> float:
        """When a call beyond the rule may test it, if it may: one more call, or a shorter span."""
        if not self._begun:
            return NEVER
        if not under_way and (early_s := self._early_age_s()) is not None:
            return max(at, self.start + early_s) if at < self.start + 0.98 * self.span_s else NEVER
        if self._closed:
            return NEVER
        age_s = at - self.start
        if not self._proven:
            silence_s = 0.8 * (self.start + self.span_s - self._sent_at) / (self._telling + 1 - self._extras)
            test_at = max(at, self._sent_at + silence_s)
            may = not under_way and self._extras < self._telling and test_at < self.start + 0.9 * self.span_s
            return test_at if may else NEVER
        if self.used - self._count_before >= max(EXTRAS, MOST_MORE * self._count_before):
            return NEVER
        if self._extras and under_way <= self._extras and age_s < 0.5 * self.span_s:
            return max(at, self._taken_at + self._gap_s)
        if under_way or self._since_test < self._patience:
            return NEVER
        return max(at, self._sent_at + 3 * self._gap_s) if age_s < 0.5 * self.span_s else NEVER

    def _early_age_s(self) -> float | None:
        """The age at which the next window is tried early; None when the span is known well enough."""
        if not self._proven or (self._windows < self._early_every and not self._early_wins):
            return None
        if self._hinted and self.span_s <= 2:
            return None  # a second is as exact as a hint is
        unsure_s = self.span_s - self._least_s
        worth_s = (0.3 if self.span_s in ROUND_SPANS_S else 0.03) * self.span_s
        return self._least_s + unsure_s / 2 if unsure_s > worth_s else None

    def _open_window(self, now: float) -> None:
        if self._begun:
            self._start_before = self.start
        if self._begun and self.used >= self.count and not self._reopened:
            self._held += 1
        self._sure, self._count_before = min(self._count_before, self.count), self.count
        self._trying_early = now < self.start + 0.98 * self.span_s
        self._early_s = now - self.start if self._trying_early else 0.0
        self.start, self.used = now, 0
        self._begun = self._closed = self._reopened = False
        self._extras_before, self._extras = self._extras if not self._proven else 0, 0
        self._windows += 1
        self._opened += 1

    def _begin(self) -> None:
        """The first call of the window was let in: it has begun, and so the span is what it was."""
        self._begun = True
        age_s = self.start - self._start_before
        if age_s <= 0 or (self._held == 0 and self._start_before == self.start):
            return
        if self._trying_early:
            self._early_wins += 1
            if self.span_s not in ROUND_SPANS_S or self._early_wins > 1:
                self.span_s = self._most_s = age_s
                self._early_wins = 0
        elif self.span_s not in ROUND_SPANS_S and age_s < self.span_s:
            self.span_s = age_s

    def _start_refused(self, refused_at: float, now: float, fails: int, hold_s: float) -> ModelCheck:
        """The window had not begun yet: wait a little, or for the next round span."""
        age_s = refused_at - self._start_before
        self.start, self.used = self._start_before, self.count
        self._closed = self._begun = self._reopened = True
        early, self._trying_early = self._trying_early, False
        self._early_wins = 0
        if early:
            self._least_s = max(self._least_s, min(age_s, 0.999 * self.span_s))
            self._windows, self._early_every = 0, 2 * self._early_every
            return ModelCheck.KEPT
        if age_s < NEAR * self.span_s and fails <= 2 and self.span_s in ROUND_SPANS_S:
            self._widen_guard()
            if not hold_s:
                pause_s = max(self._travel.jitter_s, 2 * LEAST_GUARD_S, 0.005 * self.span_s)
                self._not_before = now + pause_s * 3.0 ** (fails - 1)
            return ModelCheck.KEPT
        if self._held >= HELD and not hold_s and fails > 2:
            return ModelCheck.GONE
        self._lengthen(age_s, hold_s)
        return ModelCheck.KEPT if self.span_s < NEVER else ModelCheck.DEAD

    def _lengthen(self, age_s: float, hold_s: float) -> None:
        """The span is longer than `age_s`: what the hint says (whole seconds, rounded up), else the next round one."""
        self._least_s = age_s + max(0.0, hold_s - 1.0)
        self._most_s = age_s + hold_s if hold_s > 2 else None
        self._held = 0
        self.span_s, self._guard_s = self._best_span_s() or NEVER, LEAST_GUARD_S

    def _cut_short(self, now: float, fails: int, hold_s: float) -> ModelCheck:
        """Refused in the middle of a window: a smaller count, or calls that overtook each other."""
        if not self._proven and self._extras_before:  # they belonged to this window, the last fill to two
            self._proven = self._closed = True
            return ModelCheck.KEPT
        if self.used >= min(self._sure, self._count_before):  # what was let in beyond it belonged to the next window
            self.count, self._closed = self.used, True
            self._tested()
            return ModelCheck.KEPT
        if hold_s and self._cut_in < self._opened and self.start + self.span_s - now > hold_s + ROUNDED_S:
            self._cut_in = self._opened
            self._widen_guard()  # an empty window would have told to wait for its end: this call was too early
            return ModelCheck.KEPT
        fell = self.used < FELL * self.count
        if hold_s and self._is_no_window():
            return ModelCheck.DEAD
        if (fails == 1 and not hold_s) or (fell and self._opened - self._cut_in >= FORGIVEN_AFTER):
            self._cut_in = self._opened
            self._widen_guard()
            self._closed = hold_s > 0
            self._not_before = now if hold_s else now + max(self._travel.jitter_s, 0.01 * self.span_s)
            return ModelCheck.KEPT
        self.count = max(self.used, 1)
        self._closed = True
        if fell and self._held >= HELD:
            self._cuts.clear()
            self._patience, self._since_test = UNSETTLED_WINDOWS * self.count, 0
            self._unsettled = UNSETTLED_TESTS
        else:
            self._tested()
        return ModelCheck.KEPT

    def _is_no_window(self) -> bool:
        """Cut short again and again: what comes back does not come at once."""
        self._cuts.append(self._opened)
        return len(self._cuts) == CUTS and self._opened <= 2 * FORGIVEN_AFTER

    def _extra_refused(self, now: float, hold_s: float) -> None:
        self.count = self.used if self._proven else self.count
        self._proven = self._closed = True
        self._tested()
        if hold_s:
            late_s = max(0.0, now + hold_s - self.start - self._period_s)
            self._patience += 0.0 if self._unsettled else TEST_COST * late_s * self.now_per_s()

    def _tested(self) -> None:
        self._since_test = 0
        dear = HINTED_PATIENCE if self._hinted else 1.0
        self._patience = min(2 * dear * self._patience, dear * PATIENCE_MOST)
        if self._unsettled:
            self._unsettled -= 1
            self._patience = min(self._patience, dear * UNSETTLED_WINDOWS * self.count)

    def _widen_guard(self) -> None:
        self._guard_s = max(LEAST_GUARD_S, min(1.5 * self._guard_s + self._travel.jitter_s, MOST_GUARD * self.span_s))
