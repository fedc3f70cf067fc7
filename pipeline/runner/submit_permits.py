"""When the next submit may go: the circuit breaker and the rate limiter together, and the search for a lost gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from pipeline.errors import ExitCode
from pipeline.gateway.ratelimit.limiter import CallKind, Slot
from pipeline.gateway.responses import Response
from pipeline.runner.circuit_breaker import BreakerState, CircuitBreaker, Outcome
from pipeline.runner.context import RunContext
from pipeline.runner.stop import StopScope

BREAKER_POLL_INTERVAL_S = 1.0
"""Longest sleep, in seconds, before the breaker is asked again: its probe may have ended meanwhile."""

FIRST_MAX_WAIT_S = 60.0
"""A gateway that never answered in this run is given up after so many seconds: the address or the network is wrong."""

MAX_WAIT_S = 3 * 3600.0
"""One that did answer is waited for through an outage of so many seconds; nothing is lost or paid meanwhile."""

PROBE_PAUSE_S = 10.0
"""Seconds between two free polls that ask whether the gateway is back."""

MAX_FAILED_PROBES = 3
"""Rows lost to an open breaker, one each pause, before nothing more is bought in this run."""


class SharedHealth(Protocol):
    """What other processes that buy from the same gateway know of it."""

    async def refresh(self) -> None:
        """Take over what their submits came to."""

    def record_own(self, request_id: str, outcome: Outcome) -> None:
        """A submit of this process has ended."""

    async def may_probe(self) -> bool:
        """Whether this process is the one that may send a row while the breaker is open."""

    async def end_probe(self) -> None:
        """Its probe, if it had one, has ended."""


class SubmitPermits:
    """Grants permits to submit, one a call; each is used or released.

    Args:
        can_poll: whether any job is being polled, whose poll could show that the gateway is back.
        known_job: any job of the gateway, for a free poll when none is in flight: (job_set_id, polling_url).
        shared: what is shared with other processes; None where this process buys alone.
    """

    def __init__(
        self,
        context: RunContext,
        breaker: CircuitBreaker,
        *,
        can_poll: Callable[[], bool],
        known_job: Callable[[], tuple[str, str | None] | None],
        shared: SharedHealth | None = None,
    ) -> None:
        self._context = context
        self.breaker = breaker
        self._can_poll = can_poll
        self._known_job = known_job
        self._shared = shared
        self._probe_at = 0.0
        self._ever_answered = False
        self._answered_at = asyncio.get_running_loop().time()
        # The breaker may open before any submit of this run, from the outcomes that it was restored with.
        self._cause = "unknown outcomes of the run before"
        self._reported_until: float | None = None
        self.pause_text = ""
        """for display: until when and why no submit goes; empty while submits go"""

    def record(self, health: Outcome, request_id: str, reason: str) -> None:
        """A permit's call ended; `reason` is the cause of a pause that it may begin."""
        if health == "unknown":
            self._cause = reason
        self.breaker.record(health, asyncio.get_running_loop().time(), request_id)
        if self._shared is not None:
            self._shared.record_own(request_id, health)

    def _report_pause(self) -> None:
        """Notify each pause once, with its cause and its end."""
        until = self.breaker.paused_until
        if until is None or until == self._reported_until:
            return
        self._reported_until = until
        end_unix = self._context.unix_time() + until - asyncio.get_running_loop().time()
        end = datetime.fromtimestamp(end_unix, UTC).astimezone()
        # A cause without a status is a sentence of its own, such as "silence for 330 s".
        cause = f"gateway answers {self._cause}" if self._cause[:1].isdigit() else self._cause
        self.pause_text = f"paused until {end:%H:%M} ({cause})"
        self._context.notify(f"{self.pause_text}; nothing is bought meanwhile, what is paid is collected")

    async def acquire(self, request_id: str) -> Slot | None:
        """Wait for the breaker and for a slot, and take both; None when the run stopped meanwhile."""
        context, loop = self._context, asyncio.get_running_loop()
        while not context.stop.submits:
            if self._shared is not None:
                await self._shared.end_probe()
                await self._shared.refresh()
            # The breaker comes before the slot: its pauses last minutes, and a slot is the right to one moment, which
            # would be over after them.
            if (wait_s := self.breaker.wait_s(loop.time())) > 0.0:
                await self._wait_for_breaker(wait_s)
                continue
            slot = await context.gate.slot(CallKind.SUBMIT)
            if slot is None:
                return None
            if not await self._others_agree():
                context.gate.release(CallKind.SUBMIT)
                await self._wait_for_breaker(BREAKER_POLL_INTERVAL_S)
                continue
            # MONEY: asked last, so that a worker that waited for a slot does not pass a breaker that opened meanwhile.
            if self.breaker.may_submit(loop.time(), request_id):
                # The text of an old pause must go once submits go again, but not during a probe: then the pause is not
                # over.
                if self.breaker.paused_until is None:
                    self.pause_text = ""
                return slot
            context.gate.release(CallKind.SUBMIT)
            await self._wait_for_breaker(BREAKER_POLL_INTERVAL_S)
        return None

    async def _others_agree(self) -> bool:
        """MONEY: whether a row may go as far as the other processes are concerned; asked after the wait for a slot."""
        if self._shared is None:
            return True
        await self._shared.refresh()
        return not self._context.stop.submits and await self._shared.may_probe()

    def release(self, request_id: str) -> None:
        """The permit is not used: no POST follows."""
        self.breaker.withdraw(request_id)
        self._context.gate.release(CallKind.SUBMIT)

    def call_failed(self, request_id: str, *, is_sent: bool) -> None:
        """The call failed within this program; `is_sent`: perhaps after its first byte left."""
        if is_sent:
            self.record("unknown", request_id, "an error of this program")
        else:
            self.breaker.withdraw(request_id)

    def mark_reachable(self) -> None:
        """The gateway was reached: it is waited for again when it is lost."""
        self._ever_answered = True
        self._context.reachability.reached()
        self._answered_at = asyncio.get_running_loop().time()

    async def _wait_for_breaker(self, wait_s: float) -> None:
        now = asyncio.get_running_loop().time()
        self._report_pause()
        # While jobs are in flight the poller's own polls show whether the gateway is back, and cost nothing extra.
        if self.breaker.state(now) is BreakerState.POLL_PROBE and not self._can_poll():
            await self._probe_by_poll()
        # From the last answer and not from the beginning of the pause: one outage is a chain of many pauses.
        if now - self._answered_at > self._max_wait_s():
            cause = self._context.reachability.cause
            text = f"the gateway can't be reached{f' ({cause})' if cause else ''}; run again later"
            self._context.stop.request(text, exit_code=ExitCode.UNFINISHED, reach=StopScope.SUBMITS)
            return
        await self._context.stop.pause(min(wait_s, BREAKER_POLL_INTERVAL_S))

    async def _probe_by_poll(self) -> None:
        """Nothing is in flight whose poll could show that the gateway is back: one free poll of any job it ever had.

        MONEY: with no job at all the pause alone decides, so the lost probes are counted and end the buying.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._probe_at:
            return
        # Set before the poll is awaited: several workers come here at the same time, and one poll is enough.
        self._probe_at = loop.time() + PROBE_PAUSE_S
        known = self._known_job()
        if known is None and self.breaker.probes_lost >= MAX_FAILED_PROBES:
            text = "submits keep ending without a readable answer; nothing more is bought now"
            self._context.stop.request(text, exit_code=ExitCode.UNFINISHED, reach=StopScope.SUBMITS)
            return
        if known is None:
            self.breaker.nothing_to_poll(loop.time())
            return
        response = await self._context.client.poll(*known)
        # Any such status comes from a gateway that works, also a 404 for a job that it has forgotten.
        if isinstance(response, Response) and response.status < 500:
            self.breaker.poll_answered(loop.time())

    def _max_wait_s(self) -> float:
        return MAX_WAIT_S if self._ever_answered else FIRST_MAX_WAIT_S
