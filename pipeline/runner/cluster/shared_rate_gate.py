"""A worker's gate before the gateway: its own pool of submits, and each of them a slot of the pace that all share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import psycopg

from pipeline.gateway.allowance_headers import StatedAllowance
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter, CallInFlight, CallKind, LimitFeedback
from pipeline.gateway.ratelimit.limiter import Slot as OwnSlot
from pipeline.ledger.postgres_session import cause_of
from pipeline.runner.cluster.shared_rate import RETRY_S, SharedRateLimiter, SharedSlot
from pipeline.runner.rate_gate import RateGate
from pipeline.runner.stop import StopSignal

_AWAY = (psycopg.OperationalError, psycopg.InterfaceError, OSError)


class SharedRateGate(RateGate):
    """`pace` is this worker's own (open submits, polls); `row` everybody's.

    `lease_s`: a slot older than that is void, so that a worker that was frozen sends nothing when it wakes. `turn` is
    one for all gates of a worker: one of them asks the row at a time.
    """

    def __init__(
        self,
        pace: AdaptiveRateLimiter,
        halt: StopSignal,
        row: SharedRateLimiter,
        *,
        turn: asyncio.Lock,
        polls_share: bool,
        lease_s: float,
        trouble: Callable[[str], None],
    ) -> None:
        super().__init__(pace, halt)
        self._row = row
        self._turn = turn
        self._polls_share = polls_share
        self._lease_s = lease_s
        self._trouble = trouble
        self._taken: dict[asyncio.Task[Any] | None, tuple[float, float]] = {}
        self._let_in = self._ended = 0
        self._probing = False
        self._blocked_at = self._ahead_s = 0.0
        self._messages: set[asyncio.Task[None]] = set()

    def _shares(self, kind: CallKind) -> bool:
        return kind is CallKind.SUBMIT or self._polls_share

    async def slot(self, kind: CallKind, *, after_stop: bool = False) -> OwnSlot | None:
        """Waits for a place in this worker's pool and for a moment of the shared pace; None when the run stopped."""
        slot = await super().slot(kind, after_stop=after_stop)
        if slot is None or not self._shares(kind) or await self._moment(kind):
            return slot
        self.release(kind)
        return None

    async def _moment(self, kind: CallKind) -> bool:
        """Takes a moment and waits for it; others may take the next one meanwhile, so that no slow answer costs any."""
        slot = await self._next_slot(kind)
        if slot is None or slot.in_s is None:
            return False
        self._taken[asyncio.current_task()] = (slot.db_now, _now())
        await asyncio.sleep(slot.in_s)
        return not self._stopped(kind)

    async def _next_slot(self, kind: CallKind) -> SharedSlot | None:
        async with self._turn:
            while not self._stopped(kind):
                slot = await self._ask()
                if slot is not None and slot.in_s is not None:
                    return slot
                await asyncio.sleep(RETRY_S if slot is None else slot.ask_again_s)
        return None

    async def _ask(self) -> SharedSlot | None:
        let_in, ended = self._let_in, self._ended
        try:
            slot = await self._row.take(let_in=let_in, ended=ended)
        except _AWAY:
            return None  # the ledger is away as well, and tells so
        self._let_in, self._ended = self._let_in - let_in, self._ended - ended
        self._probing, self._blocked_at, self._ahead_s = slot.probing, slot.blocked_at, slot.db_now - _now()
        return slot

    async def slot_is_void(self, slot: OwnSlot) -> bool:
        """Whether the slot is void by now: a hint came, another job took the last place, or this worker was frozen."""
        if not self._shares(slot.kind):
            return await super().slot_is_void(slot)
        db_then, then = self._taken.pop(asyncio.current_task(), (0.0, float("-inf")))
        if _now() - then > self._lease_s:
            return True
        try:
            in_s = await self._row.leave(db_then)
        except _AWAY:
            return True
        if in_s is None:
            return True
        await asyncio.sleep(in_s)
        return _now() - then > self._lease_s

    def release(self, kind: CallKind) -> None:
        """The slot was not used; its moment passes unused."""
        self._taken.pop(asyncio.current_task(), None)
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
        if not self._shares(ticket.kind):
            super().answered(ticket, outcome, wait_s, job_cap=job_cap, stated=stated)
            return
        sent_at = ticket.sent_at + self._ahead_s
        refused = outcome in (LimitFeedback.THROTTLED, LimitFeedback.CONCURRENCY)
        super().answered(ticket, LimitFeedback.OTHER if refused else outcome)
        if outcome is LimitFeedback.THROTTLED:
            self._tell(self._row.on_rejected(sent_at, wait_s))
        elif outcome is LimitFeedback.CONCURRENCY:
            self._tell(self._row.too_many(job_cap))
        elif sent_at > self._blocked_at:
            self._let_in += 1
            if self._probing:
                self._probing = False
                self._tell(self._row.on_admitted(sent_at))

    def job_ended(self) -> None:
        """One job fewer is in flight."""
        self._ended += 1
        super().job_ended()

    def _tell(self, message: Coroutine[Any, Any, None]) -> None:
        async def report() -> None:
            try:
                await message
            except _AWAY as error:
                self._trouble(f"the pace could not be passed on ({cause_of(error)})")

        task = asyncio.create_task(report())
        self._messages.add(task)
        task.add_done_callback(self._messages.discard)

    async def close(self) -> None:
        """Waits for the reports that are being written."""
        await asyncio.gather(*self._messages, return_exceptions=True)


def _now() -> float:
    return asyncio.get_running_loop().time()
