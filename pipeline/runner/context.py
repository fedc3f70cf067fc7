"""What every step works with: the doors it may touch and the words it leaves behind. Built once a run by `run`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.gateway.client import GatewayClient
from pipeline.records import Attempt
from pipeline.runner.rate_gate import RateGate
from pipeline.runner.recorder import EventRecorder
from pipeline.runner.stop import StopSignal

RESERVATION_LEASE_S = 20.0
"""Seconds from a reservation to the first byte of its POST, connecting (10 s at most) included. A ledger's server drops
a session that was silent for some 35 s; only then can another process settle the request."""


@dataclass(slots=True, kw_only=True)
class PendingJob:
    """The little that a waiting job needs, so that 100,000 of them fit in memory. Times are the loop's seconds."""

    request_id: str
    row_id: str
    take: int
    model: str
    job_set_id: str
    polling_url: str | None
    accepted_at: float
    polls: int = 0
    polls_without_url: int = 0
    refused: int = 0
    nudged_at: float = float("-inf")
    senseless: int = 0
    senseless_reason: str = ""


@dataclass(slots=True, kw_only=True)
class ReadyVideo:
    """A video that is ready to be fetched."""

    request_id: str
    row_id: str
    take: int
    job_set_id: str
    polling_url: str | None
    video_url: str
    tries: int = 0
    refreshed: bool = False


@dataclass(slots=True, kw_only=True)
class RunContext:
    """The surroundings of one run's requests.

    `wall` gives Unix seconds, `new_token` a fresh compare-and-swap token, `body` the submit's bytes of an attempt,
    `callback_url` where the gateway may call about it; `hidden` takes that out of what is kept of an answer.
    `accepted` and `finished` hand a request on to the next step, `lost` hears of unclear submits. `reach` is called
    with the name of each fail point.
    """

    recorder: EventRecorder
    client: GatewayClient
    gate: RateGate
    stop: StopSignal
    prices_microusd: dict[str, int]
    unix_time: Callable[[], float]
    new_token: Callable[[], str]
    body: Callable[[Attempt], bytes]
    on_accepted: Callable[[PendingJob], None]
    on_video_ready: Callable[[ReadyVideo], None]
    fail_point: Callable[[str], None]
    notify: Callable[[str], None]
    callback_url: Callable[[Attempt], str | None] = lambda attempt: None
    extra_secrets: Callable[[Attempt, str], str] = lambda attempt, text: text
    on_unknown: Callable[[Attempt], None] = lambda attempt: None
    lease_s: float = RESERVATION_LEASE_S
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("pipeline.run"))


def pending_job_of(attempt: Attempt, *, loop_now: float, now_unix: float) -> PendingJob:
    """A job that an earlier run left in flight, its acceptance translated to the loop's clock."""
    age_s = max(0.0, now_unix - (attempt.accepted_at or now_unix))
    return PendingJob(
        request_id=attempt.request_id,
        row_id=attempt.row_id,
        take=attempt.take,
        model=attempt.params.model,
        job_set_id=attempt.job_set_id or "",
        polling_url=attempt.polling_url,
        accepted_at=loop_now - age_s,
        polls=attempt.polls,
    )


def ready_video_of(attempt: Attempt) -> ReadyVideo:
    """A finished job whose video an earlier run did not save."""
    return ReadyVideo(
        request_id=attempt.request_id,
        row_id=attempt.row_id,
        take=attempt.take,
        job_set_id=attempt.job_set_id or "",
        polling_url=attempt.polling_url,
        video_url=attempt.video_url or "",
    )
