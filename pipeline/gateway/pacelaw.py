"""The control law: how fast one allowance of the gateway may be used when nobody says how large it is. Pure.

It must never read a clock, and it knows nothing of hints but how long they held. The way it goes:

    explore   no limit met: open calls grow with what is let in, so the overshoot at the limit is bounded
    probe     the limit was met: one call at a time, at growing distances, until one is let in
    fill      as many again as the first time, to see whether they come back at once
    then      they came back at once: a window (`pacecycle`); one by one: a steady flow (`paceeven`)
"""

from __future__ import annotations

from enum import Enum, auto

from pipeline.gateway.pacecycle import Cycle, Fate
from pipeline.gateway.paceeven import Even
from pipeline.gateway.pacefill import BUCKET_OFF, FirstFill
from pipeline.gateway.pacespans import span_above, span_below
from pipeline.gateway.pacetrail import Trail
from pipeline.gateway.pacetravel import Travel

NEVER = float("inf")
LONG_AGO = float("-inf")

QUICK_OPEN = 6.0
"""open calls up to which the start is quick: as many may be refused when the limit is met"""
QUICK_GROWTH_PER_S, GROWTH_PER_S = 14.0, 1.0
LEAST_GROWTH, MOST_QUICK_GROWTH, MOST_GROWTH = 1 / 32, 1.0, 0.25
"""open calls gained for each call let in: a part of the latency in seconds, within bounds"""
FILL_OPEN = 6.0
"""open calls when an allowance is filled again after a hold: the faster, the less a test at its end costs"""
LONGEST_PAUSE_S = 60.0
BULK = 0.8
"""of the first fill: as much as this again at once is a window"""
AT_ONCE = 0.8
"""of the time it took to come back: a fill as short as this came at once"""
LIKELY = 0.05
"""of a round length: the first calls took longer, so that a window of that length may have begun in their midst"""
SOON = 1.1
"""times a round length: a probe let in by then came right after it"""
FEW_CALLS = 3
MOST_SHUT = 3
"""times that a flow may fail to come back soon after a refusal, before it is taken for a window; then twice as many"""


class Phase(Enum):
    """Where the law is on its way; see the module's docstring."""

    EXPLORE = auto()
    PROBE = auto()
    FILL = auto()
    EVEN = auto()
    CYCLE = auto()


class Law:
    """One allowance: calls are let in or refused, and `ready_at` says when the next may go."""

    def __init__(self, *, most_open: int, open_at_first: float = 1.0) -> None:
        self.open = self.unsent = 0
        self._most_open = most_open
        self._open_at_first = open_at_first
        self.travel = Travel()
        self._most_shut = MOST_SHUT
        self.restart()

    def restart(self) -> None:
        """Forgets the limit: whatever was learned was not about it."""
        self.phase = Phase.EXPLORE
        self._afresh = False
        self.even: Even | None = None
        self.cycle: Cycle | None = None
        self._known: Cycle | None = None
        self._trail = Trail()
        self._window = self._open_at_first
        self._settling = False
        self._blocked_at = self._refused_at = self._full_at = self._start = self._probe_at = LONG_AGO
        self._hold_s = 0.0
        self._fails = self._used = self._probes = 0
        self._first = FirstFill()
        self._bucket_per_s: float | None = None
        self._least_s = self._pause_s = self._period_s = 0.0

    def begin_even(self, now: float, *, per_s: float, burst: float) -> None:
        """Starts from a rate that is known from before."""
        self.even = Even(rate=per_s, burst=burst, now=now, origin=now, measured=True)
        self._window, self.phase = float(self._most_open), Phase.EVEN

    def begin_cycle(self, now: float, *, count: int, span_s: float, used: int = 0) -> None:
        """Starts from a window that is known from before."""
        self.cycle = Cycle(
            count=count, least_s=0.9 * span_s, most_s=span_s, start=now, used=used, proven=True, travel=self.travel
        )
        self._window, self.phase = float(self._most_open), Phase.CYCLE

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
        if self.phase is Phase.PROBE:
            return NEVER if busy else max(now, self._probe_at)
        if self.phase is Phase.FILL and busy >= max(1, self._used - self.open):
            return NEVER  # what comes back one by one is not to be stormed
        return now if self.phase is Phase.EXPLORE else self._fill_at(now)

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
        if self.cycle is not None:
            self.cycle.sent(now)
        elif self._start == LONG_AGO:
            self._start = now
        self._used += 1

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
        elif sent_at >= self._start:
            self._used -= 1
        if sent_at > self._blocked_at:  # else: sent before this limit was known
            self._blocked_at, self._refused_at, self._hold_s = now, sent_at, hold_s
            self._fails += 1
            self._settling = True
        self._settle(now)

    def _go_on(self, sent_at: float, now: float) -> None:
        if self.even is not None:
            self.even.latency_s = self.travel.latency_s
            self.even.accepted(now)
        elif self.cycle is not None:
            self._judge_cycle(self.cycle.accepted(), now)
        elif self.phase is Phase.PROBE:
            self._found(sent_at, now)
        elif self.phase is Phase.FILL and self._used >= self._first.count and not self.open:
            self._filled(now)

    def _settle(self, now: float) -> None:
        """Judges a refusal once the calls under way with it are answered; an even flow does not stop for it."""
        if not self._settling or (self.open + self.unsent and self.even is None):
            return
        self._settling = False
        story = {"refused_at": self._refused_at, "now": now, "hold_s": self._hold_s}
        if self.even is not None:
            self.even.refused(self._trail, fails=self._fails, **story)
            if self.even.shut >= self._most_shut:
                self._begin_again(now)
        elif self.cycle is not None:
            fate = self.cycle.refused(fails=self._fails, **story)
            self._judge_cycle(fate, now)
        elif self.phase is Phase.EXPLORE:
            self._limit_met(now)
        elif self.phase is Phase.FILL:
            self._fill_cut(now)
        else:
            self._probe_refused(now)

    def _begin_again(self, now: float) -> None:
        """No flow: again and again nothing came for long. Probe until something is let in, then explore anew."""
        self._most_shut *= 2
        self.even, self._afresh = None, True
        self._start, self._full_at, self._least_s = now, LONG_AGO, 0.0
        self._pause_s = max(4 * self.travel.latency_s, 0.01)
        self.phase, self._probes = Phase.PROBE, 0
        self._probe_later(now)

    def _limit_met(self, now: float) -> None:
        full_at = self._trail.last_until(now)
        self._full_at = self._refused_at if full_at is None else full_at
        took_s = max(self._full_at - self._start, 1e-3)
        per_s = self._trail.between(self._full_at - took_s / 2, self._full_at) / (took_s / 2)
        self._first = FirstFill(count=max(self._used, 1), took_s=took_s, per_s=per_s, hold_s=self._hold_s)
        self._least_s = self._first.took_s + max(0.0, self._hold_s - 1.0)  # hints are whole seconds, rounded up
        self._pause_s = max(4 * self._first.took_s / self._first.count, self.travel.latency_s, 0.01)
        self._window = FILL_OPEN if self._hold_s else max(1.0, self._window / 2)
        self.phase = Phase.PROBE
        self._probe_later(now)

    def _probe_refused(self, now: float) -> None:
        self._least_s = max(self._least_s, self._refused_at + max(0.0, self._hold_s - 1.0) - self._start)
        self._probes += 1
        self._probe_later(now)

    def _probe_later(self, now: float) -> None:
        """The next probe: after the hint, else twice as far as the last, and rather where a round window would end."""
        self._probe_at = now
        if self._hold_s:
            return
        self._probe_at = now + self._pause_s
        margin_s = 2 * self.travel.jitter_s + 0.3 * self.travel.latency_s + 0.001
        if self._probes >= 2 and (late_at := self._late_end(now)) is not None:
            self._probe_at = late_at + margin_s
            return
        span_s = span_below(now + 1.6 * self._pause_s - self._start)
        if span_s is not None and self._probes >= 2 and self._start + span_s > now + 0.3 * self._pause_s:
            self._probe_at = self._start + span_s + margin_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def _late_end(self, now: float) -> float | None:
        """When a window of a round length ends that began as late as with the last call, if that is soon."""
        span_s = span_below(now - self._start)
        if span_s is None or self._full_at + span_s <= now or self._first.took_s <= LIKELY * span_s:
            return None
        return self._full_at + span_s

    def _found(self, sent_at: float, now: float) -> None:
        """A probe was let in: fill as the first time, each call a period after its like, if that can tell anything."""
        if self._afresh:
            self.restart()
            self._start, self._used = sent_at, 1
            return
        if self._known is not None:
            self.begin_cycle(sent_at, count=self._known.count, span_s=self._known.span_s, used=1)
            self._known = None
            return
        self._period_s = sent_at - self._start + 2 * self.travel.jitter_s
        late_s = span_below(sent_at - self._full_at) or NEVER
        soon = sent_at - self._full_at < SOON * late_s < NEVER
        if soon and not self._hold_s and self._refused_at - self._full_at < late_s <= self._least_s:
            self._least_s = 0.99 * late_s  # the window began in the midst of the first calls
        self._start, self._used = sent_at, 1
        self.phase = Phase.FILL
        if self._first.count == 1:
            self._fill_cut(now)
        elif not self._first.may_be_window(self._least_s, long_shut=self._probes >= 2):
            self._go_even(now, self._first.guess_per_s(sent_at - self._full_at), self._full_at)

    def _fill_at(self, now: float) -> float:
        if self._used + self.unsent >= self._first.count:
            return NEVER
        if self._bucket_per_s is not None:
            return max(now, self._start + (self._used + self.unsent) * self._first.took_s / self._first.count)
        if self._first.is_all_back:
            return now
        nth = self._trail.nth_last(self._first.count - self.unsent)
        return now if nth is None else max(now, nth + self._period_s)

    def _filled(self, now: float) -> None:
        if self._bucket_per_s is not None:
            self._go_even(now, self._bucket_per_s, self._full_at, cheap=True)
        elif span_above(self._least_s) is None:
            self._fill_cut(now)
        elif (
            self._first.hold_s
            and 2 * self._first.took_s > self._period_s - self._first.took_s
            and not self._is_no_bucket()
        ):
            self._go_even(now, self._first.count / self._period_s, self._start)  # it did not come at once
        else:
            self._go_cycle(self._first.count)

    def _fill_cut(self, now: float) -> None:
        """Fewer came back than the first time: a window all the same when most did, else what came back is the rate."""
        if self._is_bucket(now):
            return
        if span_above(self._least_s) is not None and self._used >= FEW_CALLS:
            if self._probes >= 2 and not self._hold_s:
                self._go_cycle(self._first.count)
                return
            if self._hold_s and self._used >= 8 and self._came_at_once(now):
                self._go_cycle(self._used)
                return
        self._go_even(now, *self._rate_come_back(now))

    def _is_bucket(self, now: float) -> bool:
        """Whether to go on with the bucket that two fills tell of: a third one, as slow as the first, makes it sure."""
        full_at = self._trail.last_until(now) or now
        supposed, self._bucket_per_s = self._bucket_per_s, None
        if supposed is None:
            self._bucket_per_s = self._first.as_bucket_per_s(self._used, full_at - self._start)
            if self._bucket_per_s is None:
                return False
            self._full_at, self.phase = full_at, Phase.PROBE
            self._probe_later(now)
        elif self._used < self._first.count - BUCKET_OFF:
            return False
        else:
            self._go_even(now, supposed, full_at, cheap=True)
        return True

    def _is_no_bucket(self) -> bool:
        took_s = (self._trail.last_until(NEVER) or self._start) - self._start
        return self._first.excludes_bucket(self._start - self._full_at, took_s)

    def _came_at_once(self, now: float) -> bool:
        """What came back after a hold in less than a span of it comes back so each time, window or bucket."""
        full_at = self._trail.last_until(now) or now
        return full_at - self._start < AT_ONCE * (self._start - self._full_at)

    def _rate_come_back(self, now: float) -> tuple[float, float, float]:
        """(calls a second, since when to measure, calls to leave out of the measure)."""
        full_at = max(self._trail.last_until(now) or now, self._full_at + 1e-3)
        count = max(self._used, 1)
        slow = count / (full_at - self._full_at)
        if not self._hold_s or count < BULK * (self._first.count - slow * self._first.took_s):
            return slow, self._full_at, 0.0  # the bucket was not full again: all that flowed in was used
        fill_s = max(full_at - self._start, self.travel.latency_s, 1e-3)
        rate = (slow * max(count / fill_s, slow)) ** 0.5
        return rate, self._start, max(0.0, count - rate * fill_s)

    def _go_even(
        self, now: float, rate: float, origin: float, credit: float = 0.0, *, fell: bool = False, cheap: bool = False
    ) -> None:
        burst = max((1.0 if cheap else 0.9) * (self._first.count - rate * self._first.took_s), 0.02 * rate)
        first = (float(self._first.count), self._first.took_s)
        hinted = rate * self._first.hold_s > burst and not cheap
        self.even = Even(
            rate=rate,
            burst=burst,
            now=now,
            origin=origin,
            credit=credit,
            first=first,
            hinted=hinted,
            fell=fell,
            cheap=cheap,
        )
        self.phase = Phase.EVEN

    def _go_cycle(self, count: int) -> None:
        hinted = self._first.hold_s > 0
        self.cycle = Cycle(
            count=count,
            least_s=self._least_s,
            most_s=None if 0 < self._first.hold_s <= 2 else self._period_s,
            start=self._start,
            used=self._used,
            proven=not hinted or (count == self._first.count and self._is_no_bucket()),
            travel=self.travel,
            sent_at=self._trail.last_until(NEVER),
            fill_s=self._first.took_s if hinted else 0.0,
        )
        self.phase = Phase.CYCLE

    def _judge_cycle(self, fate: Fate, now: float) -> None:
        if fate is Fate.DEAD:
            self._leave_cycle(now)
        elif fate is Fate.GONE:
            self._wait_for_cycle(now)

    def _wait_for_cycle(self, now: float) -> None:
        """An outage: probe until something is let in, then go on with the window that is known."""
        self._known, self.cycle = self.cycle, None
        self._start, self._least_s = now, 0.0
        self._pause_s = max(4 * self.travel.latency_s, 0.01)
        self.phase, self._probes = Phase.PROBE, 0
        self._probe_later(now)

    def _leave_cycle(self, now: float) -> None:
        """It is no window, or a larger one."""
        assert self.cycle is not None
        rate, held = max(self.cycle.used, self.cycle.count) / self.cycle.span_s, self.cycle.has_held
        self.cycle = None
        self._go_even(now, rate, now, fell=held)
