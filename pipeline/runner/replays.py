"""Unclear submits are sent again under their keys, until the gateway says which job they became. Only for kinds of
gateway whose `abilities.recovery` is REPLAY.

The theory of this module. The gateway promises: the same bytes under the same idempotency key give the id of the job
that they gave first, and are charged once. Five things follow.

1. The bytes and the key are those that the ledger kept with the intent, before the first POST. Nothing is made again:
   an address with a new signature would make other bytes. After a crash the same is done with what the ledger kept.
2. Only a 2xx with an id proves anything. Every other answer speaks of the repeated call alone. A 422 says that the key
   belongs to other bytes: the request is parked as `unknown`, and never sent under this key or another one again.
3. A promise that is not kept is silent: a key that is ignored buys again, and the answer looks the same. So it is
   proved before it is relied on: by a call that can buy nothing (`key_proof`), and at a gateway that never gave this
   proof by a canary, a repeated call whose job is known and that is not younger. Without a proof, what is unclear
   stays `unknown`.
4. The promise may end between the proof and the call. So a call that gave an id is followed by a proof once more. Where
   it fails, the job is canceled, and the request stays `unknown`.
5. One call at a time, each with a slot of the pace, with growing pauses and a bounded number of tries.

The calls are sent by `replay_calls`, points 3 and 4 are in `key_trust`, `key_proof` and `held_calls`.

What must never happen: a repeated call with other bytes or under another key; a repeated call after a 422; a repeated
call while the promise is known to be broken. tests/integration/runner/test_replays.py breaks each on purpose.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from pipeline.errors import DopError
from pipeline.gateway.kinds.interface import Call, Recovery, ReplayKind, ReplayOutcome
from pipeline.gateway.responses import NoResponse, Response
from pipeline.ledger.queries import LedgerQueries
from pipeline.records import Attempt, State
from pipeline.runner.context import RunContext
from pipeline.runner.events import OutcomeUnknown
from pipeline.runner.firewall import error_words, is_cancellation
from pipeline.runner.held_calls import YOUNG_S, HeldCall, HeldCalls
from pipeline.runner.key_trust import KeyTrust, Trust
from pipeline.runner.replay_calls import ReplayCalls
from pipeline.runner.replay_recorder import MISMATCH, ReplayRecorder
from pipeline.runner.stop import StopScope

FIRST_PAUSE_S = 1.0
"""Seconds before the second try of a replay for one request."""
MAX_PAUSE_S = 60.0
"""Seconds between two tries for one request: doubled from the first to the longest."""

MAX_TRIES = 20
"""Tries for one request while the run buys: some 15 minutes. What is left gets LAST_TRIES when the buying is over."""

LAST_TRIES = 10
"""Tries once nothing more is bought: some four minutes."""

MAX_IN_FLIGHT_WAITS = 60
"""How often a second is waited for a first call that the gateway says it still works on."""


class CaseEnd(Enum):
    """How the search for an unclear submit's job ended."""

    SETTLED = "settled"
    """its job is known, or nothing is to be done for it any more"""
    GIVEN_UP = "given up"
    """it stays unknown for now"""
    RELEASED = "released"
    """the run stops: another one continues"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayHost:
    """What one of several workers needs.

    Attributes:
        is_buying: whether other submits may still give a witness.
        over: called at the end of each case.
    """

    is_buying: Callable[[], bool]
    over: Callable[[str, CaseEnd], None]


@dataclass(slots=True, kw_only=True)
class _Case:
    """One unclear submit: what was tried for it."""

    request_id: str
    tries: int = 0
    waits: int = 0
    end: CaseEnd = CaseEnd.RELEASED


class Replays:
    """The repeated calls of one run.

    Args:
        gateway: its id in the ledger.
        on_answer: called when a repeated call was answered with its job.
        host: of one worker among several.
    """

    def __init__(
        self,
        context: RunContext,
        gateway: str,
        *,
        on_answer: Callable[[], None] = lambda: None,
        host: ReplayHost | None = None,
    ) -> None:
        self._context = context
        self._queries, self._held = LedgerQueries(context.recorder.ledger), HeldCalls(context, gateway)
        self._recovery = context.kind.abilities.recovery
        self._can_recover = self._recovery is not Recovery.NONE
        self._calls = ReplayCalls(context)
        self._keys = KeyTrust(context, gateway, self._calls, self._held)
        self._recorder = ReplayRecorder(context, on_answer)
        self._cases: dict[str, _Case] = {}
        self._given_up: dict[str, _Case] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        self._is_open, self._host = True, host
        self._notified: set[str] = set()
        if self._can_recover:
            context.events.subscribe(OutcomeUnknown, lambda event: self.add(event.attempt.request_id))

    # --- what is asked of it

    def add(self, request_id: str) -> None:
        """Find out what became of an unclear submit."""
        if not self._can_recover or request_id in self._cases:
            return
        if self._keys.off:
            self._notify_once(f"{self._keys.off}; `dop resolve` settles what is unknown")
            return
        self._begin(self._given_up.pop(request_id) if request_id in self._given_up else _Case(request_id=request_id))

    def works_on(self, request_id: str) -> bool:
        """Whether an unclear submit is being found out."""
        return request_id in self._cases

    @property
    def _is_buying(self) -> bool:
        """Whether other submits may still give a witness."""
        is_open = self._is_open if self._host is None else self._host.is_buying()
        return is_open and not self._context.stop.submits

    def add_all(self, attempts: Iterable[Attempt]) -> None:
        """The unclear submits of earlier runs."""
        for attempt in attempts:
            self.add(attempt.request_id)

    async def finish(self) -> None:
        """No submit follows: try once more what was given up, and wait until all is found out or given up."""
        self._is_open = False
        # Cases that are being worked on only get fresh counts (`add` leaves them alone); the others begin again.
        for case in (*self._cases.values(), *self._given_up.values()):
            case.tries = case.waits = 0
            self.add(case.request_id)
        # In a loop: while the last cases end, a late unknown outcome may begin another one.
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, case: _Case) -> None:
        self._cases[case.request_id] = case
        task = asyncio.create_task(self._settle(case))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- one unclear submit

    async def _settle(self, case: _Case) -> None:
        try:
            await self._prove_early(case)
            while not self._context.stop.all and not self._keys.off:
                # The pause is taken outside of the turn, so that other cases are tried meanwhile.
                await self._context.stop.pause(self._pause_s(case), until=StopScope.ALL)
                async with self._turn:
                    # MONEY: asked again, as the wait for the turn may have been long: another case may have shown
                    # meanwhile that keys are not honoured.
                    if self._context.stop.all or self._keys.off:
                        break
                    if await self._try(case):
                        case.end = CaseEnd.SETTLED
                        return
                if case.tries >= self._max_tries() or case.waits >= MAX_IN_FLIGHT_WAITS:
                    self._give_up(case)
                    break
            if not self._context.stop.all:
                case.end = CaseEnd.GIVEN_UP
        except DopError as error:
            self._context.stop.request(str(error), exit_code=error.exit_code, reach=StopScope.SUBMITS)
        except BaseException as error:
            if is_cancellation(error):
                raise
            self._context.log_event("replay", request_id=case.request_id, error=error_words(error))
            case.end = CaseEnd.GIVEN_UP
        finally:
            self._cases.pop(case.request_id, None)
            if self._host is not None:
                self._host.over(case.request_id, case.end)

    async def _prove_early(self, case: _Case) -> None:
        async with self._turn:
            attempts = self._queries.attempts_of(case.request_id)
            if attempts and self._recovery is Recovery.REPLAY and not self._context.stop.all:
                await self._keys.prove_early(attempts[-1])

    def _pause_s(self, case: _Case) -> float:
        return min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** max(0, case.tries - 1))

    def _max_tries(self) -> int:
        return MAX_TRIES if self._is_buying else LAST_TRIES

    def _give_up(self, case: _Case) -> None:
        self._given_up[case.request_id] = case
        if not self._is_buying:
            self._notify_once("unclear submits were sent again under their keys and got no answer: they stay unknown")

    async def _try(self, case: _Case) -> bool:
        """One try for one request; True when nothing is left to do for it."""
        attempts = self._queries.attempts_of(case.request_id)
        attempt = attempts[-1] if attempts else None
        # Read from the ledger for each try: a callback, another worker or the user may have settled it. What was parked
        # after a MISMATCH is never repeated.
        if attempt is None or attempt.state is not State.UNKNOWN or (attempt.reason or "").startswith(MISMATCH):
            return True
        if self._recovery is Recovery.LOOKUP:
            return await self._query(case, attempt)
        call = self._held.kept(attempt)
        if call is None:
            self._notify_once("some unclear submits have no call that the ledger kept: `dop resolve` settles them")
            return True
        trust = await self._keys.trust(attempt)
        if trust is Trust.BROKEN:
            return True
        if trust is Trust.UNSURE:
            case.tries += 1
            return False
        # Not to be repeated now. While the run buys, the case stays: a submit that is accepted becomes a witness.
        if trust is Trust.NO_CANARY and not await self._may_test_itself(attempt, call, case):
            return not self._is_buying
        return await self._resend(case, attempt, call)

    async def _query(self, case: _Case, attempt: Attempt) -> bool:
        """Ask for the job of a submit by the id that the submit was given."""
        case.tries += 1
        outcome, response = await self._calls.query(attempt)
        if outcome.job is None or self._held.is_known(outcome.job.job_set_id):
            return False
        return await self._recorder.accept(attempt, outcome.job, response, "found by its own id")

    async def _may_test_itself(self, attempt: Attempt, call: Call, case: _Case) -> bool:
        """Without a witness a young intent may be repeated, but only when no witness is to be expected any more."""
        if self._is_buying:
            case.tries = min(case.tries + 1, 4)  # other submits may give a witness: ask again every few seconds
            return False
        if self._held.age_s(attempt) > YOUNG_S:
            self._notify_once(
                "no job is known that could show whether keys are honoured: old unclear submits stay unknown"
            )
            return False
        return await self._keys.may_test_itself(attempt, call)

    async def _resend(self, case: _Case, attempt: Attempt, call: Call) -> bool:
        """MONEY: the very bytes and the very key that the ledger kept."""
        outcome, response = await self._calls.send(call, attempt, counts_job=True)
        # MONEY: before the answer is read. Whatever it says, the proof before this call is used up.
        self._keys.used()
        if outcome.kind is ReplayKind.JOB and outcome.job is not None:
            case.tries += 1
            return await self._accept(attempt, call, outcome, response)
        if outcome.kind is ReplayKind.MISMATCH:
            await self._recorder.park(attempt, outcome)
            return True
        # Not a failed try: the gateway knows the key and is still at work on the first call.
        if outcome.kind is ReplayKind.IN_FLIGHT:
            case.waits += 1
            return False
        self._keys.note_unanswered(attempt, outcome, response)
        case.tries += 1
        return False

    async def _accept(
        self, attempt: Attempt, call: Call, outcome: ReplayOutcome, response: Response | NoResponse
    ) -> bool:
        """Record the job that the repeated call named, if repeating it once more names the same one."""
        job = outcome.job
        assert job is not None
        held = HeldCall(attempt=attempt, call=call, job_set_id=job.job_set_id)
        if self._held.owner(job.job_set_id) not in (None, attempt.request_id):
            return False  # the answer to another request: a desynchronised connection
        if not await self._keys.is_still_honoured(held):
            return True
        return await self._recorder.accept(attempt, job, response, "sent again under its key")

    def _notify_once(self, text: str) -> None:
        if text not in self._notified:
            self._notified.add(text)
            self._context.notify(text)
