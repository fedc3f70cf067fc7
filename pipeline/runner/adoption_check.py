"""Whether the job that the operator names for an unknown outcome is that request's. Free polls; nothing is written."""

from __future__ import annotations

import time

from pipeline.config.settings import Settings
from pipeline.errors import UsageError
from pipeline.gateway.classification import PollOutcomeKind
from pipeline.gateway.job_proof import JobProof, prove_job
from pipeline.gateway.json_fields import as_id
from pipeline.gateway.kinds import kind_of
from pipeline.records import Attempt
from pipeline.runner.embedded_sandbox import gateway_for
from pipeline.runner.engine import gateway_client


async def check_adoption(settings: Settings, key: str, attempt: Attempt, job_set_id: str) -> str:
    """Ask the gateway for the job before a request is settled with it: an adopted job can't be exchanged for another.

    Returns:
        Why nothing could be checked; "" when the job is known and nothing says that it is another request's.

    Raises:
        UsageError: it can be no id, the gateway knows no such job, or it is another request's.
    """
    if as_id(job_set_id) is None:
        raise UsageError(f"{job_set_id!r} can be no job's id; nothing was changed")
    async with gateway_for(settings) as base_url, gateway_client(settings, base_url, key) as client:
        kind = kind_of(settings)
        for style in kind.poll_styles:
            answer = await client.poll(job_set_id, None, style)
            outcome = kind.classify_poll(answer, now_unix=time.time(), job_set_id=job_set_id)
            if outcome.kind is not PollOutcomeKind.NOT_FOUND:
                return _judged(prove_job(answer, outcome, attempt.params), attempt, job_set_id)
    raise UsageError(
        f"the gateway knows no job {job_set_id}; nothing was changed. Copy the id from its job list or invoice; "
        "if it is there and the video is lost, say --charged"
    )


def _judged(proof: JobProof, attempt: Attempt, job_set_id: str) -> str:
    if proof.final:
        raise UsageError(f"job {job_set_id} is not {attempt.row_id}'s: {proof.reason}; nothing was changed")
    return "" if proof.proved else proof.reason
