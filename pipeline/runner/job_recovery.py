"""Recovery of unclear submits: free polls of the ids that an unclear answer or a callback names, until one is proved.

One task a request, and every poll goes through the rate gate: a caller that repeats callbacks with one token, or names
ids of its own choice, gets no more polls than the gateway's pace and MAX_POLLS_A_REQUEST allow. What the ledger says
when the proof is there decides what it means: an unknown outcome is adopted, a second paid job is written down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pipeline.errors import DopError, InvariantError
from pipeline.gateway.job_proof import JobProof, only_id, prove_job
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import PAID_TWICE, Applied
from pipeline.records import Attempt, State, canonical_job_id
from pipeline.runner.context import RunContext, accepted_job
from pipeline.runner.firewall import error_words, is_cancellation
from pipeline.runner.free_poll import poll_in_turn
from pipeline.runner.stop import StopScope

A = TypeVar("A")

POLLS_AN_ID = 3
"""Polls of one id before it counts as not proved: soon after a submit a 404 may be replication lag."""

PAUSE_S = 2.0
"""Seconds between two rounds of polls for one request, so that a job has time to appear."""

MAX_IDS_AT_ONCE = 16
"""Ids that wait to be polled for one request. One or two are honest; a caller with a token may invent any number."""

MAX_POLLS_A_REQUEST = POLLS_AN_ID * MAX_IDS_AT_ONCE
"""Polls for the recovery of one request in one run; what is named after them is ignored, and the row stays as it is."""


@dataclass(slots=True)
class _Search:
    """The ids that are being polled for one request: id -> polls so far. `left` is how many polls it may still cost."""

    polls: dict[str, int] = field(default_factory=dict)
    left: int = MAX_POLLS_A_REQUEST
    evidence: str = ""
    task: asyncio.Task[None] | None = None


class JobRecovery:
    """The recovery tasks of one run."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._queries = LedgerQueries(context.recorder.ledger)
        self._searches: dict[str, _Search] = {}

    def propose(self, request_id: str, ids: Sequence[str], evidence: str) -> None:
        """Poll the job that `ids` name, if it is exactly one. `evidence` says for the ledger where they come from."""
        job_set_id = only_id(ids)
        if job_set_id is None:
            if ids:
                self._context.log.warning("several job ids prove none: %s (%s)", ", ".join(ids), evidence)
            return
        # Kept when the search has ended: its count of polls must hold for the whole run, or each repeated callback
        # would begin at zero.
        search = self._searches.setdefault(request_id, _Search())
        if job_set_id in search.polls:
            return
        if search.left <= 0 or len(search.polls) >= MAX_IDS_AT_ONCE:
            self._context.log.warning("too many job ids for request %s: %s is ignored", request_id, job_set_id)
            return
        search.polls[job_set_id] = 0
        search.evidence = evidence
        if search.task is None or search.task.done():
            search.task = asyncio.create_task(self._run(request_id, search))

    def is_busy(self, request_id: str) -> bool:
        """Whether ids of the request are being polled."""
        search = self._searches.get(request_id)
        return search is not None and search.task is not None and not search.task.done()

    async def wait(self) -> None:
        """Wait until nothing is being polled."""
        while tasks := [search.task for search in self._searches.values() if search.task and not search.task.done()]:
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, request_id: str, search: _Search) -> None:
        try:
            while search.polls and not self._context.stop.all:
                for job_set_id in tuple(search.polls):
                    await self._try(request_id, search, job_set_id)
                if search.polls:
                    await self._context.stop.pause(PAUSE_S, until=StopScope.ALL)
        except DopError as error:
            self._context.stop.request(str(error), exit_code=error.exit_code, reach=StopScope.SUBMITS)
        except BaseException as error:
            if is_cancellation(error):
                raise
            search.polls.clear()
            self._context.log_event("recovery", request_id=request_id, error=error_words(error))

    async def _try(self, request_id: str, search: _Search, job_set_id: str) -> None:
        attempts = self._queries.attempts_of(request_id)
        if search.left <= 0 or not _may_be_ours(attempts, job_set_id):
            del search.polls[job_set_id]
            return
        # A callback can overtake the response to its own submit. Whichever is recorded first is the truth, and the
        # response is worth more: it carries the polling address.
        if attempts[-1].state is State.SUBMITTING:
            return  # the answer to the submit comes first
        search.polls[job_set_id] += 1
        search.left -= 1
        proof = await self._poll(attempts[-1], job_set_id)
        if proof is None:
            return  # the run stops
        if proof.proved and await self._record(request_id, job_set_id, search.evidence):
            del search.polls[job_set_id]
        elif proof.final or search.polls[job_set_id] >= POLLS_AN_ID:
            del search.polls[job_set_id]
            self._context.log_event("not proved", request_id=request_id, job=job_set_id, reason=proof.reason)

    async def _poll(self, attempt: Attempt, job_set_id: str) -> JobProof | None:
        """One free poll in its turn; None when the run stopped before it."""
        context = self._context
        polled = await poll_in_turn(context, job_set_id, lambda: self._unless_stopped(context.client.poll(job_set_id)))
        return None if polled is None else prove_job(polled.answer, polled.outcome, attempt.params)

    async def _unless_stopped(self, poll: Coroutine[None, None, A]) -> A | None:
        """The answer to a poll, which is free; None when everything ends first, and the poll is cut."""
        stop, over = self._context.stop, asyncio.Event()

        def wake() -> None:
            if stop.all:
                over.set()

        asked, ending = asyncio.ensure_future(poll), asyncio.ensure_future(over.wait())
        stop.subscribe(wake)
        wake()
        try:
            await asyncio.wait((asked, ending), return_when=asyncio.FIRST_COMPLETED)
            return asked.result() if asked.done() else None
        finally:
            stop.unsubscribe(wake)
            # Cancelled and awaited: a poll that is only left alone would still use its connection while the client is
            # closed.
            for task in (asked, ending):
                task.cancel()
            await asyncio.gather(asked, ending, return_exceptions=True)

    async def _record(self, request_id: str, job_set_id: str, evidence: str) -> bool:
        """Record a proved job by what the ledger says now; False when a submit of the request must end first."""
        # Read again: the poll took its time, and the operator or another worker may have settled the row meanwhile.
        attempts = self._queries.attempts_of(request_id)
        if not _may_be_ours(attempts, job_set_id):
            return True
        attempt = attempts[-1]
        if attempt.state is State.SUBMITTING:
            return False
        if attempt.state in (State.UNKNOWN, State.PLANNED):
            await self._adopt(attempt, job_set_id, evidence)
        else:
            await self._note_second_job(attempt, job_set_id, evidence)
        return True

    async def _adopt(self, attempt: Attempt, job_set_id: str, evidence: str) -> None:
        context = self._context
        values = {"job_set_id": job_set_id, "accepted_at": context.unix_time(), "reason": None}
        try:
            recorded = await context.recorder.record(attempt.request_id, Event.ADOPT, values, detail=evidence)
        except InvariantError:
            return  # settled meanwhile
        if not isinstance(recorded, Applied):
            return
        context.notify(f"{attempt.row_id}: proved to be accepted, as job {job_set_id} ({evidence})")
        context.hand_to_poller(accepted_job(attempt, job_set_id, None, asyncio.get_running_loop().time()))

    async def _note_second_job(self, attempt: Attempt, job_set_id: str, evidence: str) -> None:
        """MONEY: the request has a job already, and this one was charged as well: nothing may forget its id."""
        text = f"{PAID_TWICE}: also as job {job_set_id}"
        await self._context.recorder.record(
            attempt.request_id, Event.NOTE, {"reason": text}, detail=f"{text}; {evidence}"
        )
        self._context.notify(f"{attempt.row_id}: {text}, besides {attempt.job_set_id or 'what the ledger holds'}")


def _may_be_ours(attempts: Sequence[Attempt], job_set_id: str) -> bool:
    """Whether a submit of the request was sent whose job is not known, so that this id may be that job."""
    known = {canonical_job_id(one.job_set_id) for one in attempts if one.job_set_id}
    if not attempts or canonical_job_id(job_set_id) in known or _names(attempts[-1].reason, job_set_id):
        return False
    # Each POST makes one job at the most: where every POST has its job, a further id is of another request.
    return sum(one.submit_attempts for one in attempts) > len(known)


def _names(reason: str | None, job_set_id: str) -> bool:
    return reason is not None and reason.startswith(PAID_TWICE) and job_set_id in reason
