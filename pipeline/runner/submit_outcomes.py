"""Records what a submit came to. It acts on a decision and decides nothing itself.

MONEY: called within `finish`, so that what a POST came to is durable even when the run is cancelled meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.errors import DopError, ExitCode, LedgerError
from pipeline.gateway.classification import SubmitOutcome, SubmitOutcomeKind
from pipeline.gateway.kinds.interface import Recovery
from pipeline.gateway.redaction import redact
from pipeline.gateway.responses import NoResponse, Response
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied, Conflict, JobTaken
from pipeline.records import Attempt
from pipeline.runner.context import RunContext, accepted_job
from pipeline.runner.events import OutcomeUnknown, RequestSetAside
from pipeline.runner.firewall import NOT_SENT, is_cancellation
from pipeline.runner.job_recovery import JobRecovery
from pipeline.runner.refused_rows import REFUSED, RefusedRow, RefusedRows
from pipeline.runner.stop import StopScope
from pipeline.runner.submit_decisions import SubmitAction, SubmitDecision, refusal_text

T = TypeVar("T")

STEP = "submitting"
"""Names this step in the firewall."""

DETAIL_CHARS = 20_000
"""Characters of a raw response that the ledger keeps; the longest known one is under 20 kB."""

BODY_BYTES = 2 * DETAIL_CHARS
"""Bytes of a raw response that are decoded for that; a character takes two bytes at most in the known ones."""

THROTTLED_NOTICE_S = 30.0
"""Seconds of refusals without one accepted submit, after which the operator is notified: silence looks like a hang."""

EVIDENCE = "the id stood in the unreadable answer"


Answer = Response | NoResponse
"""The response to a POST, or what is known without one."""


@dataclass(frozen=True, slots=True)
class ReservedAttempt:
    """One reserved attempt: its token, the path it was sent to, and its row when it was reserved."""

    attempt: Attempt
    token: str
    path: str
    row: Mapping[str, object]


class OutcomeRecorder:
    """Records the outcomes of submits and hands accepted jobs on."""

    def __init__(self, context: RunContext, recovery: JobRecovery, *, any_accepted: bool) -> None:
        self._context = context
        self._recovery = recovery
        self._refused = RefusedRows()
        self._throttled_since: float | None = None
        self._notified_throttled = False
        self.any_accepted = any_accepted
        """whether the gateway ever accepted a submit at this path"""

    async def act(
        self,
        reserved: ReservedAttempt,
        decision: SubmitDecision,
        outcome: SubmitOutcome,
        response: Answer,
    ) -> bool:
        """Record what was decided; True when the request may be tried again."""
        if decision.action is SubmitAction.ACCEPT:
            await self._accept(reserved, outcome, response)
        elif decision.action is SubmitAction.MARK_UNKNOWN:
            await self._mark_unknown(reserved, outcome.reason, response)
            # After the record: the recovery adopts only what the ledger has as unknown.
            self._recovery.propose(reserved.attempt.request_id, outcome.salvaged, EVIDENCE)
        elif decision.action is SubmitAction.REJECT:
            await self._reject(reserved, outcome)
        elif decision.is_refused:
            await self._refuse(reserved, outcome)
        else:
            return await self._release(reserved, outcome, was_throttled=decision.was_throttled)
        return False

    async def end(self) -> None:
        """No submit follows: refused rows are rejected where another row showed that the key is good."""
        own, unclear = self._refused.end()
        await self._reject_refused(own)
        if unclear:
            text = f"{unclear[0].row_id} is refused and no other row was accepted: this row, key or address is meant"
            self._stop(f"{text}: {unclear[0].reason}")

    async def _refuse(self, reserved: ReservedAttempt, outcome: SubmitOutcome) -> None:
        """Nothing was created: planned again, and not tried again in this run."""
        attempt, values = reserved.attempt, {"reason": f"{REFUSED}{outcome.reason}"}
        recorded = await self._context.recorder.record(attempt.request_id, Event.RELEASE, values, token=reserved.token)
        if not isinstance(recorded, Applied):
            return
        row = RefusedRow(
            request_id=attempt.request_id,
            row_id=attempt.row_id,
            token=reserved.token,
            reason=outcome.reason,
            by_address=outcome.kind is SubmitOutcomeKind.WRONG_PATH,
        )
        # A released row keeps its token in memory: if the key turns out to be good, the same token makes it rejected.
        if self._refused.refuse(row):
            self._stop(refusal_text(outcome))
        self._context.events.emit(RequestSetAside(request_id=attempt.request_id))

    async def _reject_refused(self, rows: Sequence[RefusedRow]) -> None:
        for row in rows:
            values = {"reason": row.reason, "finished_at": self._context.unix_time()}
            await self._context.recorder.record(row.request_id, Event.REJECT, values, token=row.token)
            self._context.notify(f"{row.row_id}: rejected ({row.reason}); nothing was charged")

    def _stop(self, text: str) -> None:
        self._context.stop.request(text, exit_code=ExitCode.FATAL, reach=StopScope.SUBMITS)

    async def _accept(self, reserved: ReservedAttempt, outcome: SubmitOutcome, response: Answer) -> None:
        context, attempt, job = self._context, reserved.attempt, outcome.ticket
        assert job is not None
        now = asyncio.get_running_loop().time()
        values = {"job_set_id": job.job_set_id, "polling_url": job.polling_url, "accepted_at": context.unix_time()}
        detail = self._detail(attempt, response)
        try:
            recorded = await context.recorder.record(
                attempt.request_id, Event.ACCEPT, values, token=reserved.token, detail=detail
            )
        except LedgerError:
            # MONEY: if the journal failed as well, these words are all that is left of what was paid.
            context.notify(f"{attempt.row_id}: paid as job {job.job_set_id}, and the ledger could not be written")
            raise
        except BaseException as error:
            if is_cancellation(error):
                raise
            # MONEY: something else in the answer could not be stored, such as a strange address. The id alone is enough
            # to find and collect what was paid, so the record is tried again with nothing but the id.
            values = {"job_set_id": job.job_set_id, "accepted_at": values["accepted_at"]}
            recorded = await context.recorder.record(attempt.request_id, Event.ACCEPT, values, token=reserved.token)
        if isinstance(recorded, JobTaken):
            # API: a response can be another request's (a desynchronised connection): its id is not ours.
            reason = f"the answer names job {job.job_set_id}, which belongs to request {recorded.owner_request_id}"
            await self._mark_unknown(reserved, reason, response)
            return
        if isinstance(recorded, Conflict):
            await self._accept_late(attempt, job.job_set_id, detail)
            return
        self.any_accepted = True
        self._throttled_since = None
        # After the record: COMPLETE of a row that is still `submitting` would be refused by the table of states.
        context.hand_to_poller(accepted_job(attempt, job.job_set_id, job.polling_url, now))
        await self._reject_refused(self._refused.accept())

    async def _accept_late(self, attempt: Attempt, job_set_id: str, detail: str) -> None:
        """MONEY: others gave the submit up and the operator settled it. That remains; what was paid is written down."""
        text = f"paid as job {job_set_id}, but the request was settled meanwhile"
        await self._context.recorder.record(attempt.request_id, Event.NOTE, detail=f"{text}: {detail}")
        self._context.notify(f"{attempt.row_id}: {text}; `dop show` tells")

    async def _mark_unknown(self, reserved: ReservedAttempt, reason: str, response: Answer) -> None:
        attempt, values = reserved.attempt, {"reason": reason or "no readable answer"}
        detail = self._detail(attempt, response)
        recorded = await self._context.recorder.record(
            attempt.request_id, Event.LOSE, values, token=reserved.token, detail=detail
        )
        if not isinstance(recorded, Applied):
            return  # settled by others meanwhile
        self._context.events.emit(OutcomeUnknown(attempt=attempt))
        recovery = self._context.kind.abilities.recovery
        if recovery is not Recovery.NONE:
            how = "sent again under its key" if recovery is Recovery.REPLAY else "asked for by its own id"
            text = f"outcome not known yet ({reason}); it is {how}"
        else:
            text = f"outcome unknown, perhaps paid ({reason}); `dop resolve` settles it"
        self._context.notify(f"{attempt.row_id}: {text}")

    async def _reject(self, reserved: ReservedAttempt, outcome: SubmitOutcome) -> None:
        values = {"reason": outcome.reason, "finished_at": self._context.unix_time()}
        await self._context.recorder.record(reserved.attempt.request_id, Event.REJECT, values, token=reserved.token)
        self._context.notify(f"{reserved.attempt.row_id}: rejected ({outcome.reason}); nothing was charged")

    async def _release(self, reserved: ReservedAttempt, outcome: SubmitOutcome, *, was_throttled: bool) -> bool:
        """Nothing was created: the request is planned again."""
        # The words may be about the key or the credit, and the trouble this row's own: it goes last next time.
        is_fatal = outcome.kind is SubmitOutcomeKind.FATAL
        values: dict[str, object] = {"reason": f"{REFUSED}{outcome.reason}" if is_fatal else outcome.reason}
        if was_throttled:
            self._notify_throttled(outcome.reason)
            # From the row and not from a counter here: earlier runs count as well.
            values["throttled"] = int(str(reserved.row["throttled"])) + 1
        recorded = await self._context.recorder.record(
            reserved.attempt.request_id, Event.RELEASE, values, token=reserved.token
        )
        return isinstance(recorded, Applied)

    def _notify_throttled(self, reason: str) -> None:
        """Notify once a run that the gateway takes nothing for a while, with its words."""
        now = asyncio.get_running_loop().time()
        if self._throttled_since is None:
            self._throttled_since = now
        elif not self._notified_throttled and now - self._throttled_since >= THROTTLED_NOTICE_S:
            self._notified_throttled = True
            waited = f"the gateway has taken no submit for {THROTTLED_NOTICE_S:g} s ({reason})"
            self._context.notify(f"{waited}; dop keeps trying, and a refused submit costs nothing")

    def _detail(self, attempt: Attempt, response: Answer) -> str:
        """The response as it is kept in the history, without secrets."""
        if isinstance(response, NoResponse):
            text = response.what
        else:
            # Cut twice: before decoding, so that a body of a megabyte costs no time on the event loop, and after the
            # redaction, since a cut through a signature would leave a half that no pattern knows.
            body = response.body[:BODY_BYTES].decode("utf-8", "replace")
            text = redact(f"{response.status} {body}")[:DETAIL_CHARS] + response.trace
        return self._context.calls.without_secrets(attempt, text)


async def finish(work: Coroutine[Any, Any, T] | asyncio.Task[T]) -> T:
    """Run `work` to its end even when the caller is cancelled meanwhile; then let the cancellation through."""
    # A task of its own, which `shield` keeps from the caller's cancellation. A coroutine that is awaited directly would
    # be cancelled in the middle of a write.
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error  # also a third signal: what is in flight is a line in the ledger, not a wait
        except DopError:
            break
    if cancelled is not None:
        # Take the task's own error, which would otherwise be logged as never retrieved; the caller gets its
        # cancellation.
        with suppress(DopError):
            task.result()
        raise cancelled
    return task.result()


async def set_aside(context: RunContext, attempt: Attempt, error: BaseException) -> None:
    """An error of one request that became no outcome ends no other request's buying, unless it is the ledger's."""
    if isinstance(error, LedgerError):
        # The other workers' POSTs end and are recorded as far as the ledger can.
        context.stop.request(str(error), exit_code=error.exit_code, reach=StopScope.SUBMITS)
        return
    await context.firewall.park(STEP, attempt.request_id, attempt.row_id, error, reason=NOT_SENT)
    context.events.emit(RequestSetAside(request_id=attempt.request_id))
