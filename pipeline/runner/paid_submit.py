"""One paid call: its intent, the POST, and the outcome that is recorded for it.

The order of these effects, and why it must not change, is on the page at the top of `submitter`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from pipeline.errors import DopError, LedgerError
from pipeline.gateway.allowance_headers import allowance_of
from pipeline.gateway.classification import SubmitOutcome, SubmitOutcomeKind
from pipeline.gateway.kinds.interface import Call
from pipeline.gateway.ratelimit.limiter import CallInFlight, CallKind, LimitFeedback, Slot
from pipeline.gateway.responses import NoResponse, Response, SendProof
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import ChangeResult
from pipeline.records import Attempt
from pipeline.runner.context import RunContext
from pipeline.runner.events import RequestSetAside
from pipeline.runner.firewall import NOT_SENT, error_words, is_cancellation
from pipeline.runner.open_acceptance import OpenAcceptance
from pipeline.runner.submit_decisions import LIMIT_FEEDBACK, SubmitDecision, SubmitEndpoint, decide
from pipeline.runner.submit_outcomes import STEP, OutcomeRecorder, ReservedAttempt, finish
from pipeline.runner.submit_permits import SubmitPermits

RELEASE_TIMEOUT_S = 2.0
"""Seconds that a stopped run waits for intents to be released; a ledger that is unavailable releases them later."""


class PaidSubmit:
    """Reserves attempts and spends what is reserved; shared by all workers of a run."""

    def __init__(
        self, context: RunContext, permits: SubmitPermits, endpoint: SubmitEndpoint, outcomes: OutcomeRecorder
    ) -> None:
        self._context = context
        self._permits = permits
        self._endpoint = endpoint
        self._outcomes = outcomes
        # One refusal speaks for every row of a model: the other workers need not send theirs to hear it again.
        self._gone_models: set[str] = set()

    def is_model_gone(self, model: str) -> bool:
        """Whether the gateway said that it does not sell this model."""
        return model in self._gone_models

    async def reserve(self, attempt: Attempt, token: str, price_microusd: int, detail: str = "") -> ChangeResult:
        """MONEY: the intent and its money are durable when this returns, before the first byte leaves.

        Args:
            detail: what the ledger keeps with the intent: the call, where it may be sent again.
        """
        price = {"price_microusd": price_microusd}
        try:
            # Not as a task of its own: a caller that waits for room must get the refusal before the room is made.
            return await self._context.recorder.record(
                attempt.request_id, Event.RESERVE, price, token=token, detail=detail
            )
        except asyncio.CancelledError:
            await self._release_reservation(attempt, token)  # written all the same, unless it was refused
            raise

    async def spend(
        self, slot: Slot, reserved: ReservedAttempt, call: Call, *, proof: SendProof, before: OpenAcceptance
    ) -> bool:
        """A reserved attempt until its outcome is known; True when the request may be tried again.

        Every outcome is recorded when this returns, but an acceptance: that is in the ledger's queue.

        Args:
            before: the worker's acceptance before this one; it holds this one afterwards.
        """

        async def work() -> bool:
            if await self._slot_expired(slot, reserved, before):
                return True
            # Nothing may be awaited between the slot and the call but the call itself: a slot is the right to one
            # moment.
            return await self._send(reserved, call, proof, before)

        return await self._contained(reserved, proof, work())

    async def _contained(self, reserved: ReservedAttempt, proof: SendProof, work: Coroutine[Any, Any, bool]) -> bool:
        """MONEY: whatever goes wrong in `work`, an outcome is recorded under the token: RELEASE where it is proved that
        no byte left, else LOSE. Where the true outcome was recorded already, the ledger refuses this one.
        """
        attempt = reserved.attempt
        try:
            return await work
        except LedgerError:
            # Nothing can be recorded any more: the row stays `submitting`, and the next start reads it as unknown.
            raise
        except BaseException as error:
            if is_cancellation(error):
                raise
            # MONEY: the HTTP library's hook sets `sent` before the first byte is written, so False proves that nothing
            # left.
            event = Event.LOSE if proof.sent else Event.RELEASE
            why = {"reason": f"{'' if proof.sent else NOT_SENT}{error_words(error)}"}
            await finish(self._context.recorder.record(attempt.request_id, event, why, token=reserved.token))
            # To the breaker an error of ours after the first byte is what any other unanswered submit is: perhaps paid.
            self._permits.call_failed(attempt.request_id, is_sent=proof.sent)
            self._context.notify(f"{attempt.row_id}: {why['reason']}")
            self._context.firewall.failed(STEP, attempt.request_id, error)
            self._context.events.emit(RequestSetAside(request_id=attempt.request_id))
            return False

    async def _release_reservation(self, attempt: Attempt, token: str) -> None:
        """MONEY: the run is cancelled and nothing left yet, which is certain: the operator has nothing to settle."""
        why = {"reason": "the run was stopped before the submit"}

        async def release() -> None:
            # The user has pressed Ctrl-C and waits. An intent that is not released in time becomes `unknown` at the
            # next start, which is wrong by one question and never by money.
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                await self._context.recorder.record(attempt.request_id, Event.RELEASE, why, token=token)

        with suppress(DopError, TimeoutError):
            await finish(release())

    async def _slot_expired(self, slot: Slot, reserved: ReservedAttempt, before: OpenAcceptance) -> bool:
        """Wait until the call may go; True when it must not, and its intent is released.

        It must not when the limit was met, or when the ledger did not take the worker's acceptance before it.
        """
        context, attempt, token = self._context, reserved.attempt, reserved.token
        try:
            if await before.is_recorded() and not await context.gate.slot_is_void(slot):
                return False
        except asyncio.CancelledError:
            await self._release_reservation(attempt, token)
            raise
        except BaseException:
            self._permits.release(attempt.request_id)
            raise
        # The permit goes before the record: another worker may use the place while this one waits for the commit.
        # MONEY: no byte has left, so the money comes back. A slot that is kept across a new limit would be rejected.
        self._permits.release(attempt.request_id)
        await context.recorder.record(attempt.request_id, Event.RELEASE, token=token)
        return True

    # --- the call and its outcome

    async def _send(self, reserved: ReservedAttempt, call: Call, proof: SendProof, before: OpenAcceptance) -> bool:
        context = self._context
        response, in_flight = await self._post(reserved, call, proof)
        outcome = self._classify(reserved.attempt, response)
        # Before the outcome is recorded: until then the limiter counts the call as in flight, and after a rejection the
        # other workers must be held at once, not after a commit.
        self._learn(in_flight, outcome, response)
        # The worst moment for a crash: the gateway has the job, the ledger has only the intent. The row stays
        # `submitting`, which the next start reads as unknown; tests kill the process here.
        context.fail_point("after-post")
        # MONEY: from here on the outcome is recorded even if this task is cancelled.
        record = self._evaluate(reserved, outcome, response)
        if outcome.kind is SubmitOutcomeKind.ACCEPTED:
            # Its money stays where it is, so the next request of this worker needs nothing of it but its commit.
            await before.begin(reserved.attempt, self._contained(reserved, proof, record))
            return False
        return await finish(record)

    async def _post(
        self, reserved: ReservedAttempt, call: Call, proof: SendProof
    ) -> tuple[Response | NoResponse, CallInFlight]:
        context, attempt = self._context, reserved.attempt
        # Counted before the client connects: during a slow connect the limiter must not give this call's place away.
        in_flight = context.gate.sent(CallKind.SUBMIT)
        context.fail_point("before-post")
        try:
            with context.reachability.watch(proof):
                response = await context.client.submit(call, proof=proof)
        except asyncio.CancelledError:
            # MONEY: a cancelled POST is an outcome too: unknown, unless it is proved that nothing left.
            event = Event.LOSE if proof.sent else Event.RELEASE
            why = {"reason": "the run was stopped during the submit"}
            await finish(context.recorder.record(attempt.request_id, event, why, token=reserved.token))
            raise
        except BaseException:
            # Only the limiter learns of it here, or the call would stay in flight for ever; `spend` records it.
            context.gate.answered(in_flight, LimitFeedback.OTHER)
            raise
        return response, in_flight

    def _learn(self, in_flight: CallInFlight, outcome: SubmitOutcome, response: Response | NoResponse) -> None:
        """What the response says about the rate limit. MONEY: an error of that must not cost the id of a paid job."""
        context = self._context
        try:
            feedback = LIMIT_FEEDBACK.get(outcome.kind, LimitFeedback.OTHER)
            headers = response.headers if isinstance(response, Response) else {}
            stated = allowance_of(headers, now_unix=context.unix_time())
            context.gate.answered(in_flight, feedback, outcome.stated_wait_s, job_cap=outcome.job_cap, stated=stated)
        except BaseException as error:  # noqa: BLE001 - see above
            context.log_event("rate", error=error_words(error))

    def _classify(self, attempt: Attempt, response: Response | NoResponse) -> SubmitOutcome:
        try:
            return self._context.kind.classify_submit(
                response, now_unix=self._context.unix_time(), params=attempt.params
            )
        except BaseException as error:
            if is_cancellation(error):
                raise
            # MONEY: a response that breaks the classification may still be an acceptance. Unknown is never sent again.
            reason = f"the response could not be judged ({error_words(error)})"
            return SubmitOutcome(kind=SubmitOutcomeKind.UNKNOWN, reason=reason)

    async def _evaluate(
        self, reserved: ReservedAttempt, outcome: SubmitOutcome, response: Response | NoResponse
    ) -> bool:
        """Record what the outcome means; True when the request may be tried again."""
        decision = decide(
            outcome,
            has_other_path=self._endpoint.has_alternative(reserved.path),
            any_accepted=self._outcomes.any_accepted,
        )
        # Before the record, which may wait for the ledger: a reason to stop or another path concerns the other workers
        # now.
        self._follow(reserved, decision, outcome)
        return await self._outcomes.act(reserved, decision, outcome, response)

    def _follow(self, reserved: ReservedAttempt, decision: SubmitDecision, outcome: SubmitOutcome) -> None:
        """What the decision means for later submits. MONEY: an error of that must not cost the id of a paid job."""
        attempt, endpoint, stop = reserved.attempt, self._endpoint, self._context.stop
        try:
            _log(self._context, attempt, outcome)
            if decision.stop is not None:
                stop.request(decision.stop.text, exit_code=decision.stop.exit_code, reach=decision.stop.reach)
            self._permits.record(decision.health, attempt.request_id, outcome.reason)
            # Of all outcomes this is the only one that does not show that the gateway can be reached.
            if outcome.kind is SubmitOutcomeKind.NOT_SENT:
                self._context.reachability.failed(outcome.reason, is_permanent=outcome.is_permanent)
            else:
                self._permits.mark_reachable()
            if decision.endpoint_works:
                endpoint.works(reserved.path)
            if decision.endpoint_missing:
                endpoint.move_on(reserved.path)
            if decision.is_model_gone:
                self._give_up_model(attempt.params.model, outcome.reason)
        except BaseException as error:  # noqa: BLE001 - see above
            self._context.log_event("outcome", error=error_words(error))

    def _give_up_model(self, model: str, reason: str) -> None:
        if model not in self._gone_models:
            self._gone_models.add(model)
            self._context.notify(
                f"the gateway does not sell {model} ({reason}): its rows are not bought, and stay planned"
            )


def _log(context: RunContext, attempt: Attempt, outcome: SubmitOutcome) -> None:
    context.log_event(
        "submit",
        request_id=attempt.request_id,
        row_id=attempt.row_id,
        verdict=outcome.kind.value,
        status=outcome.status,
        reason=outcome.reason,
        job_set_id=outcome.ticket.job_set_id if outcome.ticket else None,
        wait_s=outcome.stated_wait_s,
    )
