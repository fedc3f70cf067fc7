"""The allowance read as a steady flow: calls spread evenly, at a rate measured between refusals. Pure.

Every limiter lets an even flow at its long-run rate through, whatever its kind, so this reading is never far wrong.
A refusal says that the allowance was empty, so what was let in between two refusals is what flowed in (+- 1 call).
Above the measured rate a small growth, doubling while nothing is refused, leads to the next measurement and follows a
limit that rises: congestion control by probing as in CUBIC (Ha, Rhee, Xu 2008), counted in calls instead of seconds.
"""

from __future__ import annotations

from math import log, log2, sqrt

from pipeline.gateway.ratelimit.initial_burst import BUCKET_S
from pipeline.gateway.ratelimit.send_log import SendLog

LONG_AGO = float("-inf")
NEVER = float("inf")

FIRST_GROWTH = 0.002
"""of the rate; doubles every `patience` calls that are let in"""
GUESS_GROWTH = 10 * FIRST_GROWTH
"""while the rate is a guess that no refusal has measured yet"""
HINTED_GROWTH_PER_S, HINTED_GROWTH_OVER = 1.5, 8.0
"""where refusals come with hints, a guess grows evenly with each call: the rate doubles in half a second"""
PATIENCE_LEAST, PATIENCE_MOST = 8.0, 90.0
"""calls; 90 gives about one refusal in 250 calls at a steady limit"""
DOUBLING_S = 1.0
"""seconds a doubling takes at least: windows of a second refuse only at their end"""
UNSETTLED_GROWTH, UNSETTLED_DOUBLING_S, UNSETTLED_FOR = 0.008, 0.4, 600
"""the same soon (calls) after the limit fell: what moves is tested more often"""
FELL, CHANGED = 0.8, 0.1
"""of the rate: a measure below the first says that the limit fell; one that is off by the second, of a bucket that each
hold fills up, that it is another limit"""
EXCESS_CALLS = 3.0
"""let in above the measured rate: from there on the limit has risen for sure"""
RISEN_GROWTH_PER_S = 1.5
"""and growth doubles four times as fast, until the flow itself doubles in half a second"""
MOST_DOUBLINGS = 24.0
BURST_FLOW = 1.5
"""times the rate: calls let in as fast as that were the burst after a hold, and no flow"""
SHUT_FAILS = 5
"""refusals in a row, at doubling distances: a flow would have come back by then"""
SURGE = 0.1
"""growth from which a refusal means that the limit has risen, rather than where it was"""
SLACK = 0.998
"""of the measured rate"""
FEW_CALLS = 4
FEW_LATELY = 10
BULK = 0.8
"""of a burst: if as much was let in at once, the bucket may have been full"""
OUTAGE_S, OUTAGE_GAPS = 3.0, 20.0
"""Nothing let in for longer than both (seconds, gaps between calls): not the limit, an outage."""
BURST_LATENCIES, BURST_GAPS = 0.2, 0.5
"""Calls of a burst are this far apart, the smaller of both: else many are under way when it turns out too large."""
PRESSED_GAPS, PRESSED_S = 2.0, 0.01
"""A call this soon after the last (gaps, plus seconds) was held back by the pace: only such a call proves anything."""
DEAR = 4.0
"""calls that a hold costs and no burst makes up for: from there on refusals are rather avoided"""
JOINT_STEPS, LEAST_OVER = 20, 8
MOST_BELOW, UNSURE_CALLS = 0.1, 3.0
"""of a rate measured by a refusal that cost a hold: so much stays unused, the less the more calls it was measured by"""
UNSETTLED_CALLS = 30
"""calls after a fall of the limit for each step of patience: a limit that moves is tested more often"""
WARM_CALLS = 50
ROUNDING = 1e-6
"""of a call: less is no reason to wait"""
SLOWEST_PER_S = 1 / 900
LONGEST_PAUSE_S = 60.0


def is_dear(rate: float, hold_s: float, burst: float) -> bool:
    """Whether a hold of `hold_s` costs calls that can't be made up for by a burst after it."""
    return rate * hold_s - burst > DEAR


class SteadyRateModel:
    """One rate, one small burst after a pause, and how both are corrected."""

    def __init__(
        self,
        *,
        rate: float,
        burst: float,
        now: float,
        origin: float,
        credit: float = 0.0,
        measured: bool = False,
        first: tuple[float, float] | None = None,
        hinted: bool = False,
        fell: bool = False,
        cheap: bool = False,
    ) -> None:
        """`cheap`: it is a bucket that holds a second of its flow, so that the hold after a refusal fills it up."""
        self._hinted, self._cheap = hinted, cheap
        self._first = first or (burst, 0.0)
        self.rate = max(rate, SLOWEST_PER_S)
        self.burst = max(burst, 1.0)
        self._measured = measured
        self._patience = PATIENCE_LEAST
        self._quiet = 0
        self._let_in, self._fell_at = 0, 0 if fell else -1_000_000
        self._level, self._level_at = 0.0, now
        self._taken_at = now
        self.latency_s = 0.0
        self._pressed = False
        self._not_before = self._resumed_at = LONG_AGO
        self._origin, self._credit, self._emptied_at = origin, credit, origin
        self._dear = 1.0
        self._steady_since = origin
        self.careful, self._singly = not measured, 0
        self._blocked_since = NEVER
        self.shut = 0
        """refusals after which nothing was let in for many gaps"""

    def growth(self) -> float:
        """How far above the measured rate the flow is now, as a share of it."""
        if not self._measured and self._hinted:
            return HINTED_GROWTH_PER_S * self._quiet / max(self.rate, HINTED_GROWTH_OVER)
        if not self._measured:
            return GUESS_GROWTH * (2 ** min(self._quiet / max(4.0, 0.3 * self.rate), MOST_DOUBLINGS) - 1)
        unsettled = self._let_in - self._fell_at < UNSETTLED_FOR
        first, doubling_s = (UNSETTLED_GROWTH, UNSETTLED_DOUBLING_S) if unsettled else (FIRST_GROWTH, DOUBLING_S)
        doubling = max((0.6 if unsettled else 1.0) * self._patience, doubling_s * self.rate)
        risen = doubling * log2(max(2.0, EXCESS_CALLS / (first * 1.44 * doubling)))
        crept = first * 2 ** min(min(self._quiet, risen) / doubling, MOST_DOUBLINGS)
        return self._surged(crept, max(0.0, self._quiet - risen), doubling / 4) - first

    def _surged(self, growth: float, calls: float, doubling: float) -> float:
        """What `growth` becomes in so many calls: it doubles, until the flow itself would double in half a second."""
        most_per_call = RISEN_GROWTH_PER_S / max(self.rate, HINTED_GROWTH_OVER)
        doublings = min(max(0.0, log2(most_per_call * doubling / (growth * log(2)))), calls / doubling)
        return growth * 2**doublings + most_per_call * (calls - doublings * doubling)

    def now_per_s(self) -> float:
        """Calls a second at this moment."""
        return self.rate * (1 + self.growth())

    def ready_at(self, now: float) -> float:
        """The earliest time the next call may go."""
        self._flow(now)
        now = max(now, self._level_at)
        short = 1 - self._level
        apart_at = self._taken_at + min(BURST_LATENCIES * self.latency_s, BURST_GAPS / self.rate)
        return max(self._not_before, apart_at, now if short <= ROUNDING else now + short / self.now_per_s())

    def take(self, due_at: float) -> None:
        """A call will go then."""
        self._flow(due_at)
        self._pressed = due_at - self._taken_at <= PRESSED_GAPS / self.now_per_s() + PRESSED_S
        self._taken_at = due_at
        self._level -= 1

    def give_back(self) -> None:
        """A taken call was not sent."""
        self._level += 1

    def accepted(self, now: float) -> None:
        """A call sent after the last refusal was let in."""
        if now - self._blocked_since > max(OUTAGE_S, OUTAGE_GAPS / self.rate):
            self._origin, self._credit, self._emptied_at = now, self.burst, now  # nothing was let in at all: no measure
        self._blocked_since = NEVER
        self._quiet += self._pressed
        self._singly += 1
        self.careful = self.careful and self._singly < FEW_CALLS
        self._let_in += 1

    def refused(self, trail: SendLog, *, refused_at: float, now: float, fails: int, hold_s: float) -> None:
        """A call sent at `refused_at` was refused, the `fails`-th in a row; `hold_s` is the hint obeyed."""
        full_at = trail.last_until(refused_at)
        full_at = refused_at if full_at is None else full_at
        self._dear = 1 + self._cheap + max(0.0, self.rate * hold_s - self.burst) / 8
        self._hinted = (
            hold_s > 0 and not self._cheap and (self._hinted or is_dear(self.now_per_s(), hold_s, self.burst))
        )
        self.shut += fails == SHUT_FAILS
        if fails == 1:
            self.careful, self._singly = trail.between(self._emptied_at, full_at) < FEW_CALLS, 0
            self._blocked_since = refused_at
            self._correct(trail, full_at, refused_at, hinted=self._hinted)
            self._emptied_at = full_at
        self._quiet = 0
        self._level, self._level_at = 0.0, refused_at if hold_s else now
        pause_s = min(2.0 ** min(fails - 1, 16) / self.rate, LONGEST_PAUSE_S)
        self._not_before = now if hold_s else refused_at + pause_s
        if hold_s:
            self._resumed_at = now + hold_s

    def _flow(self, now: float) -> None:
        if now <= self._level_at:
            return
        if now - max(self._taken_at, self._not_before) > (self.burst + 1.5) / self.rate:
            self._origin, self._credit = (
                now,
                self.burst,
            )  # idle: more may have flowed in than is known
        self._level = min(self._level + self.now_per_s() * (now - self._level_at), self.burst)
        self._level_at = now

    def _correct(self, trail: SendLog, full_at: float, refused_at: float, *, hinted: bool) -> None:
        """A refusal ends an interval since the last one (or since a hold): what it says about the rate."""
        since = max(self._emptied_at, self._resumed_at)
        burst_s, lately = refused_at - since, trail.between(self._emptied_at, full_at)
        held = self._resumed_at > self._emptied_at
        if self._cheap and lately >= FEW_CALLS:
            self._refilled(trail, full_at, refused_at, lately)
            return
        ramped = hinted and self.growth() > SURGE
        if held and not ramped and lately >= FEW_CALLS and lately > BURST_FLOW * self.rate * burst_s:
            self._burst_refused(lately, burst_s, refused_at - self._emptied_at)
            return
        overflowed = held and lately >= BULK * self.burst
        at_most = (lately + 1) / max(burst_s if overflowed else refused_at - self._emptied_at, 1e-3)
        count = trail.between(self._origin, full_at) - self._credit
        measured = count / max(full_at - self._origin, 1e-3)
        if at_most < FELL * self.rate:
            self._fell()
            self._restart(max(at_most, 0.25 * self.rate) if lately < FEW_CALLS else at_most, self._emptied_at)
            self._measured = not hinted
        elif count <= FEW_CALLS and (not hinted or lately < FEW_CALLS):
            came_s = max(refused_at - self._emptied_at, 1e-3)
            guess = min(0.92 * self.rate, at_most)
            if hinted:
                guess = sqrt(self.rate * min((lately + 1) / came_s, self.rate))
                guess = max(guess, self._steepest(trail, full_at, lately)) if self._first[0] <= 2 else guess
            self.rate = max(guess, SLOWEST_PER_S)
            self._measured = self._measured and not hinted
        elif hinted:
            self._settle_below(*self._empty_twice(trail, full_at, refused_at))
        elif self.growth() > SURGE:
            risen = self._risen_per_s(trail, full_at, measured, held=held)
            self._restart(risen, full_at, 1.5 * self._patience)
        else:
            self._settle(measured if held else max(measured, self._lately_per_s(trail, full_at)), count, lately)

    def _refilled(self, trail: SendLog, full_at: float, refused_at: float, lately: int) -> None:
        """A bucket that one hold fills up was emptied: what it let in since it was empty before is what flowed in."""
        flow = lately / (refused_at - self._emptied_at)
        if abs(flow - self.rate) > CHANGED * self.rate:
            if flow < self.rate:
                self._fell()
            self._restart(flow, full_at)
            self._steady_since = full_at
        else:
            count = trail.between(self._steady_since, full_at)
            self._settle(max(flow, count / (refused_at - self._steady_since)), count, lately)
        self.burst = max(self.rate * BUCKET_S, 1.0)

    def _burst_refused(self, calls: int, burst_s: float, all_s: float) -> None:
        """The burst after a hold was too large, or the rate is too high: both are corrected."""
        self._measured = self._measured and not self._hinted
        at_once = calls - self.rate * burst_s
        self.burst = max(min(BULK * at_once, BULK * self.burst), 1.0)
        rate = sqrt(self.rate * min(self.rate, calls / all_s))
        if rate < FELL * self.rate:
            self._fell()
        self.rate = rate

    def _fell(self) -> None:
        if self._measured or self._let_in >= WARM_CALLS:  # else it was only guessed too high
            self._fell_at, self._patience = self._let_in, PATIENCE_LEAST

    def _settle(self, measured: float, count: float, lately: int) -> None:
        self._measured = True
        if self._dear > 1.5 and count < 150 and not self._cheap:
            measured *= 0.88  # each refusal costs a hold: rather stay below
        self.rate = max(min(SLACK * measured, 0.99 * self.now_per_s()), SLOWEST_PER_S)
        steady = max(PATIENCE_LEAST, (self._let_in - self._fell_at) / UNSETTLED_CALLS)
        self._patience = min(2 * self._patience, PATIENCE_MOST, steady) * self._dear
        if lately >= 100 and self._emptied_at > self._origin:
            self._origin, self._credit = self._emptied_at, 0.0

    def _empty_twice(self, trail: SendLog, full_at: float, refused_at: float) -> tuple[float, float]:
        """(rate, calls it was measured by) of the bucket that the first calls emptied, and the last ones again.

        The first fill tells burst + rate * its seconds; what was let in since the last refusal is at least the rate's
        part of it, and no stretch of it may have needed more than the burst and the rate together.
        """
        calls = trail.between(self._emptied_at, full_at)
        flow = rate = calls / max(refused_at - self._emptied_at, 1e-3)
        before, most = self.burst, 0.97 * self.now_per_s()
        for _ in range(JOINT_STEPS):
            self.burst = max(1.0, self._first[0] + (0.5 if self._first[0] > 2 else 0.0) - rate * self._first[1])
            rate = max(flow, self._steepest(trail, full_at, int(calls)))
        if rate > most and self._first[0] > 2:  # another bucket than the one that the first calls emptied
            self.burst = before
            return min(max(flow, self._steepest(trail, full_at, int(calls))), most), calls
        self.burst = max(1.0, BULK * self.burst)
        return rate, calls

    def _steepest(self, trail: SendLog, full_at: float, calls: int) -> float:
        over = LEAST_OVER if self._first[0] > 2 else 3
        least = max(int(self.burst) + over, int(self._first[0]) + over // 2)
        return trail.steepest(full_at, self.burst, least=least, most=calls + 1)

    def _settle_below(self, measured: float, calls: float) -> None:
        """A refusal costs a hold: rather a little below the limit, and the next test later."""
        below = 1 - min(MOST_BELOW, UNSURE_CALLS / max(calls, 1.0))
        self.rate = max(min(below * measured, 0.97 * self.now_per_s()), SLOWEST_PER_S)
        self._measured = True
        steady = max(PATIENCE_LEAST, (self._let_in - self._fell_at) / UNSETTLED_CALLS)
        self._patience = max(min(PATIENCE_MOST, steady, calls), PATIENCE_LEAST) * self._dear

    def _lately_per_s(self, trail: SendLog, full_at: float) -> float:
        """What was let in over the second half: what a past window did not use up is no measure."""
        half_s = (full_at - max(self._emptied_at, self._origin)) / 2
        calls = trail.between(full_at - half_s, full_at)
        return min((calls - 1) / half_s if calls >= FEW_LATELY else 0.0, self.now_per_s())

    def _risen_per_s(self, trail: SendLog, full_at: float, measured: float, *, held: bool) -> float:
        """The flow grew far above what it was: how soon a full bucket was empty says how far."""
        half_s = max((full_at - max(self._emptied_at, self._origin)) / 2, 1e-3)
        lately = 0.0 if held else trail.between(full_at - half_s, full_at) / half_s
        return min(max(measured, lately, trail.steepest(full_at, self.burst)), 0.97 * self.now_per_s())

    def _restart(self, rate: float, origin: float, patience: float = PATIENCE_LEAST) -> None:
        self.rate = max(rate, SLOWEST_PER_S)
        self._measured = True
        self._patience = min(patience, PATIENCE_MOST)
        self._origin, self._credit = origin, 0.0
