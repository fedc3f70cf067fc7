"""One rate for all workers of a gateway: a row of the database that each worker visits for several slots at once.

A slot is a moment, up to `shared_limit.AHEAD_S` ahead; the worker that took it sleeps until then. A visit reads and
writes the row once, whatever number of slots and answers it is about, and holds it for the milliseconds between;
PostgreSQL lets go of a row whose worker froze (`shared_rate_row`). Right before a call one plain read tells whether its
slot is void: another worker met the limit, or another job took the last place.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import psycopg

from pipeline.gateway.ratelimit.limiter import CallKind, LimitFeedback
from pipeline.runner.cluster.shared_limit import Granted, Report, RowState, SharedSlot, Visit, visit
from pipeline.runner.cluster.shared_rate_row import Check, RateRow

RETRY_S = 0.5
"""Seconds until a database that is away is asked again."""
GATHER_S = 0.02
"""Calls that want a slot wait so long (seconds) after a visit for company, so that one visit serves them all. A slot is
given up to `shared_limit.AHEAD_S` before it is due: where the pace is the limit, no call is later for it."""
MAX_SHARE = 0.1
"""They wait longer where the law's own work at a visit would take more of the worker's time than this share: while no
limit was met every call counts, and the work grows with their number."""
FLUSH_S = 0.2
"""Answers wait so long (seconds) for company before they are reported; rejections do not."""
KEEP_ALIVE_S = 2.0
"""A worker with calls in flight visits the row at least so often (seconds), so that it is not taken to have died."""
FRESH_S = 0.01
"""What was read so lately (seconds) is not read again before a call."""
LATE_S = 1.0
"""A slot that is late by more (seconds) is void: what was held up must not leave at once."""
CLOCK_DRIFT_S, CLOCK_STEP_S = 0.0005, 0.25
"""The clocks' difference is the largest that was seen, as delays make it look smaller; it shrinks by so much with each
visit, and at once where a clock was set."""


@dataclass(eq=False, slots=True)
class _Waiter:
    """A call that waits for a slot, until `stopped`."""

    kind: CallKind
    stopped: Callable[[], bool]
    slot: asyncio.Future[SharedSlot | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class SharedRateLimiter:
    """One worker's way to the row: it collects wanted slots and reports, and carries them there by one visit.

    All times that it is given and gives are the event loop's.
    """

    def __init__(self, row: RateRow) -> None:
        self._row = row
        self._worker = uuid.uuid4().hex[:12]
        self._clock = DatabaseClock()
        self._waiting: list[_Waiter] = []
        self._reports: list[Report] = []
        self._in_use: set[str] = set()
        self._ended = 0
        self._again_at = self._visited_at = self._reports_since = 0.0
        self._gather_s = GATHER_S
        self._blocked_at = float("-inf")
        self._waits_for_answers = self._counts_jobs = self._is_urgent = False
        self._checked: tuple[float, Check] | None = None
        self._news = asyncio.Event()
        self._visits: asyncio.Task[None] | None = None

    async def slot(self, kind: CallKind, stopped: Callable[[], bool] = lambda: False) -> SharedSlot | None:
        """Waits for the next slot; None when the run `stopped`, which `notice_stop` asks."""
        waiter = _Waiter(kind, stopped)
        self._waiting.append(waiter)
        self._visit_soon()
        return await waiter.slot

    def notice_stop(self) -> None:
        """A run may have stopped: its calls wait no longer."""
        for waiter in self._waiting:
            if not waiter.slot.done() and waiter.stopped():
                waiter.slot.set_result(None)

    async def is_void(self, slot: SharedSlot) -> bool:
        """Whether the slot must not be used: the limit was met since, a job took the last place, or it is late.

        Raises:
            psycopg.Error: the row can't be read.
        """
        now = _now()
        if now > slot.due_at + LATE_S or slot.taken_at < self._blocked_at:
            return True
        # With a cap every call reads the row again, as each submit of any worker changes the count.
        if self._checked is None or now - self._checked[0] > FRESH_S or self._checked[1].cap is not None:
            # `now` is from before the read: the answer may be as old as that.
            self._checked = now, await self._row.check()
        it = self._checked[1]
        if it.cap is not None and slot.kind is CallKind.SUBMIT and it.in_flight > it.cap:
            return True
        blocked_at = max(self._clock.ours(it.blocked_at), self._blocked_at)  # an answer may have come meanwhile
        return blocked_at > slot.taken_at

    def release(self, slot: SharedSlot) -> None:
        """The slot was not used."""
        self._report(Report(slot=slot.slot))

    def sent(self, slot: SharedSlot, now: float) -> None:
        """The slot's call goes out now."""
        self._report(Report(slot=slot.slot, sent_at=now))

    def answered(self, report: Report) -> None:
        """The call of a slot was answered; times of the loop's clock."""
        if report.feedback is LimitFeedback.THROTTLED:
            # At once and not with the next visit: this worker's own calls that are about to go are checked against it.
            self._blocked_at = _now()
        self._counts_jobs |= report.feedback is LimitFeedback.CONCURRENCY
        self._report(report)

    def job_ended(self) -> None:
        """A job reached its end."""
        self._ended += 1

    async def close(self) -> None:
        """Reports what is left, and lets go of the row."""
        if self._visits is not None:
            self._visits.cancel()
            await asyncio.gather(self._visits, return_exceptions=True)
        if self._reports:
            with suppress(psycopg.Error, OSError):
                await self._visit()
        await self._row.close()

    def _report(self, report: Report) -> None:
        self._reports_since = self._reports_since if self._reports else _now()
        self._reports.append(report)
        rejected = report.feedback in (LimitFeedback.THROTTLED, LimitFeedback.CONCURRENCY)
        self._is_urgent |= rejected or (self._waits_for_answers and bool(self._waiting))
        self._visit_soon()

    def _visit_soon(self) -> None:
        self._news.set()
        if self._visits is None or self._visits.done():
            self._visits = asyncio.create_task(self._keep_visiting())

    async def _keep_visiting(self) -> None:
        try:
            while self._waiting or self._reports or self._in_use:
                await self._visit_is_due()
                try:
                    await self._visit()
                except (psycopg.Error, OSError):  # the ledger is away as well, and says so
                    await asyncio.sleep(RETRY_S)
        except Exception as error:
            for waiter in self._waiting:
                if not waiter.slot.done():
                    waiter.slot.set_exception(error)
            self._waiting.clear()
            raise

    async def _visit_is_due(self) -> None:
        """Waits until slots may be free, reports have waited long enough, or the worker must be seen again."""
        while not self._is_urgent:
            self._news.clear()
            due_at = self._visited_at + KEEP_ALIVE_S
            if self._reports:
                due_at = min(due_at, self._reports_since + FLUSH_S)
            if self._waiting:
                due_at = min(due_at, max(self._again_at, self._visited_at + self._gather_s))
            if due_at <= _now():
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), due_at - _now())

    async def _visit(self) -> None:
        waiting = [waiter for waiter in self._waiting if not waiter.slot.done()]
        reports, self._reports = self._reports, []
        ended, self._ended = self._ended, 0
        self._is_urgent = False
        self._visited_at = _now()

        def act(row: RowState, now: float, in_flight: int) -> tuple[RowState, tuple[Granted, float]]:
            began_at = _now()
            self._clock.seen(now, began_at)
            it = Visit(
                worker=self._worker,
                now=now,
                reports=[self._clock.theirs(report) for report in reports],
                wanted=[waiter.kind for waiter in waiting],
                ended=ended,
                in_flight=in_flight,
            )
            after, granted = visit(row, it)
            self._gather_s = max(GATHER_S, (_now() - began_at) / MAX_SHARE)
            return after, (granted, after.blocked_at)

        try:
            granted, blocked_at = await self._row.change(act, count=self._counts_jobs)
        except BaseException:
            # They go along with the next visit. If the row was written after all, it knows these slots no longer, and a
            # second report changes nothing.
            self._reports, self._ended = reports + self._reports, self._ended + ended
            raise
        self._counts_jobs = any(it.feedback is LimitFeedback.CONCURRENCY for it in self._reports)
        self._in_use -= {it.slot for it in reports if it.feedback is not None or it.sent_at is None}
        self._blocked_at = max(self._blocked_at, self._clock.ours(blocked_at))
        self._again_at = _now() + granted.again_s
        self._waits_for_answers = granted.waits_for_answers
        self._hand_out(granted.slots, waiting)

    def _hand_out(self, slots: Sequence[SharedSlot], waiting: Sequence[_Waiter]) -> None:
        for theirs, waiter in zip(slots, waiting, strict=False):
            slot = self._clock.our_slot(theirs)
            self._in_use.add(slot.slot)
            # Its run stopped during the visit: the slot goes back for another call.
            if waiter.slot.done():
                self.release(slot)
            else:
                waiter.slot.set_result(slot)
        self._waiting = [waiter for waiter in self._waiting if not waiter.slot.done()]


class DatabaseClock:
    """The difference between the database's clock and the event loop's.

    Delays on the way make it look smaller, so the largest that was seen counts.
    """

    def __init__(self) -> None:
        self._ahead_s: float | None = None

    def seen(self, theirs: float, ours: float) -> None:
        """The database said `theirs`, which arrived here at `ours`."""
        ahead_s = theirs - ours
        if self._ahead_s is None or abs(ahead_s - self._ahead_s) > CLOCK_STEP_S:
            self._ahead_s = ahead_s
        self._ahead_s = max(ahead_s, self._ahead_s - CLOCK_DRIFT_S)

    def ours(self, theirs: float) -> float:
        """The loop's time at a time of the database."""
        return theirs - (self._ahead_s or 0.0)

    def our_slot(self, slot: SharedSlot) -> SharedSlot:
        """The slot in the loop's time."""
        return replace(slot, taken_at=self.ours(slot.taken_at), due_at=self.ours(slot.due_at))

    def theirs(self, report: Report) -> Report:
        """The report in the database's time."""
        if report.sent_at is None:
            return report
        ahead_s = self._ahead_s or 0.0
        return replace(report, sent_at=report.sent_at + ahead_s, answered_at=report.answered_at + ahead_s)


def _now() -> float:
    return asyncio.get_running_loop().time()
