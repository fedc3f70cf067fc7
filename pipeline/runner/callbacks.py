"""What a delivered callback does to a run: one poll of a job of ours, or a candidate id for an unclear submit.

It never believes what a delivery says: the gateway's own response to a free poll decides (`job_recovery`). A delivery
that comes before the submit's response is kept until that is recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from pipeline.gateway.job_proof import only_id
from pipeline.gateway.webhook_tokens import CallbackDelivery
from pipeline.records import Attempt, State, canonical_job_id
from pipeline.runner.context import RunContext
from pipeline.runner.events import JobAccepted, OutcomeUnknown
from pipeline.runner.job_recovery import MAX_IDS_AT_ONCE, JobRecovery
from pipeline.runner.poller import Poller

EVIDENCE = "a callback to the attempt's own address named the job, and the gateway knows it"
"""What the ledger's history says about a job that a callback proved."""

WAIT_INTERVAL_S = 0.25
"""Seconds between two checks of the submits that a late callback may still prove."""


class CallbackHandler:
    """The run's side of its callbacks.

    Args:
        state_of: the ledger's state of a request; None for a request that this run does not have.
        linger_s: seconds that the run waits for a callback about submits of unknown outcome, when all else is done.
    """

    def __init__(
        self,
        context: RunContext,
        poller: Poller,
        recovery: JobRecovery,
        *,
        state_of: Callable[[str], State | None],
        linger_s: float,
    ) -> None:
        self._context, self._poller, self._recovery = context, poller, recovery
        self._state_of = state_of
        self._linger_s = linger_s
        self._early: dict[str, list[CallbackDelivery]] = {}
        self._unknown_since: dict[str, float] = {}
        context.events.subscribe(JobAccepted, self._accepted)
        context.events.subscribe(OutcomeUnknown, self._on_unknown)

    def delivered(self, delivery: CallbackDelivery) -> bool:
        """Act on one delivery; False when it is about a request that this run does not have."""
        if delivery.is_self_test:
            return True
        request_id = delivery.request_id
        job = self._poller.job(request_id)
        if job is not None:
            self._poller.poll_soon(request_id)
            self._check_job(delivery, job.job_set_id)
            return True
        state = State.UNKNOWN if request_id in self._unknown_since else self._state_of(request_id)
        if state is None:
            return False
        # The ledger may know the outcome a moment before its event comes here: such a delivery is early, too.
        if state in (State.SUBMITTING, State.ACCEPTED):
            early = self._early.setdefault(request_id, [])
            if len(early) < MAX_IDS_AT_ONCE and delivery not in early:
                early.append(delivery)
        if state is not State.SUBMITTING:
            self._recovery.propose(request_id, delivery.job_set_ids, EVIDENCE)
        return True

    def is_busy(self, request_id: str) -> bool:
        """Whether what was delivered about the request is not recorded yet."""
        return request_id in self._early or self._recovery.is_busy(request_id)

    def _check_job(self, delivery: CallbackDelivery, job_set_id: str) -> None:
        """MONEY: a delivery that names another job than the request's own may name a second one that was charged."""
        named = only_id(delivery.job_set_ids)
        if named is not None and canonical_job_id(named) != canonical_job_id(job_set_id):
            self._recovery.propose(delivery.request_id, (named,), EVIDENCE)

    def _accepted(self, event: JobAccepted) -> None:
        """A submit was recorded as accepted, or adopted; a delivery about it may have come before."""
        was_unknown = self._unknown_since.pop(event.request_id, None) is not None
        early = self._early.pop(event.request_id, [])
        if early or was_unknown:
            self._poller.poll_soon(event.request_id)
        self._propose(event.request_id, early)

    def _on_unknown(self, event: OutcomeUnknown) -> None:
        """A submit was recorded as unknown: from now on a delivery about it may prove that it was accepted."""
        request_id = event.attempt.request_id
        self._unknown_since[request_id] = asyncio.get_running_loop().time()
        self._propose(request_id, self._early.pop(request_id, []))

    def _propose(self, request_id: str, deliveries: Iterable[CallbackDelivery]) -> None:
        for delivery in deliveries:
            self._recovery.propose(request_id, delivery.job_set_ids, EVIDENCE)

    def track_unknown(self, attempt: Attempt) -> None:
        """An earlier run left this submit unknown: a delivery may prove the same, but is not waited for."""
        # So long ago on the loop's clock, which begins at 0 or later, that the wait for it is over.
        self._unknown_since[attempt.request_id] = -self._linger_s

    async def wait_for_late_callbacks(self) -> None:
        """Wait for deliveries about unclear submits, as long as each is worth it, before the run says it is done."""
        loop, notified = asyncio.get_running_loop(), False
        while not self._context.stop.all:
            self._unknown_since = {
                key: since for key, since in self._unknown_since.items() if self._state_of(key) is State.UNKNOWN
            }
            waiting = [key for key, since in self._unknown_since.items() if loop.time() - since < self._linger_s]
            if not waiting:
                return
            if not notified:
                notified = True
                self._context.notify(
                    f"waiting up to {self._linger_s:g} s for calls about {len(waiting)} unclear submits"
                )
            await asyncio.sleep(WAIT_INTERVAL_S)
