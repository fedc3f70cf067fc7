"""What a delivered callback does to a run: one poll of a job of ours, or a candidate id for an unclear submit.

It never believes what a delivery says: the gateway's own response to a free poll decides (`unknowns`). A delivery that
comes before the submit's response is kept until that is recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pipeline.gateway.webhook_tokens import CallbackDelivery
from pipeline.records import Attempt, State
from pipeline.runner.context import RunContext
from pipeline.runner.events import JobAccepted, OutcomeUnknown
from pipeline.runner.poller import Poller
from pipeline.runner.unknowns import UnknownRecovery

EVIDENCE = "a callback to the attempt's own address named the job, and the gateway knows it"
WAIT_INTERVAL_S = 0.25
"""Between two looks at the submits that a late callback may still prove, in seconds."""


class CallbackHandler:
    """The run's side of its callbacks.

    Args:
        state_of: the ledger's state of a request.
        linger_s: how long the run waits for a call about submits whose outcome is unknown, when all else is done.
    """

    def __init__(
        self,
        context: RunContext,
        poller: Poller,
        recovery: UnknownRecovery,
        *,
        state_of: Callable[[str], State | None],
        linger_s: float,
    ) -> None:
        self._context, self._poller, self._recovery = context, poller, recovery
        self._state_of = state_of
        self._linger_s = linger_s
        self._early: dict[str, CallbackDelivery] = {}
        self._unknown: dict[str, tuple[Attempt, float]] = {}
        self.deliveries = 0
        context.events.subscribe(JobAccepted, self._accepted)
        context.events.subscribe(OutcomeUnknown, self._on_unknown)

    def delivered(self, delivery: CallbackDelivery) -> bool:
        """Act on one delivery; False when it is about a request that this run does not have."""
        if delivery.is_self_test:
            return True
        self.deliveries += 1
        request_id = delivery.request_id
        if self._poller.poll_soon(request_id):
            return True
        if request_id in self._unknown:
            self._recover(self._unknown[request_id][0], delivery)
            return True
        # The ledger may know the outcome a moment before its event comes here: such a call is early, too.
        if self._state_of(request_id) in (State.SUBMITTING, State.ACCEPTED, State.UNKNOWN):
            self._early[request_id] = delivery
            return True
        return False

    def _accepted(self, event: JobAccepted) -> None:
        """A submit was recorded as accepted; the call about it may have come before, or have proved it."""
        early = self._early.pop(event.request_id, None)
        if self._unknown.pop(event.request_id, None) is not None or early is not None:
            self._poller.poll_soon(event.request_id)

    def _on_unknown(self, event: OutcomeUnknown) -> None:
        """A submit was recorded as unknown: from now on a call about it may prove that it was accepted."""
        attempt = event.attempt
        self._unknown[attempt.request_id] = (attempt, asyncio.get_running_loop().time())
        early = self._early.pop(attempt.request_id, None)
        if early is not None:
            self._recover(attempt, early)

    def track_unknown(self, attempt: Attempt) -> None:
        """An earlier run left this submit unknown: a call about it proves the same, but is not waited for."""
        self._unknown[attempt.request_id] = (attempt, -self._linger_s)

    def _recover(self, attempt: Attempt, delivery: CallbackDelivery) -> None:
        self._recovery.start(attempt, delivery.job_set_ids, evidence=EVIDENCE, is_new=False)

    async def wait_for_late_callbacks(self) -> None:
        """Wait for calls about unclear submits, as long as each is worth it, before the run says it is done."""
        loop, notified = asyncio.get_running_loop(), False
        while not self._context.stop.all:
            self._unknown = {key: entry for key, entry in self._unknown.items() if self._state_of(key) is State.UNKNOWN}
            waiting = [key for key, (_, at) in self._unknown.items() if loop.time() - at < self._linger_s]
            if not waiting and not self._recovery.busy:
                return
            if not notified:
                notified = True
                self._context.notify(
                    f"waiting up to {self._linger_s:g} s for calls about {len(waiting)} unclear submits"
                )
            await asyncio.sleep(WAIT_INTERVAL_S)
