"""One rate limit for all workers of a cluster: the law that one run uses, fed with what all of them saw.

The state of the law is in one row of the database (`shared_rate`). A worker visits it: it reports what became of its
slots since its last visit, takes the next ones, and writes the state back. So a rejection that one worker saw is
evidence for all, and each slot is given once. Times are Unix seconds of the database's clock.

A worker that reports nothing for `ABSENT_S` is taken to have died: its slots count as calls without an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.gateway.allowance_headers import StatedAllowance
from pipeline.gateway.ratelimit.channel import RateChannel
from pipeline.gateway.ratelimit.concurrency import InFlightLimit
from pipeline.gateway.ratelimit.learned import LearnedLimits, begin_with, learned_limits
from pipeline.gateway.ratelimit.limiter import CallKind, LimitFeedback
from pipeline.gateway.ratelimit.rates import Rate
from pipeline.gateway.ratelimit.snapshot import UnknownFormatError, on_grid, packed, unpacked

AHEAD_S = 0.25
"""How far ahead (seconds) a slot may be taken: at 40 a second ten for one visit. A rejection voids those not used."""
ABSENT_S = 6.0
"""A worker with slots visits every `shared_rate.KEEP_ALIVE_S`; one that did not for so long (seconds) died."""
IDLE_S = 300.0
"""After so long (seconds) without a visit the state is an earlier run's: what it learned is tested first."""
MAX_CALL_S = 600.0
"""No call is waited for longer (seconds)."""
MAX_OPEN = 1_000
"""Open calls are bounded by each worker's `pace.submit_concurrency`, not by the shared state."""
MAX_ASK_S = 1.0
"""A worker that waits for a slot asks again after so long (seconds) at the latest: the settings may have changed."""
LOOK_AGAIN_S = 0.05
"""It asks again so soon (seconds) while only the answer to another worker's call can free a slot."""
AGAIN_EARLY = 0.5
"""A worker asks again by this part of `AHEAD_S` before the next slot, so that it takes several at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPace:
    """What the configuration says: the rate (None: found out), its burst, and the cap on jobs in flight."""

    rate: Rate | None = None
    burst: int | None = None
    job_cap: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of a slot: not used (`sent_at` None), sent, or answered (`feedback`).

    Attributes:
        unseen: the answer came while the worker was frozen, so when it came is not known.
        others: as in `AdaptiveRateLimiter.answered`.
    """

    slot: str
    sent_at: float | None = None
    answered_at: float = 0.0
    feedback: LimitFeedback | None = None
    wait_s: float | None = None
    job_cap: int | None = None
    stated: StatedAllowance | None = None
    unseen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RowState:
    """What the row holds: the settings, the law's state, and what each worker reads before it sends.

    Attributes:
        held_until: nothing goes before it.
        blocked_at: slots taken before it are void, since the limit was met.
        cap: jobs in flight of all workers; None while no cap is known.
    """

    settings: SharedPace
    state: bytes | None = None
    held_until: float = 0.0
    blocked_at: float = 0.0
    cap: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One worker's visit at `now`; `in_flight` jobs of all workers are in flight, where a cap makes that matter."""

    worker: str
    now: float
    reports: Sequence[Report]
    wanted: Sequence[CallKind]
    ended: int = 0
    in_flight: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedSlot:
    """One call may go at `due_at`."""

    slot: str
    kind: CallKind
    taken_at: float
    due_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """Slots, in the order in which they were wanted, and after how many seconds to ask again for the others."""

    slots: Sequence[SharedSlot]
    again_s: float
    waits_for_answers: bool


@dataclass(slots=True)
class _SlotInUse:
    is_submit: bool
    due_at: float
    sent_at: float | None = None


@dataclass(slots=True)
class _State:
    """Everything that is kept as bytes."""

    settings: SharedPace
    channel: RateChannel
    jobs: InFlightLimit
    in_use: dict[str, _SlotInUse] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    """when each worker visited last"""
    count: int = 0


def visit(row: RowState, it: Visit) -> tuple[RowState, Granted]:
    """The row after a visit, and what the visitor was given."""
    state, blocked_at = _opened(row, it.now), row.blocked_at
    # First of all: a visitor is alive, however long it was silent, and must not be ended below.
    state.seen[it.worker] = it.now
    _end_lost(state, it.now)
    # In the order in which things happened: the law concludes from the order of calls and answers.
    for report in sorted(it.reports, key=lambda r: r.answered_at or r.sent_at or it.now):
        _hear(state, report, it)
        if report.feedback in (LimitFeedback.THROTTLED, LimitFeedback.CONCURRENCY):
            # The time of this visit and not of the answer: until now no worker that took a slot knew of the rejection.
            blocked_at = it.now
    for _ in range(it.ended):
        state.jobs.ended()
    granted = _grant(state, it)
    held_until = max(row.held_until, min(state.channel.hold.must_wait_until(it.now), it.now + MAX_CALL_S))
    after = RowState(
        settings=row.settings,
        state=_kept(state),
        held_until=held_until,
        blocked_at=blocked_at,
        cap=state.jobs.cap,
    )
    return after, granted


def _opened(row: RowState, now: float) -> _State:
    """The state in the row; a new one where there is none, or it is of other code or settings."""
    learned = LearnedLimits()
    if row.state is not None:
        try:
            kept = unpacked(row.state)
        except UnknownFormatError:
            kept = None
        if kept is not None and _settings_of(kept["settings"]) == row.settings:
            in_use = {slot: _SlotInUse(*times) for slot, times in kept["in_use"].items()}
            state = _State(row.settings, kept["channel"], kept["jobs"], in_use, kept["seen"], kept["count"])
            if in_use or now - max(state.seen.values(), default=now) < IDLE_S:
                return state
            learned = learned_limits(state.channel.law, in_flight_cap=state.jobs.learned, shared=False)
    settings = row.settings
    channel = RateChannel(rate=settings.rate, burst=settings.burst, max_open=MAX_OPEN)
    # A slot is taken before it is due and used a little late, by workers that do not wait for each other: a burst would
    # meet the late ones of the burst before in one second. Even spacing keeps the configured rate in every second.
    channel.share()
    if settings.rate is None:
        begin_with(channel.law, learned, now)
    if row.held_until > now:
        channel.hold.hint(now, row.held_until - now)
    jobs = InFlightLimit(configured=settings.job_cap, learned=learned.in_flight_cap, in_flight=0)
    return _State(settings, channel, jobs)


def _kept(state: _State) -> bytes:
    settings = state.settings
    return packed(
        {
            "settings": [settings.rate, settings.burst, settings.job_cap],
            "channel": state.channel,
            "jobs": state.jobs,
            "in_use": {slot: [call.is_submit, call.due_at, call.sent_at] for slot, call in state.in_use.items()},
            "seen": state.seen,
            "count": state.count,
        }
    )


def _settings_of(kept: Sequence[object]) -> SharedPace:
    rate, burst, cap = kept
    return SharedPace(rate=rate, burst=burst, job_cap=cap)  # type: ignore[arg-type]


def _end_lost(state: _State, now: float) -> None:
    """Slots of workers that died, and calls without an answer for long, are waited for no longer."""
    gone = {worker for worker, at in state.seen.items() if now - at > ABSENT_S}
    for slot, call in list(state.in_use.items()):
        if _worker_of(slot) not in gone and now - call.due_at < MAX_CALL_S:
            continue
        if call.sent_at is None:  # it may have been sent all the same
            call.sent_at = on_grid(call.due_at)
            state.channel.sent(call.sent_at)
        state.channel.lost(call.sent_at, now)
        del state.in_use[slot]
    for worker in gone:
        del state.seen[worker]


def _hear(state: _State, it: Report, at: Visit) -> None:
    call, channel = state.in_use.get(it.slot), state.channel
    answered_at = on_grid(it.answered_at)
    if call is None:  # it was taken to be lost; only the wait that the gateway asks for still counts
        if it.feedback is LimitFeedback.THROTTLED and it.wait_s is not None:
            channel.hold.hint(answered_at, it.wait_s)
        return
    if it.sent_at is None:
        channel.give_back(at.now)
        del state.in_use[it.slot]
        return
    if call.sent_at is None:
        call.sent_at = on_grid(it.sent_at)
        channel.sent(call.sent_at)
    if it.feedback is None:
        return
    del state.in_use[it.slot]
    sent_at, answered_at = call.sent_at, max(answered_at, call.sent_at)
    if it.feedback is LimitFeedback.THROTTLED:
        channel.throttled(sent_at, answered_at, it.wait_s, unseen=it.unseen)
        return
    channel.let_in(sent_at, answered_at, unseen=it.unseen)
    if it.stated is not None and not it.unseen:
        channel.stated(it.stated, sent_at, answered_at)
    if call.is_submit and it.feedback is LimitFeedback.ACCEPTED:
        state.jobs.accepted()
    elif call.is_submit and it.feedback is LimitFeedback.CONCURRENCY:
        state.jobs.recount(max(at.in_flight - 1, 0))  # this submit is counted until its outcome is recorded
        state.jobs.refused(at.now, it.wait_s, it.job_cap)


def _grant(state: _State, it: Visit) -> Granted:
    slots: list[SharedSlot] = []
    state.jobs.recount(it.in_flight)
    again_s, waits = 0.0, False
    for kind in it.wanted:
        ready_at = state.channel.ready_at(it.now)
        if kind is CallKind.SUBMIT:
            ready_at = max(ready_at, state.jobs.ready_at(it.now, len(slots)))
        # Nothing is promised further ahead, since a rejection would void it; and nothing behind a call that has to wait
        # may overtake it.
        if ready_at > it.now + AHEAD_S:
            waits = ready_at == float("inf")
            again_s = LOOK_AGAIN_S if waits else ready_at - it.now - AGAIN_EARLY * AHEAD_S
            break
        due_at = max(ready_at, it.now)
        state.channel.take(due_at)
        state.count += 1
        slot = SharedSlot(slot=f"{it.worker}:{state.count}", kind=kind, taken_at=it.now, due_at=due_at)
        state.in_use[slot.slot] = _SlotInUse(kind is CallKind.SUBMIT, due_at)
        slots.append(slot)
    return Granted(slots=slots, again_s=min(max(again_s, 0.0), MAX_ASK_S), waits_for_answers=waits)


def _worker_of(slot: str) -> str:
    return slot.rpartition(":")[0]
