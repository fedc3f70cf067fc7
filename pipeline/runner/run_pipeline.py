"""The steps of one run, built and connected in one place, for a local run and for a cluster worker alike.

    requests -> Submitter -> accepted (queue) -> Poller -> ready (queue) -> Downloader

A local run feeds `requests` from pages of the ledger, a worker from the job queue; both put what is in flight already
straight into the queues.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from pipeline.assets.publishing import OutputPublisher
from pipeline.config.loss_limit import parse_loss_limit
from pipeline.config.settings import Settings
from pipeline.gateway.client import GatewayClient
from pipeline.gateway.download import VideoFetcher
from pipeline.gateway.kinds.interface import GatewayKind
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter, LearnedLimits, Rate, parse_rate
from pipeline.ledger.agreement import Agreement
from pipeline.ledger.budget import Caps
from pipeline.ledger.states import Event
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import Attempt, State, Totals
from pipeline.reports.run_folder import RunFolder
from pipeline.runner.callback_poll_schedule import CallbackPollSchedule
from pipeline.runner.callbacks import CallbackHandler
from pipeline.runner.circuit_breaker import WINDOW, CircuitBreaker, Outcome
from pipeline.runner.clocks import GuardedClock
from pipeline.runner.context import RESERVATION_LEASE_S, RunContext
from pipeline.runner.downloader import Downloader
from pipeline.runner.events import EventSink
from pipeline.runner.firewall import Firewall
from pipeline.runner.job_recovery import JobRecovery
from pipeline.runner.loss_budget import LossBudget, default_limit
from pipeline.runner.loss_guard import LossGuard
from pipeline.runner.poll_schedule import PollSchedule
from pipeline.runner.poller import Poller
from pipeline.runner.rate_gate import RateGate
from pipeline.runner.reachability import Reachability
from pipeline.runner.recorder import EventRecorder
from pipeline.runner.replays import ReplayHost, Replays
from pipeline.runner.stop import StopSignal
from pipeline.runner.submit_body import SubmitCallBuilder
from pipeline.runner.submit_decisions import SubmitEndpoint
from pipeline.runner.submit_permits import SharedHealth, SubmitPermits
from pipeline.runner.submitter import Submitter
from pipeline.runner.video_names import VideoNames

NO_BOUND = Rate(1_000_000, 1.0)
"""A worker's own rate where one is configured: the shared row spaces submits, this one only counts the open ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RememberedGateway:
    """What earlier runs learned about this gateway."""

    limits: LearnedLimits = field(default_factory=LearnedLimits)
    submit_path: str | None = None
    poll_style: str | None = None

    @classmethod
    def from_state(cls, state: dict[str, object]) -> RememberedGateway:
        """What `RunPipeline.learned` gave, as the ledger kept it."""
        style = state.get("poll_style")
        return cls(
            limits=LearnedLimits.from_json(state),
            submit_path=str(state["submit_path"]) if state.get("submit_path") else None,
            poll_style=style if isinstance(style, str) else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackSetup:
    """How callbacks reach a run. `state_of` and `linger_s` as in CallbackHandler."""

    state_of: Callable[[str], State | None]
    linger_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSetup:
    """Everything that `build_pipeline` needs.

    Attributes:
        agreement: what may be reserved; None in a worker, whose order was agreed to.
        totals: what the run came to before.
        requests: makes the iterator over planned attempts, in the order in which they are bought.
        collect: whether accepted jobs are polled and their videos downloaded.
        shared_gate: makes the gate of a rate that several workers share; without it the rate is this process's own.
        shared_health: makes what several workers share of the gateway's losses; without it this process buys alone.
        callbacks: None where the gateway is not asked to call back.
        replay_host: of a worker among several, for unclear submits.
        lease_s: seconds for which a reservation may be sent.
    """

    workspace: OpenLedger
    run_id: str
    caps: Caps
    agreement: Agreement | None = None
    totals: Totals
    folder: RunFolder
    client: GatewayClient
    kind: GatewayKind
    fetcher: VideoFetcher
    publisher: OutputPublisher | None
    calls: SubmitCallBuilder
    requests: Callable[[RunContext], AsyncIterator[Attempt]]
    stop: StopSignal
    events: EventSink
    unix_time: Callable[[], float]
    notify: Callable[[str], None]
    fail_point: Callable[[str], None]
    log: logging.Logger
    collect: bool
    remembered: RememberedGateway = field(default_factory=RememberedGateway)
    recorder: type[EventRecorder] = EventRecorder
    shared_gate: Callable[[AdaptiveRateLimiter, StopSignal], RateGate] | None = None
    shared_health: Callable[[CircuitBreaker, LossGuard], SharedHealth] | None = None
    callbacks: CallbackSetup | None = None
    replay_host: ReplayHost | None = None
    lease_s: float = RESERVATION_LEASE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPipeline:
    """The connected steps of one run: `buy`, `poller.run` and `downloader.run`, side by side."""

    context: RunContext
    submitter: Submitter
    permits: SubmitPermits
    losses: LossGuard
    poller: Poller
    downloader: Downloader
    recovery: JobRecovery
    replays: Replays
    callbacks: CallbackHandler | None
    endpoint: SubmitEndpoint
    schedule: PollSchedule
    left_unclear: Callable[[], list[Attempt]]

    async def buy(self) -> None:
        """Submit what is planned, within the loss budget; find out what unclear submits came to. Pays: yes."""
        self.losses.start()
        # Beside the buying, not before it: at a gateway without a free proof only a new accepted submit can be the
        # witness that an old key is honoured.
        self.replays.add_all(self.left_unclear())
        await self.submitter.run()
        await self.replays.finish()

    def learned(self) -> dict[str, object]:
        """What the next run should know about the gateway."""
        learned: dict[str, object] = dict(self.context.gate.pace.learned().as_json())
        if self.endpoint.proven:
            learned["submit_path"] = self.endpoint.current
        learned["poll_style"] = str(self.poller.style)
        return learned


def build_pipeline(setup: PipelineSetup) -> RunPipeline:
    """Build the steps of one run. Nothing is sent before they are run."""
    settings, workspace, context = setup.workspace.settings, setup.workspace, _context(setup)
    breaker, schedule = _breaker(setup), _schedule(settings, with_callbacks=setup.callbacks is not None)
    recovery, template = JobRecovery(context), settings.download.name
    poller = Poller(context, schedule, breaker, style=_poll_style(setup))
    endpoint = _endpoint(setup)
    losses = _losses(setup, context)
    permits = SubmitPermits(
        context,
        breaker,
        can_poll=lambda: setup.collect and len(poller) > 0,
        known_job=lambda: workspace.queries.latest_job(workspace.gateway),
        shared=None if setup.shared_health is None else setup.shared_health(breaker, losses),
    )
    return RunPipeline(
        context=context,
        submitter=Submitter(
            context,
            setup.requests(context),
            permits=permits,
            endpoint=endpoint,
            recovery=recovery,
            workers=settings.pace.submit_concurrency,
        ),
        permits=permits,
        losses=losses,
        poller=poller,
        downloader=Downloader(
            context,
            setup.fetcher,
            folder=setup.folder.videos,
            outputs=setup.folder.outputs,
            concurrency=settings.download.concurrency,
            publisher=setup.publisher,
            name_of=VideoNames(template, workspace.queries, setup.run_id, shared=setup.shared_gate is not None).name_of
            if template
            else None,
        ),
        recovery=recovery,
        replays=Replays(context, workspace.gateway, on_answer=breaker.submit_answered, host=setup.replay_host),
        left_unclear=lambda: _left_unclear(setup),
        callbacks=_callbacks(setup, context, poller, recovery),
        endpoint=endpoint,
        schedule=schedule,
    )


def _context(setup: PipelineSetup) -> RunContext:
    limiter, stop = _limiter(setup, asyncio.get_running_loop().time()), setup.stop
    unix_time = GuardedClock(setup.unix_time)
    recorder = setup.recorder(
        setup.workspace.ledger,
        run_id=setup.run_id,
        caps=setup.caps,
        totals=setup.totals,
        wall=unix_time,
        reach=setup.fail_point,
        events=setup.events,
        agreement=setup.agreement,
    )
    return RunContext(
        recorder=recorder,
        client=setup.client,
        kind=setup.kind,
        gate=RateGate(limiter, stop) if setup.shared_gate is None else setup.shared_gate(limiter, stop),
        stop=stop,
        prices_microusd=dict(setup.workspace.settings.prices_microusd),
        unix_time=unix_time,
        new_token=lambda: uuid.uuid4().hex,
        calls=setup.calls,
        events=setup.events,
        firewall=Firewall(recorder, stop, setup.notify),
        fail_point=setup.fail_point,
        notify=setup.notify,
        reachability=Reachability(_address(setup), stop, setup.notify),
        lease_s=setup.lease_s,
        log=setup.log,
    )


def _address(setup: PipelineSetup) -> str:
    gateway = setup.workspace.settings.gateway
    return "on this machine" if gateway.is_embedded else gateway.base_url


def _left_unclear(setup: PipelineSetup) -> list[Attempt]:
    """Unclear submits of earlier runs; in a cluster each worker takes those that it hears of."""
    is_shared = setup.shared_gate is not None
    return [] if is_shared else setup.workspace.queries.attempts_in(setup.run_id, (State.UNKNOWN,))


def _breaker(setup: PipelineSetup) -> CircuitBreaker:
    """The circuit breaker as the newest outcomes in the ledger leave it.

    Where the user says how much may be lost, only an outage pauses the buying: unknown outcomes in a row.
    """
    settings, workspace = setup.workspace.settings, setup.workspace
    # WINDOW + 1 unknown outcomes never fit into the window, so that rule is off.
    breaker = CircuitBreaker() if settings.on_unknown.max is None else CircuitBreaker(in_window=WINDOW + 1)
    loop_now, unix_now = asyncio.get_running_loop().time(), setup.unix_time()
    health: dict[Event, Outcome] = {Event.LOSE: "unknown", Event.ACCEPT: "answered", Event.REJECT: "answered"}
    outcomes = workspace.queries.newest_outcomes(workspace.gateway, WINDOW)
    # An event of the future is of a clock that was wrong: it counts as of now.
    breaker.restore([(health[event], loop_now - max(0.0, unix_now - at)) for event, at in outcomes])
    return breaker


def _losses(setup: PipelineSetup, context: RunContext) -> LossGuard:
    configured = setup.workspace.settings.on_unknown.max
    rows = sum(setup.totals.counts.values())
    # A worker's cap is what was agreed for this order, not the sum that the user set: that is in the ledger.
    max_cost = setup.caps.run_microusd if setup.shared_gate is None else setup.workspace.queries.max_cost(setup.run_id)
    limit = default_limit(rows, max_cost) if configured is None else parse_loss_limit(configured)
    unknowns = setup.workspace.queries.attempts_in(setup.run_id, (State.UNKNOWN,))
    return LossGuard(context, LossBudget(limit), unknowns)


def _limiter(setup: PipelineSetup, now: float) -> AdaptiveRateLimiter:
    settings = setup.workspace.settings
    pace, poll_rate = settings.pace, settings.poll.rate
    own_poll_rate = None if poll_rate == "shared" else parse_rate(poll_rate)
    if setup.shared_gate is not None:  # open submits and polls of this worker alone; the rest is the shared row's
        return AdaptiveRateLimiter(
            rate=None if pace.rate == "auto" else NO_BOUND,
            burst=1,
            submit_concurrency=pace.submit_concurrency,
            poll_rate=own_poll_rate,
            shared=False,
            now=now,
        )
    return AdaptiveRateLimiter(
        rate=parse_rate(pace.rate),
        burst=pace.burst,
        learned=setup.remembered.limits,
        max_in_flight=pace.max_in_flight,
        submit_concurrency=pace.submit_concurrency,
        poll_rate=own_poll_rate,
        shared=True if poll_rate == "shared" else None,
        # Jobs of earlier runs fill the gateway's cap on jobs at once just as new ones do.
        jobs_in_flight=setup.totals.count(State.ACCEPTED),
        now=now,
    )


def _schedule(settings: Settings, *, with_callbacks: bool) -> PollSchedule:
    poll = settings.poll
    return (CallbackPollSchedule if with_callbacks else PollSchedule)(
        first_s=poll.first_s,
        min_s=poll.min_s,
        max_s=poll.max_s,
        deadline_s=poll.deadline_s,
        max_lag_s=poll.max_lag_s,
    )


def _endpoint(setup: PipelineSetup) -> SubmitEndpoint:
    """The configured submit path; the one that answered before, where none was configured."""
    known, paths = setup.remembered.submit_path, setup.kind.submit_paths
    is_default = setup.workspace.settings.sources.get("gateway.submit_path") == "default"
    configured = paths[0] if paths else ""
    return SubmitEndpoint(known if known and is_default else configured, paths, proven=bool(known))


def _poll_style(setup: PipelineSetup) -> str | None:
    """The way to poll that answered before, if the kind has it."""
    style = setup.remembered.poll_style
    return style if style in setup.kind.poll_styles else None


def _callbacks(
    setup: PipelineSetup, context: RunContext, poller: Poller, recovery: JobRecovery
) -> CallbackHandler | None:
    if setup.callbacks is None:
        return None
    handler = CallbackHandler(
        context, poller, recovery, state_of=setup.callbacks.state_of, linger_s=setup.callbacks.linger_s
    )
    for attempt in setup.workspace.queries.attempts_in(setup.run_id, (State.UNKNOWN,)):
        handler.track_unknown(attempt)
    return handler
