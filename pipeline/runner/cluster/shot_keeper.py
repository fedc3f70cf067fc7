"""Keep buying until good in a cluster: the worker that fetched a clip checks it and marks what its shot wants next.

The queue is made from the ledger, so a candidate that is marked as wanted is queued by whichever host tops up next.
A worker that dies between two steps loses nothing: a clip without a result is queued again to be checked, and every
worker settles its runs from time to time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from sqlalchemy import Connection

from pipeline.errors import DopError
from pipeline.ledger.reviews import latest_verdicts
from pipeline.ledger.shots import CheckRecord, Shots, mark_wanted, save_checks
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import Attempt, Candidacy
from pipeline.runner.clip_checker import ClipChecker, PooledChecker
from pipeline.runner.keeper_results import record_of


class ShotKeeper:
    """The shots of one ordered run, as one worker processes them.

    Args:
        on_finished: called with a request once its clip is checked and its shot has asked for the next candidate.
        on_failure: called with the reason when the ledger could not take a result.
    """

    def __init__(
        self,
        workspace: OpenLedger,
        run_id: str,
        *,
        on_finished: Callable[[str], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self._workspace, self._run_id = workspace, run_id
        self._on_finished, self._on_failure = on_finished, on_failure
        self._finishing: set[asyncio.Task[None]] = set()
        self._verdicts = latest_verdicts(workspace.ledger)
        shots = workspace.queries.shots(run_id, self._verdicts)
        self._rules_of, self._shared = shots.rules_of, shots.share_candidates
        run = workspace.queries.run(run_id)
        has_shots = bool(shots.statuses)
        self._checker: ClipChecker | None = PooledChecker(workspace, run) if run is not None and has_shots else None

    def has(self, request_id: str) -> bool:
        """Whether the request is a candidate of a shot."""
        return request_id in self._rules_of

    async def check(self, attempt: Attempt) -> None:
        """Check a candidate's clip; its result and what its shot wants next are durable when it returns."""
        if self._checker is None:
            return
        found = await self._checker.check(attempt)
        record = record_of(attempt.request_id, attempt.attempt, found)
        await self._mark([record], self._rules_of.get(attempt.request_id, ()))

    def finish_candidate(self, request_id: str, *, is_clip: bool) -> None:
        """A candidate came out: check its clip and mark what its shot wants next, then call `on_finished`."""
        task = asyncio.create_task(self._finish_one(request_id, is_clip=is_clip))
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)

    async def _finish_one(self, request_id: str, *, is_clip: bool) -> None:
        try:
            attempt = self._workspace.queries.listed(self._run_id, request_id) if is_clip else None
            if attempt is not None:
                await self.check(attempt)
            else:
                await self._mark([], self._rules_of.get(request_id, ()))
        except DopError as error:
            self._on_failure(str(error))
        finally:
            self._on_finished(request_id)

    async def mark_all(self) -> None:
        """Mark what every shot wants, also for ends that no worker lived to settle."""
        if self._rules_of:
            self._verdicts = await asyncio.to_thread(latest_verdicts, self._workspace.ledger)
            await self._mark([], None)

    async def _mark(self, results: list[CheckRecord], only: Iterable[Candidacy] | None) -> None:
        run_id, verdicts, at = self._run_id, self._verdicts, time.time()
        # A candidate that two shots list is wanted as soon as one of them needs it: such shots are settled together.
        some = None if self._shared else only

        def work(connection: Connection) -> Shots:
            save_checks(connection, results, at)
            return mark_wanted(connection, run_id, verdicts, some)

        await self._workspace.ledger.transact_async(work)

    async def close(self) -> None:
        """Give up what is not checked yet; it is queued again."""
        for task in self._finishing:
            task.cancel()
        await asyncio.gather(*self._finishing, return_exceptions=True)
        if self._checker is not None:
            await self._checker.close()


def mark_wanted_in(workspace: OpenLedger, run_id: str) -> int:
    """Mark what the shots of a run want now; how many candidates that are. Blocks."""
    verdicts = latest_verdicts(workspace.ledger)
    found = workspace.ledger.transact(lambda connection: mark_wanted(connection, run_id, verdicts))
    return len(found.needed)
