"""The allowance read as a window: so many calls in each span of time, as fast as one likes. Pure.

A caller who never sends more than the window's count within any window's length is let in by fixed windows of any
phase, by sliding windows, and by buckets that hold as much: each call waits until a span after the one `count` places
before. Spans are taken to be round (a second, a minute, an hour) where the evidence allows it: then one look gives the
rate exactly.
"""

from __future__ import annotations

from enum import Enum, auto

from pipeline.gateway.pacetrail import Trail

ROUND_SPANS_S = (
    1.0,
    2.0,
    5.0,
    10.0,
    15.0,
    20.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
    900.0,
    1800.0,
    3600.0,
)
FIRST_GROWTH = 0.002
"""of the count; doubles every `patience` calls that are let in, and at one whole call an extra call is tried"""
PATIENCE_LEAST, PATIENCE_MOST = 10.0, 90.0
MOST_DOUBLINGS = 12.0
CALM_LEAST, CALM_MOST = 4.0, 16.0
"""windows without a refusal after which an extra call is tried however small the count; doubles when refused"""
LEAST_GUARD_S = 0.002
MOST_GUARD = 0.05
"""of the span: kept between two windows, against calls that travel at unlike speeds"""
EXTRAS = 3
"""extra calls let in during one window's silence: it is no window, or a larger one"""
HELD = 3
"""windows that went as expected: then this span is believed for good"""
MOST_CUTS = 4
"""windows in a row that ended before their count: it is no window of this span"""


def span_above(least_s: float) -> float | None:
    """The shortest round span longer than `least_s`."""
    return next((span for span in ROUND_SPANS_S if span > least_s), None)


def span_below(most_s: float) -> float | None:
    """The longest round span shorter than `most_s`."""
    return next((span for span in reversed(ROUND_SPANS_S) if span < most_s), None)


class Fate(Enum):
    """What became of the reading."""

    KEPT = auto()
    DEAD = auto()
    """it was no window"""
    GONE = auto()
    """a window that held before lets nothing in at all: an outage"""


class Cycle:
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
    ) -> None:
        self.count = count
        self.start, self.used = start, used
        self._least_s, self._most_s = least_s, most_s
        self._proven = proven
        self._guard_s = LEAST_GUARD_S
        self._quiet, self._patience = 0, PATIENCE_LEAST
        self._start_before = start
        self._extras = 0
        self._cut, self._cuts = False, 0
        self._held = self._calm = 0
        self._calm_for = CALM_LEAST
        self._is_early, self._early_turn, self._early_wins = False, False, 0
        self._not_before = float("-inf")
        self.span_s = self._best_span_s() or most_s or 1.0

    def now_per_s(self) -> float:
        """Calls a second over a whole window."""
        return self.count / self._period_s

    def ready_at(self, now: float, trail: Trail, *, unsent: int, under_way: int) -> float:
        """The earliest time the next call may go."""
        nth = trail.nth_last(self.count + self._extras - unsent)
        at = max(now, self._not_before, now if nth is None else nth + self._period_s)
        if self.used + unsent < self.count:
            return at
        at = max(at, self.start + self._period_s)
        test_at = None if under_way else self._test_at(trail, now, at)
        return at if test_at is None else test_at

    def sent(self, now: float) -> None:
        """A call goes out: the next of this window, or the first of a new one."""
        over = now >= self.start + self._period_s - 1e-6
        early = self._early_turn and self.used == self.count and now >= self.start + 1.001 * self._least_s
        full = self.used >= self.count
        if over and self._cut and not full:
            self._cuts += 1
            self.count = max(self.used, 1) if self._cuts > 1 else self.count
        if (full and (over or early)) or (over and self._cut):
            self._open_window(now, early=early and not over)
        self.used += 1

    def dropped(self, sent_at: float) -> None:
        """The call sent at `sent_at` was refused and does not count."""
        if sent_at >= self.start:
            self.used -= 1

    def accepted(self, jitter_s: float) -> Fate:
        """A call sent after the last refusal was let in; `jitter_s` is how far travel times differ."""
        self._quiet += 1
        self._guard_s = max(min(self._guard_s, MOST_GUARD * self.span_s), LEAST_GUARD_S, 2.5 * jitter_s)
        if self._is_early and 2 * self.used >= self.count:
            self._early_won()
        if self._cuts >= MOST_CUTS or self.used - self.count >= EXTRAS:
            return Fate.DEAD
        return Fate.KEPT

    def refused(
        self,
        *,
        refused_at: float,
        now: float,
        fails: int,
        hold_s: float,
        jitter_s: float,
    ) -> Fate:
        """A call sent at `refused_at` was refused, the `fails`-th in a row; `hold_s` is the hint obeyed."""
        self._quiet = self._calm = 0
        if self._is_early and self._early_lost(refused_at, now, hold_s):
            return Fate.KEPT
        if self.used >= self.count:  # an extra: the count is as it was
            self._proven = True
            self.count = self.used
            self._test_later(now, hold_s, self.start)
            return Fate.KEPT
        if self.used == 0:
            return self._start_refused(refused_at, now, fails, hold_s, jitter_s)
        self._cut_short(now, fails, hold_s, jitter_s)
        return Fate.KEPT

    @property
    def _period_s(self) -> float:
        return self.span_s + self._guard_s

    def _growth(self) -> float:
        return FIRST_GROWTH * (2 ** min(self._quiet / self._patience, MOST_DOUBLINGS) - 1)

    def _best_span_s(self) -> float | None:
        span = span_above(self._least_s)
        if self._most_s is None or (span is not None and span <= 1.005 * self._most_s):
            return span
        return self._most_s

    def _test_at(self, trail: Trail, now: float, next_start: float) -> float | None:
        """When a call beyond the rule may test it: in the silence (more calls?) or early (a shorter span?), in turn."""
        last = trail.nth_last(1)
        if last is None:
            return None
        if self._early_turn and self.used == self.count and self._growth() > 5 * FIRST_GROWTH:
            least_s = max(self._least_s, last - self.start)
            worth_s = (0.3 if self.span_s in ROUND_SPANS_S else 0.02) * self.span_s
            if self.span_s - least_s > worth_s:
                return max(now, self.start + (least_s + self.span_s) / 2, self._not_before)
        most = self._most_in_window()
        gap_s = min(3 * self.span_s / self.count, 0.25 * max(next_start - last, 0.0))
        at = max(now, last + gap_s, self._not_before)
        return at if self.used < most and at + gap_s < next_start else None

    def _most_in_window(self) -> int:
        if not self._proven or self._calm >= self._calm_for:
            return self.count + EXTRAS
        return int(self.count * (1 + self._growth()))

    def _open_window(self, now: float, *, early: bool) -> None:
        self._start_before, self.start = self.start, now
        self._extras, self.used = max(0, self.used - self.count), 0
        self._is_early = early
        self._cuts = self._cuts if self._cut else 0
        self._held += not self._cut
        self._calm += 1
        self._cut = False

    def _early_won(self) -> None:
        """Half a window was let in early: a shorter span, unless a round one merely began at another phase."""
        self._is_early = False
        self._early_wins += 1
        if self.span_s not in ROUND_SPANS_S or self._early_wins > 1:
            self.span_s = self._most_s = self.start - self._start_before

    def _early_lost(self, refused_at: float, now: float, hold_s: float) -> bool:
        """Whether that was the whole story: the window had not begun yet."""
        self._is_early, self._early_wins = False, 0
        begun = self.used > 0
        start = self.start if begun else self._start_before
        self._least_s = max(self._least_s, refused_at - start)
        self._test_later(now, hold_s, start)
        if not begun:
            self.start, self.used = start, self.count
        return not begun

    def _test_later(self, now: float, hold_s: float, start: float) -> None:
        lost = max(0.0, now + hold_s - start - self.span_s) * self.now_per_s() if hold_s else 0.0
        dear = 1 + lost / 2
        self._early_turn = not self._early_turn
        self._early_wins = 0
        self._calm_for = min(2 * self._calm_for * dear, CALM_MOST * dear)
        if not self._early_turn or self.span_s - self._least_s < 0.02 * self.span_s:
            self._patience = min(self._patience * 2, PATIENCE_MOST) * dear

    def _cut_short(self, now: float, fails: int, hold_s: float, jitter_s: float) -> None:
        """Refused in the middle of a window: a fallen limit, or calls that overtook each other."""
        self._cut = True
        if fails >= 3 and not hold_s:
            self.count = self.used
            self._not_before = self.start + self._period_s
            self._patience, self._calm_for = PATIENCE_LEAST, CALM_LEAST
            return
        self._widen_guard(jitter_s)
        pause_s = min(2**fails, 64) * max(jitter_s, 0.5 * self.span_s / self.count)
        self._not_before = now if hold_s else now + pause_s

    def _widen_guard(self, jitter_s: float) -> None:
        self._guard_s = min(1.5 * self._guard_s + jitter_s, MOST_GUARD * self.span_s)

    def _start_refused(self, refused_at: float, now: float, fails: int, hold_s: float, jitter_s: float) -> Fate:
        self.start, self.used = (
            self._start_before,
            self.count,
        )  # the window has not begun
        least_s = max(refused_at - self.start, refused_at + hold_s - 1.0 - self.start)
        if least_s < 1.04 * self.span_s and fails <= 2 and self.span_s in ROUND_SPANS_S:
            self._widen_guard(jitter_s)
            self._not_before = now + max(jitter_s, 2 * LEAST_GUARD_S, 0.005 * self.span_s * 2**fails)
            return Fate.KEPT
        if self._held >= HELD and not hold_s:
            return Fate.GONE
        self._least_s = least_s
        if self._most_s is not None and self._most_s <= 1.02 * least_s:
            self._most_s = None
        span_s = self._best_span_s()
        if span_s is None:
            return Fate.DEAD
        self.span_s, self._guard_s = span_s, LEAST_GUARD_S
        return Fate.KEPT
