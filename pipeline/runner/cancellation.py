"""Canceling one job: a few calls until it is known whether it is canceled, and so not charged. Free."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pipeline.gateway.classification import PollOutcomeKind
from pipeline.gateway.client import GatewayClient
from pipeline.gateway.job_status import JobStatus
from pipeline.gateway.kinds.interface import CancelOutcome, GatewayKind

CANCEL_TRIES = 5
"""Cancel calls for one job before it counts as not canceled."""

CANCEL_PAUSE_S = 0.2
"""Seconds before the second cancel call, doubled each time: a job can be canceled only while it is queued."""


async def cancel_job(
    client: GatewayClient, kind: GatewayKind, job_set_id: str, *, pause: Callable[[float], Awaitable[None]]
) -> CancelOutcome:
    """Cancel a job; `pause` waits so many seconds.

    A refusal may follow a cancel call whose answer was lost: a canceled job can not be canceled again. So the job's own
    state decides before it counts as too late.
    """
    for tries in range(CANCEL_TRIES):
        found = kind.classify_cancel(await client.ask(kind.cancel_call(job_set_id)))
        if found is CancelOutcome.CANCELED or await _is_canceled(client, kind, job_set_id):
            return CancelOutcome.CANCELED
        if found is CancelOutcome.TOO_LATE:
            return found
        await pause(CANCEL_PAUSE_S * 2**tries)
    return CancelOutcome.UNCLEAR


async def _is_canceled(client: GatewayClient, kind: GatewayKind, job_set_id: str) -> bool:
    answer = await client.ask(kind.poll_call(job_set_id, None, kind.poll_styles[0]))
    found = kind.classify_poll(answer, now_unix=0.0, job_set_id=job_set_id)
    report = found.report
    return found.kind is PollOutcomeKind.REPORT and report is not None and report.status is JobStatus.CANCELED
