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
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from pipeline.assets.image_urls import ImageUrlResolver
from pipeline.assets.publishing import OutputPublisher
from pipeline.config.settings import Settings
from pipeline.errors import InvariantError, LedgerError
from pipeline.gateway.client import GatewayClient
from pipeline.gateway.download import VideoFetcher
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter, Rate, parse_rate
from pipeline.gateway.webhook_tokens import CallbackDelivery
from pipeline.gateway.wire import submit_body
from pipeline.ledger.postgres_session import cause_of
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied, ChangeResult, Conflict
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import Attempt, State
from pipeline.reports.run_folder import RunFolder
from pipeline.runner.callback_poll_schedule import CallbackPollSchedule
from pipeline.runner.circuit_breaker import CircuitBreaker
from pipeline.runner.cluster.callback_relay import CallbackRelay
from pipeline.runner.cluster.job_queue import JobQueue, RunOrder, StopNotice
from pipeline.runner.cluster.shared_rate import SharedRateLimiter
from pipeline.runner.cluster.shared_rate_gate import SharedRateGate
from pipeline.runner.context import (
    RESERVATION_LEASE_S,
    PendingJob,
    ReadyVideo,
    RunContext,
    pending_job_of,
    ready_video_of,
)
from pipeline.runner.downloader import Downloader
from pipeline.runner.engine import fail_point
from pipeline.runner.job_recovery import JobRecovery
from pipeline.runner.poll_schedule import PollSchedule
from pipeline.runner.poller import Poller
from pipeline.runner.recorder import EventRecorder
from pipeline.runner.stop import StopScope, StopSignal
from pipeline.runner.submitter import SubmitEndpoint, Submitter
from pipeline.runner.video_names import VideoNames

NO_BOUND = Rate(1_000_000, 1.0)
"""A worker's own pace where the rate is told: the shared row spaces the submits, this one only counts the open ones."""

RECOVERY_INTERVAL_S = 10.0
"""How long a line that closes waits for the proof of an unclear submit."""

WAITS = frozenset({State.PLANNED, State.SUBMITTING, State.ACCEPTED})
"""Somebody goes on with it; every other state is an end, for now or for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerResources:
    """What all lines of a worker share. `trouble` hears that this worker should begin anew."""

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
    room: Callable[[], None]
    log: logging.Logger
    callbacks: CallbackRelay | None = None


class ClusterEventRecorder(EventRecorder):
    """A scribe among several: whatever another worker booked first is no mistake, and nothing is done twice."""

    on_state_change: Callable[[str, Event, ChangeResult], None]
    on_ledger_failure: Callable[[LedgerError], None]

    async def record(
        self,
        request_id: str,
        event: Event,
        values: Mapping[str, object] | None = None,
        *,
        token: str | None = None,
        detail: str = "",
    ) -> ChangeResult:
        """Books one event; a state that forbids it was made by another worker meanwhile, and is a conflict."""
        outcome: ChangeResult
        try:
            outcome = await super().record(request_id, event, values, token=token, detail=detail)
        except InvariantError:
            if event is Event.RESERVE:
                raise
            outcome = Conflict(state=None)
        except LedgerError as error:
            self.on_ledger_failure(error)
            raise
        self.on_state_change(request_id, event, outcome)
        return outcome


class RunExecutor:
    """The steps of one ordered run in this worker. `look_after` may be called for many requests at once."""

    def __init__(self, order: RunOrder, around: WorkerResources) -> None:
        self.order, self._around = order, around
        self.halt = StopSignal()
        self._waiting: dict[str, asyncio.Future[bool]] = {}
        self._unsent: set[str] = set()
        self._to_buy: asyncio.Queue[Attempt | None] = asyncio.Queue()
        self._broken = self._closing = self._warned = False
        self._tasks: list[asyncio.Task[None]] = []
        self._build(around.workspace.settings)

    def _build(self, settings: Settings) -> None:
        around, order = self._around, self.order
        workspace = around.workspace
        reach = fail_point(os.environ)
        self._fetches = order.collect and settings.download.enabled
        scribe = ClusterEventRecorder(
            workspace.ledger,
            run_id=order.run_id,
            caps=order.caps,
            totals=workspace.book.totals(order.run_id),
            wall=time.time,
            reach=reach,
        )
        scribe.on_state_change, scribe.on_ledger_failure = self._moved, self._ledger_failed
        self._scribe = scribe
        self.gate = SharedRateGate(
            _own_pace(settings),
            self.halt,
            around.shared_rate,
            turn=around.turn,
            polls_share=settings.poll.rate == "shared",
            lease_s=settings.cluster.stalled_after_s / 3,
            trouble=around.on_failure,
        )
        images = ImageUrlResolver(embedded=False, base_url=around.base_url, sha256_of={})
        doors = RunContext(
            recorder=scribe,
            client=around.client,
            gate=self.gate,
            stop=self.halt,
            prices_microusd=dict(settings.prices_microusd),
            unix_time=time.time,
            new_token=lambda: uuid.uuid4().hex,
            body=lambda attempt: submit_body(attempt.params, images=images.urls(attempt.params)),
            on_accepted=self._accepted,
            on_video_ready=self._finished,
            fail_point=reach,
            notify=around.notify,
            # MONEY: another worker takes the request over after `stalled_after`; by then this one must not send it.
            lease_s=min(RESERVATION_LEASE_S, settings.cluster.stalled_after_s / 2),
            log=around.log,
        )
        poll, breaker = settings.poll, CircuitBreaker()
        self._plan = (PollSchedule if around.callbacks is None else CallbackPollSchedule)(
            first_s=poll.first_s,
            min_s=poll.min_s,
            max_s=poll.max_s,
            deadline_s=poll.deadline_s,
            max_lag_s=poll.max_lag_s,
        )
        self.poller = Poller(doors, self._plan, breaker)
        self._recovery = recovery = JobRecovery(doors)
        self._callbacks = (
            around.callbacks.serve(doors, self.poller, recovery, images=images, holds=self._waiting.__contains__)
            if around.callbacks is not None
            else None
        )
        if self._callbacks is not None:
            for attempt in workspace.book.attempts_in(order.run_id, (State.UNKNOWN,)):
                self._callbacks.track_unknown(attempt)
        folder = RunFolder(workspace.outputs, order.run_id)
        old_mask = os.umask(0o077)
        try:
            folder.videos.mkdir(parents=True, exist_ok=True)
        finally:
            os.umask(old_mask)
        template = settings.download.name
        self.downloader = Downloader(
            doors,
            around.fetcher,
            folder=folder.videos,
            outputs=folder.outputs,
            concurrency=settings.download.concurrency,
            landing=around.publisher,
            name_of=VideoNames(template, workspace.book, order.run_id, shared=True).name_of if template else None,
        )
        self._submitter = Submitter(
            doors,
            self._fed(),
            paths=SubmitEndpoint(settings.gateway.submit_path),
            breaker=breaker,
            workers=settings.pace.submit_concurrency,
            can_poll=lambda: order.collect and len(self.poller) > 0,
            known_job=lambda: workspace.book.latest_job(workspace.gateway),
            recovery=recovery,
        )

    def warn(self) -> None:
        """Says once that callbacks are wanted and none come."""
        if not self._warned and isinstance(self._plan, CallbackPollSchedule) and self._plan.gave_up:
            self._warned = True
            self._around.notify("jobs end and nobody calls back: polling as usual; check webhook.public_url")

    # -- one request

    @property
    def unsent(self) -> int:
        """How many requests wait here to be bought."""
        return len(self._unsent)

    @property
    def active_count(self) -> int:
        """How many requests are looked after here."""
        return len(self._waiting)

    async def process_request(self, attempt: Attempt) -> bool:
        """One request's life from wherever the ledger says it is; False when the line closes before its end.

        Pays: yes, when it is planned and the order says buy.
        """
        done = self._waiting.setdefault(attempt.request_id, asyncio.get_running_loop().create_future())
        try:
            if self._closing:
                return False
            return not await self._take_up(attempt) or await asyncio.shield(done)
        finally:
            self._waiting.pop(attempt.request_id, None)
            self._sent(attempt.request_id)

    async def _take_up(self, attempt: Attempt) -> bool:
        """Hands the request to its step; False when there is none for it."""
        if attempt.state is State.SUBMITTING:
            await self._lost_by_another(attempt)
        elif attempt.state is State.PLANNED:
            if not self.order.buy or self.halt.submits:
                return False
            self._unsent.add(attempt.request_id)
            self._to_buy.put_nowait(attempt)
            return True
        elif attempt.state in (State.ACCEPTED, State.STALLED) and self.order.collect:
            self.poller.add(pending_job_of(attempt, loop_now=_now(), now_unix=time.time()))
            if self._callbacks is not None:  # a call may have come while nobody waited for it; this one is no call
                PollSchedule.nudge(self._plan, attempt.request_id, _now())
            return True
        elif attempt.state is State.DONE and attempt.local_path is None and self._fetches:
            self.downloader.add(ready_video_of(attempt))
            return True
        return False

    async def _lost_by_another(self, attempt: Attempt) -> None:
        """MONEY: its worker died or froze during the submit. It may be paid: never sent again by itself.

        The token names that very submit: when its worker wakes after all, its answer is still booked.
        """
        why = {"reason": "the worker was lost during the submit"}
        booked = await self._scribe.record(attempt.request_id, Event.LOSE, why, token=attempt.token)
        if self._callbacks is not None and isinstance(booked, Applied):
            self._callbacks.on_unknown(attempt)

    async def _fed(self) -> AsyncIterator[Attempt]:
        while (attempt := await self._to_buy.get()) is not None:
            yield attempt

    # -- what the steps say

    def _moved(self, request_id: str, event: Event, outcome: ChangeResult) -> None:
        if event is Event.RESERVE:
            if not isinstance(outcome, Applied):
                self._end(request_id)  # another worker has it, or a cap is reached: then the run halts as well
            return
        if not isinstance(outcome, Applied):
            self._end(request_id)  # another worker goes on with it, or nobody has to
            return
        state = outcome.state
        if state is not State.SUBMITTING and state is not State.PLANNED:
            self._sent(request_id)
        if state is State.DONE and event is Event.COMPLETE and self._fetches:
            return
        if state not in WAITS or (state is State.ACCEPTED and not self.order.collect):
            self._end(request_id)

    def _sent(self, request_id: str) -> None:
        if request_id in self._unsent:
            self._unsent.discard(request_id)
            self._around.room()

    def _end(self, request_id: str) -> None:
        done = self._waiting.get(request_id)
        if done is not None and not done.done():
            done.set_result(not self._closing)

    def _accepted(self, job: PendingJob) -> None:
        if self.order.collect:
            self.poller.add(job)
        if self._callbacks is not None:
            self._callbacks.accepted(job.request_id)

    def called(self, delivery: CallbackDelivery) -> bool:
        """Somebody called about a request; False when this line has nothing to do with it."""
        return self._callbacks is not None and self._callbacks.delivered(delivery)

    def _finished(self, video: ReadyVideo) -> None:
        if self._fetches:
            self.downloader.add(video)

    def _ledger_failed(self, error: LedgerError) -> None:
        self._broken = True
        self._around.on_failure(str(error))

    # -- the line itself

    def apply_stop(self, halted: StopNotice) -> None:
        """Another host found a reason to stop buying."""
        self.halt.request(halted.text, exit_code=halted.exit_code, reach=StopScope.SUBMITS)

    def start(self) -> None:
        """The steps begin to work."""
        self._tasks = [asyncio.create_task(step) for step in (self._buy(), self._look(), self._fetch(), self._watch())]

    async def _buy(self) -> None:
        try:
            await self._submitter.run()
            await self._recovery.wait()
        except BaseException as error:
            self._fell(error)
            raise
        finally:
            for request_id in list(self._unsent):
                self._end(request_id)

    async def _look(self) -> None:
        try:
            await self.poller.run()
        except BaseException as error:
            self._fell(error)
            raise

    async def _fetch(self) -> None:
        try:
            await self.downloader.run()
        except BaseException as error:
            self._fell(error)
            raise

    def _fell(self, error: BaseException) -> None:
        if not isinstance(error, asyncio.CancelledError):
            self._broken = True
            self._around.on_failure(f"a step broke: {error!r}")

    async def _watch(self) -> None:
        """A reason to stop buying reaches the queue of this worker and every other host."""
        async for reason in self.halt.follow():
            self._to_buy.put_nowait(None)
            if self._broken or reason.exit_code in (129, 130, 143):
                continue
            self._around.log.warning("stop", extra={"fields": {"run": self.order.run_id, "reason": reason.text}})
            try:
                halted = StopNotice(text=reason.text, exit_code=reason.exit_code)
                await self._around.queue.put_stop_notice(self.order.run_id, self.order.version, halted)
            except Exception as error:  # noqa: BLE001 - the database is away: this worker begins again
                self._around.on_failure(f"a stop reason could not be passed on ({cause_of(error)})")

    async def close(self) -> None:
        """Submits under way end and are booked; everything else is left for whoever takes it up."""
        self._broken = self._closing = True  # what is said from here on is about this worker, not about the run
        self.halt.request("the worker stops", exit_code=143, reach=StopScope.ALL)
        self.poller.close_input()
        self._to_buy.put_nowait(None)
        if self._tasks:
            buying, looking, fetching, watching = self._tasks
            await asyncio.wait([buying])
            await asyncio.wait([looking])
            for task in (fetching, watching):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.gate.close()
        if self._callbacks is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._callbacks.recovered(), RECOVERY_INTERVAL_S)
        for request_id in list(self._waiting):
            self._end(request_id)
        with suppress(asyncio.QueueEmpty):
            while True:
                self._to_buy.get_nowait()


def _own_pace(settings: Settings) -> AdaptiveRateLimiter:
    """Open submits and polls of this worker alone; the rate and the cap on jobs are the shared row's."""
    return AdaptiveRateLimiter(
        told=None if settings.pace.rate == "auto" else NO_BOUND,
        burst=1,
        submit_concurrency=settings.pace.submit_concurrency,
        poll_told=None if settings.poll.rate == "shared" else parse_rate(settings.poll.rate),
        shared=False,
        now=_now(),
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
