"""Whether a gateway honours idempotency keys now: shown before a paid call is repeated, and once more afterwards.

MONEY: a key that is ignored buys again, and the answer looks the same.

The gateway is asked for a free proof first (`key_proof`). One that never gave it is tested by a canary: a call whose
job is known is repeated. The same id: keys are honoured. Another id: they are not, that job is canceled at once, and
replay is switched off. A canary is not free where its answer is lost, so no more than a few may go unanswered.
"""

from __future__ import annotations

import asyncio
from enum import Enum

from pipeline.gateway.classification import SubmitOutcomeKind
from pipeline.gateway.kinds.interface import Call, KeyShown, Recovery, ReplayKind, ReplayOutcome
from pipeline.gateway.responses import NoResponse, Response
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import PAID_TWICE
from pipeline.records import Attempt
from pipeline.runner.canary_budget import CanaryBudget
from pipeline.runner.context import RunContext
from pipeline.runner.events import JobAccepted
from pipeline.runner.held_calls import HeldCall, HeldCalls, same_job
from pipeline.runner.key_proof import KeyProof
from pipeline.runner.replay_calls import ReplayCalls
from pipeline.runner.stop import StopScope

CHECK_TRIES = 5
"""Tries to learn whether keys were still honoured after a repeated call."""

CHECK_PAUSE_S = 1.0
"""Seconds before the second of them, doubled each time."""

FRESH_S = 2.0
"""A canary of this age still counts, if nothing was bought since."""

NOT_SHOWN_PAUSE_S = 15.0
"""Seconds between two free proofs that failed."""

MAX_NOT_SHOWN = 3
"""Free proofs in a row that failed at a gateway that gave one: keys are honoured no longer."""

OFF_S = 24 * 3600.0
"""How long replay stays switched off after a key was not honoured; then a canary asks again."""


class Trust(Enum):
    """Whether keys are honoured, as far as it is shown."""

    HONOURED = "honoured"
    BROKEN = "broken"
    UNSURE = "unsure"
    """no answer that tells"""
    NO_CANARY = "no canary"
    """no job is known whose call could show it"""


class KeyTrust:
    """The trust in one gateway's keys. `gateway` is its id in the ledger."""

    def __init__(self, context: RunContext, gateway: str, calls: ReplayCalls, held: HeldCalls) -> None:
        self._context, self._gateway, self._calls, self._held = context, gateway, calls, held
        self._proof = KeyProof(context, gateway, calls, held)
        self._fresh_until, self._fresh_age = float("-inf"), float("inf")
        self._unanswered: list[Attempt] = []
        self._canaries = CanaryBudget()
        context.events.subscribe(JobAccepted, lambda _: self._canaries.note_accepted())
        self._not_shown, self._not_shown_at = 0, float("-inf")
        self.off = self._remembered() if context.kind.abilities.recovery is Recovery.REPLAY else ""
        """why no call is repeated at this gateway; empty while they are"""

    async def trust(self, attempt: Attempt) -> Trust:
        """Whether the gateway honours keys as old as the attempt's now. A free proof wherever one is to be had."""
        witnesses = self._held.witnesses(attempt)
        if not witnesses:
            return Trust.NO_CANARY
        # The failed proofs that switch replay off must lie apart: one bad moment of the gateway would count three
        # times.
        if _now() - self._not_shown_at < NOT_SHOWN_PAUSE_S:
            return Trust.UNSURE
        shown = await self._proof.shown(witnesses)
        if shown is KeyShown.HONOURED:
            # MONEY: keys are honoured, so no repeated call without an answer has bought a second time.
            self._unanswered.clear()
            self._not_shown = 0
            self._canaries.note_proof()
            return Trust.HONOURED
        if shown is KeyShown.UNCLEAR:
            return Trust.UNSURE
        return self._note_not_shown() if self._proof.was_given else await self._by_canary(attempt, witnesses)

    async def prove_early(self, attempt: Attempt) -> None:
        """Ask a gateway that never gave the free proof for it at once: later its absence tells. Pays: no."""
        if not self._proof.was_given:
            await self._proof.shown(self._held.witnesses(attempt)[:1])

    def _note_not_shown(self) -> Trust:
        """MONEY: the gateway gave the proof before, and gives it no longer. Nothing is repeated."""
        self._not_shown, self._not_shown_at = self._not_shown + 1, _now()
        if self._not_shown < MAX_NOT_SHOWN:
            return Trust.UNSURE
        self.off = "the gateway no longer shows that it honours idempotency keys: no unclear submit is sent again"
        self._context.notify(f"{self.off}; `dop resolve` settles what is unknown, the next run asks again")
        return Trust.BROKEN

    # --- canaries

    async def _by_canary(self, attempt: Attempt, witnesses: list[HeldCall]) -> Trust:
        """Repeat a call whose job is known, and see whether it gives that job."""
        # Only if the canary's key is not younger than this one: a gateway may have forgotten the older keys.
        if _now() < self._fresh_until and self._fresh_age <= (attempt.submitted_at or 0.0):
            return Trust.HONOURED
        found = Trust.UNSURE
        for canary in witnesses:
            if found is not Trust.UNSURE or not self._canaries.may_test(_now()):
                break
            found = await self._test(canary)
        return found

    async def may_test_itself(self, attempt: Attempt, call: Call) -> bool:
        """Whether an unclear call may be repeated although no job is known that could show anything.

        MONEY: the first time, as it was sent. If no answer comes again, its key is asked for the free proof first.
        """
        if self._canaries.silent == 0:
            return True
        held = HeldCall(attempt=attempt, call=call, job_set_id="")
        return await self._proof.shown([held]) is KeyShown.HONOURED or self._canaries.may_test(_now())

    async def _test(self, canary: HeldCall) -> Trust:
        outcome, response = await self._calls.send(canary.call, canary.attempt, counts_job=False)
        if outcome.kind is not ReplayKind.JOB or outcome.job is None:
            self.note_unanswered(canary.attempt, outcome, response)
            return Trust.UNSURE
        if same_job(outcome.job.job_set_id, canary.job_set_id):
            self._proof.give_up()  # it had just failed: bodies are checked first here
            self._note_fresh(canary.attempt)
            return Trust.HONOURED
        if self._held.is_known(outcome.job.job_set_id):
            self._note_silent(canary.attempt)
            return Trust.UNSURE  # the answer to another request: a desynchronised connection
        await self._promise_broken(canary, outcome.job.job_set_id)
        return Trust.BROKEN

    def _note_fresh(self, attempt: Attempt) -> None:
        self._unanswered.clear()
        self._canaries.note_answer()
        self._fresh_until, self._fresh_age = _now() + FRESH_S, attempt.submitted_at or float("inf")

    def note_unanswered(self, attempt: Attempt, outcome: ReplayOutcome, response: Response | NoResponse) -> None:
        """A repeated call of the attempt gave no job: if keys are not honoured, it may have bought."""
        kind = self._context.kind
        found = kind.classify_submit(response, now_unix=self._context.unix_time(), params=attempt.params)
        if outcome.kind is ReplayKind.UNCLEAR and found.kind is SubmitOutcomeKind.UNKNOWN:
            self._note_silent(attempt)

    def _note_silent(self, attempt: Attempt) -> None:
        self._unanswered.append(attempt)
        self._canaries.note_silent(_now())

    def used(self) -> None:
        """A call was repeated: the next one needs a test of its own."""
        self._fresh_until = float("-inf")

    # --- after a call was repeated

    async def is_still_honoured(self, held: HeldCall) -> bool:
        """Whether keys were honoured until after a call was repeated; if not, its job is canceled.

        One that can't be canceled runs and is charged: it is better held than lost, and the answer is True.
        """
        is_free = self._proof.was_given
        for tries in range(CHECK_TRIES):
            found = await (self._proved_after(held) if is_free else self._same_again(held))
            if found is not None:
                return found
            await self._context.stop.pause(CHECK_PAUSE_S * 2**tries, until=StopScope.ALL)
        # No answer tells. The job that was named may run and be charged: it is better recorded than lost.
        return True

    async def _proved_after(self, held: HeldCall) -> bool | None:
        shown = await self._proof.shown(self._held.witnesses(held.attempt) or [held])
        if shown is not KeyShown.NOT_SHOWN:
            return True if shown is KeyShown.HONOURED else None
        self._note_not_shown()
        return not await self._given_back(held, "keys ceased to be honoured while it was asked for")

    async def _same_again(self, held: HeldCall) -> bool | None:
        # MONEY: one more test could buy as well. Without it, the job that the call named is recorded.
        if self._canaries.is_used_up:
            return True
        outcome, response = await self._calls.send(held.call, held.attempt, counts_job=False)
        if outcome.kind is not ReplayKind.JOB or outcome.job is None:
            self.note_unanswered(held.attempt, outcome, response)
            return None
        other = outcome.job.job_set_id
        if same_job(other, held.job_set_id):
            self._note_fresh(held.attempt)
            return True
        if self._held.is_known(other):
            self._note_silent(held.attempt)
            return None
        await self._promise_broken(held, other)
        return not await self._given_back(held, "which call bought first is not known")

    async def _given_back(self, held: HeldCall, why: str) -> bool:
        """Whether the job that a repeated call gave is canceled."""
        is_canceled = await self._calls.cancel(held.job_set_id)
        if is_canceled:
            text = f"job {held.job_set_id} was canceled, not charged: {why}"
            await self._context.recorder.record(held.attempt.request_id, Event.NOTE, detail=text)
        return is_canceled

    # --- the promise is broken

    async def _promise_broken(self, held: HeldCall, other_job: str) -> None:
        """MONEY: the gateway bought again. Cancel that job, switch replay off, and say so."""
        attempt, context = held.attempt, self._context
        # MONEY: before anything is awaited. The other cases read `off` before each call.
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
        context.recorder.ledger.saved_states.save(self._memory, {"off": self.off, "at": context.unix_time()})

    async def _report_unanswered(self) -> None:
        """MONEY: a test whose answer was lost may have bought a job that no one can name, and so not cancel."""
        text = "perhaps bought again: a repeated call got no answer, and keys are not honoured"
        for attempt in self._unanswered:
            await self._context.recorder.record(attempt.request_id, Event.NOTE, detail=text)
            self._context.notify(f"{attempt.row_id}: {text}")
        self._unanswered.clear()

    @property
    def _memory(self) -> str:
        return f"replay {self._gateway}"

    def _remembered(self) -> str:
        """Why replay is off since an earlier run."""
        known = self._context.recorder.ledger.saved_states.load(self._memory)
        at = known.get("at")
        is_recent = isinstance(at, int | float) and self._context.unix_time() - at < OFF_S
        return str(known.get("off") or "") if is_recent else ""


def _now() -> float:
    return asyncio.get_running_loop().time()
