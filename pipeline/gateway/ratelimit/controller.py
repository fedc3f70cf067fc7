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

from pipeline.gateway.ratelimit.bucket_follower import MIN_RATE, BucketFollower
from pipeline.gateway.ratelimit.exploring import Exploration
from pipeline.gateway.ratelimit.fits import min_wait_s
from pipeline.gateway.ratelimit.history import History, Rejection
from pipeline.gateway.ratelimit.latency import LatencyTracker
from pipeline.gateway.ratelimit.model_choice import RATE_MARGIN, Follower
from pipeline.gateway.ratelimit.probe import MAX_BACKOFF_S, Probe, is_no_bucket, pause_s
from pipeline.gateway.ratelimit.probing import InitialFill
from pipeline.gateway.ratelimit.refitting import FELL, Refitting, is_measured
from pipeline.gateway.ratelimit.remembered import Memory, MemoryTest
from pipeline.gateway.ratelimit.window_follower import Verdict, WindowFollower

NEVER = float("inf")
LONG_AGO = float("-inf")

FILL_OPEN = 10
"""Open calls while the kind of the limit is unknown: the second fill must be quicker than the first."""
SHUT_PART, SHUT_FAILS = 0.25, 3
"""A window that stays shut for this part of its span, by so many rejections, is something else."""
OUTAGE_FAILS, OUTAGE_CALLS = 4, 20
"""After so many rejections in a row the history begins again; two outages are at least so many calls apart."""
BLOCKED_S = 2.0
"""Pause (seconds) after a run's first call was rejected without a hint; it doubles: four calls in half a minute."""
REFUTED_OPEN = 2.0
"""Open calls with which a limit is explored that is known to be higher than was remembered."""


class ControllerPhase(Enum):
    """Where the controller is on its way; see the module's docstring."""

    EXPLORE = auto()
    PROBE = auto()
    FOLLOW = auto()


class RateController:
    """Says when the next call of one allowance may go. All times are seconds of one monotonic clock."""

    def __init__(self, *, max_open: int, open_at_first: float = 1.0) -> None:
        self.open = self.unsent = 0
        self.latency = LatencyTracker()
        self._max_open, self._open_at_first = max_open, open_at_first
        self.restart()

    def restart(self) -> None:
        """Forget the limit: it is looked for from the beginning."""
        self.phase = ControllerPhase.EXPLORE
        self.follower: Follower | None = None
        self._begin_history(History())
        self._exploration = Exploration(self._open_at_first)
        self._settling = False
        self._met: Rejection | None = None
        self._fails = 0
        self._blocked_at = LONG_AGO
        self._hold_s = 0.0
        self._not_before = LONG_AGO
        self._answers = 0
        self._outage_at = -1_000_000
        self._memory: MemoryTest | None = None
        self._idle_s = 0.0
        self._before: History | None = None

    def _begin_history(self, history: History) -> None:
        self.history = history
        self._probe = Probe(history, self.latency)
        self._refitting = Refitting(history, self.latency)

    # ------------------------------------------------------------- interface

    @property
    def rate(self) -> float | None:
        """Calls a second, as followed; None while no limit is known."""
        return self.follower.rate if self.follower is not None else None

    @property
    def is_shut(self) -> bool:
        """Whether the limit was met, and calls in flight are waited for."""
        return self._settling

    def ready_at(self, now: float) -> float:
        """The earliest time of the next call."""
        busy = self.open + self.unsent
        if busy >= self._max_open or (self._settling and busy):
            return NEVER
        if self.follower is None:
            if self.phase is ControllerPhase.EXPLORE:
                return max(now, self._not_before) if busy < self._exploration.open else NEVER
            return NEVER if busy else max(now, self._not_before)
        if busy and (self._fails or (busy >= FILL_OPEN and self._is_filling())):
            return NEVER
        memory = self._memory
        if memory is not None and (memory.is_testing or (busy and len(self.history) == self.open)):
            return NEVER  # one call first: the allowance may be used up, or the gateway may admit nothing at all
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
        """A call will go then."""
        if self._memory is not None:
            self._memory.taken(due_at, self._follower_ready_at(due_at, self.open + self.unsent))
        self.unsent += 1
        if isinstance(self.follower, WindowFollower):
            self.follower.take(due_at, self.unsent)
        elif self.follower is not None:
            self.follower.take(due_at)

    def give_back(self, now: float) -> None:
        """A taken call was not sent."""
        self.unsent -= 1
        if self._memory is not None:
            self._memory.withdrawn()
        if self.follower is not None:
            self.follower.give_back()
        self._settle(now)

    def sent(self, now: float) -> None:
        """A taken call was sent."""
        self.unsent -= 1
        self.open += 1
        self.history.sent(now, self.latency.latency_s / 2)

    def passed_over(self, now: float) -> None:
        """A call that is not answered for long does not count as open any more."""
        self.open -= 1
        self._settle(now)

    def rejoined(self) -> None:
        """It is answered after all: the answer follows."""
        self.open += 1

    def interrupted(self, now: float, frozen_s: float) -> None:
        """The process was frozen for `frozen_s` until now: what the gateway did meanwhile was not seen.

        A measured limit stays. One that was half measured is measured again: see `_limit_met`.
        """
        if self.phase is ControllerPhase.FOLLOW and self.follower is not None and is_measured(self.follower):
            self._settling, self._met, self._fails = False, None, 0
            self._not_before = LONG_AGO
            self._probe.reopened(now)
            self._refitting.begin_at(now)
            self.follower.interrupted(now)
            return
        before, idle_s = self.history, self._idle_s + frozen_s
        if self._before is not None:
            before = self._before.followed_by(self.history)
        elif self.phase is ControllerPhase.FOLLOW:
            before = self.history.since(self._probe.reopened_at, at_most=self._probe.fill.count)
        self.restart()
        self._before, self._idle_s = before, idle_s

    def answered_unseen(self, sent_at: float, now: float, *, is_rejected: bool) -> None:
        """The answer to a call that was sent before the process was frozen: when it came is not known."""
        self.open -= 1
        if is_rejected:
            self.history.forget(sent_at)
        self._settle(now)

    def accepted(self, sent_at: float, now: float) -> None:
        """The call that was sent at `sent_at` was admitted."""
        self.open -= 1
        self._answers += 1
        self.latency.answered(now - sent_at)
        arrived = self.history.admitted(sent_at, now, self.latency.max_half_s)
        if self.phase is ControllerPhase.EXPLORE:
            self._fails = 0
            self._exploration.admitted(self.latency.latency_s, self._max_open)
        elif not self.history.rejections or arrived >= self.history.rejections[-1].at - 1e-9:
            self._admitted(arrived, now)
        self._settle(now)

    def throttled(self, sent_at: float, now: float, hold_s: float = 0.0, hint_s: float | None = None) -> None:
        """The call that was sent at `sent_at` was rejected, which holds everything for `hold_s` seconds."""
        self.open -= 1
        self._answers += 1
        self._hold_s = hold_s
        rejection = self.history.rejected(sent_at, now, hint_s, self.latency.max_half_s)
        if not self._settling:
            self._settling = True
            self._met = rejection
            if not self._fails:
                self._blocked_at = rejection.at
            self._fails += 1
        self._settle(now)

    def begin_window(self, now: float, *, count: int, span_s: float) -> None:
        """Follow a window that was known before, or that the gateway states."""
        self.phase = ControllerPhase.FOLLOW
        self.follower = WindowFollower(self.history, self.latency, count=count, span_s=span_s)
        self._probe.begin_known(count, now)

    def begin_bucket(self, now: float, *, rate: float, burst: float) -> None:
        """Follow a bucket that was known before."""
        self.phase = ControllerPhase.FOLLOW
        self.follower = BucketFollower(self.latency, rate=max(rate, MIN_RATE), burst=burst, now=now, level=burst)
        self._probe.begin_known(1, now)

    def doubt(self) -> None:
        """The limit that was begun with is an earlier run's: test it before it is relied upon."""
        burst = self.follower.burst if isinstance(self.follower, BucketFollower) else 0.0
        self._memory = MemoryTest(burst=burst)

    # ------------------------------------------------------------------ steps

    def _is_filling(self) -> bool:
        """Whether it is not known yet what kind of limit it is."""
        follower = self.follower
        if isinstance(follower, WindowFollower):
            return follower.trial_gap_s > 0
        return follower is not None and follower.ramp_after is not None

    def _settle(self, now: float) -> None:
        """Judge the rejection once no call is open that was sent before it."""
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
            self.phase = ControllerPhase.FOLLOW
            self.follower = self._probe.admitted(self.follower, arrived, now, hold_s=self._hold_s)
            return
        assert self.follower is not None
        if fails >= OUTAGE_FAILS and isinstance(self.follower, BucketFollower):
            self._refitting.begin_at(arrived)
        self.follower.admitted()
        if isinstance(self.follower, WindowFollower) and self.follower.trial_gap_s:
            self._probe.judge_trial(self.follower, in_flight=self.open)

    def _judge(self, it: Rejection, now: float) -> None:
        if not len(self.history):
            self._nothing_admitted(now)
        elif self.phase is ControllerPhase.EXPLORE:
            self._limit_met(it, now)
        elif self.phase is ControllerPhase.PROBE:
            self._probe.rejected(it, hold_s=self._hold_s)
            self._not_before = self._probe.next_at(it, now, hold_s=self._hold_s)
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
            self._refitting.begin_at(it.at)
            if isinstance(self.follower, BucketFollower):
                self.follower.empty_until(now + self._hold_s)
        elif isinstance(self.follower, WindowFollower):
            verdict = self.follower.rejected(it, fails=self._fails, hold_s=self._hold_s)
            self._back_off(now)
            if verdict is Verdict.REFIT:
                self._refit(it, now)
        else:
            self._refit(it, now)

    def _nothing_admitted(self, now: float) -> None:
        """Rejected before any call was admitted: of the limit this says nothing, and it may last."""
        self.history.forget_rejections()
        if self._memory is not None:
            self._memory.withdrawn()
        if self.follower is not None:
            self.follower.give_back()
        if not self._hold_s:
            self._not_before = now + min(BLOCKED_S * 2.0 ** min(self._fails - 1, 10), MAX_BACKOFF_S)

    def _limit_met(self, it: Rejection, now: float) -> None:
        self.phase = ControllerPhase.PROBE
        if self._before is not None and len(self.history) < len(self._before):
            # Fewer than before the pause: the limiter was not refilled by it, so the calls before it count as well.
            self._begin_history(self._before.followed_by(self.history))
        else:
            self._idle_s = 0.0
        self._before = None
        self._probe.limit_met(it, hold_s=self._hold_s, idle_s=self._idle_s)
        self._not_before = self._probe.next_at(it, now, hold_s=self._hold_s)

    def _judge_memory(self, memory: MemoryTest, it: Rejection, now: float) -> None:
        """A rejection while the remembered limit is in doubt."""
        assert self.follower is not None
        if memory.is_testing:
            self.follower.give_back()
        wait_s = self._follower_ready_at(now, 0) - now
        verdict = memory.rejected(hint_s=it.retry_after_s, wait_s=wait_s)
        if verdict is Memory.REFUTED:
            self._memory = self.follower = None
            self._limit_met(it, now)
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
        self._exploration = Exploration(max(self._open_at_first, REFUTED_OPEN))

    def _is_outage(self, it: Rejection) -> bool:
        """A hint longer than anything that the limit known so far could ask for."""
        if it.retry_after_s is None or self._answers - self._outage_at < OUTAGE_CALLS:
            return False
        if isinstance(self.follower, WindowFollower):
            return self.follower.is_proven and not self.follower.could_ask_for(it)
        is_known = self._refitting.is_bucket_known and self.rate is not None
        return is_known and min_wait_s(it.retry_after_s) > 2 / (self.rate or 1.0)

    # ------------------------------------------------------------- rejections

    def _refit(self, it: Rejection, now: float) -> None:
        assert self.follower is not None
        ramp = (
            self.follower.sending_rate * RATE_MARGIN
            if isinstance(self.follower, BucketFollower)
            else self._probe.fill.max_rate
        )
        self.follower = self._refitting.refit(
            it,
            self.follower,
            now=now,
            hold_s=self._hold_s,
            answers=self._answers,
            max_rate=ramp,
            reopened_at=self._probe.reopened_at,
        )
        self._back_off(now)

    def _back_off(self, now: float) -> None:
        if not self._hold_s:
            self._not_before = now + pause_s(self.follower, fails=self._fails, noise_s=self.latency.noise_s)

    def _window_stays_shut(self, window: WindowFollower, it: Rejection, now: float) -> None:
        """Nothing is admitted though the window should be open: the limit fell, or the span is longer."""
        if it.at - self._blocked_at < SHUT_PART * window.span_s:
            return
        calls = self.history.count(it.at - 0.5 * window.span_s, it.at)
        if 0 < calls < FELL * window.count and window.is_proven:
            window.fall_to(calls)
            self._fails = 1
            return
        first = self.history.nth_last(min(window.count, len(self.history)))
        begin = max(it.at if first is None else first, self._probe.reopened_at)
        count = self.history.count(begin - 1e-9, it.at)
        self._probe_again(InitialFill(max(count, 1), begin, it.at), it, now)

    def _bucket_stays_empty(self, it: Rejection, now: float) -> None:
        """Nothing flows in for so long that it is no bucket: when it is open again tells which window it is."""
        assert isinstance(self.follower, BucketFollower)
        if not is_no_bucket(self.follower, it.at - self._blocked_at, self.latency.noise_s):
            return
        reopened_at = self._probe.reopened_at
        calls = self.history.count(reopened_at - 1e-9, it.at)
        self._probe_again(InitialFill(max(calls, 1), reopened_at, self._blocked_at), it, now)

    def _probe_again(self, fill: InitialFill, it: Rejection, now: float) -> None:
        self.phase = ControllerPhase.PROBE
        self._probe.begin(fill)
        self._not_before = self._probe.next_at(it, now, hold_s=self._hold_s)
