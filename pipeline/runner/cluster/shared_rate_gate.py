"""A worker's gate before the gateway: its own pool of submits, and each of them a slot of the rate that all share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import psycopg

from pipeline.gateway.allowance_headers import StatedAllowance
from pipeline.gateway.ratelimit.latency import SlotLeadTime
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter, CallInFlight, CallKind, LimitFeedback
from pipeline.gateway.ratelimit.limiter import Slot as OwnSlot
from pipeline.runner.cluster.shared_limit import Report, SharedSlot
from pipeline.runner.cluster.shared_rate import SharedRateLimiter
from pipeline.runner.rate_gate import ROUNDING_S, RateGate
from pipeline.runner.stop import StopSignal

_AWAY = (psycopg.OperationalError, psycopg.InterfaceError, OSError)


@dataclass(frozen=True, slots=True)
class _SharedCall(CallInFlight):
    """A call in flight in a slot of the shared rate."""

    slot: SharedSlot


class SharedRateGate(RateGate):
    """`pace` is this worker's own (open submits, polls); `shared` is what all workers share.

    `lease_s`: a slot older than that is void, so that a worker that was frozen sends nothing when it wakes.
    """

    def __init__(
        self,
        pace: AdaptiveRateLimiter,
        halt: StopSignal,
        shared: SharedRateLimiter,
        *,
        polls_share: bool,
        lease_s: float,
    ) -> None:
        # Before the base class is initialised: that subscribes `wake`, which uses it.
        self._shared = shared
        super().__init__(pace, halt)
        self._polls_share = polls_share
        self._lease_s = lease_s
        self._lead = SlotLeadTime()
        self._taken: dict[asyncio.Task[Any] | None, SharedSlot] = {}
        self._resumed_at = float("-inf")

    def _shares(self, kind: CallKind) -> bool:
        return kind is CallKind.SUBMIT or self._polls_share

    async def slot(self, kind: CallKind, *, after_stop: bool = False) -> OwnSlot | None:
        """Waits for a place in this worker's pool and for a slot of the shared rate; None when the run stopped."""
        own = await super().slot(kind, after_stop=after_stop)
        if own is None or not self._shares(kind):
            return own
        try:
            # The place in this worker's pool came first: a shared slot is one moment, which would pass while a place is
            # awaited.
            slot = await self._shared.slot(kind, lambda: self.is_over(kind, after_stop=after_stop))
            if slot is not None:
                self._taken[asyncio.current_task()] = slot
                await asyncio.sleep(max(slot.due_at - self._lead.s - _now(), 0.0))
        except BaseException:
            self.release(kind)
            raise
        if slot is None or self.is_over(kind, after_stop=after_stop):
            self.release(kind)
            return None
        return OwnSlot(kind, _now(), max(slot.due_at, _now()))

    async def slot_is_void(self, slot: OwnSlot) -> bool:
        """Waits until the slot is due; whether it is void: the limit was met, a cap was reached, or it is too old."""
        shared = self._taken.get(asyncio.current_task())
        if shared is None:
            return await super().slot_is_void(slot)
        self._notice_pause()
        self._lead.ready(_now() - slot.taken_at)
        if (early_s := slot.due_at - _now()) > 0.0:
            await asyncio.sleep(early_s + ROUNDING_S)
        try:
            is_void = await self._shared.is_void(shared)
        # Without the row it is not known whether another worker met the limit, so nothing is sent.
        except _AWAY:
            return True
        return is_void or _now() - shared.taken_at > self._lease_s

    def sent(self, kind: CallKind) -> CallInFlight:
        """The slot is used now."""
        own, shared = super().sent(kind), self._taken.pop(asyncio.current_task(), None)
        if shared is None:
            return own
        self._shared.sent(shared, own.sent_at)
        return _SharedCall(own.kind, own.sent_at, own.channel, shared)

    def release(self, kind: CallKind) -> None:
        """The slot was not used."""
        shared = self._taken.pop(asyncio.current_task(), None)
        if shared is not None:
            self._shared.release(shared)
        super().release(kind)

    def answered(
        self,
        ticket: CallInFlight,
        outcome: LimitFeedback,
        wait_s: float | None = None,
        *,
        job_cap: int | None = None,
        stated: StatedAllowance | None = None,
    ) -> None:
        """What the answer said about the allowance goes to every worker."""
        if not isinstance(ticket, _SharedCall):
            super().answered(ticket, outcome, wait_s, job_cap=job_cap, stated=stated)
            return
        refused = outcome in (LimitFeedback.THROTTLED, LimitFeedback.CONCURRENCY)
        # This worker's own limiter only counts open calls. A rejection is evidence for the shared law, once.
        super().answered(ticket, LimitFeedback.OTHER if refused else outcome)
        self._shared.answered(
            Report(
                slot=ticket.slot.slot,
                sent_at=ticket.sent_at,
                answered_at=_now(),
                feedback=outcome,
                wait_s=wait_s,
                job_cap=job_cap,
                stated=stated,
                unseen=ticket.sent_at < self._resumed_at,
            )
        )

    def job_ended(self) -> None:
        """One job fewer is in flight."""
        self._shared.job_ended()
        super().job_ended()

    def wake(self) -> None:
        """Let the waiters ask again."""
        self._shared.notice_stop()
        super().wake()

    def _resumed(self) -> None:
        self._resumed_at = _now()
        super()._resumed()


def _now() -> float:
    return asyncio.get_running_loop().time()
