"""Paid calls that the ledger kept, and those of them whose job is known."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.gateway.kinds.interface import Call
from pipeline.ledger.held_jobs import HeldJobs
from pipeline.records import Attempt, canonical_job_id
from pipeline.runner.context import RunContext

YOUNG_S = 3600.0
"""An intent of at most this age may be tested by a younger call, or by its own. Older ones need a call that is not
younger: how long the gateway keeps a key is not stated."""

MAX_WITNESSES = 3
"""Calls that are tried for one answer that tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldCall:
    """A call whose job is known."""

    attempt: Attempt
    call: Call
    job_set_id: str


class HeldCalls:
    """The calls of one gateway. `gateway` is its id in the ledger."""

    def __init__(self, context: RunContext, gateway: str) -> None:
        self._context, self._gateway = context, gateway
        self._jobs = HeldJobs(context.recorder.ledger)
        self._last: HeldCall | None = None

    def kept(self, attempt: Attempt) -> Call | None:
        """The call that the ledger kept with the attempt's newest intent."""
        text = self._jobs.kept_call(attempt.request_id, attempt.attempt)
        return None if text is None else Call.unsealed(text)

    def witnesses(self, attempt: Attempt) -> list[HeldCall]:
        """Calls with a known job: the newest that are not younger than `attempt`; for a young one, any.

        The one that served last comes first, as long as it serves: few keys are then asked about.
        """
        submitted_at = attempt.submitted_at or 0.0
        older = self._jobs.held_jobs(self._gateway, until=submitted_at)
        younger = self._jobs.held_jobs(self._gateway, since=submitted_at) if self.age_s(attempt) <= YOUNG_S else []
        found = [
            HeldCall(attempt=one, call=call, job_set_id=one.job_set_id)
            for one in (*older, *younger)
            if (call := self.kept(one)) is not None and one.job_set_id is not None
        ]
        last = [one for one in (self._last,) if one is not None and self._serves(one.attempt, attempt)]
        return [*last, *found][:MAX_WITNESSES]

    def served(self, witness: HeldCall) -> None:
        """The key of this call was shown to be honoured."""
        self._last = witness

    def _serves(self, witness: Attempt, attempt: Attempt) -> bool:
        sent_at, submitted_at = witness.submitted_at or 0.0, attempt.submitted_at or 0.0
        is_old_enough = sent_at <= submitted_at or self.age_s(attempt) <= YOUNG_S
        # Nor much older: a gateway that has forgotten an old key would look like one that honours none.
        return is_old_enough and sent_at >= submitted_at - YOUNG_S

    def is_known(self, job_set_id: str) -> bool:
        """Whether a job is some request's in the ledger."""
        return self.owner(job_set_id) is not None

    def owner(self, job_set_id: str) -> str | None:
        """The request that a job belongs to."""
        return self._jobs.owner_of_job(self._gateway, job_set_id)

    def age_s(self, attempt: Attempt) -> float:
        """Seconds since the attempt was sent."""
        return self._context.unix_time() - (attempt.submitted_at or 0.0)


def same_job(one: str, other: str) -> bool:
    """Whether two ids name one job."""
    return canonical_job_id(one) == canonical_job_id(other)
