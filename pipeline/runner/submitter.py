"""Buying: a pool of workers, each taking one request at a time from its intent to a recorded outcome.

The theory of this module, in the order of time. For one attempt:

    permit      the circuit breaker and the rate limiter let one submit go (submit_permits)
    body        the JSON is built; addresses in it expire, so not earlier. A body that can't be built costs nothing
    RESERVE     the intent, its token and its money are durable in the ledger; the budget is judged in the same commit
                (from here to the outcome: paid_submit). Where keys are honoured, the whole call is kept with it
                (kept_calls): only that is ever sent again
    slot        the last wait for the moment of the call; if the limit was met meanwhile, RELEASE
    POST        the first byte leaves
    outcome     the response, or the lack of one, is classified (gateway.classification), decided (submit_decisions)
    ACCEPT | REJECT | RELEASE | LOSE is durable in the ledger (submit_outcomes), under the same token. An ACCEPT is in
                the ledger's queue when the worker takes its next request, whose RESERVE shares the commit, and durable
                before the POST of that request (open_acceptance)

What holds, and why:

1. No byte of a POST leaves before RESERVE is committed. A crash at any moment then leaves a row `submitting`, which
   the next start reads as `unknown`; a POST without its intent could be sent a second time by the next start.
2. Every RESERVE is followed by exactly one outcome under its token, also when the worker is cancelled: `finish` runs
   the record to its end. A cancelled POST is LOSE (perhaps paid), unless the send proof says that no byte left.
3. RELEASE, after which the request may be sent again, needs proof that nothing was created: a status line by which a
   server refuses, or the send proof. Doubt is LOSE. This is decided in one place, `submit_decisions.decide`.
4. Nothing is in doubt longer than needed: a candidate id in an unreadable response is polled, free of charge
   (job_recovery).
5. A reason to stop (`StopSignal`) ends the taking of new requests. It never cancels a POST in flight.
6. An unforeseen error of one request stays its own (firewall): it ends neither its worker nor another POST. Before the
   POST it is RELEASE with the reason, after the first byte LOSE.

What must never happen: a POST before its commit; a second POST of a request whose first one may have been accepted;
an outcome recorded for another submit than the one it is of (the token); a sum reserved above a cap (the ledger judges
it in the transaction of RESERVE). tests/integration/runner/test_broken_twins.py breaks each of these on purpose.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

from pipeline.errors import DopError, ExitCode, UsageError
from pipeline.gateway.responses import SendProof
from pipeline.ledger.budget import CapReached
from pipeline.ledger.transitions import Applied
from pipeline.records import Attempt
from pipeline.runner.context import RunContext
from pipeline.runner.events import RequestSetAside
from pipeline.runner.firewall import error_words, is_cancellation, is_cancelled
from pipeline.runner.job_recovery import JobRecovery
from pipeline.runner.kept_calls import KeptCalls
from pipeline.runner.open_acceptance import OpenAcceptance
from pipeline.runner.paid_submit import PaidSubmit
from pipeline.runner.stop import StopScope
from pipeline.runner.submit_decisions import SubmitEndpoint
from pipeline.runner.submit_outcomes import STEP, OutcomeRecorder, ReservedAttempt, set_aside
from pipeline.runner.submit_permits import SubmitPermits


class Submitter:
    """The worker pool. `requests` yields planned attempts in the order in which they are bought."""

    paid_submit: ClassVar[type[PaidSubmit]] = PaidSubmit
    open_acceptance: ClassVar[type[OpenAcceptance]] = OpenAcceptance

    def __init__(
        self,
        context: RunContext,
        requests: AsyncIterator[Attempt],
        *,
        permits: SubmitPermits,
        endpoint: SubmitEndpoint,
        recovery: JobRecovery,
        workers: int,
    ) -> None:
        self._context = context
        self._requests = requests
        self._permits = permits
        self._endpoint = endpoint
        self._recovery = recovery
        self._outcomes = OutcomeRecorder(context, recovery, any_accepted=endpoint.proven)
        self._paid = self.paid_submit(context, permits, endpoint, self._outcomes)
        self._workers = workers
        # An async generator raises when two tasks advance it at the same time.
        self._next = asyncio.Lock()
        self._in_doubt = 0
        self._one_recorded = asyncio.Event()
        self._kept = KeptCalls(context)

    async def run(self) -> None:
        """Submit until the requests are used up or the run stops; what is in flight is recorded before it returns."""
        async with asyncio.TaskGroup() as pool:
            for _ in range(self._workers):
                pool.create_task(self._work())
        # Not earlier: whether a refused row is to blame or the key shows in what all other rows came to.
        await self._outcomes.end()
        # An id of an unclear answer may still be proved; its job must reach the poller before the poller's input is
        # closed.
        await self._recovery.wait()

    async def _work(self) -> None:
        stop, acceptance = self._context.stop, self.open_acceptance(self._context)
        try:
            # An error in the place of a cancellation was contained as its row's own; the worker must end all the same.
            while not stop.submits and not is_cancelled():
                attempt = await self._take()
                if attempt is None:
                    return
                await self._buy(attempt, acceptance)
        finally:
            await acceptance.is_recorded()

    async def _take(self) -> Attempt | None:
        try:
            async with self._next:
                return await anext(self._requests, None)
        except BaseException as error:
            if is_cancellation(error):
                raise
            # Every worker would meet the same error at the next row: one reason to stop instead of a pool that dies one
            # by one.
            code = error.exit_code if isinstance(error, DopError) else ExitCode.FATAL
            text = f"the planned requests can't be read ({error_words(error)})"
            self._context.stop.request(text, exit_code=code, reach=StopScope.SUBMITS)
            return None

    async def _buy(self, attempt: Attempt, acceptance: OpenAcceptance) -> None:
        """Try to buy one request until it is bought or can't be; whatever goes wrong stays its own."""
        stop = self._context.stop
        try:
            while not stop.submits and await self._submit_one(attempt, acceptance):
                pass
        except BaseException as error:
            if is_cancellation(error):
                raise
            await set_aside(self._context, attempt, error)

    async def _submit_one(self, attempt: Attempt, acceptance: OpenAcceptance) -> bool:
        """One try to buy one request; True when nothing was created and it may be tried again.

        Pays: yes.
        """
        if self._paid.is_model_gone(attempt.params.model):
            self._context.events.emit(RequestSetAside(request_id=attempt.request_id))
            return False
        slot = await self._permits.acquire(attempt.request_id)
        if slot is None:
            return False
        try:
            # After the wait, because addresses in it expire; before the intent: what can't be built is not in flight.
            # Read once: another worker may move the endpoint on while this one waits for the ledger, and a 404 must
            # count against the path that was really called.
            path = self._endpoint.current
            call, price_microusd = self._kept.call(attempt, path), self._price(attempt)
            # MONEY: a fresh token for each try, so that an answer that comes late is never recorded for a later submit
            # of the row. The lease begins here, so that waiting for the commit and for the slot counts against it.
            token, proof = self._context.new_token(), SendProof(may_send=self._lease())
            reserved = await self._paid.reserve(attempt, token, price_microusd, self._kept.detail(call))
        except BaseException:
            self._permits.release(attempt.request_id)
            raise
        if isinstance(reserved, Applied):
            self._context.firewall.passed(STEP)
            with self._doubt():
                return await self._paid.spend(
                    slot, ReservedAttempt(attempt, token, path, reserved.row), call, proof=proof, before=acceptance
                )
        # Not reserved: others settled the row meanwhile, or a cap is reached. Nothing is sent, so nothing is recorded.
        self._permits.release(attempt.request_id)
        return isinstance(reserved, CapReached) and await self._may_have_room(reserved)

    def _price(self, attempt: Attempt) -> int:
        """The model's price in micro-dollars.

        Raises:
            UsageError: it is not configured here.
        """
        price = self._context.prices_microusd.get(attempt.params.model)
        if price is None:
            model = attempt.params.model
            raise UsageError(f"no price of model {model} is configured; set prices.{model}")
        return price

    def _lease(self) -> Callable[[], bool]:
        """Whether a reservation that begins now is young enough to be sent, by each of the two clocks.

        MONEY: a frozen process loses its session with the ledger's server. Others may settle and send its request.
        """
        loop, context = asyncio.get_running_loop(), self._context
        began, began_unix = loop.time(), context.unix_time()
        # The larger of the two: the loop's clock stops while a machine is suspended, and the system's clock can
        # be set back. Either alone could make an old reservation look young.
        return lambda: max(loop.time() - began, context.unix_time() - began_unix) <= context.lease_s

    async def _may_have_room(self, reached: CapReached) -> bool:
        """The budget is used up, submits in flight included; True when one of those ended and may have made room."""
        # MONEY: each open outcome is counted at its full price. A refusal among them makes room under the cap, so
        # ending now would leave money unused that only the next run finds. No await before the wait: the last outcome
        # can't be missed.
        if self._in_doubt:
            await self._one_recorded.wait()
            return True
        self._context.stop.request(f"budget reached: {reached}", exit_code=ExitCode.BUDGET, reach=StopScope.SUBMITS)
        return False

    @contextmanager
    def _doubt(self) -> Iterator[None]:
        """While the outcome of a reserved attempt is open: its money may come back."""
        self._in_doubt += 1
        try:
            yield
        finally:
            self._in_doubt -= 1
            # All who wait for room ask the ledger again; who comes later waits for the next outcome, hence a new event.
            self._one_recorded.set()
            self._one_recorded = asyncio.Event()
