"""How fast one allowance of the gateway may be used when its limit is not published.

The theory, on one page. Every limiter is, seen from the outside, a window (at most `count` calls in each `span`) or a
bucket (at most `burst + rate * t` calls in t seconds). All answers so far leave a set of limiters that explain them, a
version space (Mitchell 1982). It is fitted again only at a rejection (`identification`): an admitted call excludes
little, a rejected one a lot. In between a follower sends as the chosen limiter allows, and tests now and then whether
it allows more. Rejections are the cost: one costs itself, and with a wait hint the calls of a whole hold. So there are

    EXPLORE   No limit was met. The number of open calls grows with each answer, quickly to 6, then slowly: as many are
              rejected when the limit is met, whatever it is.
    PROBE     The limit was met by a first fill: n1 calls in T1 seconds. With a hint nothing goes until it has passed;
              else single probes go at doubling distances, at the ends of usual windows (`probing`).
    FOLLOW    A second fill of another duration tells the kind: a window admits n1 again, a bucket rate * (T1 - T2)
              fewer. From the second rejection on the fit decides (`model_choice`), and its interval of rates says how
              far the flow may grow (`bucket_follower`); in a window each call waits for the one `count` places before
              (`window_follower`).

What happens at an answer:

    phase     admitted                        rejected
    EXPLORE   one more open call              -> PROBE
    PROBE     -> FOLLOW                       probe again, twice as late
    FOLLOW    tests and growth                window: a failed test, a call too early, a smaller count, or refit
                                              bucket: refit
              after silence: an outage,       again and again: -> PROBE, unless it was followed for long
              if the limiter was proven

A change of the limit is the shortest late part of the history that one limiter explains. A hint longer than the
followed limiter could ask for is an outage: it says nothing of the limit. Hints are evidence as well: a window ends
when they say, and no bucket asks to wait for longer than one call takes to flow in.

It never reads a clock. Obeying hints is `retry_after`'s task; this module only learns how long they hold.
"""

from __future__ import annotations

from enum import Enum, auto

from pipeline.gateway.ratelimit.bucket_follower import BucketFollower, bucket_of_fit
from pipeline.gateway.ratelimit.fits import SPANS_S, WindowFit, is_whole, min_wait_s
from pipeline.gateway.ratelimit.history import History, Rejection
from pipeline.gateway.ratelimit.latency import LatencyTracker
from pipeline.gateway.ratelimit.model_choice import RATE_MARGIN, Follower, ModelChoice
from pipeline.gateway.ratelimit.probing import (
    InitialFill,
    next_probe_at,
    second_fill_rate,
    spans_between,
    window_by_hint,
)
from pipeline.gateway.ratelimit.remembered import Memory, MemoryTest
from pipeline.gateway.ratelimit.window_follower import Verdict, WindowFollower

NEVER = float("inf")
LONG_AGO = float("-inf")

QUICK_OPEN = 6.0
"""Open calls up to which the start is quick: as many may be rejected when the limit is met."""
QUICK_GROWTH_PER_S, GROWTH_PER_S = 14.0, 1.0
MIN_GROWTH, MAX_QUICK_GROWTH, MAX_GROWTH = 1 / 32, 1.0, 0.25
"""Open calls gained for each admitted one: so many for each second of latency, within bounds."""
FILL_OPEN = 10
"""Open calls while the kind of the limit is unknown: the second fill must be quicker than the first."""
BACKOFF, MAX_BACKOFF_S = 2.5, 30.0
"""Factor between two pauses after rejections without hints, and the longest pause (seconds)."""
SHUT_CALLS, SHUT_PART, SHUT_FAILS = 5, 0.25, 3
"""A bucket that gained nothing for so many calls, or a window that stays shut for this part of its span, by so many
rejections, is something else."""
SETTLED_CALLS = 100
"""A bucket that was followed for so many calls is a bucket: silence is an outage."""
OUTAGE_FAILS, OUTAGE_CALLS = 4, 20
"""After so many rejections in a row the history begins again; two outages are at least so many calls apart."""
SURE_CALLS = 4.0
"""Fewer calls that a bucket would have admitted in a second fill: it is none."""
FELL = 0.85
"""A limit below this part of what was measured has fallen."""
MIN_INTERVAL, MAX_INTERVAL, SETTLED_PART = 40.0, 250.0, 1 / 8
"""Calls between two tests of a bucket's rate: doubled with each that confirms it, up to 0.4 % rejections; and no more
than this part of the calls since the last fall, since what moves is tested more often."""
REFUTED_OPEN = 2.0
"""Open calls with which a limit is explored that is known to be higher than was remembered."""
SAME_RATE = 0.05
"""A rate measured within this part of the last one confirms it."""


class ControllerPhase(Enum):
    """Where the controller is on its way; see the module's docstring."""

    EXPLORE = auto()
    PROBE = auto()
    FOLLOW = auto()


class RateController:
    def __init__(self, *, max_open: int, open_at_first: float = 1.0) -> None:
        self.open = self.unsent = 0
        self.latency = LatencyTracker()
        self._max_open, self._open_at_first = max_open, open_at_first
        self.restart()

    def restart(self) -> None:
        self.phase = ControllerPhase.EXPLORE
        self.follower: Follower | None = None
        self.history = History()
        self._allowed_open = self._open_at_first
        self._settling = False
        self._met: Rejection | None = None
        self._fails = 0
        self._blocked_at = LONG_AGO
        self._hold_s = 0.0
        self._not_before = LONG_AGO
        self._answers = 0
        self._fell_at = -1_000_000
        self._fill = InitialFill(0, 0.0, 0.0)
        self._window: WindowFit | None = None
        self._failed_age_s = 0.0
        self._reopened_at = LONG_AGO
        self._choice = ModelChoice(self.history)
        self._outage_at = -1_000_000
        self._held_s = 0.0
        self._interval = MIN_INTERVAL
        self._memory: MemoryTest | None = None
        self._idle_s = 0.0
        self._before: History | None = None

    # ------------------------------------------------------------- interface

    @property
    def rate(self) -> float | None:
        return self.follower.rate if self.follower is not None else None

    @property
    def is_shut(self) -> bool:
        return self._settling

    def ready_at(self, now: float) -> float:
        busy = self.open + self.unsent
        if busy >= self._max_open or (self._settling and busy):
            return NEVER
        if self.follower is None:
            if self.phase is ControllerPhase.EXPLORE:
                return now if busy < int(self._allowed_open) else NEVER
            return NEVER if busy else max(now, self._not_before)
        if busy and (self._fails or (busy >= FILL_OPEN and self._is_filling())):
            return NEVER
        memory = self._memory
        if memory is not None and memory.is_testing:
            return NEVER
        if busy and isinstance(self.follower, WindowFollower) and self.follower.is_testing:
            return NEVER
        at = self._follower_ready_at(now, busy)
        if memory is not None and at > now and not busy:
            at = memory.test_at(at)
        return max(now, at, self._not_before)

    def _follower_ready_at(self, now: float, busy: int) -> float:
        if isinstance(self.follower, WindowFollower):
            return self.follower.ready_at(now, self.unsent, busy)
        return now if self.follower is None else self.follower.ready_at(now)

    def take(self, due_at: float) -> None:
        if self._memory is not None:
            self._memory.taken(due_at, self._follower_ready_at(due_at, self.open + self.unsent))
        self.unsent += 1
        if isinstance(self.follower, WindowFollower):
            self.follower.take(due_at, self.unsent)
        elif self.follower is not None:
            self.follower.take(due_at)

    def give_back(self, now: float) -> None:
        self.unsent -= 1
        if self._memory is not None:
            self._memory.withdrawn()
        if self.follower is not None:
            self.follower.give_back()
        self._settle(now)

    def sent(self, now: float) -> None:
        self.unsent -= 1
        self.open += 1
        self.history.sent(now, self.latency.latency_s / 2)

    def passed_over(self, now: float) -> None:
        self.open -= 1
        self._settle(now)

    def rejoined(self) -> None:
        self.open += 1

    def interrupted(self, now: float, frozen_s: float) -> None:
        """The process stood still for `frozen_s` until now: what the gateway did meanwhile was not seen.

        A measured limit stays. One that was half measured is measured again: see `_limit_met`.
        """
        if self.phase is ControllerPhase.FOLLOW and self.follower is not None and _is_measured(self.follower):
            self._settling, self._met, self._fails = False, None, 0
            self._not_before, self._reopened_at = LONG_AGO, now
            self._choice.begin_at(now)
            self.follower.interrupted(now)
            return
        before, idle_s = self.history, self._idle_s + frozen_s
        if self._before is not None:
            before = self._before.followed_by(self.history)
        elif self.phase is ControllerPhase.FOLLOW:
            before = self.history.since(self._reopened_at, at_most=self._fill.count)
        self.restart()
        self._before, self._idle_s = before, idle_s

    def answered_unseen(self, sent_at: float, now: float, *, is_rejected: bool) -> None:
        """The answer to a call that was sent before the process stood still: when it came is not known."""
        self.open -= 1
        if is_rejected:
            self.history.forget(sent_at)
        self._settle(now)

    def accepted(self, sent_at: float, now: float) -> None:
        self.open -= 1
        self._answers += 1
        self.latency.answered(now - sent_at)
        arrived = self.history.admitted(sent_at, now, self._max_half_s())
        if self.phase is ControllerPhase.EXPLORE:
            self._allowed_open = min(self._allowed_open + self._growth(), self._max_open)
        elif not self.history.rejections or arrived >= self.history.rejections[-1].at - 1e-9:
            self._admitted(arrived, now)
        self._settle(now)

    def throttled(self, sent_at: float, now: float, hold_s: float = 0.0, hint_s: float | None = None) -> None:
        self.open -= 1
        self._answers += 1
        self._hold_s = hold_s
        rejection = self.history.rejected(sent_at, now, hint_s, self._max_half_s())
        if not self._settling:
            self._settling = True
            self._met = rejection
            if not self._fails:
                self._blocked_at = rejection.at
            self._fails += 1
        self._settle(now)

    def begin_window(self, now: float, *, count: int, span_s: float) -> None:
        self.phase = ControllerPhase.FOLLOW
        self.follower = WindowFollower(self.history, self.latency, count=count, span_s=span_s)
        self._fill = InitialFill(count, now, now)
        self._reopened_at = now

    def begin_bucket(self, now: float, *, rate: float, burst: float) -> None:
        self.phase = ControllerPhase.FOLLOW
        self.follower = BucketFollower(self.latency, rate=rate, burst=burst, now=now, level=burst)
        self._fill = InitialFill(1, now, now)
        self._reopened_at = now

    def doubt(self) -> None:
        """The limit that was begun with is an earlier run's: test it before it is relied upon."""
        burst = self.follower.burst if isinstance(self.follower, BucketFollower) else 0.0
        self._memory = MemoryTest(burst=burst)

    # ------------------------------------------------------------------ steps

    def _growth(self) -> float:
        quick = self._allowed_open < QUICK_OPEN
        per_s, most = (QUICK_GROWTH_PER_S, MAX_QUICK_GROWTH) if quick else (GROWTH_PER_S, MAX_GROWTH)
        return min(most, max(MIN_GROWTH, per_s * self.latency.latency_s))

    def _max_half_s(self) -> float:
        latency = self.latency
        return latency.latency_s / 2 + latency.jitter_s if latency.latency_s else NEVER

    def _noise_s(self) -> float:
        return max(0.7 * self.latency.jitter_s, 0.001)

    def _is_filling(self) -> bool:
        """Whether it is not known yet what kind of limit it is."""
        follower = self.follower
        if isinstance(follower, WindowFollower):
            return follower.trial_gap_s > 0
        return follower is not None and follower.ramp_after is not None

    def _settle(self, now: float) -> None:
        if self._settling and not self.open + self.unsent:
            self._settling = False
            met, self._met = self._met, None
            if met is not None:
                self._judge(met, now)

    def _admitted(self, arrived: float, now: float) -> None:
        if self._settling:
            return
        if self._memory is not None and self._memory.admitted(now) is Memory.REFUTED:
            self._explore_again()
            return
        fails, self._fails = self._fails, 0
        if self.phase is ControllerPhase.PROBE:
            self._reopen(arrived, now)
            return
        assert self.follower is not None
        if fails >= OUTAGE_FAILS and isinstance(self.follower, BucketFollower):
            self._choice.begin_at(arrived)
        self.follower.admitted()
        if isinstance(self.follower, WindowFollower) and self.follower.trial_gap_s:
            self._end_trial(self.follower)

    def _end_trial(self, window: WindowFollower) -> None:
        """All of the first fill were admitted again: a window, unless a bucket would have admitted as many, too."""
        if self.history.count(self._reopened_at - 1e-9, NEVER) - self.open < window.count:
            return
        window.trial_gap_s = 0.0
        last = self.history.nth_last(1)
        again_s = (self._reopened_at if last is None else last) - self._reopened_at
        fewer = self._fill.count * (self._fill.took_s - again_s) / (1 + again_s)
        window.is_sure = fewer >= SURE_CALLS

    def _judge(self, it: Rejection, now: float) -> None:
        if self.phase is ControllerPhase.EXPLORE:
            self._limit_met(it)
            self._probe_later(it, now)
        elif self.phase is ControllerPhase.PROBE:
            if self._window is None:
                self._window = window_by_hint(self._fill, it, self._noise_s()) if self._hold_s else None
            self._probe_later(it, now)
        elif self._memory is not None:
            self._judge_memory(self._memory, it, now)
        elif self._fails > 1:
            self._back_off(now)
            if self._fails >= SHUT_FAILS and not self._hold_s:
                if isinstance(self.follower, WindowFollower):
                    self._window_stays_shut(self.follower, it, now)
                else:
                    self._bucket_stays_empty(it, now)
        elif self._is_outage(it):
            self._outage_at = self._answers
            self._choice.begin_at(it.at)
            if isinstance(self.follower, BucketFollower):
                self.follower.empty_until(now + self._hold_s)
        elif isinstance(self.follower, WindowFollower):
            self._window_rejected(self.follower, it, now)
        else:
            self._refit(it, now)

    def _judge_memory(self, memory: MemoryTest, it: Rejection, now: float) -> None:
        """A rejection while the remembered limit is in doubt."""
        assert self.follower is not None
        if memory.is_testing:
            self.follower.give_back()
        wait_s = self._follower_ready_at(now, 0) - now
        verdict = memory.rejected(hint_s=it.retry_after_s, wait_s=wait_s)
        if verdict is Memory.REFUTED:
            self._memory = self.follower = None
            self._limit_met(it)
            self._probe_later(it, now)
            return
        if verdict is Memory.CONFIRMED:
            self._memory = None
        elif isinstance(self.follower, BucketFollower):
            self.follower.empty_until(now + self._hold_s)
        self._back_off(now)

    def _explore_again(self) -> None:
        """The remembered limit is too low: explore, from what was admitted so far."""
        self.phase = ControllerPhase.EXPLORE
        self._memory = self.follower = None
        self._allowed_open = max(self._open_at_first, REFUTED_OPEN)

    def _is_outage(self, it: Rejection) -> bool:
        """A hint longer than anything that the limit known so far could ask for."""
        if it.retry_after_s is None or self._answers - self._outage_at < OUTAGE_CALLS:
            return False
        if isinstance(self.follower, WindowFollower):
            return self.follower.is_proven and not self.follower.could_ask_for(it)
        return self._choice.fits > 0 and self.rate is not None and min_wait_s(it.retry_after_s) > 2 / self.rate

    # ------------------------------------------------- explore, probe, reopen

    def _limit_met(self, it: Rejection) -> None:
        self.phase = ControllerPhase.PROBE
        if self._before is not None and len(self.history) < len(self._before):
            # Fewer than before the pause: the limiter was not refilled by it, so the calls before it count as well.
            self.history = self._before.followed_by(self.history)
            self._choice = ModelChoice(self.history)
        else:
            self._idle_s = 0.0
        self._before = None
        first = self.history.nth_last(len(self.history)) if len(self.history) else None
        self._fill = InitialFill(max(len(self.history), 1), it.at if first is None else first, it.at, self._idle_s)
        self._window = window_by_hint(self._fill, it, self._noise_s()) if self._hold_s else None

    def _probe_later(self, it: Rejection, now: float) -> None:
        self._failed_age_s = it.at - self._fill.begin
        self._not_before = now
        if self._hold_s:
            return
        self._not_before = next_probe_at(self._fill, now, self.latency.latency_s / 2, self._noise_s())

    def _reopen(self, arrived: float, now: float) -> None:
        """A probe was admitted: follow what the hints or the time it took suggest, else fill a second time."""
        self.phase = ControllerPhase.FOLLOW
        self._reopened_at = arrived
        noise_s, fill = self._noise_s(), self._fill
        age_s = arrived - fill.begin
        if isinstance(self.follower, WindowFollower):
            if not self.follower.is_proven and 1.2 * self.follower.span_s < age_s < 8 * self.follower.span_s:
                self.follower.lengthen(spans_between(self._failed_age_s, age_s, noise_s), age_s + 2 * noise_s)
            self.follower.opened_at = arrived - 1e-9
            return
        window = self._window
        if window is None:
            inside = spans_between(self._failed_age_s, age_s, noise_s)
            span_s = inside[-1] if inside else next((span for span in SPANS_S if age_s <= span), age_s)
            if self._hold_s or span_s <= 2:
                self._second_fill(span_s, now)
                return
            window = WindowFit(fill.count, span_s, 0.0)
        follower = self._new_window(window)
        if age_s < window.span_s - 3 * noise_s - 0.01:
            follower.opened_at = arrived - 1e-9
        if self._hold_s and window.span_s <= 2:
            follower.trial_gap_s = 0.5 * fill.took_s / fill.count
            follower.opened_at = arrived - 1e-9
        self.follower = follower

    def _second_fill(self, span_s: float, now: float) -> None:
        rate = second_fill_rate(self._fill, span_s)
        if not self._hold_s:  # one call flowed in since the rejection, at least
            rate = max(rate, 1 / max(self._reopened_at - self._fill.rejected_at, 1e-3))
        self.follower = BucketFollower(self.latency, rate=rate, burst=self._fill.count, now=now)
        self.follower.ramp_after = self._fill.count + 2

    def _new_window(self, fit: WindowFit) -> WindowFollower:
        window = WindowFollower(self.history, self.latency, count=fit.count, span_s=fit.span_s)
        window.is_hinted = self._hold_s > 0
        window.rounds_hints = window.is_hinted and is_whole(self._hold_s)
        return window

    # ------------------------------------------------------------- rejections

    def _back_off(self, now: float) -> None:
        if self._hold_s:
            return
        if isinstance(self.follower, WindowFollower):
            first_s = max(self._noise_s(), 0.003 * self.follower.span_s)
        else:
            first_s = max(0.3 * self._noise_s(), min(0.5 / max(self.rate or 1.0, 1e-3), 0.25))
        self._not_before = now + min(first_s * BACKOFF ** (min(self._fails, 10) - 1), MAX_BACKOFF_S)

    def _window_stays_shut(self, window: WindowFollower, it: Rejection, now: float) -> None:
        """Nothing is admitted though the window should be open: the limit fell, or the span is longer."""
        if it.at - self._blocked_at < SHUT_PART * window.span_s:
            return
        calls = self.history.count(it.at - 0.5 * window.span_s, it.at)
        if 0 < calls < FELL * window.count and window.is_proven:
            window.fall_to(calls)
            self._fails = 1
            return
        self.phase = ControllerPhase.PROBE
        first = self.history.nth_last(min(window.count, len(self.history)))
        self._fill = InitialFill(window.count, it.at if first is None else first, it.at)
        self._window = None
        self._probe_later(it, now)

    def _bucket_stays_empty(self, it: Rejection, now: float) -> None:
        """Nothing flows in for so long that it is no bucket: when it is open again tells which window it is."""
        assert isinstance(self.follower, BucketFollower)
        shut_s = it.at - self._blocked_at
        if shut_s < max(SHUT_CALLS / self.follower.rate, 4 * self._noise_s()) or (
            self.follower.admitted_total > SETTLED_CALLS
        ):
            return
        self.phase = ControllerPhase.PROBE
        calls = self.history.count(self._reopened_at - 1e-9, it.at)
        self._fill = InitialFill(max(calls, 1), self._reopened_at, self._blocked_at)
        self._window = None
        self._probe_later(it, now)

    def _window_rejected(self, window: WindowFollower, it: Rejection, now: float) -> None:
        window.is_hinted = self._hold_s > 0
        window.rounds_hints = it.retry_after_s is not None and is_whole(it.retry_after_s)
        verdict = window.rejected(it, fails=self._fails)
        self._back_off(now)
        if verdict is Verdict.REFIT:
            self._refit(it, now)

    # ------------------------------------------------------------------- refit

    def _refit(self, it: Rejection, now: float) -> None:
        old = self.follower
        assert old is not None
        ramp = old.sending_rate * RATE_MARGIN if isinstance(old, BucketFollower) else self._fill.max_rate
        fit = self._choice.choose(
            it, old, noise_s=self._noise_s(), hinted=self._hold_s > 0, calls=self._answers, max_rate=ramp
        )
        if fit is None:
            fit = self._choice.lately(it, old, reopened_at=self._reopened_at, held_s=self._held_s)
        rate = fit.count / fit.span_s if isinstance(fit, WindowFit) else fit.rate
        if rate < FELL * old.rate and _is_measured(old):
            self._fell_at = self._answers
        if isinstance(fit, WindowFit):
            self.follower = self._new_window(fit)
        else:
            same = isinstance(old, BucketFollower) and abs(fit.rate - old.rate) < SAME_RATE * old.rate
            settled = max(MIN_INTERVAL, (self._answers - self._fell_at) * SETTLED_PART)
            self._interval = min(2 * self._interval, MAX_INTERVAL, settled) if same else MIN_INTERVAL
            quiet = max(old.quiet, 1) if isinstance(old, BucketFollower) else 1
            self.follower = bucket_of_fit(
                fit, it, self.latency, now=now, hold_s=self._hold_s, interval=self._interval, quiet=quiet
            )
            self._held_s = self._hold_s
        self._back_off(now)


def _is_measured(old: Follower) -> bool:
    """Whether the model was more than a guess, so that less than it is a fall."""
    if isinstance(old, WindowFollower):
        return old.is_proven
    return old.ramp_after is None and old.unsure < 0.1 and old.sending_rate < 1.2 * old.rate
