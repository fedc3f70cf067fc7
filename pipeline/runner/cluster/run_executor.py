"""One run on one worker: the same steps as on a single machine, fed with requests as the queue hands them on.

A request is looked after until there is nothing more to do for it here. Everything it needs to go on elsewhere is in
the ledger, so a line may be cut at any time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import cast

from pipeline.assets.image_urls import ImageUrlResolver, InputImages
from pipeline.assets.publishing import OutputPublisher
from pipeline.errors import SIGNAL_EXITS, DopError, ExitCode, InvariantError, LedgerError
from pipeline.gateway.client import GatewayClient
from pipeline.gateway.download import VideoFetcher
from pipeline.gateway.kinds import kind_of
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter
from pipeline.gateway.webhook_tokens import CallbackDelivery
from pipeline.ledger.postgres_session import cause_of
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied, ChangeResult, Conflict
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import Attempt, State
from pipeline.reports.run_folder import RunFolder
from pipeline.runner.callback_poll_schedule import CallbackPollSchedule
from pipeline.runner.circuit_breaker import CircuitBreaker
from pipeline.runner.cluster.callback_relay import CallbackRelay
from pipeline.runner.cluster.held_requests import HeldRequests
from pipeline.runner.cluster.job_queue import JobQueue, RunOrder, StopNotice
from pipeline.runner.cluster.shared_losses import SharedLosses
from pipeline.runner.cluster.shared_rate import SharedRateLimiter
from pipeline.runner.cluster.shared_rate_gate import SharedRateGate
from pipeline.runner.cluster.shot_keeper import ShotKeeper
from pipeline.runner.context import RESERVATION_LEASE_S, pending_job_of, ready_video_of
from pipeline.runner.events import EventRecorded, EventSink, LedgerFailed, OutcomeUnknown, RequestSetAside
from pipeline.runner.fail_points import fail_point
from pipeline.runner.loss_guard import LossGuard
from pipeline.runner.poll_schedule import PollSchedule
from pipeline.runner.recorder import EventRecorder
from pipeline.runner.run_pipeline import CallbackSetup, PipelineSetup, RunPipeline, build_pipeline
from pipeline.runner.stop import StopScope, StopSignal
from pipeline.runner.submit_body import SubmitCallBuilder

RECOVERY_TIMEOUT_S = 10.0
"""How long, in seconds, an executor that closes waits for the proof of an unclear submit."""

SETTLE_ROUNDS = 15
"""Rounds of maintenance between two looks at all shots, for candidates whose worker died before it asked for more."""

PENDING_STATES = frozenset({State.PLANNED, State.SUBMITTING, State.ACCEPTED})
"""Something remains to be done for it; every other state is an end, for now or for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerResources:
    """What all lines of a worker share. `trouble` is called when this worker should restart its session."""

    workspace: OpenLedger
    queue: JobQueue
    shared_rate: SharedRateLimiter
    turn: asyncio.Lock
    client: GatewayClient
    fetcher: VideoFetcher
    publisher: OutputPublisher | None
    base_url: str
    notify: Callable[[str], None]
    on_failure: Callable[[str], None]
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
            if event is Event.RESERVE:
                raise
        except LedgerError as error:
            self.events.emit(LedgerFailed(error=error))
            raise
        conflict = Conflict(state=None)
        self.events.emit(EventRecorded(request_id=request_id, event=event, result=conflict, totals=self.totals))
        return conflict


class RunExecutor:
    """The steps of one ordered run in this worker. `look_after` may be called for many requests at once."""

    def __init__(self, order: RunOrder, around: WorkerResources) -> None:
        self.order, self._around = order, around
        self.stop = StopSignal()
        self._held = HeldRequests()
        self._broken = self._closing = self._warned = False
        self._tasks: list[asyncio.Task[None]] = []
        self._downloads = order.collect and around.workspace.settings.download.enabled
        self.shots = ShotKeeper(around.workspace, order.run_id)
        self._checks: set[asyncio.Task[None]] = set()
        self._rounds = 0
        self.pipeline = self._build()
        self._gate = cast("SharedRateGate", self.pipeline.context.gate)

    def _build(self) -> RunPipeline:
        around, order, events = self._around, self.order, EventSink()
        events.subscribe(EventRecorded, self._recorded)
        events.subscribe(LedgerFailed, self._ledger_failed)
        events.subscribe(RequestSetAside, lambda event: self._end(event.request_id))
        kind = kind_of(around.workspace.settings)
        urls = ImageUrlResolver(InputImages({}), embedded=False, base_url=around.base_url)
        relay = around.callbacks
        return build_pipeline(
            PipelineSetup(
                workspace=around.workspace,
                run_id=order.run_id,
                caps=order.caps,
                totals=around.workspace.book.totals(order.run_id),
                folder=_run_folder(around.workspace, order.run_id),
                client=around.client,
                fetcher=around.fetcher,
                publisher=around.publisher,
                kind=kind,
                calls=SubmitCallBuilder(kind, urls, relay.addresses if relay is not None else None),
                requests=lambda _: self._held.fed(),
                stop=self.stop,
                events=events,
                unix_time=time.time,
                notify=around.notify,
                fail_point=fail_point(os.environ),
                log=around.log,
                collect=order.collect,
                recorder=ClusterEventRecorder,
                shared_gate=partial(_shared_gate, around),
                shared_health=self._shared_losses,
                callbacks=CallbackSetup(state_of=self._state_of, linger_s=0.0) if relay is not None else None,
                # MONEY: another worker takes the request over after `stalled_after`; by then this one must not send it.
                lease_s=min(RESERVATION_LEASE_S, around.workspace.settings.cluster.stalled_after_s / 2),
            )
        )

    def _shared_losses(self, breaker: CircuitBreaker, losses: LossGuard) -> SharedLosses:
        around = self._around
        return SharedLosses(
            book=around.workspace.book,
            gateway=around.workspace.gateway,
            run_id=self.order.run_id,
            breaker=breaker,
            losses=losses,
            lease=around.queue,
            holder=f"{uuid.uuid4().hex} {self.order.run_id}",
            trouble=around.log.warning,
        )

    def _state_of(self, request_id: str) -> State | None:
        """For callbacks: whether this worker has the request; what the ledger says of others does not matter here."""
        return State.SUBMITTING if request_id in self._held else None

    @property
    def _schedule(self) -> PollSchedule:
        return self.pipeline.schedule

    def warn(self) -> None:
        """Says once that callbacks are wanted and none come."""
        if not self._warned and isinstance(self._schedule, CallbackPollSchedule) and self._schedule.gave_up:
            self._warned = True
            self._around.notify("jobs end without a callback: polling as usual; check webhook.public_url")

    async def maintain(self) -> None:
        """One round of what is done from time to time."""
        self.warn()
        self._rounds += 1
        if self._rounds % SETTLE_ROUNDS == 0:
            await self.shots.settle_all()

    # -- one request

    @property
    def unsent(self) -> int:
        """How many requests wait here to be bought."""
        return self._held.unsent

    @property
    def active_count(self) -> int:
        """How many requests are looked after here."""
        return len(self._held)

    async def process_request(self, attempt: Attempt) -> bool:
        """One request's life from wherever the ledger says it is; False when the line closes before its end.

        Pays: yes, when it is planned and the order says buy.
        """
        done = self._held.hold(attempt.request_id)
        try:
            if self._closing:
                return False
            return not await self._take_up(attempt) or await asyncio.shield(done)
        finally:
            self._held.release(attempt.request_id)

    async def _take_up(self, attempt: Attempt) -> bool:
        """Hands the request to its step; False when there is none for it."""
        if attempt.state is State.SUBMITTING:
            await self._lost_by_another(attempt)
        elif attempt.state is State.PLANNED:
            if not self.order.buy or self.stop.submits or attempt.is_spare:
                return False
            self._held.buy(attempt)
            return True
        elif attempt.state in (State.ACCEPTED, State.STALLED) and self.order.collect:
            job = pending_job_of(attempt, loop_now=asyncio.get_running_loop().time(), now_unix=time.time())
            self.pipeline.poller.resume(job, soon=self.pipeline.callbacks is not None)
            return True
        elif attempt.state is State.DONE and attempt.lacks_file and self._downloads:
            self.pipeline.context.ready.put_nowait(ready_video_of(attempt))
            return True
        elif attempt.state is State.DONE and self.shots.has(attempt.request_id):
            await self.shots.check(attempt)  # the worker that fetched it did not live to check it
        return False

    async def _lost_by_another(self, attempt: Attempt) -> None:
        """MONEY: its worker died or froze during the submit. It may be paid: never sent again automatically.

        The token names that very submit: when its worker wakes after all, its answer is still booked.
        """
        why = {"reason": "the worker was lost during the submit"}
        context = self.pipeline.context
        recorded = await context.recorder.record(attempt.request_id, Event.LOSE, why, token=attempt.token)
        if isinstance(recorded, Applied):
            context.events.emit(OutcomeUnknown(attempt=attempt))

    # -- what the steps say

    def _recorded(self, recorded: EventRecorded) -> None:
        request_id, event, result = recorded.request_id, recorded.event, recorded.result
        if not isinstance(result, Applied):
            self._end(request_id)  # another worker has it, or a cap is reached: then the run stops as well
            return
        if event is Event.RESERVE:
            return
        state = result.state
        if state is not State.SUBMITTING and state is not State.PLANNED:
            self._held.sent(request_id)
        if state is State.DONE and event is Event.COMPLETE and self._downloads:
            return
        if self.shots.has(request_id) and state not in PENDING_STATES:
            self._settle(request_id, is_clip=state is State.DONE)
            return
        if state not in PENDING_STATES or (state is State.ACCEPTED and not self.order.collect):
            self._end(request_id)

    def _settle(self, request_id: str, *, is_clip: bool) -> None:
        """A candidate came out: its clip is checked, and its shot asks for the next one, before it is let go."""
        task = asyncio.create_task(self._settled(request_id, is_clip=is_clip))
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)

    async def _settled(self, request_id: str, *, is_clip: bool) -> None:
        try:
            attempt = self._around.workspace.book.listed(self.order.run_id, request_id) if is_clip else None
            if attempt is not None:
                await self.shots.check(attempt)
            else:
                await self.shots.settle(request_id)
        except DopError as error:
            self._broken = True
            self._around.on_failure(str(error))
        finally:
            self._end(request_id)

    def _end(self, request_id: str) -> None:
        self._held.end(request_id, is_finished=not self._closing)

    def called(self, delivery: CallbackDelivery) -> bool:
        """A callback named this request; False when this executor does not process it."""
        callbacks = self.pipeline.callbacks
        return callbacks is not None and callbacks.delivered(delivery)

    def _ledger_failed(self, failed: LedgerFailed) -> None:
        self._broken = True
        self._around.on_failure(str(failed.error))

    # -- the line itself

    def apply_stop(self, halted: StopNotice) -> None:
        """Another host found a reason to stop buying."""
        self.stop.request(halted.text, exit_code=halted.exit_code, reach=StopScope.SUBMITS)

    def start(self) -> None:
        """The steps begin to work."""
        steps = (self._buy, self._poll, self.pipeline.downloader.run)
        self._tasks = [asyncio.create_task(self._run_step(step)) for step in steps]
        self._tasks += [asyncio.create_task(self._watch()), asyncio.create_task(self.pipeline.context.gate.watch())]

    async def _poll(self) -> None:
        """Poll what is accepted; an order of `dop submit` leaves it for the command that collects."""
        if self.order.collect:
            await self.pipeline.poller.run()

    async def _buy(self) -> None:
        try:
            await self.pipeline.buy()
        finally:
            for request_id in self._held.unsent_ids():
                self._end(request_id)

    async def _run_step(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except BaseException as error:
            self._fell(error)
            raise

    def _fell(self, error: BaseException) -> None:
        if not isinstance(error, asyncio.CancelledError):
            self._broken = True
            self._around.on_failure(f"a step broke: {error!r}")

    async def _watch(self) -> None:
        """A reason to stop buying reaches the queue of this worker and every other host."""
        async for reason in self.stop.follow():
            self._held.stop_buying()
            if self._broken or reason.exit_code in SIGNAL_EXITS:
                continue
            self._around.log.warning("stop", extra={"fields": {"run": self.order.run_id, "reason": reason.text}})
            try:
                halted = StopNotice(text=reason.text, exit_code=reason.exit_code)
                await self._around.queue.put_stop_notice(self.order.run_id, self.order.version, halted)
            except Exception as error:  # noqa: BLE001 - the database is away: this worker begins again
                self._around.on_failure(f"a stop reason could not be passed on ({cause_of(error)})")

    async def close(self) -> None:
        """Submits in flight end and are booked; everything else is left for other workers."""
        self._broken = self._closing = True  # what is said from here on is about this worker, not about the run
        self.stop.request("the worker stops", exit_code=ExitCode.TERMINATED, reach=StopScope.ALL)
        self.pipeline.poller.close_input()
        self._held.stop_buying()
        if self._tasks:
            buying, looking, fetching, *watching = self._tasks
            await asyncio.wait([buying])
            await asyncio.wait([looking])
            for task in (fetching, *watching):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for check in self._checks:
            check.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)
        await self.shots.close()
        await self._gate.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.pipeline.recovery.wait(), RECOVERY_TIMEOUT_S)
        self._held.end_all(is_finished=False)
        self._held.forget_unsent()


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
        turn=around.turn,
        polls_share=settings.poll.rate == "shared",
        lease_s=settings.cluster.stalled_after_s / 3,
        trouble=around.on_failure,
    )
