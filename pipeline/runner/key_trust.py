"""Whether a gateway honours idempotency keys now: tested on a call whose job is known, before and after a resend.

MONEY: a key that is ignored buys again, and the answer looks the same. What a test bought is canceled at once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum

from pipeline.gateway.kinds.interface import Call, Recovery, ReplayKind
from pipeline.ledger.held_jobs import HeldJobs
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import PAID_TWICE
from pipeline.records import Attempt, canonical_job_id
from pipeline.runner.context import RunContext
from pipeline.runner.replay_calls import ReplayCalls
from pipeline.runner.stop import StopScope

YOUNG_S = 3600.0
"""An intent of at most this age may be tested by a younger call, or by its own. Older ones need a call that is not
younger: how long the gateway keeps a key is not stated."""

CHECK_TRIES = 5
"""Tries to learn whether a repeated call gives the same id twice."""

CHECK_PAUSE_S = 1.0
"""Seconds before the second of them, doubled each time."""

MAX_CANARIES = 3
"""Calls that are tried for one answer that tells."""

FRESH_S = 2.0
"""A canary of this age still counts, if nothing was bought since."""

OFF_S = 24 * 3600.0
"""How long replay stays switched off after a key was not honoured; then a canary asks again."""


class Trust(Enum):
    """Whether keys are honoured, as far as a canary shows."""

    HONOURED = "honoured"
    BROKEN = "broken"
    UNSURE = "unsure"
    """the canary got no answer that tells"""
    NO_CANARY = "no canary"
    """no job is known whose call could be repeated"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldCall:
    """A call whose job is known."""

    attempt: Attempt
    call: Call
    job_set_id: str


class KeyTrust:
    """The trust in one gateway's keys. `gateway` is its id in the ledger."""

    def __init__(self, context: RunContext, gateway: str, calls: ReplayCalls) -> None:
        self._context, self._gateway, self._calls = context, gateway, calls
        self._jobs = HeldJobs(context.recorder.ledger)
        self._fresh_until, self._fresh_age = float("-inf"), float("inf")
        self._unanswered: list[Attempt] = []
        self.off = self._remembered() if context.kind.abilities.recovery is Recovery.REPLAY else ""
        """why no call is repeated at this gateway; empty while they are"""

    async def trust(self, attempt: Attempt) -> Trust:
        """Repeat a call whose job is known, and see whether it gives that job."""
        loop_now, submitted_at = asyncio.get_running_loop().time(), attempt.submitted_at or 0.0
        if loop_now < self._fresh_until and self._fresh_age <= submitted_at:
            return Trust.HONOURED
        found = Trust.NO_CANARY
        for canary in self._canaries(attempt):
            found = await self._test(canary)
            if found is not Trust.UNSURE:
                break
        return found

    async def _test(self, canary: HeldCall) -> Trust:
        outcome, _ = await self._calls.send(canary.call, canary.attempt, counts_job=False)
        if outcome.kind is not ReplayKind.JOB or outcome.job is None:
            self.note_unanswered(canary.attempt)
            return Trust.UNSURE
        if same_job(outcome.job.job_set_id, canary.job_set_id):
            self._note_fresh(canary.attempt)
            return Trust.HONOURED
        if self._jobs.owner_of_job(self._gateway, outcome.job.job_set_id) is not None:
            self.note_unanswered(canary.attempt)
            return Trust.UNSURE  # the answer to another request: a desynchronised connection
        await self._promise_broken(canary, outcome.job.job_set_id)
        return Trust.BROKEN

    def _note_fresh(self, attempt: Attempt) -> None:
        self._unanswered.clear()
        self._fresh_until = asyncio.get_running_loop().time() + FRESH_S
        self._fresh_age = attempt.submitted_at or float("inf")

    def _canaries(self, attempt: Attempt) -> list[HeldCall]:
        """Calls with a known job: the newest that are not younger than `attempt`; for a young one, any."""
        submitted_at = attempt.submitted_at or 0.0
        older = self._jobs.held_jobs(self._gateway, until=submitted_at)
        younger = self._jobs.held_jobs(self._gateway, since=submitted_at) if self.age_s(attempt) <= YOUNG_S else []
        found = [
            HeldCall(attempt=one, call=call, job_set_id=one.job_set_id)
            for one in (*older, *younger)
            if (call := self.kept(one)) is not None and one.job_set_id is not None
        ]
        return found[:MAX_CANARIES]

    async def _promise_broken(self, held: HeldCall, other_job: str) -> None:
        """MONEY: the gateway bought again. Cancel that job, switch replay off, and say so."""
        attempt, context = held.attempt, self._context
        self.off = "the gateway did not honour an idempotency key: no unclear submit is sent again"
        is_canceled = await self._calls.cancel(other_job)
        if is_canceled:
            text = f"a repeated call was bought again, as job {other_job}, and canceled at once: not charged"
            await context.recorder.record(attempt.request_id, Event.NOTE, detail=text)
        else:
            text = f"{PAID_TWICE}: also as job {other_job}, which could not be canceled"
            await context.recorder.record(attempt.request_id, Event.NOTE, {"reason": text}, detail=text)
        context.notify(f"{attempt.row_id}: {text}")
        await self._report_unanswered()
        context.notify(f"{self.off}; `dop resolve` settles what is unknown")
        context.recorder.ledger.save_state(self._memory, {"off": self.off, "at": context.unix_time()})

    async def _report_unanswered(self) -> None:
        """MONEY: a test whose answer was lost may have bought a job that no one can name, and so not cancel."""
        text = "perhaps bought again: a repeated call got no answer, and keys are not honoured"
        for attempt in self._unanswered:
            await self._context.recorder.record(attempt.request_id, Event.NOTE, detail=text)
            self._context.notify(f"{attempt.row_id}: {text}")
        self._unanswered.clear()

    def note_unanswered(self, attempt: Attempt) -> None:
        """A repeated call of the attempt got no answer that tells: if keys are not honoured, it may have bought."""
        self._unanswered.append(attempt)

    def used(self) -> None:
        """A call was repeated: the next one needs a test of its own."""
        self._fresh_until = float("-inf")

    async def gives_the_same_again(self, held: HeldCall) -> bool:
        """Whether the call gives its id once more; if not, both jobs are canceled and replay is switched off."""
        for tries in range(CHECK_TRIES):
            outcome, _ = await self._calls.send(held.call, held.attempt, counts_job=False)
            if outcome.kind is ReplayKind.JOB and outcome.job is not None:
                other = outcome.job.job_set_id
                if same_job(other, held.job_set_id):
                    self._note_fresh(held.attempt)
                    return True
                if self._jobs.owner_of_job(self._gateway, other) is None:
                    await self._promise_broken(held, other)
                    return not await self._given_back(held)
            else:
                self.note_unanswered(held.attempt)
            await self._context.stop.pause(CHECK_PAUSE_S * 2**tries, until=StopScope.ALL)
        return True

    async def _given_back(self, held: HeldCall) -> bool:
        """Whether the first of the two jobs is canceled as well: which call bought first is not known.

        One that can't be canceled runs and is charged; it is better held than lost.
        """
        is_canceled = await self._calls.cancel(held.job_set_id)
        if is_canceled:
            text = f"job {held.job_set_id} was canceled as well: which call bought first is not known"
            await self._context.recorder.record(held.attempt.request_id, Event.NOTE, detail=text)
        return is_canceled

    def kept(self, attempt: Attempt) -> Call | None:
        """The call that the ledger kept with the attempt's newest intent."""
        text = self._jobs.kept_call(attempt.request_id, attempt.attempt)
        return None if text is None else Call.unsealed(text)

    def age_s(self, attempt: Attempt) -> float:
        """Seconds since the attempt was sent."""
        return self._context.unix_time() - (attempt.submitted_at or 0.0)

    @property
    def _memory(self) -> str:
        return f"replay {self._gateway}"

    def _remembered(self) -> str:
        """Why replay is off since an earlier run."""
        known = self._context.recorder.ledger.load_state(self._memory)
        at = known.get("at")
        is_recent = isinstance(at, int | float) and self._context.unix_time() - at < OFF_S
        return str(known.get("off") or "") if is_recent else ""


def same_job(one: str, other: str) -> bool:
    """Whether two ids name one job."""
    return canonical_job_id(one) == canonical_job_id(other)
