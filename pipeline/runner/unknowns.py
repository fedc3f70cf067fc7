"""Submits of unknown outcome: how one is proved to be accepted by a free poll, and which may be sent again.

A response that was not understood, or a callback to the attempt's own address, may name a job. That proves nothing
until the gateway, asked by a free poll, reports that job and says nothing that contradicts the request. Nothing here
sends a submit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import InvariantError, LedgerError
from pipeline.gateway.classification import PollOutcome, PollOutcomeKind, classify_poll
from pipeline.gateway.responses import NoResponse, Response
from pipeline.gateway.wire import echo_differs, parse_submit, read_json
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied
from pipeline.records import Attempt, State, usd
from pipeline.runner.context import RunContext, accepted_job
from pipeline.runner.firewall import error_words
from pipeline.runner.stop import StopScope

RECOVERY_TRIES = 3
"""Free polls of one candidate id before it is given up: a new job may be reported late (replication lag)."""

RECOVERY_PAUSE_S = 2.0
"""Seconds between two polls of one candidate id."""

RESEND_REASON = "sent again after an unknown outcome (on_unknown.policy is resend)"


def proves_acceptance(response: Response | NoResponse, outcome: PollOutcome, attempt: Attempt) -> bool:
    """Whether the response to a free poll of a candidate id proves that it is this attempt's job.

    MONEY: the one proof for responses and callbacks alike; an adopted job counts as paid and is not bought again.
    """
    return outcome.kind is PollOutcomeKind.REPORT and not _is_of_another(response, attempt)


def _is_of_another(response: Response | NoResponse, attempt: Attempt) -> bool:
    """Whether what the gateway repeats of the job's request contradicts its being this attempt's."""
    ticket = parse_submit(read_json(response.body)) if isinstance(response, Response) else None
    return ticket is not None and echo_differs(ticket, attempt.params) is not None


class UnknownRecovery:
    """Looks for the jobs of unclear submits, each in a task of its own."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Whether any candidate is being polled."""
        return bool(self._tasks)

    def start(self, attempt: Attempt, candidates: Sequence[str], *, evidence: str, is_new: bool) -> None:
        """Poll these job ids, free of charge; adopt the one that is proved.

        Args:
            evidence: where the ids are from, for the history.
            is_new: the submit ended just now, so that a 404 may be replication lag and is asked about again.
        """
        if candidates:
            task = asyncio.create_task(self._recover(attempt, candidates, evidence, is_new=is_new))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def wait(self) -> None:
        """Wait for the polls in progress."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _recover(self, attempt: Attempt, candidates: Sequence[str], evidence: str, *, is_new: bool) -> None:
        try:
            for job_set_id in candidates:
                proved = await self._is_proved(attempt, job_set_id, is_new=is_new)
                if proved and await self._adopt(attempt, job_set_id, evidence):
                    return
        except InvariantError:
            return  # settled meanwhile, by another proof or by the operator
        except LedgerError as error:
            self._context.stop.request(str(error), exit_code=error.exit_code, reach=StopScope.SUBMITS)
        except Exception as error:  # noqa: BLE001 - the request stays unknown, which is safe
            self._context.log_event("recovery", row_id=attempt.row_id, error=error_words(error))

    async def _is_proved(self, attempt: Attempt, job_set_id: str, *, is_new: bool) -> bool:
        context = self._context
        for number in range(RECOVERY_TRIES):
            if number or is_new:
                await asyncio.sleep(RECOVERY_PAUSE_S)
            response = await context.client.poll(job_set_id)
            outcome = classify_poll(response, now_unix=context.unix_time(), job_set_id=job_set_id)
            if outcome.kind is PollOutcomeKind.REPORT:
                return proves_acceptance(response, outcome, attempt)
            if outcome.kind is PollOutcomeKind.NOT_FOUND and not is_new:
                return False
        return False

    async def _adopt(self, attempt: Attempt, job_set_id: str, evidence: str) -> bool:
        """Record the proof; False when the job belongs to another request, or this one was settled meanwhile."""
        context = self._context
        recorded = await context.recorder.record(
            attempt.request_id,
            Event.ADOPT,
            {"job_set_id": job_set_id, "accepted_at": context.unix_time(), "reason": None},
            detail=evidence,
        )
        if not isinstance(recorded, Applied):
            return False
        context.notify(f"{attempt.row_id}: proved to be accepted, as job {job_set_id} ({evidence})")
        context.hand_to_poller(accepted_job(attempt, job_set_id, None, asyncio.get_running_loop().time()))
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class ResendPolicy:
    """`on_unknown: resend`: at the start of a run, unknown outcomes are sent once more, up to a sum of money.

    It is opt-in because it may pay twice: an account that was charged for the first POST is charged for the second as
    well, unless the gateway honours the idempotency key, which stays the same. Never during a run, and never a second
    time. `resent` are requests that were sent again before, by any run; money in micro-dollars. `used_microusd` is the
    price of what this run has sent again so far, over all its restarts.
    """

    max_cost_microusd: int
    used_microusd: int
    resent: frozenset[str]

    def chosen(self, unknowns: Iterable[Attempt], prices_microusd: Mapping[str, int]) -> tuple[list[Attempt], int]:
        """Which of `unknowns` are sent again, in their order, and how many stay because the money is used up."""
        left = self.max_cost_microusd - self.used_microusd
        chosen: list[Attempt] = []
        stay = 0
        for attempt in unknowns:
            if attempt.state is not State.UNKNOWN or attempt.request_id in self.resent:
                continue
            price = prices_microusd.get(attempt.params.model)
            if price is None or price > left:
                stay += 1
                continue
            left -= price
            chosen.append(attempt)
        return chosen, stay


async def resend_unknowns(context: RunContext, policy: ResendPolicy, unknowns: Iterable[Attempt]) -> int:
    """Plan the chosen ones again and notify; returns how many. The submitter buys them with the others.

    Pays: what it plans is bought, and may have been paid already.
    """
    chosen, stay = policy.chosen(unknowns, context.prices_microusd)
    planned: list[Attempt] = []
    for attempt in chosen:
        values = {"resends": attempt.resends + 1, "reason": RESEND_REASON}
        recorded = await context.recorder.record(
            attempt.request_id, Event.RESEND, values, detail="on_unknown.policy is resend"
        )
        if isinstance(recorded, Applied):
            planned.append(attempt)
    if planned:
        price = sum(context.prices_microusd[attempt.params.model] for attempt in planned)
        context.notify(
            f"{len(planned)} unknown outcomes are sent again for ${usd(price)}; each may have been paid already"
        )
    if stay:
        context.notify(f"{stay} stay unknown: sending them again would pass on_unknown.max_cost")
    return len(planned)
