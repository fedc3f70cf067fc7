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

from pipeline.errors import DopError, InvariantError, LedgerError
from pipeline.gateway.classification import PollKind, SubmitKind, SubmitVerdict, judge_poll, judge_submit
from pipeline.gateway.client import SUBMIT_PATH
from pipeline.gateway.ratelimit.limiter import Kind, Outcome, Slot, Ticket
from pipeline.gateway.redaction import unsigned
from pipeline.gateway.responses import Answer, NoAnswer, SendProof
from pipeline.ledger.budget import CapReached
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied, Conflict, JobTaken, idempotency_key
from pipeline.ledger.transitions import Outcome as Booked
from pipeline.records import Attempt
from pipeline.runner.circuit_breaker import Breaker, BreakerState
from pipeline.runner.context import Doors, InFlight
from pipeline.runner.stop import Reach

T = TypeVar("T")

OTHER_SUBMIT_PATH = "/ai-model-api/v1/image-to-video"
"""Source: official (the unified queue); a 404 at one path means that nothing was created there."""

DETAIL_CHARS = 20_000
"""of a raw answer that the ledger keeps; the longest known one is under 20 kB"""

BODY_BYTES = 2 * DETAIL_CHARS
"""of a raw answer that are looked at for that"""

LOOK_AGAIN_S = 1.0
"""Longest sleep before the breaker and the reasons to stop are looked at again."""

FIRST_PATIENCE_S = 60.0
"""A gateway that never answered in this run is given up after this long: the address or the network is wrong."""

PATIENCE_S = 3 * 3600.0
"""One that did answer is waited for through an outage; nothing is lost or paid meanwhile."""

PROBE_PAUSE_S = 10.0
"""Between two free polls that ask whether the gateway is back."""

PROBES_LOST = 3
"""Rows lost to an open breaker, one each pause, before nothing more is bought in this run."""

TAKE_BACK_S = 2.0
"""How long a run that is stopped waits for intents to be taken back; a ledger that is away does so when it is back."""

SALVAGE_TRIES = 3
SALVAGE_PAUSE_S = 2.0

_OUTCOMES = {
    SubmitKind.ACCEPTED: Outcome.ACCEPTED,
    SubmitKind.THROTTLED: Outcome.THROTTLED,
    SubmitKind.CONCURRENCY: Outcome.CONCURRENCY,
    SubmitKind.UNKNOWN: Outcome.UNKNOWN,
}


class Paths:
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
class _Try:
    """One reserved attempt on its way: its token, the path it was sent to, and its row when it was reserved."""

    attempt: Attempt
    token: str
    path: str
    row: Mapping[str, object]


class Submitter:
    """The worker pool. `requests` yields planned attempts in order; `can_poll` says whether any job is looked at."""

    def __init__(
        self,
        doors: Doors,
        requests: AsyncIterator[Attempt],
        *,
        paths: Paths,
        breaker: Breaker,
        workers: int,
        can_poll: Callable[[], bool],
        known_job: Callable[[], tuple[str, str | None] | None] = lambda: None,
    ) -> None:
        self._doors = doors
        self._requests = requests
        self._paths = paths
        self._breaker = breaker
        self._workers = workers
        self._next = asyncio.Lock()
        self._salvages: set[asyncio.Task[None]] = set()
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
        if self._salvages:
            await asyncio.gather(*self._salvages)

    async def _work(self) -> None:
        doors = self._doors
        try:
            while not doors.halt.submits:
                attempt = await self._take()
                if attempt is None:
                    return
                while not doors.halt.submits and await self._submit_one(attempt):
                    pass
        except DopError as error:
            # The other workers' POSTs end by themselves and are booked as far as the ledger can.
            doors.halt.give(str(error), exit_code=error.exit_code, reach=Reach.SUBMITS)
            doors.gate.wake()

    async def _take(self) -> Attempt | None:
        async with self._next:
            return await anext(self._requests, None)

    async def _submit_one(self, attempt: Attempt) -> bool:
        """One try to buy one request; True when nothing was created and it may be tried again.

        Pays: yes.
        """
        doors = self._doors
        slot = await self._turn(attempt.request_id)
        if slot is None:
            return False
        # After the wait, because addresses in it expire; before the intent: what can't be built is not under way.
        body = self._body(attempt)
        token = doors.new_token()
        reserved = await self._reserve(attempt, token)
        if not isinstance(reserved, Applied):
            self._not_used(attempt.request_id)
            if isinstance(reserved, CapReached):
                if self._unsettled:  # it may turn out free of charge, and then there is room for this one
                    await self._one_settled.wait()
                    return True
                doors.halt.give(f"budget reached: {reserved}", exit_code=8, reach=Reach.SUBMITS)
                doors.gate.wake()
            return False
        with self._under_way():
            if await self._is_void(slot, attempt, token):
                return True
            return await self._sent(attempt, body, token, reserved)

    async def _reserve(self, attempt: Attempt, token: str) -> Booked:
        """MONEY: the intent and its money are durable when this returns, before the first byte leaves."""
        price = {"price_microusd": self._doors.prices_microusd[attempt.params.model]}
        try:
            # Not as a task of its own: who hears of a full cap must hear it before the refusal that makes room is over.
            return await self._doors.scribe.book(attempt.request_id, Event.RESERVE, price, token=token)
        except asyncio.CancelledError:
            await self._take_back(attempt, token)  # written all the same, unless it was refused
            raise

    async def _take_back(self, attempt: Attempt, token: str) -> None:
        """MONEY: the run is stopped and nothing left yet, which is certain: no person has to settle it."""
        why = {"reason": "the run was stopped before the submit"}

        async def release() -> None:
            async with asyncio.timeout(TAKE_BACK_S):
                await self._doors.scribe.book(attempt.request_id, Event.RELEASE, why, token=token)

        with suppress(DopError, TimeoutError):
            await _finish(release())

    async def _is_void(self, slot: Slot, attempt: Attempt, token: str) -> bool:
        """Waits until the call may go; whether it must not, as the limit was met: its intent is taken back."""
        doors = self._doors
        try:
            if not await doors.gate.must_hold(slot):
                return False
        except asyncio.CancelledError:
            await self._take_back(attempt, token)
            raise
        self._not_used(attempt.request_id)
        await doors.scribe.book(attempt.request_id, Event.RELEASE, token=token)
        return True

    @contextmanager
    def _under_way(self) -> Iterator[None]:
        """While the outcome of a reserved attempt is open: its money may come back."""
        self._unsettled += 1
        try:
            yield
        finally:
            self._unsettled -= 1
            self._one_settled.set()
            self._one_settled = asyncio.Event()

    async def _sent(self, attempt: Attempt, body: bytes, token: str, reserved: Applied) -> bool:
        doors, path = self._doors, self._paths.current
        answer, ticket = await self._post(attempt, body, token, path)
        verdict = judge_submit(answer, now_wall=doors.wall(), params=attempt.params)
        doors.gate.answered(ticket, _OUTCOMES.get(verdict.kind, Outcome.OTHER), verdict.told_wait_s)
        doors.reach("after-post")
        # MONEY: from here on the outcome is booked even if this task is cancelled.
        return await _finish(self._settle(_Try(attempt, token, path, reserved.row), verdict, answer))

    def _body(self, attempt: Attempt) -> bytes:
        try:
            return self._doors.body(attempt)
        except DopError:
            self._not_used(attempt.request_id)
            raise

    def _not_used(self, who: str) -> None:
        self._breaker.withdraw(who)
        self._doors.gate.give_back(Kind.SUBMIT)

    async def _turn(self, who: str) -> Slot | None:
        """Waits for the breaker and for a slot, and takes both; None when the run stopped meanwhile."""
        loop = asyncio.get_running_loop()
        while not self._doors.halt.submits:
            if (wait_s := self._breaker.wait_s(loop.time())) > 0.0:
                await self._sit_out(wait_s)
                continue
            slot = await self._doors.gate.slot(Kind.SUBMIT)
            if slot is None:
                return None
            # MONEY: asked last, so that whoever waited for a slot does not pass a breaker that opened meanwhile.
            if self._breaker.may_submit(loop.time(), who):
                return slot
            self._doors.gate.give_back(Kind.SUBMIT)
            await self._sit_out(LOOK_AGAIN_S)
        return None

    async def _sit_out(self, wait_s: float) -> None:
        now = asyncio.get_running_loop().time()
        if self._breaker.state(now) is BreakerState.POLL_PROBE and not self._can_poll():
            await self._probe_by_poll()
        if now - self._answered_at > self._patience_s():
            self._doors.halt.give("the gateway can't be reached; run again later", exit_code=5, reach=Reach.SUBMITS)
            self._doors.gate.wake()
            return
        await asyncio.sleep(min(wait_s, LOOK_AGAIN_S))

    async def _probe_by_poll(self) -> None:
        """Nothing is in flight whose poll could show that the gateway is back: one free poll of any job it ever had.

        MONEY: with no job at all the pause alone decides, so the lost probes are counted and end the buying.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._probe_at:
            return
        self._probe_at = loop.time() + PROBE_PAUSE_S
        known = self._known_job()
        if known is None and self._breaker.probes_lost >= PROBES_LOST:
            self._doors.halt.give(
                "submits keep ending without a readable answer; nothing more is bought now",
                exit_code=5,
                reach=Reach.SUBMITS,
            )
            self._doors.gate.wake()
            return
        if known is None:
            self._breaker.nothing_to_poll(loop.time())
            return
        answer = await self._doors.client.poll(*known)
        if isinstance(answer, Answer) and answer.status < 500:
            self._breaker.poll_answered(loop.time())

    def _patience_s(self) -> float:
        return PATIENCE_S if self._ever_answered else FIRST_PATIENCE_S

    def _heard(self) -> None:
        self._ever_answered = True
        self._answered_at = asyncio.get_running_loop().time()

    async def _post(self, attempt: Attempt, body: bytes, token: str, path: str) -> tuple[Answer | NoAnswer, Ticket]:
        doors = self._doors
        proof = SendProof()
        ticket = doors.gate.sent(Kind.SUBMIT)
        doors.reach("before-post")
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
            await _finish(doors.scribe.book(attempt.request_id, event, why, token=token))
            raise
        return answer, ticket

    async def _settle(self, this: _Try, verdict: SubmitVerdict, answer: Answer | NoAnswer) -> bool:
        """Books what the verdict says; True when the request may be tried again."""
        attempt, token, path = this.attempt, this.token, this.path
        now = asyncio.get_running_loop().time()
        self._log(attempt, verdict)
        if verdict.kind is not SubmitKind.NOT_SENT:
            self._heard()
        if verdict.stop_submitting:
            self._stop(verdict)
        if verdict.kind is SubmitKind.ACCEPTED:
            self._paths.works(path)
            self._breaker.record("answered", now, attempt.request_id)
            await self._accept(attempt, token, verdict, answer)
            return False
        if verdict.kind is SubmitKind.UNKNOWN:
            self._breaker.record("unknown", now, attempt.request_id)
            await self._lose(attempt, token, verdict, answer)
            return False
        if verdict.kind is SubmitKind.REJECTED:
            self._paths.works(path)
            self._breaker.record("answered", now, attempt.request_id)
            await self._reject(attempt, token, verdict)
            return False
        return await self._release(this, verdict)

    async def _accept(self, attempt: Attempt, token: str, verdict: SubmitVerdict, answer: Answer | NoAnswer) -> None:
        job = verdict.ticket
        assert job is not None
        loop_now = asyncio.get_running_loop().time()
        values = {"job_set_id": job.job_set_id, "polling_url": job.polling_url, "accepted_at": self._doors.wall()}
        detail = self._doors.hidden(attempt, _raw(answer))
        try:
            booked = await self._doors.scribe.book(attempt.request_id, Event.ACCEPT, values, token=token, detail=detail)
        except LedgerError:
            # MONEY: if the second book failed as well, these words are all that is left of what was paid.
            self._doors.say(f"{attempt.row_id}: paid as job {job.job_set_id}, and the ledger could not be written")
            raise
        if isinstance(booked, JobTaken):
            # API: an answer can be another request's (a desynchronised connection): its id is not ours.
            reason = f"the answer names job {job.job_set_id}, which belongs to request {booked.owner_request_id}"
            await self._book_unknown(attempt, token, reason, answer)
            return
        if isinstance(booked, Conflict):
            await self._too_late(attempt, job.job_set_id, detail)
            return
        self.any_accepted = True
        self._doors.accepted(
            InFlight(
                request_id=attempt.request_id,
                row_id=attempt.row_id,
                take=attempt.take,
                model=attempt.params.model,
                job_set_id=job.job_set_id,
                polling_url=job.polling_url,
                accepted_at=loop_now,
            )
        )

    async def _too_late(self, attempt: Attempt, job_set_id: str, detail: str) -> None:
        """MONEY: others gave it up and a person settled the request. That stands; what was paid is written down."""
        text = f"paid as job {job_set_id}, but the request was settled meanwhile"
        await self._doors.scribe.book(attempt.request_id, Event.NOTE, detail=f"{text}: {detail}")
        self._doors.say(f"{attempt.row_id}: {text}; `dop show` tells")

    async def _lose(self, attempt: Attempt, token: str, verdict: SubmitVerdict, answer: Answer | NoAnswer) -> None:
        await self._book_unknown(attempt, token, verdict.reason, answer)
        for job_set_id in verdict.salvaged[:1]:
            task = asyncio.create_task(self._salvage(attempt, job_set_id))
            self._salvages.add(task)
            task.add_done_callback(self._salvages.discard)

    async def _book_unknown(self, attempt: Attempt, token: str, reason: str, answer: Answer | NoAnswer) -> None:
        values = {"reason": reason or "no readable answer"}
        detail = self._doors.hidden(attempt, _raw(answer))
        booked = await self._doors.scribe.book(attempt.request_id, Event.LOSE, values, token=token, detail=detail)
        if not isinstance(booked, Applied):
            return  # settled by others meanwhile
        self._doors.lost(attempt)
        self._doors.say(f"{attempt.row_id}: outcome unknown, perhaps paid ({reason}); `dop resolve` settles it")

    async def _salvage(self, attempt: Attempt, job_set_id: str) -> None:
        """An id found in an answer that was not understood: a free poll may prove that the job is there."""
        doors = self._doors
        for _ in range(SALVAGE_TRIES):
            await asyncio.sleep(SALVAGE_PAUSE_S)
            answer = await doors.client.poll(job_set_id)
            verdict = judge_poll(answer, now_wall=doors.wall(), job_set_id=job_set_id)
            if verdict.kind is PollKind.REPORT:
                await self._adopt(attempt, job_set_id)
                return

    async def _adopt(self, attempt: Attempt, job_set_id: str) -> None:
        doors = self._doors
        try:
            booked = await doors.scribe.book(
                attempt.request_id,
                Event.ADOPT,
                {"job_set_id": job_set_id, "accepted_at": doors.wall(), "reason": None},
                detail="the id stood in the unreadable answer, and the gateway knows it",
            )
        except InvariantError:
            return  # a callback proved the same first
        if isinstance(booked, Applied):
            now = asyncio.get_running_loop().time()
            doors.accepted(
                InFlight(
                    request_id=attempt.request_id,
                    row_id=attempt.row_id,
                    take=attempt.take,
                    model=attempt.params.model,
                    job_set_id=job_set_id,
                    polling_url=None,
                    accepted_at=now,
                )
            )

    async def _reject(self, attempt: Attempt, token: str, verdict: SubmitVerdict) -> None:
        await self._doors.scribe.book(
            attempt.request_id,
            Event.REJECT,
            {"reason": verdict.reason, "finished_at": self._doors.wall()},
            token=token,
        )
        self._doors.say(f"{attempt.row_id}: rejected ({verdict.reason}); nothing was charged")

    async def _release(self, this: _Try, verdict: SubmitVerdict) -> bool:
        """Nothing was created: the request is planned again (or, at a wrong path, refused)."""
        attempt, token, path = this.attempt, this.token, this.path
        now = asyncio.get_running_loop().time()
        if verdict.kind is SubmitKind.NOT_SENT:
            self._breaker.record("unreachable", now, attempt.request_id)
        else:
            self._breaker.record("answered", now, attempt.request_id)
        if verdict.kind is SubmitKind.WRONG_PATH and not self._paths.missing(path):
            if self.any_accepted:
                await self._reject(attempt, token, verdict)
                return False
            self._doors.halt.give(
                f"no submit path of the gateway answers ({verdict.reason}); "
                "check gateway.base_url and gateway.submit_path",
                exit_code=7,
                reach=Reach.SUBMITS,
            )
            self._doors.gate.wake()
        slowed = verdict.kind in (SubmitKind.THROTTLED, SubmitKind.CONCURRENCY)
        values: dict[str, object] = {"reason": verdict.reason}
        if slowed:
            values["throttled"] = int(str(this.row["throttled"])) + 1
        booked = await self._doors.scribe.book(attempt.request_id, Event.RELEASE, values, token=token)
        return isinstance(booked, Applied)

    def _stop(self, verdict: SubmitVerdict) -> None:
        quota = verdict.kind is SubmitKind.THROTTLED
        self._doors.halt.give(
            f"the gateway refuses further submits: {verdict.reason}",
            exit_code=5 if quota else 7,
            reach=Reach.SUBMITS,
        )
        self._doors.gate.wake()

    def _log(self, attempt: Attempt, verdict: SubmitVerdict) -> None:
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


def _raw(answer: Answer | NoAnswer) -> str:
    if isinstance(answer, NoAnswer):
        return answer.what
    return unsigned(f"{answer.status} {answer.body[:BODY_BYTES].decode('utf-8', 'replace')}")[:DETAIL_CHARS]
