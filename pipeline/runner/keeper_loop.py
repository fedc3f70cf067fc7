"""Keep buying until good: feeds the next candidate of a shot when a check or a failure says that one is lost.

The decision is a pure function of the ledger (`ledger.keepers`); this module only says when to ask it again:

    SAVE of a clip            -> check it -> its result and what is wanted now, in one transaction
    a candidate that failed   -> what is wanted now
    nothing is in flight      -> check all clips together (repeated clips) -> what is wanted now, or the end

Must never: feed what was not agreed to; decide from anything but what the ledger holds, so that a run that is killed at
any point decides the same again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection

from pipeline.ledger.agreement import Agreement
from pipeline.ledger.reviews import latest_verdicts
from pipeline.ledger.shots import CheckRecord, Shots, mark_wanted, save_checks
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied, Conflict
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import Attempt, Candidacy, State
from pipeline.reports.checks.findings import Grade
from pipeline.runner.clip_checker import ClipChecker
from pipeline.runner.context import RunContext
from pipeline.runner.downloader import GIVEN_UP
from pipeline.runner.events import EventRecorded, RequestSetAside
from pipeline.runner.keeper_results import changed_records, record_of


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperSetup:
    """What a loop works on.

    Attributes:
        shots: where the shots of the run stand when it begins.
        collects, downloads: whether jobs are polled, and whether their videos are fetched.
    """

    workspace: OpenLedger
    run_id: str
    shots: Shots
    agreement: Agreement
    checker: ClipChecker
    collects: bool
    downloads: bool


class KeeperLoop:
    """The shots of one run: which candidates are in flight, which clips are being checked, what is bought next."""

    def __init__(self, setup: KeeperSetup, context: RunContext) -> None:
        self._setup, self._context = setup, context
        self._verdicts = latest_verdicts(setup.workspace.ledger)
        self._rules_of, self._shared = setup.shots.rules_of, setup.shots.share_candidates
        self._live: set[str] = set()
        """candidates that may still come out in this run"""
        self._checks: set[asyncio.Task[None]] = set()
        self._results: list[CheckRecord] = []
        self._dirty: set[Candidacy] = set()
        self._all_dirty = False
        self._known: set[str] = set()
        """candidates that were handed on, or wait in `_fed`"""
        self._fed: deque[Attempt] = deque()
        self._news = asyncio.Event()
        context.stop.subscribe(self._news.set)
        context.events.subscribe(EventRecorded, self._recorded)
        context.events.subscribe(RequestSetAside, lambda event: self._not_live(event.request_id))

    # -- what is in flight

    def resume(self) -> None:
        """Take up what earlier runs left: jobs in flight, videos to fetch, clips to check."""
        queries, run_id = self._setup.workspace.queries, self._setup.run_id
        for page in queries.iter_attempts(run_id, (State.ACCEPTED, State.STALLED, State.DONE)):
            known = queries.checks([attempt.request_id for attempt in page])
            for attempt in page:
                result = known.get((attempt.request_id, attempt.attempt))
                if attempt.state is State.DONE and (attempt.sha256 is not None or not self._setup.downloads):
                    if result is None or result.grade == Grade.UNCHECKED:
                        self._start_check(attempt)
                elif self._setup.collects:
                    self._now_live(attempt.request_id)

    def _recorded(self, recorded: EventRecorded) -> None:
        request_id, event, result = recorded.request_id, recorded.event, recorded.result
        if isinstance(result, Conflict):
            self._not_live(request_id)
        if not isinstance(result, Applied):
            return
        state = result.state
        if event is Event.SAVE or (event is Event.COMPLETE and not self._setup.downloads):
            self._start_check_of(request_id)
        elif request_id not in self._rules_of:
            return
        elif state is State.ACCEPTED and self._setup.collects:
            self._now_live(request_id)
        # No SAVE will come for it in this run, so the loop must not wait for one.
        elif event is Event.NOTE and state is State.DONE and str(result.row["reason"]).startswith(GIVEN_UP):
            self._not_live(request_id)
        elif state not in (State.PLANNED, State.SUBMITTING, State.DONE):
            self._mark_soon(request_id)
            self._not_live(request_id)

    def _now_live(self, request_id: str) -> None:
        if request_id in self._rules_of:
            self._live.add(request_id)

    def _not_live(self, request_id: str) -> None:
        self._live.discard(request_id)
        self._news.set()

    def _mark_soon(self, request_id: str) -> None:
        self._dirty.update(self._rules_of.get(request_id, ()))

    def _start_check_of(self, request_id: str) -> None:
        attempt = self._setup.workspace.queries.listed(self._setup.run_id, request_id)
        if attempt is not None:
            self._start_check(attempt)

    def _start_check(self, attempt: Attempt) -> None:
        task = asyncio.create_task(self._check(attempt))
        self._checks.add(task)
        task.add_done_callback(self._checked)

    async def _check(self, attempt: Attempt) -> None:
        try:
            found = await self._setup.checker.check(attempt)
            self._context.fail_point("after-check")
            self._results.append(record_of(attempt.request_id, attempt.attempt, found))
            self._mark_soon(attempt.request_id)
        finally:
            self._not_live(attempt.request_id)

    def _checked(self, task: asyncio.Task[None]) -> None:
        self._checks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._context.notify(f"a clip could not be checked ({error}); the next run checks it")
        self._news.set()

    @property
    def _is_idle(self) -> bool:
        return not (self._fed or self._live or self._checks or self._results or self._dirty or self._all_dirty)

    # -- what is bought next

    async def requests(self, first: Iterator[Attempt], rest: Callable[[], Awaitable[None]]) -> AsyncIterator[Attempt]:
        """The requests to buy: the next candidate of a shot before what is planned from the start (`first`).

        Ends when no candidate may follow any more. `rest` waits for what may still bring a lost submit back.
        """
        stop = self._context.stop
        while not stop.submits:
            self._news.clear()
            # Before the next row of the list is taken: a candidate in place of a lost one comes first.
            await self._mark()
            attempt = self._fed.popleft() if self._fed else self._next(first)
            if attempt is not None:
                self._now_live(attempt.request_id)
                yield attempt
            elif not self._is_idle:
                await self._news.wait()
            else:
                # As things are nothing more is bought. An unclear submit that is proved meanwhile, or a repeated clip
                # that only a comparison of all clips shows, may change that.
                await rest()
                if self._is_idle and not await self._review():
                    return

    def _next(self, first: Iterator[Attempt]) -> Attempt | None:
        """The next planned attempt that was agreed to and not handed on yet."""
        for attempt in first:
            if attempt.request_id in self._setup.agreement and attempt.request_id not in self._known:
                self._known.add(attempt.request_id)
                return attempt
        return None

    async def _mark(self) -> None:
        """Keep the new results and settle the shots that they concern, durable when it returns."""
        if not (self._results or self._dirty or self._all_dirty):
            return
        # Taken out before the await: what comes in during the transaction waits for the next one.
        results, self._results = self._results, []
        # A candidate that two shots list is wanted as soon as one of them needs it: such shots are settled together.
        only = None if self._all_dirty or self._shared else self._dirty
        self._dirty, self._all_dirty = set(), False
        run_id, verdicts, at = self._setup.run_id, self._verdicts, self._context.unix_time()

        def work(connection: Connection) -> Shots:
            save_checks(connection, results, at)
            return mark_wanted(connection, run_id, verdicts, only)

        self._context.fail_point("before-mark")
        found = await self._setup.workspace.ledger.transact_async(work)
        self._context.fail_point("after-mark")
        self._context.recorder.want(found.newly_wanted)
        self._feed(found)

    def _feed(self, found: Shots) -> None:
        """MONEY: only what was agreed to; the recorder checks it again at the reservation."""
        for request_id in found.needed:
            if request_id in self._known or request_id not in self._setup.agreement:
                continue
            attempt = self._setup.workspace.queries.listed(self._setup.run_id, request_id)
            if attempt is not None and attempt.state is State.PLANNED:
                self._known.add(request_id)
                self._fed.append(attempt)

    async def _review(self) -> bool:
        """Check all clips together and at what was reviewed meanwhile; True when more is to be bought."""
        found = await self._setup.checker.review()
        self._verdicts = latest_verdicts(self._setup.workspace.ledger)
        self._results += changed_records(self._setup.workspace.queries, found)
        self._all_dirty = True
        await self._mark()
        return bool(self._fed)

    async def close(self) -> None:
        """Wait for the checks in progress, unless the run stops at once; keep what they found."""
        if self._context.stop.all:
            for task in self._checks:
                task.cancel()
        while self._checks:
            await asyncio.gather(*self._checks, return_exceptions=True)
        self._all_dirty = True
        await self._mark()
        await self._setup.checker.close()
