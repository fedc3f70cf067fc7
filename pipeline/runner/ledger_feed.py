"""What a run on this machine takes from the ledger: what is planned, in flight, without its video, or unclear."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from pipeline.errors import DopError
from pipeline.ledger.agreement import NOTHING
from pipeline.ledger.resend_policy import ResendPolicy
from pipeline.ledger.reviews import latest_verdicts
from pipeline.records import Attempt, State
from pipeline.runner.context import RunContext, pending_job_of, ready_video_of
from pipeline.runner.keeper_loop import KeeperLoop, KeeperSetup
from pipeline.runner.link_renewal import may_have_video
from pipeline.runner.local_images import ImageUploader, in_order, planned, planned_requests
from pipeline.runner.run_job import RunJob
from pipeline.runner.unknowns import resend_unknowns


class LedgerFeed:
    """Feeds the steps of one run from the ledger.

    Attributes:
        downloads: whether videos are fetched.
    """

    def __init__(self, job: RunJob) -> None:
        self._job, self._queries = job, job.workspace.queries
        self._keepers: KeeperLoop | None = None
        self.downloads = job.options.collect and job.workspace.settings.download.enabled

    def requests(
        self, uploader: ImageUploader, recovered: Callable[[], Awaitable[None]], context: RunContext
    ) -> AsyncIterator[Attempt]:
        """What is planned; with shots also the candidates that follow when others are lost.

        Args:
            recovered: waits until no submit of unknown outcome is being looked for.
        """
        job, queries = self._job, self._queries
        shots = queries.shots(job.run.run_id, latest_verdicts(queries.ledger))
        if shots.statuses:
            setup = KeeperSetup(
                workspace=job.workspace,
                run_id=job.run.run_id,
                shots=shots,
                agreement=job.options.agreement if job.options.buy else NOTHING,
                checker=job.checker(job.workspace, job.run),
                collects=job.options.collect,
                downloads=self.downloads,
            )
            self._keepers = KeeperLoop(setup, context)
            attempts = self._keepers.requests(in_order(queries, job.run.run_id), recovered)
        else:
            attempts = planned(queries, job.run.run_id)
        return planned_requests(context, attempts, uploader=uploader, agreement=job.options.agreement)

    async def check_shots(self, recovered: Callable[[], Awaitable[None]]) -> None:
        """Check the clips of shots without buying: what would be bought next is known afterwards."""
        if self._keepers is not None:
            async for _ in self._keepers.requests(iter(()), recovered):
                pass

    def resume(self, context: RunContext) -> None:
        """Hand what earlier runs left in flight, or without its file, to the poller and the downloader."""
        run_id = self._job.run.run_id
        loop_now, wall_now = asyncio.get_running_loop().time(), self._job.wall()
        if self._keepers is not None:
            self._keepers.resume()
        if not self._job.options.collect:
            return
        # Stalled jobs as well: a deadline that passed is no verdict, and asking once more is free.
        for page in self._queries.iter_attempts(run_id, (State.ACCEPTED, State.STALLED)):
            for attempt in page:
                context.accepted.put_nowait(pending_job_of(attempt, loop_now=loop_now, now_unix=wall_now))
        if self.downloads:
            without_file = self._queries.iter_attempts(run_id, (State.DONE,), lacks_file=True)
            lost = self._queries.iter_attempts(run_id, (State.EXPIRED, State.FAILED))
            for attempt in itertools.chain.from_iterable(itertools.chain(without_file, lost)):
                if attempt.state is State.DONE or may_have_video(attempt):
                    context.ready.put_nowait(ready_video_of(attempt))

    async def resend_unknowns(self, context: RunContext) -> None:
        """Send those of the unknown outcomes again that the user agreed to, under `on_unknown: resend`. Pays: yes."""
        job, rule = self._job, self._job.workspace.settings.on_unknown
        if rule.policy != "resend" or rule.max_cost_microusd is None:
            return
        used, resent = self._queries.resent(job.run.run_id)
        policy = ResendPolicy(max_cost_microusd=rule.max_cost_microusd, used_microusd=used, resent=resent)
        unknowns = self._queries.attempts_in(job.run.run_id, (State.UNKNOWN,))
        chosen = [attempt for attempt in unknowns if attempt.request_id in job.options.agreement.resends]
        await resend_unknowns(context, policy, chosen)

    def state_of(self, request_id: str) -> State | None:
        """The newest state of a request, None if the ledger does not know it."""
        return self._queries.states([request_id]).get(request_id)

    def state_to_recover(self, request_id: str) -> State | None:
        """The state of a request that a callback may change here; what other runs may still buy is left to them."""
        state = self.state_of(request_id)
        if state not in (State.PLANNED, State.SUBMITTING, State.UNKNOWN):
            return state
        return state if self._queries.listed(self._job.run.run_id, request_id) else None

    async def close(self) -> None:
        """End the checks of clips; the next run resumes what is not checked."""
        if self._keepers is not None:
            with suppress(DopError):
                await self._keepers.close()
