"""A run on this machine: opens what the steps need, runs them side by side, shows progress. Knows the real clock.

It decides nothing about requests; the steps do, each in its own loop, and all of them write the ledger first.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.assets.publishing import open_publisher
from pipeline.config.gateway_address import is_loopback
from pipeline.config.network import network_environment
from pipeline.config.settings import Settings
from pipeline.errors import DopError, ExitCode
from pipeline.gateway.client import GatewayClient
from pipeline.gateway.download import VideoFetcher
from pipeline.gateway.kinds import kind_of
from pipeline.records import FAILED_FOR_GOOD, counted
from pipeline.reports.progress import ProgressDisplay
from pipeline.runner.callback_inbox import CallbackEndpoint, open_callback_endpoint
from pipeline.runner.callback_poll_schedule import PROVEN
from pipeline.runner.embedded_sandbox import gateway_for
from pipeline.runner.events import EventRecorded, EventSink, OutcomeUnknown
from pipeline.runner.fail_points import fail_point
from pipeline.runner.firewall import error_words, is_cancellation
from pipeline.runner.ledger_feed import LedgerFeed
from pipeline.runner.local_images import (
    LocalImages,
    open_local_images,
)
from pipeline.runner.run_display import RunDisplay
from pipeline.runner.run_job import RunJob, StepsResult
from pipeline.runner.run_log import run_log
from pipeline.runner.run_pipeline import CallbackSetup, PipelineSetup, RememberedGateway, RunPipeline, build_pipeline
from pipeline.runner.signals import SIGNALS, signal_handlers
from pipeline.runner.stop import StopScope, StopSignal
from pipeline.runner.submit_body import CallbackAddresses, SubmitCallBuilder

if TYPE_CHECKING:
    import logging


async def execute(job: RunJob) -> StepsResult:
    """Run the steps until nothing is left to do, or something stops them. Pays when `options.buy` is set."""
    stop, settings = StopSignal(), job.workspace.settings
    async with AsyncExitStack() as stack:
        # Opened in this order and closed in the reverse one: the log outlives every step, the sandbox the client that
        # calls it.
        log = stack.enter_context(
            run_log(job.folder.path / "run.log", also=sys.stderr if job.options.log_json else None)
        )
        progress = stack.enter_context(
            ProgressDisplay(
                clock=time.monotonic, show_bar=job.options.show_bar, quiet=job.options.quiet or job.options.log_json
            )
        )
        base_url = await stack.enter_async_context(gateway_for(settings))
        client = await stack.enter_async_context(gateway_client(settings, base_url, job.key))
        fetcher = await stack.enter_async_context(
            VideoFetcher(
                gateway_is_loopback=is_loopback(urlsplit(base_url).hostname or ""),
                max_bytes=settings.download.max_bytes,
                network=network_environment(os.environ),
            )
        )
        endpoint = (
            await stack.enter_async_context(open_callback_endpoint(settings, base_url, log.warning))
            if job.options.webhook
            else None
        )
        runner = LocalRunner(
            job, stop, client, fetcher, base_url, endpoint=endpoint, log=log, print_line=progress.print_line
        )
        stack.enter_context(signal_handlers(_on_signal(stop)))
        await runner.run(progress)
        context = runner.pipeline.context
        return StepsResult(
            totals=context.recorder.totals,
            reasons=runner.pipeline.losses.final(stop.reasons),
            submits=context.gate.pace.sent_total,
            polls=runner.pipeline.poller.polls,
        )


def _on_signal(stop: StopSignal) -> Callable[[signal.Signals], None]:
    """The first signal drains the run; the second one leaves at once (what is in flight is still recorded)."""
    main = asyncio.current_task()
    caught: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        caught.append(number)
        stop.request(f"stopped by {number.name}", exit_code=SIGNALS[number], reach=StopScope.ALL)
        if len(caught) > 1 and main is not None:
            main.cancel()

    return on_signal


UNKNOWN_NOTICE = "an outcome is unknown, perhaps paid: `dop status` has the commands that settle it"
"""What the operator is notified of while the run continues; once, however many they are."""


class LocalRunner:
    """The steps of one run on this machine: fed from the ledger, run side by side."""

    def __init__(
        self,
        job: RunJob,
        stop: StopSignal,
        client: GatewayClient,
        fetcher: VideoFetcher,
        base_url: str,
        *,
        endpoint: CallbackEndpoint | None,
        log: logging.Logger,
        print_line: Callable[[str], None],
    ) -> None:
        self.job, self.stop = job, stop
        self._log, self._print_line, self._endpoint = log, print_line, endpoint
        self._memory = f"learned {job.workspace.gateway}"
        self._publisher = open_publisher(job.workspace.settings)
        self._before = job.workspace.queries.totals(job.run.run_id)
        self._feed = LedgerFeed(job)
        images = open_local_images(job.workspace.settings, base_url, job.sha256_of, wall=job.wall, client=client)
        self.pipeline = self._build(client, fetcher, images)
        self._display = RunDisplay(job, self.pipeline, stop, log=log, notify=self._notify)
        self._loop = asyncio.get_running_loop()
        job.workspace.ledger.report_to(self._notify_from_ledger)
        if endpoint is not None and self.pipeline.callbacks is not None:
            endpoint.deliver_to(self.pipeline.callbacks.delivered, is_busy=self.pipeline.callbacks.is_busy)

    def _build(self, client: GatewayClient, fetcher: VideoFetcher, images: LocalImages) -> RunPipeline:
        job, workspace, endpoint = self.job, self.job.workspace, self._endpoint
        poll, events = workspace.settings.poll, EventSink(self._on_listener_error)
        events.subscribe(OutcomeUnknown, lambda _: job.needs_user(UNKNOWN_NOTICE))
        kind = kind_of(workspace.settings)
        if job.options.halt is not None:
            events.subscribe(EventRecorded, self._check_failure_limit)
        return build_pipeline(
            PipelineSetup(
                workspace=workspace,
                run_id=job.run.run_id,
                caps=job.caps,
                agreement=job.options.agreement,
                totals=self._before,
                folder=job.folder,
                client=client,
                kind=kind,
                fetcher=fetcher,
                publisher=self._publisher,
                calls=SubmitCallBuilder(
                    kind,
                    images.urls,
                    CallbackAddresses(endpoint.keys, endpoint.public_url) if endpoint is not None else None,
                ),
                requests=partial(self._feed.requests, images.uploader, self._recovered),
                stop=self.stop,
                events=events,
                unix_time=job.wall,
                notify=self._notify,
                fail_point=fail_point(os.environ),
                log=self._log,
                collect=job.options.collect,
                remembered=RememberedGateway.from_state(workspace.ledger.saved_states.load(self._memory)),
                callbacks=CallbackSetup(
                    state_of=self._feed.state_to_recover, linger_s=min(PROVEN * poll.max_s, poll.deadline_s)
                )
                if endpoint is not None
                else None,
            )
        )

    async def _recovered(self) -> None:
        """Wait until no submit of unknown outcome is being looked for."""
        await self.pipeline.recovery.wait()

    def _check_failure_limit(self, event: EventRecorded) -> None:
        limit = self.job.options.halt
        if limit is not None and limit.reached(self._before, event.totals):
            failed = event.totals.count(*FAILED_FOR_GOOD) - self._before.count(*FAILED_FOR_GOOD)
            self.stop.request(
                f"--halt: {counted(failed, 'request')} failed", exit_code=ExitCode.UNFINISHED, reach=StopScope.SUBMITS
            )

    def _on_listener_error(self, error: BaseException) -> None:
        self._notify(f"an event could not be handled ({error_words(error)}); the run continues")

    def _notify(self, text: str) -> None:
        """MONEY: an output that is closed, or a full disk under the log, must not end a step."""
        with suppress(BaseException):
            self._print_line(text)
        with suppress(BaseException):
            self._log.warning(text)

    def _notify_from_ledger(self, text: str) -> None:
        """Called in the ledger's own thread."""
        self._loop.call_soon_threadsafe(self._notify, text)

    async def run(self, progress: ProgressDisplay) -> None:
        """Run the steps; the ledger has what they did when this returns."""
        # Before the steps: a poller that finds no job and a closed input ends at once.
        self._feed.resume(self.pipeline.context)
        watch = self.pipeline.context.gate.watch
        beside = (self._display.log_stops(), self._display.show_progress(progress), watch())
        aside = [asyncio.create_task(task) for task in beside]
        if self._endpoint is not None:
            aside.append(asyncio.create_task(self._endpoint.watch(self._feed.state_of)))
        try:
            async with asyncio.TaskGroup() as group:
                for name, step in (("buying", self._buy), ("polling", self._poll), ("downloading", self._download)):
                    group.create_task(self._run_step(name, step))
        # The second signal cancels the main task. What was in flight is recorded by then (`finish`), and the report and
        # the exit code follow as usual.
        except* asyncio.CancelledError:
            pass
        finally:
            for task in aside:
                task.cancel()
            await asyncio.gather(*aside, return_exceptions=True)
            await self._feed.close()
            self._display.end(progress)
            with suppress(BaseException):  # a disk that is full: the run's own reasons and its report say so
                self.job.workspace.ledger.saved_states.save(self._memory, self.pipeline.learned())

    async def _run_step(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        """MONEY: a step that breaks stops the buying and nothing else: the others' calls are in flight."""
        try:
            await step()
        except BaseException as error:
            if is_cancellation(error):
                raise
            code = error.exit_code if isinstance(error, DopError) else ExitCode.FATAL
            text = str(error) if isinstance(error, DopError) else f"{name} broke ({error_words(error)})"
            self.stop.request(text, exit_code=code, reach=StopScope.SUBMITS)

    async def _buy(self) -> None:
        pipeline = self.pipeline
        try:
            if self._endpoint is not None:
                # MONEY: a call that came while no run did may prove an unknown submit; before any is sent again.
                self._endpoint.drain(self._feed.state_of)
                await pipeline.recovery.wait()
                self._endpoint.drain(self._feed.state_of)  # what is recorded now need not be kept
            if self.job.options.buy and await self._outputs_ready():
                await self._feed.resend_unknowns(pipeline.context)
                await pipeline.buy()
            else:
                await self._feed.check_shots(self._recovered)
            if pipeline.callbacks is not None and self.job.options.collect:
                await pipeline.callbacks.wait_for_late_callbacks()
            await pipeline.recovery.wait()
        finally:
            # In any case: a poller whose input stays open waits for jobs for ever.
            pipeline.poller.close_input()

    async def _outputs_ready(self) -> bool:
        """Whether the store takes what will be bought; else nothing is bought, and what is paid is collected."""
        publisher = self._publisher
        problem = await publisher.check_writable(self.job.folder.path) if publisher is not None else ""
        if problem:
            self.stop.request(f"nothing is bought: {problem}", exit_code=ExitCode.UNFINISHED, reach=StopScope.SUBMITS)
        return not problem

    async def _poll(self) -> None:
        try:
            if self.job.options.collect:
                await self.pipeline.poller.run()
        finally:
            self.pipeline.downloader.close_input()

    async def _download(self) -> None:
        if self._feed.downloads:
            await self.pipeline.downloader.run()


def gateway_client(settings: Settings, base_url: str, key: str) -> GatewayClient:
    """The client of the gateway as the settings say, not yet opened."""
    gateway = settings.gateway
    return GatewayClient(
        kind=kind_of(settings),
        base_url=base_url,
        key=key,
        connect_timeout_s=gateway.connect_timeout_s,
        read_timeout_s=gateway.read_timeout_s,
        network=network_environment(os.environ),
    )
