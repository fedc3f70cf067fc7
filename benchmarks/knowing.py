"""A caller who knows the limiter: what is attainable with the same latency, open calls, hints and client delays.

It knows family, parameters, phase, changes and outages, but not the latency of each call. Of a few guards against calls
that travel at unlike speeds the best one counts, among those with at most 1 % rejected.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from benchmarks.simulation import Hint, Latency, Limiter, run_submits
from pipeline.gateway.allowance_headers import StatedAllowance
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter, CallInFlight, CallKind, LimitFeedback, Slot
from pipeline.gateway.ratelimit.rates import Rate

GUARDS = (0.5, 1.5, 3.0, 5.0)
"""In standard deviations of the time to the gateway."""
OPEN = 16
FAIR_SHARE = 0.01
LOOK_AGAIN_S = 0.05
MAX_HINT_S = 60.0
SUBMIT = CallKind.SUBMIT


class KnowingCaller(AdaptiveRateLimiter):
    """Sends when its own copy of the limiter would admit the call, `guard_s` later."""

    def __init__(self, limiter: Limiter, *, half_s: float, guard_s: float) -> None:
        super().__init__(rate=Rate(1, 1e-9))
        self._copy, self._half_s, self._guard_s = limiter, half_s, guard_s
        self._open = 0
        self._held_until = -math.inf
        self._next: float | None = None

    def slot_is_void(self, now: float, kind: CallKind = SUBMIT) -> bool:
        """Whether a hint came."""
        return now < self._held_until

    def next_slot(self, now: float, kind: CallKind = SUBMIT) -> Slot | float:
        """The next call, once it would arrive when it is admitted."""
        if now < self._held_until:
            return self._held_until - now
        if self._open >= OPEN:
            return LOOK_AGAIN_S
        if self._next is None:
            self._next = self._reserve(now + self._half_s)
        if self._next - self._half_s > now:
            return self._next - self._half_s - now
        self._open, self._next = self._open + 1, None
        return Slot(kind, now, now)

    def release(self, now: float, kind: CallKind = SUBMIT) -> None:
        """A slot that was not used: the next call takes its place."""
        self._open, self._next = self._open - 1, now

    def ready(self, slot: Slot, now: float) -> None:
        """Nothing is learned."""

    def mark_sent(self, now: float, kind: CallKind = SUBMIT) -> CallInFlight:
        """The call goes out."""
        return CallInFlight(kind, now, self._submits)

    def answered(
        self,
        ticket: CallInFlight,
        now: float,
        outcome: LimitFeedback,
        wait_s: float | None = None,
        *,
        job_cap: int | None = None,
        stated: StatedAllowance | None = None,
    ) -> None:
        """Obeys hints."""
        self._open -= 1
        if outcome is LimitFeedback.THROTTLED and wait_s is not None and wait_s <= MAX_HINT_S:
            self._held_until = max(self._held_until, now + wait_s)

    def _reserve(self, at: float) -> float:
        """The earliest arrival from `at` on that the copy admits, with the guard where it must wait."""
        waited = False
        while (wait_s := self._copy.admit(at)) > 0:
            at += wait_s + (0.0 if waited else self._guard_s)
            waited = True
        return at


def attainable_s(
    make: Callable[[], Limiter],
    count: int,
    *,
    known: Callable[[], Limiter] | None = None,
    hint: Hint,
    latency: Latency,
    seed: int,
    write_s: float,
    pause_s: float,
    until_s: float,
) -> float:
    """When the last of `count` submits of a caller who knows the limiter is admitted.

    `known` makes the caller's copy of the limiter, where it differs from the limiter that counts rejected calls.
    """
    best, fair = math.inf, False
    for guard in GUARDS:
        guard_s = guard * latency.typical_s / 2 * latency.spread
        caller = KnowingCaller((known or make)(), half_s=latency.typical_s / 2, guard_s=guard_s)
        tally = run_submits(
            caller,
            make(),
            count,
            hint=hint,
            latency=latency,
            seed=seed,
            write_s=write_s,
            pause_s=pause_s,
            until_s=until_s,
        )
        if len(tally.accepted) < count:
            continue
        is_fair = len(tally.refused) <= max(1.0, FAIR_SHARE * tally.sent)
        if (is_fair, -tally.makespan_s) > (fair, -best):
            best, fair = tally.makespan_s, is_fair
    return best
