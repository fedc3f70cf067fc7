"""The one gate before the gateway: workers wait here for their turn, in order, at the pace that `gateway.pace` says."""

from __future__ import annotations

import asyncio

from pipeline.gateway.allowance_headers import StatedAllowance
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter, CallInFlight, CallKind, LimitFeedback, Slot
from pipeline.runner.process_pauses import TICK_S, PauseDetector
from pipeline.runner.stop import StopSignal

ROUNDING_S = 1e-6
"""A timer may ring this much too soon."""


class RateGate:
    """Turns the pace's "ask again in n seconds" into waiting. One waiter a kind asks, the others queue behind it."""

    def __init__(self, pace: AdaptiveRateLimiter, halt: StopSignal, pauses: PauseDetector | None = None) -> None:
        self.pace = pace
        self._halt = halt
        self._pauses = pauses or PauseDetector()
        self._turns = {kind: asyncio.Lock() for kind in CallKind}
        # What is unclear is found out before more is bought: a resend waits behind no queue of new submits.
        self._resend_turn = asyncio.Lock()
        self._news = {kind: asyncio.Event() for kind in CallKind}
        halt.subscribe(self.wake)

    async def watch(self) -> None:
        """Tick until cancelled, so that a pause of the process is noticed; run it beside the steps."""
        while True:
            self._notice_pause()
            self._pauses.tick(_now())
            await asyncio.sleep(TICK_S)

    def _notice_pause(self) -> None:
        """After a pause of the process, before anything is concluded from the time that passed."""
        if self._pauses.stood_still(_now()) is not None:
            self._resumed()

    def _resumed(self) -> None:
        self.pace.interrupted(_now())
        self.wake()

    async def slot(self, kind: CallKind, *, after_stop: bool = False) -> Slot | None:
        """Waits for a slot and takes it, somewhat before the call may go; None when the run stopped meanwhile.

        Args:
            after_stop: a submit that buys nothing new is also wanted when nothing more is bought.
        """
        async with self._resend_turn if after_stop else self._turns[kind]:
            while not self.is_over(kind, after_stop=after_stop):
                self._notice_pause()
                # Cleared before the limiter is asked: news that comes after its answer then ends the pause instead of
                # being lost.
                self._news[kind].clear()
                answer = self.pace.next_slot(_now(), kind)
                if isinstance(answer, Slot):
                    return answer
                await self._pause(kind, answer)
            return None

    async def _pause(self, kind: CallKind, wait_s: float) -> None:
        alarm = asyncio.get_running_loop().call_later(wait_s, self._news[kind].set)
        try:
            await self._news[kind].wait()
        finally:
            alarm.cancel()

    def is_over(self, kind: CallKind, *, after_stop: bool) -> bool:
        """Whether no call of a kind is sent any more; `after_stop` as in slot."""
        return self._halt.submits if kind is CallKind.SUBMIT and not after_stop else self._halt.all

    async def slot_is_void(self, slot: Slot) -> bool:
        """Waits until the slot's call may go; whether it must not, since the limit was met or a hint came meanwhile."""
        self._notice_pause()
        # How long the intent took from slot to here: the limiter hands slots out ahead of time by what most calls took.
        self.pace.ready(slot, _now())
        if (early_s := slot.due_at - _now()) > 0.0:
            await asyncio.sleep(early_s + ROUNDING_S)
        # Asked after the sleep: a rejection or a Retry-After that came during it is about this very call.
        return self.pace.slot_is_void(_now(), slot.kind)

    def sent(self, kind: CallKind) -> CallInFlight:
        """The slot is used now."""
        return self.pace.mark_sent(_now(), kind)

    def release(self, kind: CallKind) -> None:
        """The slot was not used."""
        self.pace.release(_now(), kind)
        self.wake()

    def answered(
        self,
        ticket: CallInFlight,
        outcome: LimitFeedback,
        wait_s: float | None = None,
        *,
        job_cap: int | None = None,
        stated: StatedAllowance | None = None,
    ) -> None:
        """What the answer said about the allowance, and the number of jobs at once that it names."""
        self._notice_pause()
        self.pace.answered(ticket, _now(), outcome, wait_s, job_cap=job_cap, stated=stated)
        self.wake()

    def job_ended(self) -> None:
        """One job fewer is in flight."""
        self.pace.job_ended(_now())
        self.wake()

    def wake(self) -> None:
        """Let the waiters ask again: an answer came, or the run stopped."""
        for event in self._news.values():
            event.set()


def _now() -> float:
    return asyncio.get_running_loop().time()
