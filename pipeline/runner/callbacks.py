"""What a delivered callback does to a run: one look at a job of ours, or proof that an unclear submit was taken.

It never believes what a delivery says: the gateway's own answer to a free poll decides. A delivery that comes before
the submit's answer is kept until that is booked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pipeline.errors import DopError, InvariantError
from pipeline.gateway.classification import PollOutcomeKind, classify_poll
from pipeline.gateway.responses import NoResponse, Response
from pipeline.gateway.webhook_tokens import CallbackDelivery, WebhookTokens, callback_url
from pipeline.gateway.wire import echo_differs, parse_submit, read_json
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied
from pipeline.records import Attempt, State
from pipeline.runner.context import PendingJob, RunContext
from pipeline.runner.poller import Poller
from pipeline.runner.stop import StopScope

RECOVERY_TRIES = 3
RECOVERY_PAUSE_S = 2.0
POLL_INTERVAL_S = 0.25


class CallbackHandler:
    """The run's side of its callbacks.

    Args:
        public_url: what the gateway can reach; the token is put behind it.
        state_of: the ledger's state of a request.
        linger_s: how long the run waits for a call about submits whose outcome is unknown, when all else is done.
    """

    def __init__(
        self, keys: WebhookTokens, *, public_url: str, state_of: Callable[[str], State | None], linger_s: float
    ) -> None:
        self._keys = keys
        self._public_url = public_url
        self._state_of = state_of
        self._linger_s = linger_s
        self._early: dict[str, CallbackDelivery] = {}
        self._lost: dict[str, tuple[Attempt, float]] = {}
        self._salvages: set[asyncio.Task[None]] = set()
        self.deliveries = 0

    def serve(self, doors: RunContext, poller: Poller) -> None:
        """Whom deliveries wake from now on."""
        self._doors, self._poller = doors, poller

    # --- what a submit is given ---

    def url(self, attempt: Attempt) -> str:
        """The attempt's own callback address."""
        return callback_url(self._public_url, self._keys.token(attempt.request_id, attempt.attempt))

    def secret(self, attempt: Attempt) -> str:
        """The attempt's own secret."""
        return self._keys.secret(attempt.request_id, attempt.attempt)

    def without_secrets(self, attempt: Attempt, text: str) -> str:
        """`text` without the attempt's token and secret: a gateway may repeat them in its answer."""
        token = self._keys.token(attempt.request_id, attempt.attempt)
        secret = self.secret(attempt)
        return text.replace(token, "***").replace(secret, "***").replace(secret.replace("/", "\\/"), "***")

    # --- what comes back ---

    def delivered(self, delivery: CallbackDelivery) -> bool:
        """Acts on one delivery; False when it is about a request that this run does not carry."""
        if delivery.is_self_test:
            return True
        self.deliveries += 1
        request_id = delivery.request_id
        if self._poller.poll_soon(request_id):
            return True
        if request_id in self._lost:
            self._recover(self._lost[request_id][0], delivery)
            return True
        # The ledger may know the outcome a moment before `accepted` or `lost` tells it here: such a call is early, too.
        if self._state_of(request_id) in (State.SUBMITTING, State.ACCEPTED, State.UNKNOWN):
            self._early[request_id] = delivery
            return True
        return False

    def accepted(self, request_id: str) -> None:
        """A submit was booked as accepted; the call about it may have come before."""
        if self._early.pop(request_id, None) is not None:
            self._poller.poll_soon(request_id)

    def on_unknown(self, attempt: Attempt) -> None:
        """A submit was booked as unknown: from now on a call about it is proof that it was taken."""
        self._lost[attempt.request_id] = (attempt, asyncio.get_running_loop().time())
        early = self._early.pop(attempt.request_id, None)
        if early is not None:
            self._recover(attempt, early)

    def track_unknown(self, attempt: Attempt) -> None:
        """An earlier run left this submit unknown: a call about it proves the same, but is not waited for."""
        self._lost[attempt.request_id] = (attempt, -self._linger_s)

    async def recovered(self) -> None:
        """Waits for the free polls that are under way about unclear submits."""
        if self._salvages:
            await asyncio.gather(*self._salvages, return_exceptions=True)

    async def wait_for_late_callbacks(self) -> None:
        """Waits for calls about unclear submits, as long as each is worth it, before the run says it is done."""
        loop, told = asyncio.get_running_loop(), False
        while not self._doors.stop.all:
            self._lost = {key: lost for key, lost in self._lost.items() if self._state_of(key) is State.UNKNOWN}
            waiting = [key for key, (_, at) in self._lost.items() if loop.time() - at < self._linger_s]
            if not waiting and not self._salvages:
                return
            if not told:
                told = True
                self._doors.notify(f"waiting up to {self._linger_s:g} s for calls about {len(waiting)} unclear submits")
            await asyncio.sleep(POLL_INTERVAL_S)

    # --- unclear submits ---

    def _recover(self, attempt: Attempt, delivery: CallbackDelivery) -> None:
        task = asyncio.create_task(self._guarded(attempt, delivery))
        self._salvages.add(task)
        task.add_done_callback(self._salvages.discard)

    async def _guarded(self, attempt: Attempt, delivery: CallbackDelivery) -> None:
        try:
            await self._poll_candidate(attempt, delivery)
        except InvariantError:
            return  # settled meanwhile: the answer's own id was found to be good, or a person was quicker
        except DopError as error:
            self._doors.stop.request(str(error), exit_code=error.exit_code, reach=StopScope.SUBMITS)

    async def _poll_candidate(self, attempt: Attempt, delivery: CallbackDelivery) -> None:
        """One free poll of each id that the call names; a job that the gateway knows is adopted."""
        doors = self._doors
        for job_set_id in delivery.job_set_ids:
            for number in range(RECOVERY_TRIES):
                if number:
                    await asyncio.sleep(RECOVERY_PAUSE_S)
                answer = await doors.client.poll(job_set_id)
                verdict = classify_poll(answer, now_unix=doors.unix_time(), job_set_id=job_set_id)
                if verdict.kind is PollOutcomeKind.REPORT and not _is_of_another(answer, attempt):
                    if await self._adopt(attempt, job_set_id):
                        return
                    break
                if verdict.kind in (PollOutcomeKind.REPORT, PollOutcomeKind.NOT_FOUND):
                    break

    async def _adopt(self, attempt: Attempt, job_set_id: str) -> bool:
        """Books the proof; False when the job belongs to another request, or somebody settled this one meanwhile."""
        doors = self._doors
        booked = await doors.recorder.record(
            attempt.request_id,
            Event.ADOPT,
            {"job_set_id": job_set_id, "accepted_at": doors.unix_time(), "reason": None},
            detail="a callback to the attempt's own address named the job, and the gateway knows it",
        )
        if not isinstance(booked, Applied):
            return False
        self._lost.pop(attempt.request_id, None)
        doors.notify(f"{attempt.row_id}: a callback proves that it was accepted, as job {job_set_id}")
        doors.on_accepted(
            PendingJob(
                request_id=attempt.request_id,
                row_id=attempt.row_id,
                take=attempt.take,
                model=attempt.params.model,
                job_set_id=job_set_id,
                polling_url=None,
                accepted_at=asyncio.get_running_loop().time(),
            )
        )
        self._poller.poll_soon(attempt.request_id)
        return True


def _is_of_another(answer: Response | NoResponse, attempt: Attempt) -> bool:
    """Whether what the gateway repeats of the job's request speaks against its being this one."""
    ticket = parse_submit(read_json(answer.body)) if isinstance(answer, Response) else None
    return ticket is not None and echo_differs(ticket, attempt.params) is not None
