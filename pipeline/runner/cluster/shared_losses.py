"""Losses of all workers of a cluster: one pause and one loss budget, read from the ledger that all of them share.

Each worker keeps its own breaker and budget, and before it submits it takes over what the submits of the others came to
since it last did. An open breaker lets one row go as a probe; which worker sends it is decided by a lease in the
database. So an outage costs the cluster what it costs one machine, and one submit in flight for each other worker.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

import psycopg

from pipeline.errors import LedgerError
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.states import Event
from pipeline.records import State
from pipeline.runner.circuit_breaker import BreakerState, CircuitBreaker, Outcome
from pipeline.runner.loss_guard import LossGuard

REFRESH_S = 1.0
"""Seconds between two reads of the outcomes of others while all goes well; after a loss each submit reads them."""

LOSS_MEMORY_S = 60.0
"""For so many seconds after a loss, of whichever worker, the outcomes are read before each submit."""

OWN_OUTCOMES = 4_096
"""Own outcomes that are remembered, so that they are not counted again when they come back from the ledger."""

_HEALTH: dict[Event, Outcome] = {Event.LOSE: "unknown", Event.ACCEPT: "answered", Event.REJECT: "answered"}


class ProbeLease(Protocol):
    """One probe at a time for a whole cluster."""

    async def claim_probe(self, holder: str) -> bool:
        """Whether the holder may send the cluster's next probe."""

    async def release_probe(self, holder: str) -> None:
        """The holder's probe has ended."""


class SharedLosses:
    """What one worker knows of the others' losses, for one run."""

    def __init__(
        self,
        *,
        queries: LedgerQueries,
        gateway: str,
        run_id: str,
        breaker: CircuitBreaker,
        losses: LossGuard,
        lease: ProbeLease,
        holder: str,
        trouble: Callable[[str], None],
    ) -> None:
        self._queries, self._gateway, self._run_id = queries, gateway, run_id
        self._breaker, self._losses = breaker, losses
        self._lease, self._holder, self._trouble = lease, holder, trouble
        self._seq = queries.last_event()
        self._own: deque[str] = deque(maxlen=OWN_OUTCOMES)
        self._lost_at = self._read_at = float("-inf")
        self._has_probe = False
        self._turn = asyncio.Lock()

    def record_own(self, request_id: str, outcome: Outcome) -> None:
        """This worker's own submit has ended; its breaker knows."""
        self._own.append(request_id)
        if outcome == "unknown":
            self._lost_at = _now()

    async def refresh(self) -> None:
        """Take over what the others' submits came to. While the ledger is unavailable nothing is bought anyway."""
        is_calm = _now() - self._lost_at > LOSS_MEMORY_S
        if is_calm and _now() - self._read_at < REFRESH_S:
            return
        async with self._turn:
            try:
                outcomes = await asyncio.to_thread(self._queries.outcomes_after, self._gateway, self._seq)
                self._read_at = _now()
                if not outcomes:
                    return
                self._seq = outcomes[-1].seq
                # Own outcomes were counted when they ended. Counted twice, half the losses would open the breaker.
                others = [one for one in outcomes if one.request_id not in self._own]
                for one in others:
                    self._take_over(one.request_id, _HEALTH[one.event])
                if any(one.event is Event.LOSE for one in others):
                    unknowns = await asyncio.to_thread(self._queries.attempts_in, self._run_id, (State.UNKNOWN,))
                    self._losses.recount(unknowns)
            except LedgerError as error:
                self._trouble(str(error))

    def _take_over(self, request_id: str, outcome: Outcome) -> None:
        """Once a pause is over, another worker's outcome is that of the cluster's probe; before, it was in flight."""
        now = _now()
        if outcome == "unknown":
            self._lost_at = now
        is_probes = self._breaker.state(now) in (BreakerState.POLL_PROBE, BreakerState.ROW_PROBE)
        self._breaker.record(outcome, now, None if is_probes else request_id)

    async def may_probe(self) -> bool:
        """Whether this worker may send a row although the breaker is open: one worker of the cluster at a time."""
        if self._breaker.state(_now()) is not BreakerState.ROW_PROBE:
            return True
        try:
            self._has_probe = await self._lease.claim_probe(self._holder)
        except (psycopg.Error, OSError):
            return False
        return self._has_probe

    async def end_probe(self) -> None:
        """The probe of this worker, if it had one, has ended and is recorded."""
        if self._has_probe and not self._breaker.is_probing(_now()):
            self._has_probe = False
            try:
                await self._lease.release_probe(self._holder)
            except (psycopg.Error, OSError):
                return  # the lease ends with its time


def _now() -> float:
    return asyncio.get_running_loop().time()
