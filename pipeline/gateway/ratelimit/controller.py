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
from pipeline.gateway.ratelimit.following import Following
from pipeline.gateway.ratelimit.history import History, Rejection
from pipeline.gateway.ratelimit.latency import LatencyTracker
from pipeline.gateway.ratelimit.model_choice import Follower
from pipeline.gateway.ratelimit.open_calls import OpenCalls
from pipeline.gateway.ratelimit.probe import Probe, blocked_pause_s
from pipeline.gateway.ratelimit.probing import InitialFill
from pipeline.gateway.ratelimit.remembered import Memory, MemoryTest
from pipeline.gateway.ratelimit.times import LONG_AGO, NEVER
from pipeline.gateway.ratelimit.window_follower import WindowFollower

REFUTED_OPEN, FILL_S, FILL_CALLS = 2.0, 1.0, 1_200
"""Open calls with which a limit is explored that is known to be higher than was remembered; and what belongs to its
first fill of the calls before: those of so many seconds, and so many of them."""


class ControllerPhase(Enum):
    """Where the controller is on its way; see the module's docstring."""

    EXPLORE = auto()
    PROBE = auto()
    FOLLOW = auto()


class RateController:
    """Says when the next call of one allowance may go. All times are seconds of one monotonic clock."""

    def __init__(self, *, max_open: int, open_at_first: float = 1.0) -> None:
        self.calls = OpenCalls()
        self.latency = LatencyTracker()
        self._max_open, self._open_at_first = max_open, open_at_first
        self.restart()

    def restart(self) -> None:
        """Forget the limit: it is looked for from the beginning."""
        self.phase = ControllerPhase.EXPLORE
        self._begin_history(History())
        self._exploration = Exploration(self._open_at_first)
        self.calls.forget()
        self._hold_s = 0.0
        self._not_before = LONG_AGO
        self._answers = 0
        self._memory: MemoryTest | None = None

    def _begin_history(self, history: History) -> None:
        self.history = history
        self._probe = Probe(history, self.latency)
        self._following = Following(history, self.latency, self._probe)

    @property
    def follower(self) -> Follower | None:
        """The limiter that is followed; None while none is known."""
        return self._following.follower

    def ready_at(self, now: float) -> float:
        """The earliest time of the next call."""
        busy = self.calls.busy
        # While a rejection settles nothing goes: it would be rejected too, and blur when the limit was met.
        if busy >= self._max_open or (self.calls.is_settling and busy):
            return NEVER
        if self.follower is None:
            # A probe goes alone, because it costs a rejection.
            most = self._exploration.open if self.phase is ControllerPhase.EXPLORE else 1
            return max(now, self._not_before) if busy < most else NEVER
        at = self._following.ready_at(now, self.calls)
        memory = self._memory
        if memory is not None:
            if memory.is_testing or (busy and len(self.history) == self.calls.sent):
                return NEVER  # one call first: the allowance may be used up, or the gateway may admit nothing at all
            at = memory.test_at(at) if at > now and not busy else at
        return max(now, at, self._not_before, self._following.not_before)

    def take(self, due_at: float) -> None:
        """A call will go then."""
        if self._memory is not None:
            allowed_at = self._following.allowed_at(due_at, self.calls.unsent, self.calls.busy)
            self._memory.taken(due_at, allowed_at)
        self.calls.take()
        self._following.take(due_at, self.calls.unsent)

    def give_back(self, now: float) -> None:
        """A taken call was not sent."""
        self.calls.give_back()
        if self._memory is not None:
            self._memory.withdrawn()
        self._following.give_back()
        self._settle(now)

    def sent(self, now: float) -> None:
        """A taken call was sent."""
        self.calls.send()
        self.history.sent(now, self.latency.latency_s / 2)

    def passed_over(self, now: float) -> None:
        """A call that is not answered for long does not count as open any more."""
        self.calls.answered()
        self._settle(now)

    def interrupted(self, now: float) -> None:
        """The process was frozen until now: what the gateway did meanwhile was not seen.

        A measured limit stays. One that was half measured is measured again.
        """
        if self.phase is not ControllerPhase.FOLLOW or not self._following.is_measured:
            self.restart()
            return
        self.calls.forget()
        self._not_before = LONG_AGO
        self._following.interrupted(now)

    def answered_unseen(self, sent_at: float, now: float, *, is_rejected: bool) -> None:
        """The answer to a call that was sent before the process was frozen: when it came is not known."""
        self.calls.answered()
        if is_rejected:
            self.history.forget(sent_at)
        self._settle(now)

    def accepted(self, sent_at: float, now: float) -> None:
        """The call that was sent at `sent_at` was admitted."""
        self.calls.answered()
        self._answers += 1
        self.latency.answered(now - sent_at)
        arrived = self.history.admitted(sent_at, now, self.latency.max_half_s)
        if self.phase is ControllerPhase.EXPLORE:
            self.calls.admitted()
            self._exploration.admitted(self.latency.latency_s, self._max_open)
        # One that arrived before the rejection, and is only answered later, says nothing of the time after it.
        elif not self.calls.is_settling and arrived >= self.history.last_rejected_at - 1e-9:
            self._admitted(arrived, now)
        self._settle(now)

    def throttled(self, sent_at: float, now: float, hold_s: float = 0.0, hint_s: float | None = None) -> None:
        """The call that was sent at `sent_at` was rejected, which holds everything for `hold_s` seconds."""
        self.calls.answered()
        self._answers += 1
        self._hold_s = hold_s
        self.calls.rejected(self.history.rejected(sent_at, now, hint_s, self.latency.max_half_s))
        self._settle(now)

    def begin_window(self, now: float, *, count: int, span_s: float) -> None:
        """Follow a window that was known before, or that the gateway states."""
        self._follow(WindowFollower(self.history, self.latency, count=count, span_s=span_s))
        self._probe.begin_known(count, now)

    def begin_bucket(self, now: float, *, rate: float, burst: float) -> None:
        """Follow a bucket that was known before."""
        self._follow(BucketFollower(self.latency, rate=max(rate, MIN_RATE), burst=burst, now=now, level=burst))
        self._probe.begin_known(1, now)

    def doubt(self) -> None:
        """The limit that was begun with is an earlier run's: test it before it is relied upon."""
        burst = self.follower.burst if isinstance(self.follower, BucketFollower) else 0.0
        self._memory = MemoryTest(burst=burst)

    def _follow(self, follower: Follower) -> None:
        self.phase = ControllerPhase.FOLLOW
        self._following.begin(follower)

    def _settle(self, now: float) -> None:
        """Judge the rejection once no call is open that was sent before it."""
        met = self.calls.settled()
        if met is not None:
            self._judge(met, now)

    def _admitted(self, arrived: float, now: float) -> None:
        if self._memory is not None and self._memory.admitted(now) is Memory.REFUTED:
            self._explore_again(now)
            return
        self.calls.admitted()
        if self.phase is ControllerPhase.PROBE:
            self._follow(self._probe.admitted(self.follower, arrived, now, hold_s=self._hold_s))
        else:
            self._following.admitted(arrived, in_flight=self.calls.sent)

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
        else:
            fill = self._following.rejected(it, self.calls, now, hold_s=self._hold_s, answers=self._answers)
            if fill is not None:
                self._probe_again(fill, it, now)

    def _nothing_admitted(self, now: float) -> None:
        """Rejected before any call was admitted: of the limit this says nothing, and it may last."""
        self.history.forget_rejections()
        if self._memory is not None:
            self._memory.withdrawn()
        self._following.give_back()
        self._not_before = LONG_AGO if self._hold_s else now + blocked_pause_s(self.calls.fails)

    def _limit_met(self, it: Rejection, now: float) -> None:
        self.phase = ControllerPhase.PROBE
        self._probe.limit_met(it, hold_s=self._hold_s)
        self._not_before = self._probe.next_at(it, now, hold_s=self._hold_s)

    def _probe_again(self, fill: InitialFill, it: Rejection, now: float) -> None:
        self.phase = ControllerPhase.PROBE
        self._probe.begin(fill)
        self._not_before = self._probe.next_at(it, now, hold_s=self._hold_s)

    def _judge_memory(self, memory: MemoryTest, it: Rejection, now: float) -> None:
        """A rejection while the remembered limit is in doubt."""
        if memory.is_testing:
            self._following.give_back()
        verdict = memory.rejected(is_hinted=it.retry_after_s is not None)
        if verdict is Memory.REFUTED:
            self._memory = None
            self._begin_history(self.history)
            self._limit_met(it, now)
            return
        if verdict is Memory.CONFIRMED:
            self._memory = None
        elif isinstance(self.follower, BucketFollower):
            self.follower.empty_until(now + self._hold_s)
        self._following.back_off(now, fails=self.calls.fails, hold_s=self._hold_s)

    def _explore_again(self, now: float) -> None:
        """The remembered limit is too low: explore. Calls that were spread over its waits are no part of a fill."""
        self.phase = ControllerPhase.EXPLORE
        self._memory = None
        self._begin_history(self.history.since(now - FILL_S, at_most=FILL_CALLS))
        self._exploration = Exploration(max(self._open_at_first, REFUTED_OPEN))
