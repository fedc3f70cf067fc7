"""What every step of a run works with, and the two records that the steps hand over. Built once by `run_pipeline`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from pipeline.gateway.client import GatewayClient
from pipeline.gateway.kinds.interface import GatewayKind
from pipeline.records import Attempt, State
from pipeline.runner.events import EventSink, JobAccepted
from pipeline.runner.firewall import Firewall
from pipeline.runner.rate_gate import RateGate
from pipeline.runner.reachability import Reachability
from pipeline.runner.recorder import EventRecorder
from pipeline.runner.stop import StopSignal
from pipeline.runner.submit_body import SubmitCallBuilder

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
    local_path: str | None = None
    """where it was saved before, relative to the outputs folder"""
    finished_at: float | None = None
    """Unix seconds at which the gateway said that it is finished; None for one that finished in this run"""
    tries: int = 0
    dead: int = 0
    """answers that the link gives no video (any more)"""
    link_is_newest: bool = False
    """the gateway named it in its last answer, or knows the job no more"""
    was_expired: bool = False
    """an earlier run found it expired, or got no link for it: one free poll for another one, and no more"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What every step of one run works with, complete when it is built; nothing is set from outside later.

    Attributes:
        unix_time: Unix seconds; `new_token`: a fresh compare-and-swap token.
        accepted: jobs on their way from the submitter to the poller.
        ready: videos on their way from the poller to the downloader.
        fail_point: called with the name of each fail point.
        notify: prints one line for the user.
        reachability: every call reports to it whether the gateway was reached.
        lease_s: seconds for which a reservation may be sent.
    """

    recorder: EventRecorder
    client: GatewayClient
    kind: GatewayKind
    gate: RateGate
    stop: StopSignal
    prices_microusd: Mapping[str, int]
    unix_time: Callable[[], float]
    new_token: Callable[[], str]
    calls: SubmitCallBuilder
    events: EventSink
    firewall: Firewall
    fail_point: Callable[[str], None]
    notify: Callable[[str], None]
    reachability: Reachability
    lease_s: float = RESERVATION_LEASE_S
    # Both queues are unbounded: with a full one the submitter would wait for the poller while it records a paid id.
    accepted: asyncio.Queue[PendingJob] = field(default_factory=asyncio.Queue)
    ready: asyncio.Queue[ReadyVideo] = field(default_factory=asyncio.Queue)
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("pipeline.run"))

    def log_event(self, name: str, **fields: object) -> None:
        """Write one line to the run's log. A log that fails stops nothing."""
        with suppress(BaseException):
            self.log.info(name, extra={"fields": fields})

    def hand_to_poller(self, job: PendingJob) -> None:
        """A job was accepted: the poller's from now on."""
        self.accepted.put_nowait(job)
        self.events.emit(JobAccepted(request_id=job.request_id))


def accepted_job(attempt: Attempt, job_set_id: str, polling_url: str | None, now: float) -> PendingJob:
    """The job of a submit that was accepted now (`now` in the loop's seconds)."""
    return PendingJob(
        request_id=attempt.request_id,
        row_id=attempt.row_id,
        take=attempt.take,
        model=attempt.params.model,
        job_set_id=job_set_id,
        polling_url=polling_url,
        accepted_at=now,
    )


def pending_job_of(attempt: Attempt, *, loop_now: float, now_unix: float) -> PendingJob:
    """A job that an earlier run left in flight, its acceptance translated to the loop's clock."""
    # The ledger has Unix seconds, which may have been set back since; a job has no negative age.
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
        local_path=attempt.local_path,
        finished_at=attempt.finished_at,
        was_expired=attempt.state in (State.EXPIRED, State.FAILED),
    )
