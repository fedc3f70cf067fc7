"""What kind of limit was met: asks carefully until a call is let in again, then fills it a second time. Pure.

It must never read a clock; the law tells it of every call that was sent, let in or refused:

    probe     one call at a time, at growing distances, until one is let in
    fill      as many again as the first time, to see whether they come back at once
    found     they came back at once: a window (`pacecycle`); one by one: a steady flow (`paceeven`)
"""

from __future__ import annotations

from math import sqrt

from pipeline.gateway.ratelimit.initial_burst import BUCKET_OFF, InitialBurst
from pipeline.gateway.ratelimit.latency import LatencyTracker
from pipeline.gateway.ratelimit.send_log import SendLog
from pipeline.gateway.ratelimit.steady import SteadyRateModel
from pipeline.gateway.ratelimit.window import WindowModel
from pipeline.gateway.ratelimit.window_spans import span_above, span_below

NEVER = float("inf")
LONG_AGO = float("-inf")

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

Kind = SteadyRateModel | WindowModel | None
"""What a limit was found to be; None while that is not known."""


class LimitDetector:
    """One search: it counts the calls of a fill, and says when the next probe or call may go."""

    def __init__(self, trail: SendLog, travel: LatencyTracker) -> None:
        """`trail` and `travel` are the law's, which writes them."""
        self._trail, self._travel = trail, travel
        self.is_filling = False
        """whether a probe was let in, and as many as the first time go now"""
        self.refused_at, self.hold_s = LONG_AGO, 0.0
        """when the call was sent that met the limit last, and the wait hint that came with it, 0 for none"""
        self._first = InitialBurst()
        self._start = self._full_at = self._probe_at = LONG_AGO
        self._used = self._probes = 0
        self._least_s = self._pause_s = self._period_s = 0.0
        self._bucket_per_s: float | None = None

    def begin(self, sent_at: float) -> None:
        """The call sent at `sent_at` is the first of a fill."""
        self._start, self._used = sent_at, 1

    def sent(self, now: float) -> None:
        """A call goes out."""
        if self._start == LONG_AGO:
            self._start = now
        self._used += 1

    def dropped(self, sent_at: float) -> None:
        """A call was refused: it is none of the fill."""
        if sent_at >= self._start:
            self._used -= 1

    def ready_at(self, now: float, *, unsent: int, under_way: int) -> float:
        """The earliest time of the next probe, or call of the fill; infinity while only an answer can change that."""
        busy = unsent + under_way
        if not self.is_filling:
            return NEVER if busy else max(now, self._probe_at)
        if busy >= max(1, self._used - under_way):
            return NEVER  # what comes back one by one is not to be stormed
        used = self._used + unsent
        if used >= self._first.count:
            return NEVER
        if self._bucket_per_s is not None:
            return max(now, self._start + used * self._first.took_s / self._first.count)
        if self._first.is_all_back:
            return now
        nth = self._trail.nth_last(self._first.count - unsent)
        return now if nth is None else max(now, nth + self._period_s)

    # -- probe

    def limit_met(self, now: float) -> None:
        """The limit was met for the first time."""
        full_at = self._trail.last_until(now)
        self._full_at = self.refused_at if full_at is None else full_at
        took_s = max(self._full_at - self._start, 1e-3)
        per_s = self._trail.between(self._full_at - took_s / 2, self._full_at) / (took_s / 2)
        self._first = InitialBurst(count=max(self._used, 1), took_s=took_s, per_s=per_s, hold_s=self.hold_s)
        self._least_s = self._first.took_s + max(0.0, self.hold_s - 1.0)  # hints are whole seconds, rounded up
        self._pause_s = max(4 * self._first.took_s / self._first.count, self._travel.latency_s, 0.01)
        self._probe_later(now)

    def shut(self, now: float) -> None:
        """Nothing is let in, though the limit is known: from now on it is asked for as at first."""
        self._start, self._full_at, self._least_s = now, LONG_AGO, 0.0
        self._pause_s = max(4 * self._travel.latency_s, 0.01)
        self._probes, self.is_filling = 0, False
        self._probe_later(now)

    def probe_refused(self, now: float) -> None:
        """A probe was refused: the next one later."""
        self._least_s = max(self._least_s, self.refused_at + max(0.0, self.hold_s - 1.0) - self._start)
        self._probes += 1
        self._probe_later(now)

    def _probe_later(self, now: float) -> None:
        """The next probe: after the hint, else twice as far as the last, and rather where a round window would end."""
        self._probe_at = now
        if self.hold_s:
            return
        self._probe_at = now + self._pause_s
        margin_s = 2 * self._travel.jitter_s + 0.3 * self._travel.latency_s + 0.001
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

    # -- fill

    def found(self, sent_at: float, now: float) -> Kind:
        """A probe was let in: fill as the first time, each call a period after its like, if that can tell anything."""
        self._period_s = sent_at - self._start + 2 * self._travel.jitter_s
        late_s = span_below(sent_at - self._full_at) or NEVER
        soon = sent_at - self._full_at < SOON * late_s < NEVER
        if soon and not self.hold_s and self.refused_at - self._full_at < late_s <= self._least_s:
            self._least_s = 0.99 * late_s  # the window began in the midst of the first calls
        self.begin(sent_at)
        self.is_filling = True
        if self._first.count == 1:
            return self.cut(now)
        if not self._first.may_be_window(self._least_s, long_shut=self._probes >= 2):
            return self.as_even(now, self._first.guess_per_s(sent_at - self._full_at), self._full_at)
        return None

    def let_in(self, now: float, *, under_way: int) -> Kind:
        """A call of the fill was let in: with the last one it is known what came back."""
        if self._used < self._first.count or under_way:
            return None
        if self._bucket_per_s is not None:
            return self.as_even(now, self._bucket_per_s, self._full_at, cheap=True)
        if span_above(self._least_s) is None:
            return self.cut(now)
        long = self._first.hold_s and 2 * self._first.took_s > self._period_s - self._first.took_s
        if long and not self._is_no_bucket():
            return self.as_even(now, self._first.count / self._period_s, self._start)  # it did not come at once
        return self._as_cycle(self._first.count)

    def cut(self, now: float) -> Kind:
        """Fewer came back than the first time: a window all the same when most did, else what came back is the rate."""
        full_at = self._trail.last_until(now) or now
        supposed, self._bucket_per_s = self._bucket_per_s, None
        if supposed is not None and self._used >= self._first.count - BUCKET_OFF:
            return self.as_even(now, supposed, full_at, cheap=True)
        if supposed is None and self._supposes_bucket(now, full_at):
            return None
        if span_above(self._least_s) is not None and self._used >= FEW_CALLS:
            if self._probes >= 2 and not self.hold_s:
                return self._as_cycle(self._first.count)
            if self.hold_s and self._used >= 8 and full_at - self._start < AT_ONCE * (self._start - self._full_at):
                return self._as_cycle(self._used)  # what comes at once after a hold does so each time
        return self.as_even(now, *self._rate_come_back(now))

    def _supposes_bucket(self, now: float, full_at: float) -> bool:
        """Whether two fills tell of a bucket: a third one, as slow as the first, makes it sure."""
        self._bucket_per_s = self._first.as_bucket_per_s(self._used, full_at - self._start)
        if self._bucket_per_s is None:
            return False
        self._full_at, self.is_filling = full_at, False
        self._probe_later(now)
        return True

    def _is_no_bucket(self) -> bool:
        took_s = (self._trail.last_until(NEVER) or self._start) - self._start
        return self._first.excludes_bucket(self._start - self._full_at, took_s)

    def _rate_come_back(self, now: float) -> tuple[float, float, float]:
        """(calls a second, since when to measure, calls to leave out of the measure)."""
        full_at = max(self._trail.last_until(now) or now, self._full_at + 1e-3)
        count = max(self._used, 1)
        slow = count / (full_at - self._full_at)
        if not self.hold_s or count < BULK * (self._first.count - slow * self._first.took_s):
            return slow, self._full_at, 0.0  # the bucket was not full again: all that flowed in was used
        fill_s = max(full_at - self._start, self._travel.latency_s, 1e-3)
        rate = sqrt(slow * max(count / fill_s, slow))
        return rate, self._start, max(0.0, count - rate * fill_s)

    # -- found

    def as_even(
        self, now: float, rate: float, origin: float, credit: float = 0.0, *, fell: bool = False, cheap: bool = False
    ) -> SteadyRateModel:
        """A flow of `rate` calls a second, measured since `origin`; the others as `Even` has them."""
        burst = max((1.0 if cheap else 0.9) * (self._first.count - rate * self._first.took_s), 0.02 * rate)
        return SteadyRateModel(
            rate=rate,
            burst=burst,
            now=now,
            origin=origin,
            credit=credit,
            first=(float(self._first.count), self._first.took_s),
            hinted=rate * self._first.hold_s > burst and not cheap,
            fell=fell,
            cheap=cheap,
        )

    def _as_cycle(self, count: int) -> WindowModel:
        hinted = self._first.hold_s > 0
        return WindowModel(
            count=count,
            least_s=self._least_s,
            most_s=None if 0 < self._first.hold_s <= 2 else self._period_s,
            start=self._start,
            used=self._used,
            proven=not hinted or (count == self._first.count and self._is_no_bucket()),
            travel=self._travel,
            sent_at=self._trail.last_until(NEVER),
            fill_s=self._first.took_s if hinted else 0.0,
        )
