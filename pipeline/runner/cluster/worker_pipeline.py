"""The steps of one run in one worker: the same as on a single machine, with a shared rate and a shared loss budget."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from pipeline.assets.image_urls import ImageUrlResolver, InputImages
from pipeline.assets.publishing import OutputPublisher
from pipeline.errors import InvariantError, LedgerError
from pipeline.gateway.client import GatewayClient
from pipeline.gateway.download import VideoFetcher
from pipeline.gateway.kinds import kind_of
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import ChangeResult, Conflict
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import Attempt, State
from pipeline.reports.run_folder import RunFolder
from pipeline.runner.circuit_breaker import CircuitBreaker
from pipeline.runner.cluster.callback_relay import CallbackRelay
from pipeline.runner.cluster.job_queue import JobQueue, RunOrder
from pipeline.runner.cluster.shared_losses import SharedLosses
from pipeline.runner.cluster.shared_rate import SharedRateLimiter
from pipeline.runner.cluster.shared_rate_gate import SharedRateGate
from pipeline.runner.context import RESERVATION_LEASE_S, RunContext
from pipeline.runner.events import EventRecorded, EventSink, LedgerFailed
from pipeline.runner.fail_points import fail_point
from pipeline.runner.loss_guard import LossGuard
from pipeline.runner.recorder import EventRecorder
from pipeline.runner.replays import ReplayHost
from pipeline.runner.run_pipeline import CallbackSetup, PipelineSetup, RunPipeline, build_pipeline
from pipeline.runner.stop import StopSignal
from pipeline.runner.submit_body import SubmitCallBuilder


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerResources:
    """What all executors of a worker share.

    `on_failure` is called when this worker should restart its session, `on_end` with each request that is not
    processed here any more and whether it came to its end, and `on_sent` when one waits to be bought no longer.
    """

    workspace: OpenLedger
    queue: JobQueue
    shared_rate: SharedRateLimiter
    client: GatewayClient
    fetcher: VideoFetcher
    publisher: OutputPublisher | None
    base_url: str
    notify: Callable[[str], None]
    on_failure: Callable[[str], None]
    on_end: Callable[[str, bool], None]
    on_sent: Callable[[], None]
    log: logging.Logger
    callbacks: CallbackRelay | None = None


class ClusterEventRecorder(EventRecorder):
    """A recorder among several: what another worker recorded first is no error, and nothing is done twice."""

    async def record(
        self,
        request_id: str,
        event: Event,
        values: Mapping[str, object] | None = None,
        *,
        token: str | None = None,
        detail: str = "",
    ) -> ChangeResult:
        """Record one event; a state that forbids it was made by another worker meanwhile, and is a conflict."""
        try:
            return await super().record(request_id, event, values, token=token, detail=detail)
        except InvariantError:
            # MONEY: a purchase that the ledger's rules or the agreement forbid is never another worker's doing.
            if event is Event.RESERVE:
                raise
        except LedgerError as error:
            self.events.emit(LedgerFailed(error=error))
            raise
        conflict = Conflict(state=None)
        self.events.emit(EventRecorded(request_id=request_id, event=event, result=conflict, totals=self.totals))
        return conflict


def worker_pipeline(
    order: RunOrder,
    around: WorkerResources,
    *,
    stop: StopSignal,
    events: EventSink,
    requests: Callable[[RunContext], AsyncIterator[Attempt]],
    state_of: Callable[[str], State | None],
    replay_host: ReplayHost,
) -> RunPipeline:
    """Build the steps of an ordered run. The arguments are as in PipelineSetup and CallbackSetup."""
    kind = kind_of(around.workspace.settings)
    urls = ImageUrlResolver(InputImages({}), embedded=False, base_url=around.base_url)
    relay = around.callbacks
    return build_pipeline(
        PipelineSetup(
            workspace=around.workspace,
            run_id=order.run_id,
            caps=order.caps,
            totals=around.workspace.queries.totals(order.run_id),
            folder=_run_folder(around.workspace, order.run_id),
            client=around.client,
            fetcher=around.fetcher,
            publisher=around.publisher,
            kind=kind,
            calls=SubmitCallBuilder(kind, urls, relay.addresses if relay is not None else None),
            requests=requests,
            stop=stop,
            events=events,
            unix_time=time.time,
            notify=around.notify,
            fail_point=fail_point(os.environ),
            log=around.log,
            collect=order.collect,
            recorder=ClusterEventRecorder,
            shared_gate=partial(_shared_gate, around),
            shared_health=partial(_shared_losses, order, around),
            callbacks=CallbackSetup(state_of=state_of, linger_s=0.0) if relay is not None else None,
            replay_host=replay_host,
            # MONEY: another worker takes the request over after `stalled_after`; by then this one must not send it.
            lease_s=min(RESERVATION_LEASE_S, around.workspace.settings.cluster.stalled_after_s / 2),
        )
    )


def _shared_losses(
    order: RunOrder, around: WorkerResources, breaker: CircuitBreaker, losses: LossGuard
) -> SharedLosses:
    return SharedLosses(
        queries=around.workspace.queries,
        gateway=around.workspace.gateway,
        run_id=order.run_id,
        breaker=breaker,
        losses=losses,
        lease=around.queue,
        holder=f"{uuid.uuid4().hex} {order.run_id}",
        trouble=around.log.warning,
    )


def _run_folder(workspace: OpenLedger, run_id: str) -> RunFolder:
    folder = RunFolder(workspace.outputs, run_id)
    folder.videos.mkdir(parents=True, exist_ok=True)
    return folder


def _shared_gate(around: WorkerResources, limiter: AdaptiveRateLimiter, stop: StopSignal) -> SharedRateGate:
    settings = around.workspace.settings
    return SharedRateGate(
        limiter,
        stop,
        around.shared_rate,
        polls_share=settings.poll.rate == "shared",
        lease_s=settings.cluster.stalled_after_s / 3,
    )
