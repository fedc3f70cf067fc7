"""Buying: a pool of workers, each carrying one request at a time from its intent to a booked outcome.

The order is the product: slot, then intent and money durable in the ledger, then the POST, then its outcome durable. A
request is sent again only where the verdict says that nothing was created. Source: API document, and wire for the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.errors import DopError, LedgerError
from pipeline.gateway.classification import SubmitOutcome, SubmitOutcomeKind, classify_submit
from pipeline.gateway.client import SUBMIT_PATH
from pipeline.gateway.ratelimit.limiter import CallInFlight, CallKind, LimitFeedback, Slot
from pipeline.gateway.redaction import redact
from pipeline.gateway.responses import NoResponse, Response, SendProof
from pipeline.ledger.budget import CapReached
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied, Conflict, JobTaken, idempotency_key
from pipeline.ledger.transitions import ChangeResult as Booked
from pipeline.records import Attempt
from pipeline.runner.circuit_breaker import BreakerState, CircuitBreaker
from pipeline.runner.context import PendingJob, RunContext
from pipeline.runner.job_recovery import JobRecovery
from pipeline.runner.stop import StopScope

T = TypeVar("T")

OTHER_SUBMIT_PATH = "/ai-model-api/v1/image-to-video"
"""Source: official (the unified queue); a 404 at one path means that nothing was created there."""

DETAIL_CHARS = 20_000
"""of a raw answer that the ledger keeps; the longest known one is under 20 kB"""

BODY_BYTES = 2 * DETAIL_CHARS
"""of a raw answer that are looked at for that"""

POLL_INTERVAL_S = 1.0
"""Longest sleep before the breaker and the reasons to stop are looked at again."""

FIRST_MAX_WAIT_S = 60.0
"""A gateway that never answered in this run is given up after this long: the address or the network is wrong."""

MAX_WAIT_S = 3 * 3600.0
"""One that did answer is waited for through an outage; nothing is lost or paid meanwhile."""

PROBE_PAUSE_S = 10.0
"""Between two free polls that ask whether the gateway is back."""

MAX_FAILED_PROBES = 3
"""Rows lost to an open breaker, one each pause, before nothing more is bought in this run."""

RELEASE_TIMEOUT_S = 2.0
"""How long a run that is stopped waits for intents to be taken back; a ledger that is away does so when it is back."""

_OUTCOMES = {
    SubmitOutcomeKind.ACCEPTED: LimitFeedback.ACCEPTED,
    SubmitOutcomeKind.THROTTLED: LimitFeedback.THROTTLED,
    SubmitOutcomeKind.CONCURRENCY: LimitFeedback.CONCURRENCY,
    SubmitOutcomeKind.UNKNOWN: LimitFeedback.UNKNOWN,
}


class SubmitEndpoint:
    """Which submit path the gateway lives at: the configured one, the other one once when that gives 404."""

    def __init__(self, configured: str, *, proven: bool = False) -> None:
        self.current = configured
        self.proven = proven
        self._untried = [path for path in (SUBMIT_PATH, OTHER_SUBMIT_PATH) if path != configured]

    def works(self, path: str) -> None:
        """A submit was taken (or judged for its content) at `path`."""
        self.current, self.proven = path, True

    def missing(self, path: str) -> bool:
        """Nothing lives at `path`; whether there is another one to try."""
        if path != self.current:
            return True  # somebody moved on already
        if self.proven or not self._untried:
            return False
        self.current = self._untried.pop(0)
        return True


@dataclass(frozen=True, slots=True)
class _ReservedAttempt:
    """One reserved attempt on its way: its token, the path it was sent to, and its row when it was reserved."""

    attempt: Attempt
    token: str
    path: str
    row: Mapping[str, object]


class Submitter:
    """The worker pool. `requests` yields planned attempts in order; `can_poll` says whether any job is looked at."""

    def __init__(
        self,
        doors: RunContext,
        requests: AsyncIterator[Attempt],
        *,
        paths: SubmitEndpoint,
        breaker: CircuitBreaker,
        workers: int,
        can_poll: Callable[[], bool],
        recovery: JobRecovery,
        known_job: Callable[[], tuple[str, str | None] | None] = lambda: None,
    ) -> None:
        self._doors = doors
        self._requests = requests
        self._paths = paths
        self._breaker = breaker
        self._workers = workers
        self._next = asyncio.Lock()
        self._recovery = recovery
        self._can_poll = can_poll
        self._known_job = known_job
        self._probe_at = 0.0
        self._unsettled = 0
        self._one_settled = asyncio.Event()
        self._ever_answered = False
        self._answered_at = asyncio.get_running_loop().time()
        self.any_accepted = paths.proven

    async def run(self) -> None:
        """Submits until the requests are used up or the run stops; what is under way is booked before it returns."""
        async with asyncio.TaskGroup() as pool:
            for _ in range(self._workers):
                pool.create_task(self._work())

    async def _work(self) -> None:
        doors = self._doors
        try:
            while not doors.stop.submits:
                attempt = await self._take()
                if attempt is None:
                    return
                while not doors.stop.submits and await self._submit_one(attempt):
                    pass
        except DopError as error:
            # The other workers' POSTs end by themselves and are booked as far as the ledger can.
            doors.stop.request(str(error), exit_code=error.exit_code, reach=StopScope.SUBMITS)

    async def _take(self) -> Attempt | None:
        async with self._next:
            return await anext(self._requests, None)

    async def _submit_one(self, attempt: Attempt) -> bool:
        """One try to buy one request; True when nothing was created and it may be tried again.

        Pays: yes.
        """
        doors = self._doors
        slot = await self._acquire_slot(attempt.request_id)
        if slot is None:
            return False
        # After the wait, because addresses in it expire; before the intent: what can't be built is not under way.
        body = self._body(attempt)
        token = doors.new_token()
        lease = self._lease()
        reserved = await self._reserve(attempt, token)
        if not isinstance(reserved, Applied):
            self._release_slot(attempt.request_id)
            if isinstance(reserved, CapReached):
                if self._unsettled:  # it may turn out free of charge, and then there is room for this one
                    await self._one_settled.wait()
                    return True
                doors.stop.request(f"budget reached: {reserved}", exit_code=8, reach=StopScope.SUBMITS)
            return False
        with self._in_progress():
            if await self._slot_expired(slot, attempt, token):
                return True
            return await self._sent(attempt, body, token, reserved, lease)

    def _lease(self) -> Callable[[], bool]:
        """Whether a reservation that begins now is young enough to be sent, by each of the two clocks.

        MONEY: a frozen process loses its session with the ledger's server. Others may settle and send its request.
        """
        loop, unix_time = asyncio.get_running_loop(), self._doors.unix_time
        began, began_unix = loop.time(), unix_time()
        return lambda: max(loop.time() - began, unix_time() - began_unix) <= self._doors.lease_s

    async def _reserve(self, attempt: Attempt, token: str) -> Booked:
        """MONEY: the intent and its money are durable when this returns, before the first byte leaves."""
        price = {"price_microusd": self._doors.prices_microusd[attempt.params.model]}
        try:
            # Not as a task of its own: who hears of a full cap must hear it before the refusal that makes room is over.
            return await self._doors.recorder.record(attempt.request_id, Event.RESERVE, price, token=token)
        except asyncio.CancelledError:
            await self._release_reservation(attempt, token)  # written all the same, unless it was refused
            raise

    async def _release_reservation(self, attempt: Attempt, token: str) -> None:
        """MONEY: the run is stopped and nothing left yet, which is certain: no person has to settle it."""
        why = {"reason": "the run was stopped before the submit"}

        async def release() -> None:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                await self._doors.recorder.record(attempt.request_id, Event.RELEASE, why, token=token)

        with suppress(DopError, TimeoutError):
            await _finish(release())

    async def _slot_expired(self, slot: Slot, attempt: Attempt, token: str) -> bool:
        """Waits until the call may go; whether it must not, as the limit was met: its intent is taken back."""
        doors = self._doors
        try:
            if not await doors.gate.slot_is_void(slot):
                return False
        except asyncio.CancelledError:
            await self._release_reservation(attempt, token)
            raise
        self._release_slot(attempt.request_id)
        await doors.recorder.record(attempt.request_id, Event.RELEASE, token=token)
        return True

    @contextmanager
    def _in_progress(self) -> Iterator[None]:
        """While the outcome of a reserved attempt is open: its money may come back."""
        self._unsettled += 1
        try:
            yield
        finally:
            self._unsettled -= 1
            self._one_settled.set()
            self._one_settled = asyncio.Event()

    async def _sent(
        self, attempt: Attempt, body: bytes, token: str, reserved: Applied, lease: Callable[[], bool]
    ) -> bool:
        doors, path = self._doors, self._paths.current
        answer, ticket = await self._post(attempt, body, token, path, lease)
        verdict = classify_submit(answer, now_unix=doors.unix_time(), params=attempt.params)
        feedback = _OUTCOMES.get(verdict.kind, LimitFeedback.OTHER)
        doors.gate.answered(ticket, feedback, verdict.told_wait_s, verdict.job_cap)
        doors.fail_point("after-post")
        # MONEY: from here on the outcome is booked even if this task is cancelled.
        return await _finish(self._evaluate(_ReservedAttempt(attempt, token, path, reserved.row), verdict, answer))

    def _body(self, attempt: Attempt) -> bytes:
        try:
            return self._doors.body(attempt)
        except DopError:
            self._release_slot(attempt.request_id)
            raise

    def _release_slot(self, who: str) -> None:
        self._breaker.withdraw(who)
        self._doors.gate.release(CallKind.SUBMIT)

    async def _acquire_slot(self, who: str) -> Slot | None:
        """Waits for the breaker and for a slot, and takes both; None when the run stopped meanwhile."""
        loop = asyncio.get_running_loop()
        while not self._doors.stop.submits:
            if (wait_s := self._breaker.wait_s(loop.time())) > 0.0:
                await self._wait_for_breaker(wait_s)
                continue
            slot = await self._doors.gate.slot(CallKind.SUBMIT)
            if slot is None:
                return None
            # MONEY: asked last, so that whoever waited for a slot does not pass a breaker that opened meanwhile.
            if self._breaker.may_submit(loop.time(), who):
                return slot
            self._doors.gate.release(CallKind.SUBMIT)
            await self._wait_for_breaker(POLL_INTERVAL_S)
        return None

    async def _wait_for_breaker(self, wait_s: float) -> None:
        now = asyncio.get_running_loop().time()
        if self._breaker.state(now) is BreakerState.POLL_PROBE and not self._can_poll():
            await self._probe_by_poll()
        if now - self._answered_at > self._patience_s():
            self._doors.stop.request(
                "the gateway can't be reached; run again later", exit_code=5, reach=StopScope.SUBMITS
            )
            return
        await asyncio.sleep(min(wait_s, POLL_INTERVAL_S))

    async def _probe_by_poll(self) -> None:
        """Nothing is in flight whose poll could show that the gateway is back: one free poll of any job it ever had.

        MONEY: with no job at all the pause alone decides, so the lost probes are counted and end the buying.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._probe_at:
            return
        self._probe_at = loop.time() + PROBE_PAUSE_S
        known = self._known_job()
        if known is None and self._breaker.probes_lost >= MAX_FAILED_PROBES:
            self._doors.stop.request(
                "submits keep ending without a readable answer; nothing more is bought now",
                exit_code=5,
                reach=StopScope.SUBMITS,
            )
            return
        if known is None:
            self._breaker.nothing_to_poll(loop.time())
            return
        answer = await self._doors.client.poll(*known)
        if isinstance(answer, Response) and answer.status < 500:
            self._breaker.poll_answered(loop.time())

    def _patience_s(self) -> float:
        return MAX_WAIT_S if self._ever_answered else FIRST_MAX_WAIT_S

    def _mark_reachable(self) -> None:
        self._ever_answered = True
        self._answered_at = asyncio.get_running_loop().time()

    async def _post(
        self, attempt: Attempt, body: bytes, token: str, path: str, lease: Callable[[], bool]
    ) -> tuple[Response | NoResponse, CallInFlight]:
        doors = self._doors
        proof = SendProof(may_send=lease)
        ticket = doors.gate.sent(CallKind.SUBMIT)
        doors.fail_point("before-post")
        try:
            answer = await doors.client.submit(
                body,
                idempotency_key=idempotency_key(attempt.request_id, attempt.attempt),
                path=path,
                webhook_url=doors.callback_url(attempt),
                proof=proof,
            )
        except asyncio.CancelledError:
            # MONEY: a cancelled POST is an outcome too: unknown, unless it is proved that nothing left.
            event = Event.LOSE if proof.sent else Event.RELEASE
            why = {"reason": "the run was stopped during the submit"}
            await _finish(doors.recorder.record(attempt.request_id, event, why, token=token))
            raise
        return answer, ticket

    async def _evaluate(self, this: _ReservedAttempt, verdict: SubmitOutcome, answer: Response | NoResponse) -> bool:
        """Books what the verdict says; True when the request may be tried again."""
        attempt, token, path = this.attempt, this.token, this.path
        now = asyncio.get_running_loop().time()
        self._log(attempt, verdict)
        if verdict.kind is not SubmitOutcomeKind.NOT_SENT:
            self._mark_reachable()
        if verdict.stop_submitting:
            self._stop(verdict)
        if verdict.kind is SubmitOutcomeKind.ACCEPTED:
            self._paths.works(path)
            self._breaker.record("answered", now, attempt.request_id)
            await self._accept(attempt, token, verdict, answer)
            return False
        if verdict.kind is SubmitOutcomeKind.UNKNOWN:
            self._breaker.record("unknown", now, attempt.request_id)
            await self._mark_unknown(attempt, token, verdict, answer)
            return False
        if verdict.kind is SubmitOutcomeKind.REJECTED:
            self._paths.works(path)
            self._breaker.record("answered", now, attempt.request_id)
            await self._reject(attempt, token, verdict)
            return False
        return await self._release(this, verdict)

    async def _accept(
        self, attempt: Attempt, token: str, verdict: SubmitOutcome, answer: Response | NoResponse
    ) -> None:
        job = verdict.ticket
        assert job is not None
        loop_now = asyncio.get_running_loop().time()
        values = {"job_set_id": job.job_set_id, "polling_url": job.polling_url, "accepted_at": self._doors.unix_time()}
        detail = self._doors.extra_secrets(attempt, _raw(answer))
        try:
            booked = await self._doors.recorder.record(
                attempt.request_id, Event.ACCEPT, values, token=token, detail=detail
            )
        except LedgerError:
            # MONEY: if the second book failed as well, these words are all that is left of what was paid.
            self._doors.notify(f"{attempt.row_id}: paid as job {job.job_set_id}, and the ledger could not be written")
            raise
        if isinstance(booked, JobTaken):
            # API: an answer can be another request's (a desynchronised connection): its id is not ours.
            reason = f"the answer names job {job.job_set_id}, which belongs to request {booked.owner_request_id}"
            await self._record_unknown(attempt, token, reason, answer)
            return
        if isinstance(booked, Conflict):
            await self._accept_late(attempt, job.job_set_id, detail)
            return
        self.any_accepted = True
        self._doors.on_accepted(
            PendingJob(
                request_id=attempt.request_id,
                row_id=attempt.row_id,
                take=attempt.take,
                model=attempt.params.model,
                job_set_id=job.job_set_id,
                polling_url=job.polling_url,
                accepted_at=loop_now,
            )
        )

    async def _accept_late(self, attempt: Attempt, job_set_id: str, detail: str) -> None:
        """MONEY: others gave it up and a person settled the request. That stands; what was paid is written down."""
        text = f"paid as job {job_set_id}, but the request was settled meanwhile"
        await self._doors.recorder.record(attempt.request_id, Event.NOTE, detail=f"{text}: {detail}")
        self._doors.notify(f"{attempt.row_id}: {text}; `dop show` tells")

    async def _mark_unknown(
        self, attempt: Attempt, token: str, verdict: SubmitOutcome, answer: Response | NoResponse
    ) -> None:
        await self._record_unknown(attempt, token, verdict.reason, answer)
        self._recovery.propose(attempt.request_id, verdict.salvaged, "the id stood in the unreadable answer")

    async def _record_unknown(self, attempt: Attempt, token: str, reason: str, answer: Response | NoResponse) -> None:
        values = {"reason": reason or "no readable answer"}
        detail = self._doors.extra_secrets(attempt, _raw(answer))
        booked = await self._doors.recorder.record(attempt.request_id, Event.LOSE, values, token=token, detail=detail)
        if not isinstance(booked, Applied):
            return  # settled by others meanwhile
        self._doors.on_unknown(attempt)
        self._doors.notify(f"{attempt.row_id}: outcome unknown, perhaps paid ({reason}); `dop resolve` settles it")

    async def _reject(self, attempt: Attempt, token: str, verdict: SubmitOutcome) -> None:
        await self._doors.recorder.record(
            attempt.request_id,
            Event.REJECT,
            {"reason": verdict.reason, "finished_at": self._doors.unix_time()},
            token=token,
        )
        self._doors.notify(f"{attempt.row_id}: rejected ({verdict.reason}); nothing was charged")

    async def _release(self, this: _ReservedAttempt, verdict: SubmitOutcome) -> bool:
        """Nothing was created: the request is planned again (or, at a wrong path, refused)."""
        attempt, token, path = this.attempt, this.token, this.path
        now = asyncio.get_running_loop().time()
        if verdict.kind is SubmitOutcomeKind.NOT_SENT:
            self._breaker.record("unreachable", now, attempt.request_id)
        else:
            self._breaker.record("answered", now, attempt.request_id)
        if verdict.kind is SubmitOutcomeKind.WRONG_PATH and not self._paths.missing(path):
            if self.any_accepted:
                await self._reject(attempt, token, verdict)
                return False
            self._doors.stop.request(
                f"no submit path of the gateway answers ({verdict.reason}); "
                "check gateway.base_url and gateway.submit_path",
                exit_code=7,
                reach=StopScope.SUBMITS,
            )
        slowed = verdict.kind in (SubmitOutcomeKind.THROTTLED, SubmitOutcomeKind.CONCURRENCY)
        values: dict[str, object] = {"reason": verdict.reason}
        if slowed:
            values["throttled"] = int(str(this.row["throttled"])) + 1
        booked = await self._doors.recorder.record(attempt.request_id, Event.RELEASE, values, token=token)
        return isinstance(booked, Applied)

    def _stop(self, verdict: SubmitOutcome) -> None:
        quota = verdict.kind is SubmitOutcomeKind.THROTTLED
        self._doors.stop.request(
            f"the gateway refuses further submits: {verdict.reason}",
            exit_code=5 if quota else 7,
            reach=StopScope.SUBMITS,
        )

    def _log(self, attempt: Attempt, verdict: SubmitOutcome) -> None:
        self._doors.log.info(
            "submit",
            extra={
                "fields": {
                    "request_id": attempt.request_id,
                    "row_id": attempt.row_id,
                    "verdict": verdict.kind.value,
                    "status": verdict.status,
                    "reason": verdict.reason,
                    "job_set_id": verdict.ticket.job_set_id if verdict.ticket else None,
                    "wait_s": verdict.told_wait_s,
                }
            },
        )


async def _finish(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` to its end even when the caller is cancelled meanwhile; then lets the cancellation through."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error  # also a third signal: what is under way is a line in the ledger, not a wait
        except DopError:
            break
    if cancelled is not None:
        with suppress(DopError):
            task.result()
        raise cancelled
    return task.result()


def _raw(answer: Response | NoResponse) -> str:
    if isinstance(answer, NoResponse):
        return answer.what
    return redact(f"{answer.status} {answer.body[:BODY_BYTES].decode('utf-8', 'replace')}")[:DETAIL_CHARS]
