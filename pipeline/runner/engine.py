"""Carrying a run out: builds the doors, starts the steps, listens to signals, shows progress. Knows the real clock.

It decides nothing about requests; the steps do, each in its own loop, and all of them write the ledger first.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.assets.image_checks import cache_path, load_cache
from pipeline.assets.image_hosting import ImageHost, open_hosting
from pipeline.assets.image_urls import ImageUrlResolver
from pipeline.assets.object_store import StoreError
from pipeline.assets.publishing import open_publisher
from pipeline.config.settings import Settings, is_loopback
from pipeline.errors import DopError
from pipeline.gateway.client import GatewayClient, PollStyle
from pipeline.gateway.download import VideoFetcher
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter, LearnedLimits, parse_rate
from pipeline.gateway.wire import submit_body
from pipeline.ledger.agreement import NOTHING, Agreement
from pipeline.ledger.budget import Caps
from pipeline.ledger.run_registry import Run
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import FAILED_FOR_GOOD, Attempt, State, Totals
from pipeline.reports.progress import ProgressDisplay
from pipeline.reports.run_folder import RunFolder
from pipeline.runner.callback_inbox import CallbackEndpoint, open_callback_endpoint
from pipeline.runner.callback_poll_schedule import PROVEN, CallbackPollSchedule
from pipeline.runner.callbacks import CallbackHandler
from pipeline.runner.circuit_breaker import CircuitBreaker
from pipeline.runner.context import PendingJob, ReadyVideo, RunContext, pending_job_of, ready_video_of
from pipeline.runner.downloader import Downloader
from pipeline.runner.embedded_sandbox import SandboxImageUploader, gateway_for
from pipeline.runner.failure_limit import FailureLimit
from pipeline.runner.poll_schedule import PollSchedule
from pipeline.runner.poller import STYLES, Poller
from pipeline.runner.rate_gate import RateGate
from pipeline.runner.recorder import EventRecorder
from pipeline.runner.resend_policy import ResendPolicy, resend_unknowns
from pipeline.runner.run_log import run_log
from pipeline.runner.status import ProgressSampler
from pipeline.runner.stop import StopReason, StopScope, StopSignal
from pipeline.runner.submitter import SubmitEndpoint, Submitter
from pipeline.runner.video_names import VideoNames

if TYPE_CHECKING:
    import logging

REFRESH_INTERVAL_S = 0.25
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}

FAIL_POINT_VARIABLE = "DOP_FAIL_POINT"
"""`name` or `name:visit`: the process kills itself there, for tests of what survives a crash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What this command wants of the run. It buys what `agreement` names, and nothing else."""

    buy: bool = True
    collect: bool = True
    agreement: Agreement = NOTHING
    halt: FailureLimit | None = None
    max_duration_s: float | None = None
    quiet: bool = False
    show_bar: bool = True
    log_json: bool = False
    error_on_nothing: bool = False
    webhook: bool = False
    preflight: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StepsResult:
    """What the steps came to."""

    totals: Totals
    reasons: tuple[StopReason, ...]
    submits: int
    polls: int


@dataclass(slots=True, kw_only=True)
class RunJob:
    """Everything that one run is carried out with."""

    workspace: OpenLedger
    run: Run
    folder: RunFolder
    caps: Caps
    key: str
    sha256_of: dict[str, str] = field(default_factory=dict)
    wishes: RunOptions = field(default_factory=RunOptions)
    wall: Callable[[], float] = time.time


def fail_point(environ: os._Environ[str] | dict[str, str]) -> Callable[[str], None]:
    """The function that every fail point calls: nothing, or the end of the process at the one that was named."""
    wanted, _, visit = environ.get(FAIL_POINT_VARIABLE, "").partition(":")
    if not wanted:
        return lambda name: None
    left = [int(visit or "1")]

    def reach(name: str) -> None:
        if name == wanted:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return reach


async def execute(job: RunJob) -> StepsResult:
    """Runs the steps until nothing is left to do, or something stops them. Pays, when the wishes say buy."""
    halt = StopSignal()
    async with AsyncExitStack() as stack:
        log = stack.enter_context(
            run_log(job.folder.path / "run.log", also=sys.stderr if job.wishes.log_json else None)
        )
        progress = stack.enter_context(
            ProgressDisplay(
                clock=time.monotonic, show_bar=job.wishes.show_bar, quiet=job.wishes.quiet or job.wishes.log_json
            )
        )
        base_url = await stack.enter_async_context(gateway_for(job.workspace.settings))
        client = await stack.enter_async_context(gateway_client(job.workspace.settings, base_url, job.key))
        fetcher = await stack.enter_async_context(
            VideoFetcher(
                gateway_is_loopback=is_loopback(urlsplit(base_url).hostname or ""),
                max_bytes=job.workspace.settings.download.max_bytes,
            )
        )
        desk = await stack.enter_async_context(_desk(job, base_url))
        steps = LocalRunner(job, halt, client, fetcher, base_url, desk=desk, log=log, say=progress.print_line)
        stack.enter_context(_signals(halt))
        await steps.run(progress)
        return StepsResult(
            totals=steps.scribe.totals,
            reasons=tuple(halt.reasons),
            submits=steps.gate.pace.sent_total,
            polls=steps.poller.polls,
        )


class LocalRunner:
    """The steps of one run, wired to each other."""

    def __init__(
        self,
        job: RunJob,
        halt: StopSignal,
        client: GatewayClient,
        fetcher: VideoFetcher,
        base_url: str,
        *,
        desk: CallbackEndpoint | None,
        log: logging.Logger,
        say: Callable[[str], None],
    ) -> None:
        settings = job.workspace.settings
        reach = fail_point(os.environ)
        self.job, self.halt, self.client = job, halt, client
        self.log, self._tell = log, say
        book = job.workspace.book
        totals = book.totals(job.run.run_id)
        self._before = totals
        self.scribe = EventRecorder(
            job.workspace.ledger,
            run_id=job.run.run_id,
            caps=job.caps,
            totals=totals,
            wall=job.wall,
            reach=reach,
            agreement=job.wishes.agreement,
        )
        self.scribe.counted = self._counted
        self._loop = asyncio.get_running_loop()
        job.workspace.ledger.tell = self._heard
        self._memory = f"learned {job.workspace.gateway}"
        remembered = job.workspace.ledger.load_state(self._memory)
        pace = AdaptiveRateLimiter(
            told=parse_rate(settings.pace.rate),
            burst=settings.pace.burst,
            learned=LearnedLimits.from_json(remembered),
            max_in_flight=settings.pace.max_in_flight,
            submit_concurrency=settings.pace.submit_concurrency,
            poll_told=None if settings.poll.rate == "shared" else parse_rate(settings.poll.rate),
            shared=True if settings.poll.rate == "shared" else None,
            jobs_in_flight=totals.count(State.ACCEPTED),
            now=asyncio.get_running_loop().time(),
        )
        self.gate = RateGate(pace, halt)
        self.plan = (PollSchedule if desk is None else CallbackPollSchedule)(
            first_s=settings.poll.first_s,
            min_s=settings.poll.min_s,
            max_s=settings.poll.max_s,
            deadline_s=settings.poll.deadline_s,
            max_lag_s=settings.poll.max_lag_s,
        )
        breaker = CircuitBreaker()
        images = ImageUrlResolver(embedded=settings.gateway.is_embedded, base_url=base_url, sha256_of=job.sha256_of)
        doors = RunContext(
            recorder=self.scribe,
            client=client,
            gate=self.gate,
            stop=halt,
            prices_microusd=dict(settings.prices_microusd),
            unix_time=job.wall,
            new_token=lambda: uuid.uuid4().hex,
            body=lambda attempt: submit_body(attempt.params, images=images.urls(attempt.params)),
            on_accepted=self._accepted,
            on_video_ready=self._finished,
            fail_point=reach,
            notify=self._say,
            log=log,
        )
        self._doors, self._desk = doors, desk
        style = remembered.get("poll_style")
        self.poller = Poller(
            doors, self.plan, breaker, style=PollStyle(str(style)) if style in STYLES else PollStyle.AUTO
        )
        self.callbacks = self._answer_calls(desk, images) if desk is not None else None
        self.landing = open_publisher(settings)
        template = settings.download.name
        self.downloader = Downloader(
            doors,
            fetcher,
            folder=job.folder.videos,
            outputs=job.folder.outputs,
            concurrency=settings.download.concurrency,
            landing=self.landing,
            name_of=VideoNames(template, job.workspace.book, job.run.run_id).name_of if template else None,
        )
        path = remembered.get("submit_path")
        self.paths = SubmitEndpoint(
            str(path)
            if path and settings.sources.get("gateway.submit_path") == "default"
            else settings.gateway.submit_path,
            proven=bool(path),
        )
        self.submitter = Submitter(
            doors,
            self._planned(),
            paths=self.paths,
            breaker=breaker,
            workers=settings.pace.submit_concurrency,
            can_poll=lambda: job.wishes.collect and len(self.poller) > 0,
            known_job=lambda: book.latest_job(job.workspace.gateway),
        )
        hosting = None if settings.gateway.is_embedded else self._hosting(base_url, images)
        images.hosted = hosting.url_for_submit if hosting is not None else None
        self._uploader = hosting or SandboxImageUploader(base_url, images)
        self._outlook = ProgressSampler(
            self.scribe, self.gate, self.plan, halt, models=settings.models, buys=job.wishes.buy
        )

    def _hosting(self, base_url: str, images: ImageUrlResolver) -> ImageHost:
        settings = self.job.workspace.settings
        seen = load_cache(cache_path(settings))
        return open_hosting(
            settings,
            base_url,
            images,
            etag_of=lambda address: seen[address].etag if address in seen else "",
            wall=self.job.wall,
        )

    def _answer_calls(self, desk: CallbackEndpoint, images: ImageUrlResolver) -> CallbackHandler:
        """Every submit from now on says where the gateway may call, and calls reach the poller."""
        callbacks = CallbackHandler(
            desk.keys,
            public_url=desk.public_url,
            state_of=self._state_of,
            linger_s=min(PROVEN * self.job.workspace.settings.poll.max_s, self.job.workspace.settings.poll.deadline_s),
        )
        doors = self._doors
        doors.body = lambda attempt: submit_body(
            attempt.params,
            images=images.urls(attempt.params),
            webhook_url=callbacks.url(attempt),
            webhook_secret=callbacks.secret(attempt),
        )
        # API: which dialect answers is known from the answer only, so the queue's header goes along with the fields.
        doors.callback_url, doors.extra_secrets, doors.on_unknown = (
            callbacks.url,
            callbacks.without_secrets,
            callbacks.on_unknown,
        )
        callbacks.serve(doors, self.poller)
        for attempt in self.job.workspace.book.attempts_in(self.job.run.run_id, (State.UNKNOWN,)):
            callbacks.track_unknown(attempt)
        desk.callbacks = callbacks
        return callbacks

    def _state_of(self, request_id: str) -> State | None:
        return self.job.workspace.book.states([request_id]).get(request_id)

    def _counted(self, totals: Totals) -> None:
        rule = self.job.wishes.halt
        if rule is not None and rule.reached(self._before, totals):
            failed = totals.count(*FAILED_FOR_GOOD) - self._before.count(*FAILED_FOR_GOOD)
            self.halt.request(f"--halt: {failed} requests failed", exit_code=5, reach=StopScope.SUBMITS)

    def _accepted(self, found: PendingJob) -> None:
        if self.job.wishes.collect:
            self.poller.add(found)
        if self.callbacks is not None:
            self.callbacks.accepted(found.request_id)

    def _finished(self, video: ReadyVideo) -> None:
        if self._fetches:
            self.downloader.add(video)

    def _heard(self, text: str) -> None:
        """From the ledger's own thread."""
        self._loop.call_soon_threadsafe(self._say, text)

    def _say(self, text: str) -> None:
        self._tell(text)
        self.log.warning(text)

    async def run(self, progress: ProgressDisplay) -> None:
        job = self.job
        self._resume()
        watcher = asyncio.create_task(self._watch())
        ticker = asyncio.create_task(self._tick(progress))
        calls = asyncio.create_task(self._desk.watch(self._state_of)) if self._desk is not None else None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._buy())
                group.create_task(self._look())
                group.create_task(self._fetch())
        except* asyncio.CancelledError:
            pass
        finally:
            aside = [task for task in (watcher, ticker, calls) if task is not None]
            for task in aside:
                task.cancel()
            await asyncio.gather(*aside, return_exceptions=True)
            progress.update(self._outlook.now("finished"))
            with suppress(DopError):  # a disk that is full: the run's own reasons and its report say so
                job.workspace.ledger.save_state(self._memory, self._learned())

    def _learned(self) -> dict[str, object]:
        learned: dict[str, object] = dict(self.gate.pace.learned().as_json())
        if self.paths.proven:
            learned["submit_path"] = self.paths.current
        learned["poll_style"] = self.poller.style.value
        return learned

    def _resume(self) -> None:
        """What earlier runs left in flight or without its file goes on."""
        book, run_id = self.job.workspace.book, self.job.run.run_id
        loop_now, wall_now = asyncio.get_running_loop().time(), self.job.wall()
        if not self.job.wishes.collect:
            return
        for page in book.iter_attempts(run_id, (State.ACCEPTED, State.STALLED)):
            for attempt in page:
                self.poller.add(pending_job_of(attempt, loop_now=loop_now, now_unix=wall_now))
        if self._fetches:
            for page in book.iter_attempts(run_id, (State.DONE,), lacks_file=True):
                for attempt in page:
                    self.downloader.add(ready_video_of(attempt))

    @property
    def _fetches(self) -> bool:
        return self.job.wishes.collect and self.job.workspace.settings.download.enabled

    async def _planned(self) -> AsyncIterator[Attempt]:
        agreement = self.job.wishes.agreement
        for page in self.job.workspace.book.iter_attempts(self.job.run.run_id, (State.PLANNED,)):
            for attempt in page:
                if attempt.request_id not in agreement:
                    continue  # planned, but not part of what this command was told to buy
                try:
                    await self._uploader.ensure_available(attempt.params)
                except StoreError as error:
                    self.halt.request(str(error), exit_code=5, reach=StopScope.SUBMITS)
                    return
                yield attempt

    async def _buy(self) -> None:
        try:
            if self._desk is not None and self.callbacks is not None:
                # MONEY: a call that came while nobody ran may prove an unknown submit; before any is sent again.
                self._desk.drain(self._state_of)
                await self.callbacks.recovered()
            if self.job.wishes.buy and await self._outputs_ready():
                await self._send_unknowns_again()
                await self.submitter.run()
            if self.callbacks is not None and self.job.wishes.collect:
                await self.callbacks.wait_for_late_callbacks()
        finally:
            self.poller.close_input()

    async def _outputs_ready(self) -> bool:
        """Whether the store takes what will be bought; else nothing is bought, and what is paid is collected."""
        problem = await self.landing.check_writable(self.job.folder.path) if self.landing is not None else ""
        if problem:
            self.halt.request(f"nothing is bought: {problem}", exit_code=5, reach=StopScope.SUBMITS)
        return not problem

    async def _send_unknowns_again(self) -> None:
        told, book, agreed = self.job.workspace.settings.on_unknown, self.job.workspace.book, self.job.wishes.agreement
        if told.policy != "resend" or told.max_cost_microusd is None:
            return
        used, resent = book.resent(self.job.run.run_id)
        rule = ResendPolicy(max_cost_microusd=told.max_cost_microusd, used_microusd=used, resent=resent)
        unknowns = book.attempts_in(self.job.run.run_id, (State.UNKNOWN,))
        await resend_unknowns(self._doors, rule, [one for one in unknowns if one.request_id in agreed.resends])

    async def _look(self) -> None:
        try:
            if self.job.wishes.collect:
                await self.poller.run()
        finally:
            self.downloader.close_input()

    async def _fetch(self) -> None:
        if self._fetches:
            await self.downloader.run()

    async def _watch(self) -> None:
        """Log each reason to stop; the run's time limit is such a reason."""
        loop = asyncio.get_running_loop()
        limit_s = self.job.wishes.max_duration_s
        if limit_s is not None:
            loop.call_later(limit_s, self._too_long, limit_s)
        async for _ in self.halt.follow():
            self.log.warning("stop", extra={"fields": {"reasons": [reason.text for reason in self.halt.reasons]}})

    def _too_long(self, limit_s: float) -> None:
        self.halt.request(f"--max-duration of {limit_s:g} s is over", exit_code=5, reach=StopScope.ALL)

    async def _tick(self, progress: ProgressDisplay) -> None:
        told = False
        while True:
            progress.update(self._outlook.now(self._phase()))
            self._flush_log()
            if not told and isinstance(self.plan, CallbackPollSchedule) and self.plan.gave_up:
                told = True
                self._say("jobs end and nobody calls back: polling as usual; check webhook.public_url")
            await asyncio.sleep(REFRESH_INTERVAL_S)

    def _flush_log(self) -> None:
        with suppress(OSError):  # a full disk stops the run by its ledger, not by its log
            for handler in self.log.handlers:
                handler.flush()

    def _phase(self) -> str:
        totals = self.scribe.totals
        if self.halt.submits:
            return "stopping" if self.halt.all else "collecting"
        if self.job.wishes.buy and totals.count(State.PLANNED, State.SUBMITTING):
            return "buying"
        return "collecting" if len(self.poller) else "fetching"


@contextmanager
def _signals(halt: StopSignal) -> Iterator[None]:
    """INT, TERM and HUP drain the run; the second one leaves at once (what is under way is still booked)."""
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()
    heard: list[signal.Signals] = []

    def caught(number: signal.Signals) -> None:
        heard.append(number)
        halt.request(f"stopped by {number.name}", exit_code=SIGNALS[number], reach=StopScope.ALL)
        if len(heard) > 1 and main is not None:
            main.cancel()

    for number in SIGNALS:
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, caught, number)
    try:
        yield
    finally:
        for number in SIGNALS:
            with suppress(NotImplementedError, RuntimeError, ValueError):
                loop.remove_signal_handler(number)


@asynccontextmanager
async def _desk(job: RunJob, base_url: str) -> AsyncIterator[CallbackEndpoint | None]:
    """The way in for callbacks, when the command wants one."""
    if not job.wishes.webhook:
        yield None
        return
    async with open_callback_endpoint(job.workspace.settings, base_url) as desk:
        yield desk


def gateway_client(settings: Settings, base_url: str, key: str) -> GatewayClient:
    """The door to the gateway as the settings say, not yet opened."""
    gateway = settings.gateway
    return GatewayClient(
        base_url=base_url,
        key=key,
        submit_path=gateway.submit_path,
        poll_path=gateway.poll_path,
        motions_path=gateway.motions_path,
        connect_timeout_s=gateway.connect_timeout_s,
        read_timeout_s=gateway.read_timeout_s,
    )
