"""One run on one worker: the same steps as on a single machine, fed with requests as the queue hands them on.

A request is processed until there is nothing more to do for it here. Everything it needs to go on elsewhere is in
the ledger, so an executor may be cut at any time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from pipeline.errors import SIGNAL_EXITS, ExitCode
from pipeline.gateway.kinds import can_recover
from pipeline.gateway.webhook_tokens import CallbackDelivery
from pipeline.ledger.postgres_session import cause_of
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied
from pipeline.records import Attempt, State
from pipeline.runner.callback_poll_schedule import CallbackPollSchedule
from pipeline.runner.cluster.held_requests import HeldRequests
from pipeline.runner.cluster.job_queue import RunOrder, StopNotice
from pipeline.runner.cluster.left_behind import LeftBehind
from pipeline.runner.cluster.shot_keeper import ShotKeeper
from pipeline.runner.cluster.unclear_requests import UnclearRequests
from pipeline.runner.cluster.worker_pipeline import WorkerResources, worker_pipeline
from pipeline.runner.context import pending_job_of, ready_video_of
from pipeline.runner.events import EventRecorded, EventSink, LedgerFailed, OutcomeUnknown, RequestSetAside
from pipeline.runner.poll_schedule import PollSchedule
from pipeline.runner.replays import CaseEnd, ReplayHost
from pipeline.runner.stop import StopScope, StopSignal

RECOVERY_TIMEOUT_S = 10.0
"""How long, in seconds, an executor that closes waits for the proof of an unclear submit."""

MARK_ROUNDS = 15
"""Rounds of maintenance between two checks of all shots, for candidates whose worker died before it asked for more."""

PENDING_STATES = frozenset({State.PLANNED, State.SUBMITTING, State.ACCEPTED})
"""Something remains to be done for it; every other state is an end, for now or for good."""


class RunExecutor:
    """The steps of one ordered run in this worker. `take_up` hands it requests, `around.on_end` hears of their ends."""

    def __init__(self, order: RunOrder, around: WorkerResources) -> None:
        self.order, self._around = order, around
        self.stop = StopSignal()
        self._held = HeldRequests(on_end=around.on_end, on_sent=around.on_sent)
        self._broken = self._closing = self._warned = False
        self._tasks: list[asyncio.Task[None]] = []
        self._downloads = order.collect and around.workspace.settings.download.enabled
        self.shots = ShotKeeper(around.workspace, order.run_id, on_finished=self._end, on_failure=self._failed)
        self._rounds = 0
        self._recovers = can_recover(around.workspace.settings)
        events = EventSink()
        events.subscribe(EventRecorded, self._recorded)
        events.subscribe(LedgerFailed, lambda failed: self._failed(str(failed.error)))
        events.subscribe(RequestSetAside, lambda event: self._end(event.request_id))
        self.pipeline = worker_pipeline(
            order,
            around,
            stop=self.stop,
            events=events,
            requests=lambda _: self._held.fed(),
            state_of=self._state_of,
            replay_host=ReplayHost(is_buying=lambda: self._held.unsent > 0, over=self._replay_over),
        )
        self._left_behind = LeftBehind(self.pipeline, self.shots, on_end=self._end, on_failure=self._failed)
        self._unclear = UnclearRequests(order.run_id, around.workspace.queries, self.pipeline, on_end=self._end)
        events.subscribe(OutcomeUnknown, lambda event: self._unclear.noted(event.attempt.request_id))

    def _state_of(self, request_id: str) -> State | None:
        """For callbacks: whether this worker has the request; what the ledger says of others does not matter here."""
        return State.SUBMITTING if request_id in self._held else None

    @property
    def _schedule(self) -> PollSchedule:
        return self.pipeline.schedule

    def warn(self) -> None:
        """Notify once that callbacks are wanted and none come."""
        if not self._warned and isinstance(self._schedule, CallbackPollSchedule) and self._schedule.gave_up:
            self._warned = True
            self._around.notify("jobs end without a callback: polling as usual; check webhook.public_url")

    async def maintain(self) -> None:
        """One round of what is done from time to time."""
        self.warn()
        self._rounds += 1
        if self._rounds % MARK_ROUNDS == 0:
            await self.shots.mark_all()

    # -- one request

    @property
    def unsent(self) -> int:
        """How many requests wait here to be bought."""
        return self._held.unsent

    @property
    def active_count(self) -> int:
        """How many requests are processed here."""
        return len(self._held)

    def take_up(self, attempt: Attempt) -> None:
        """Begin one request's life here, from wherever the ledger says it is; `on_end` is called at its end.

        Pays: yes, when it is planned and the order says buy.
        """
        if not self._held.hold(attempt.request_id):
            return  # it was taken back from this worker, which had signed late, and came here again
        if self._closing:
            self._held.end(attempt.request_id, is_finished=False)
            return
        match attempt.state:
            case State.SUBMITTING:
                self._left_behind.submit(attempt)
            case State.DONE if not self._has_to_fetch(attempt) and self.shots.has(attempt.request_id):
                self._left_behind.clip(attempt)
            case _:
                if not self._handed_on(attempt):
                    self._end(attempt.request_id)

    def _has_to_fetch(self, attempt: Attempt) -> bool:
        return attempt.state is State.DONE and attempt.lacks_file and self._downloads

    def _handed_on(self, attempt: Attempt) -> bool:
        """Hands the request to its step; False when there is none for it."""
        if attempt.state is State.UNKNOWN:
            return self._unclear.take_up(attempt.request_id)
        if attempt.state is State.PLANNED:
            if not self.order.buy or self.stop.submits or attempt.is_spare:
                return False
            self._held.buy(attempt)
            return True
        if attempt.state in (State.ACCEPTED, State.STALLED) and self.order.collect:
            job = pending_job_of(attempt, loop_now=asyncio.get_running_loop().time(), now_unix=time.time())
            self.pipeline.poller.resume(job, soon=self.pipeline.callbacks is not None)
            return True
        if self._has_to_fetch(attempt):
            self.pipeline.context.ready.put_nowait(ready_video_of(attempt))
            return True
        return False

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
        if state is State.UNKNOWN and self._recovers:
            return  # `_unclear` ends it
        if state is State.DONE and event is Event.COMPLETE and self._downloads:
            return
        if self.shots.has(request_id) and state not in PENDING_STATES:
            self.shots.finish_candidate(request_id, is_clip=state is State.DONE)
            return
        if state not in PENDING_STATES or (state is State.ACCEPTED and not self.order.collect):
            self._end(request_id)

    def _replay_over(self, request_id: str, end: CaseEnd) -> None:
        self._unclear.over(request_id, end)

    def _end(self, request_id: str) -> None:
        self._held.end(request_id, is_finished=not self._closing)

    def called(self, delivery: CallbackDelivery) -> bool:
        """A callback named this request; False when this executor does not process it."""
        callbacks = self.pipeline.callbacks
        return callbacks is not None and callbacks.delivered(delivery)

    def _failed(self, why: str) -> None:
        """This worker can not go on with the run: its session restarts, and says nothing about the run."""
        self._broken = True
        self._around.on_failure(why)

    # -- the executor itself

    def apply_stop(self, halted: StopNotice) -> None:
        """Another host found a reason to stop buying."""
        self.stop.request(halted.text, exit_code=halted.exit_code, reach=StopScope.SUBMITS)

    def start(self) -> None:
        """The steps begin to work."""
        steps = [self._buy, self._poll, *([self.pipeline.downloader.run] if self._downloads else [])]
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
            if not isinstance(error, asyncio.CancelledError):
                self._failed(f"a step broke: {error!r}")
            raise

    async def _watch(self) -> None:
        """A reason to stop buying reaches the queue of this worker and every other host."""
        async for reason in self.stop.follow():
            self._held.stop_buying()
            # What is wrong with this worker alone is no reason for the others to stop buying.
            if self._broken or reason.exit_code in SIGNAL_EXITS:
                continue
            self._around.log.warning("stop", extra={"fields": {"run": self.order.run_id, "reason": reason.text}})
            try:
                halted = StopNotice(text=reason.text, exit_code=reason.exit_code)
                await self._around.queue.put_stop_notice(self.order.run_id, self.order.version, halted)
            except Exception as error:  # noqa: BLE001 - the database is away: this worker begins again
                self._around.on_failure(f"a stop reason could not be passed on ({cause_of(error)})")

    async def close(self) -> None:
        """Submits in flight end and are recorded; everything else is left for other workers."""
        self._broken = self._closing = True  # what is said from here on is about this worker, not about the run
        self.stop.request("the worker stops", exit_code=ExitCode.TERMINATED, reach=StopScope.ALL)
        self.pipeline.poller.close_input()
        self._held.stop_buying()
        if self._tasks:
            buying, polling, fetching, *watching = self._tasks
            # The buying before anything is cancelled: each POST in flight must be recorded. `wait` raises no error of
            # the step.
            await asyncio.wait([buying])
            await asyncio.wait([polling])
            for task in (fetching, *watching):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._left_behind.close()
        await self._unclear.close()
        await self.shots.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.pipeline.recovery.wait(), RECOVERY_TIMEOUT_S)
        self._held.end_all(is_finished=False)
        self._held.forget_unsent()
