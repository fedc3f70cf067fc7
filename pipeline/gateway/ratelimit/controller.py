"""The control law: how fast one allowance of the gateway may be used when nobody says how large it is. Pure.

It must never read a clock, and it knows nothing of hints but how long they held. The way it goes:

    explore   no limit met: open calls grow with what is let in, so the overshoot at the limit is bounded
    search    the limit was met: which kind it is (`pacesearch`)
    then      a window (`pacecycle`) or a steady flow (`paceeven`)
"""

from __future__ import annotations

from enum import Enum, auto

from pipeline.gateway.ratelimit.detection import Kind, LimitDetector
from pipeline.gateway.ratelimit.latency import LatencyTracker
from pipeline.gateway.ratelimit.send_log import SendLog
from pipeline.gateway.ratelimit.steady import SteadyRateModel
from pipeline.gateway.ratelimit.window import ModelCheck, WindowModel

NEVER = float("inf")
LONG_AGO = float("-inf")

QUICK_OPEN = 6.0
"""open calls up to which the start is quick: as many may be refused when the limit is met"""
QUICK_GROWTH_PER_S, GROWTH_PER_S = 14.0, 1.0
LEAST_GROWTH, MOST_QUICK_GROWTH, MOST_GROWTH = 1 / 32, 1.0, 0.25
"""open calls gained for each call let in: a part of the latency in seconds, within bounds"""
FILL_OPEN = 6.0
"""open calls when an allowance is filled again after a hold: the faster, the less a test at its end costs"""
MOST_SHUT = 3
"""times that a flow may fail to come back soon after a refusal, before it is taken for a window; then twice as many"""


class ControllerPhase(Enum):
    """Where the law is on its way; see the module's docstring."""

    EXPLORE = auto()
    SEARCH = auto()
    EVEN = auto()
    CYCLE = auto()


class RateController:
    """One allowance: calls are let in or refused, and `ready_at` says when the next may go."""

    def __init__(self, *, most_open: int, open_at_first: float = 1.0) -> None:
        self.open = self.unsent = 0
        self._most_open = most_open
        self._open_at_first = open_at_first
        self.travel = LatencyTracker()
        self._most_shut = MOST_SHUT
        self.restart()

    def restart(self) -> None:
        """Forgets the limit: whatever was learned was not about it."""
        self.phase = ControllerPhase.EXPLORE
        self._afresh = False
        self.even: SteadyRateModel | None = None
        self.cycle: WindowModel | None = None
        self._known: WindowModel | None = None
        self._trail = SendLog()
        self._search = LimitDetector(self._trail, self.travel)
        self._window = self._open_at_first
        self._settling = False
        self._blocked_at = LONG_AGO
        self._fails = 0

    def begin_even(self, now: float, *, per_s: float, burst: float) -> None:
        """Starts from a rate that is known from before."""
        self._is(SteadyRateModel(rate=per_s, burst=burst, now=now, origin=now, measured=True))
        self._window = float(self._most_open)

    def begin_cycle(self, now: float, *, count: int, span_s: float, used: int = 0) -> None:
        """Starts from a window that is known from before."""
        least_s = 0.9 * span_s
        self._is(
            WindowModel(
                count=count, least_s=least_s, most_s=span_s, start=now, used=used, proven=True, travel=self.travel
            )
        )
        self._window = float(self._most_open)

    @property
    def per_s(self) -> float | None:
        """The limit as it is believed to be, in calls a second; None while none was met."""
        if self.even is not None:
            return self.even.rate
        return self.cycle.now_per_s() if self.cycle is not None else None

    @property
    def is_shut(self) -> bool:
        """Whether the limit was met just now: nothing more goes until the calls under way are answered."""
        return self._settling and self.even is None

    def ready_at(self, now: float) -> float:
        """The earliest time a call may be sent; infinity while only an answer can change that."""
        busy = self.open + self.unsent
        if (self._settling and busy) or busy >= min(self._most_open, int(self._window)):
            return NEVER
        if busy and (
            self._fails > (1 if self.even is not None else 0) or (self.even is not None and self.even.careful)
        ):
            return NEVER  # one at a time until something is let in again
        if self.even is not None:
            return self.even.ready_at(now)
        if self.cycle is not None:
            return self.cycle.ready_at(now, self._trail, unsent=self.unsent, under_way=busy)
        if self.phase is ControllerPhase.EXPLORE:
            return now
        return self._search.ready_at(now, unsent=self.unsent, under_way=self.open)

    def take(self, due_at: float) -> None:
        """A call will go then: its slot is taken."""
        self.unsent += 1
        if self.even is not None:
            self.even.take(due_at)
        elif self.cycle is not None:
            self.cycle.take(due_at)

    def give_back(self, now: float) -> None:
        """A taken slot was not used."""
        self.unsent -= 1
        if self.even is not None:
            self.even.give_back()
        self._settle(now)

    def sent(self, now: float) -> None:
        """A taken slot is used: the call goes out."""
        self.unsent -= 1
        self.open += 1
        self._trail.add(now)
        self._search.sent(now)
        if self.cycle is not None:
            self.cycle.sent(now)

    def accepted(self, sent_at: float, now: float) -> None:
        """The call sent at `sent_at` was let in."""
        self.open -= 1
        self._trail.arrived(sent_at, now)
        self.travel.answered(now - sent_at)
        self._window = min(self._window + self._growth(), self._most_open)
        if sent_at > self._blocked_at:
            self._fails = 0
            self._go_on(sent_at, now)
        self._settle(now)

    def _growth(self) -> float:
        quick = self._window < QUICK_OPEN
        per_s, most = (QUICK_GROWTH_PER_S, MOST_QUICK_GROWTH) if quick else (GROWTH_PER_S, MOST_GROWTH)
        return min(most, max(LEAST_GROWTH, per_s * self.travel.latency_s))

    def passed_over(self, now: float) -> None:
        """A call under way has been silent for long: it counts as let in, and nobody waits for it."""
        self.open -= 1
        self._settle(now)

    def rejoined(self) -> None:
        """A call that was passed over has its answer after all, which comes next."""
        self.open += 1

    def throttled(self, sent_at: float, now: float, hold_s: float = 0.0) -> None:
        """The call sent at `sent_at` was refused; `hold_s` is the wait hint that is being obeyed, 0 for none."""
        self.open -= 1
        self._trail.drop(sent_at)
        if self.cycle is not None:
            self.cycle.dropped(sent_at)
        else:
            self._search.dropped(sent_at)
        if sent_at > self._blocked_at:  # else: sent before this limit was known
            self._blocked_at = now
            self._search.refused_at, self._search.hold_s = sent_at, hold_s
            self._fails += 1
            self._settling = True
        self._settle(now)

    def _go_on(self, sent_at: float, now: float) -> None:
        if self.even is not None:
            self.even.latency_s = self.travel.latency_s
            self.even.accepted(now)
        elif self.cycle is not None:
            self._judge_cycle(self.cycle.accepted(), now)
        elif self.phase is ControllerPhase.SEARCH and self._search.is_filling:
            self._is(self._search.let_in(now, under_way=self.open))
        elif self.phase is ControllerPhase.SEARCH:
            self._found(sent_at, now)

    def _settle(self, now: float) -> None:
        """Judges a refusal once the calls under way with it are answered; an even flow does not stop for it."""
        if not self._settling or (self.open + self.unsent and self.even is None):
            return
        self._settling = False
        story = {"refused_at": self._search.refused_at, "now": now, "hold_s": self._search.hold_s}
        if self.even is not None:
            self.even.refused(self._trail, fails=self._fails, **story)
            if self.even.shut >= self._most_shut:
                self._begin_again(now)
        elif self.cycle is not None:
            fate = self.cycle.refused(fails=self._fails, **story)
            self._judge_cycle(fate, now)
        elif self.phase is ControllerPhase.EXPLORE:
            self._limit_met(now)
        elif self._search.is_filling:
            self._is(self._search.cut(now))
        else:
            self._search.probe_refused(now)

    def _limit_met(self, now: float) -> None:
        self._window = FILL_OPEN if self._search.hold_s else max(1.0, self._window / 2)
        self.phase = ControllerPhase.SEARCH
        self._search.limit_met(now)

    def _found(self, sent_at: float, now: float) -> None:
        """A probe was let in."""
        if self._afresh:
            self.restart()
            self._search.begin(sent_at)
        elif self._known is not None:
            self.begin_cycle(sent_at, count=self._known.count, span_s=self._known.span_s, used=1)
            self._known = None
        else:
            self._is(self._search.found(sent_at, now))

    def _is(self, kind: Kind) -> None:
        """What the limit was found to be, if that is known."""
        if isinstance(kind, SteadyRateModel):
            self.even, self.phase = kind, ControllerPhase.EVEN
        elif kind is not None:
            self.cycle, self.phase = kind, ControllerPhase.CYCLE

    def _begin_again(self, now: float) -> None:
        """No flow: again and again nothing came for long. Probe until something is let in, then explore anew."""
        self._most_shut *= 2
        self.even, self._afresh = None, True
        self.phase = ControllerPhase.SEARCH
        self._search.shut(now)

    def _judge_cycle(self, fate: ModelCheck, now: float) -> None:
        if fate is ModelCheck.DEAD:
            self._leave_cycle(now)
        elif fate is ModelCheck.GONE:
            self._wait_for_cycle(now)

    def _wait_for_cycle(self, now: float) -> None:
        """An outage: probe until something is let in, then go on with the window that is known."""
        self._known, self.cycle = self.cycle, None
        self.phase = ControllerPhase.SEARCH
        self._search.shut(now)

    def _leave_cycle(self, now: float) -> None:
        """It is no window, or a larger one."""
        assert self.cycle is not None
        rate, held = max(self.cycle.used, self.cycle.count) / self.cycle.span_s, self.cycle.has_held
        self.cycle = None
        self._is(self._search.as_even(now, rate, now, fell=held))
