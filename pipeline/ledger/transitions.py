"""A batch of changes judged against the rows as one transaction sees them. Pure: rows in, changed rows out.

The store reads the rows under a write lock, calls this module, and writes its result. That makes every change a
compare-and-swap: no other process can move a row between the judgement and the write.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from pipeline.errors import InvariantError
from pipeline.ledger.budget import NO_CAPS, CapReached, Caps, Spent, cap_reached
from pipeline.ledger.states import OUTCOMES_OF_A_SUBMIT, TRANSITIONS, Event, next_state
from pipeline.ledger.text import storable, storable_value
from pipeline.records import COST_STATE, CostState, State, canonical_job_id

Row = dict[str, object]
SpendKey = tuple[str, str, str, str]
"""gateway, run_id, day, model"""

DAY_S = 86_400
"""Seconds of a UTC day: Unix time has no leap seconds."""

_IDEMPOTENCY_SPACE = uuid.UUID("5f0c9a50-7f0e-4f58-8a8f-6a0f3f7f1d0b")


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerChange:
    """One event to be recorded.

    `at` is Unix seconds. `token`, where given, must be the one under which the attempt was reserved. `values` are
    columns to set. `run_id` and `caps` belong to RESERVE. `detail` goes to the history (raw answers).

    Every text is mended here, before any of the two ledgers, the journal or the spool can see it: what one of them
    refuses would otherwise keep a paid answer from being recorded.
    """

    request_id: str
    event: Event
    at: float
    token: str | None = None
    values: Mapping[str, object] = field(default_factory=dict)
    run_id: str | None = None
    caps: Caps = NO_CAPS
    detail: str = ""

    def __post_init__(self) -> None:
        mended = {name: storable_value(value) for name, value in self.values.items()}
        object.__setattr__(self, "values", mended)
        object.__setattr__(self, "detail", storable(self.detail))


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The change is durable; `row` is the attempt after it, `before` its state and `price_before_microusd` its price
    before."""

    row: Mapping[str, object]
    before: State
    price_before_microusd: int

    @property
    def state(self) -> State:
        """The state after the change."""
        return State(str(self.row["state"]))

    def copied(self) -> Applied:
        """The same with a row of its own, which no later change alters."""
        return Applied(row=dict(self.row), before=self.before, price_before_microusd=self.price_before_microusd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Another writer moved the row first (or it is not there): nothing was changed.

    So is an outcome of a submit that comes, or comes again, after the request was settled.
    """

    state: State | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTaken:
    """The gateway's id already belongs to another request: this answer can't be ours."""

    owner_request_id: str


KEPT_CALL = "call "
"""Begins the detail of a RESERVE that holds the whole paid call, for gateways that honour idempotency keys. A secret:
addresses in it may be signed."""

REFUNDS = frozenset({Event.FAIL, Event.REFUSE, Event.CANCEL})
"""Events that may set the price to 0: at a gateway that publishes that such jobs are not charged."""

PAID_TWICE = "paid twice"
"""First words of the reason of a request for which the gateway charged two jobs. No later event overwrites them."""

ChangeResult = Applied | Conflict | JobTaken | CapReached


def idempotency_key(request_id: str, attempt: int) -> str:
    """One key per intended purchase: stable over resends and even over the loss of the ledger, new for each retry."""
    return str(uuid.uuid5(_IDEMPOTENCY_SPACE, f"{request_id}/{attempt}"))


def utc_day(at: float) -> str:
    """The UTC day of a moment, as `YYYY-MM-DD`."""
    return _day(int(at // DAY_S))


@lru_cache(maxsize=8)
def _day(number: int) -> str:
    """The day with this number since 1970; there are one or two in a run."""
    return datetime.fromtimestamp(number * DAY_S, UTC).strftime("%Y-%m-%d")


class SpendAccumulator:
    """The spend book of one transaction: what is in the ledger plus what this batch adds."""

    def __init__(
        self, spent_in_ledger: Callable[[str, str, str], int], *, day_of: Callable[[float], str] = utc_day
    ) -> None:
        """`spent_in_ledger(span, gateway, key)` gives micro-dollars for span run|day|month.

        `day_of` gives the day on which money is recorded at a moment; it must never go back to a day that is over.
        """
        self._read = spent_in_ledger
        self.day_of = day_of
        self._taken: dict[tuple[str, str, str], int] = {}
        self.deltas: dict[SpendKey, dict[CostState, int]] = {}

    def _get(self, span: str, gateway: str, key: str) -> int:
        place = (span, gateway, key)
        if place not in self._taken:
            self._taken[place] = self._read(span, gateway, key)
        return self._taken[place]

    def spent(self, caps: Caps, *, gateway: str, run_id: str, day: str) -> Spent:
        """Worst-case money of each capped span, this batch included."""
        return Spent(
            run_microusd=self._get("run", gateway, run_id) if caps.run_microusd is not None else 0,
            day_microusd=self._get("day", gateway, day) if caps.day_microusd is not None else 0,
            month_microusd=self._get("month", gateway, day[:7]) if caps.month_microusd is not None else 0,
        )

    def add_spend(self, key: SpendKey, cost_state: CostState, microusd: int) -> None:
        """Adds (or with a negative amount takes) money of one kind."""
        if cost_state is CostState.NONE or microusd == 0:
            return
        amounts = self.deltas.setdefault(key, {})
        amounts[cost_state] = amounts.get(cost_state, 0) + microusd
        gateway, run_id, day, _ = key
        for place in (("run", gateway, run_id), ("day", gateway, day), ("month", gateway, day[:7])):
            # A sum that was read before must follow, so that the next change of this batch is judged by it.
            if place in self._taken:
                self._taken[place] += microusd


def apply_change(
    row: Row | None, change: LedgerChange, *, money: SpendAccumulator, job_owner: Callable[[str, str], str | None]
) -> ChangeResult:
    """Applies one change to `row` in place, or says why not and leaves it alone.

    Args:
        row: the latest attempt's hot columns, None when the request is not in the ledger.
        job_owner: (gateway, job_set_id) -> the request that owns it, or None.

    Raises:
        InvariantError: the state forbids the event.
    """
    if row is None:
        return Conflict(state=None)
    state = State(str(row["state"]))
    # First of all: a change that belongs to another submit must not even be judged by the table of states.
    if not _is_mine(row, state, change):
        return Conflict(state=state)
    if change.event in OUTCOMES_OF_A_SUBMIT and state is not State.SUBMITTING and _is_too_late(state, change):
        return Conflict(state=state)
    after = next_state(state, change.event)
    # MONEY: a row that was never sent can own no job, whatever a callback says.
    if change.event is Event.ADOPT and state is State.PLANNED and not row["submit_attempts"]:
        return Conflict(state=state)
    before_reason, price_before = row["reason"], int(str(row["price_microusd"]))
    job_set_id = change.values.get("job_set_id")
    if job_set_id is not None:
        owner = job_owner(str(row["gateway"]), str(job_set_id))
        # MONEY: an earlier attempt of the same request is another purchase; its job is not this one's either.
        if owner is not None and (owner != row["request_id"] or not _is_same_job(row["job_set_id"], job_set_id)):
            return JobTaken(owner_request_id=owner)
    # Behind everything that may refuse, and before the row is changed: a refusal leaves no trace.
    if change.event is Event.RESERVE:
        refusal = _reserve(row, change, money)
        if refusal is not None:
            return refusal
    _move(row, state, after, change, money)
    _keep_paid_twice(row, before_reason)
    if change.event is Event.RESERVE:
        price_before = int(str(row["price_microusd"]))  # what was planned at another price was not recorded at all
    return Applied(row=row, before=state, price_before_microusd=price_before)


def _keep_paid_twice(row: Row, before: object) -> None:
    """MONEY: that a second job was charged is reported as long as the row exists, whatever happens to the first one."""
    if isinstance(before, str) and before.startswith(PAID_TWICE):
        now = row["reason"]
        row["reason"] = before if now is None or str(now).startswith(before) else f"{before}; {now}"


def _is_same_job(one: object, other: object) -> bool:
    return one is not None and canonical_job_id(str(one)) == canonical_job_id(str(other))


def _is_mine(row: Row, state: State, change: LedgerChange) -> bool:
    if change.event is Event.RESERVE:
        return state is State.PLANNED
    return change.token is None or row["token"] == change.token


def _is_too_late(state: State, change: LedgerChange) -> bool:
    """MONEY: whether a submit's outcome comes after the request was resolved: the operator's decision or a proof stays.

    Raises:
        InvariantError: it does not say which submit it is of, so it proves nothing.
    """
    if change.token is None:
        raise InvariantError(f"{change.event} without a token says nothing of a request that is {state}")
    return change.event not in TRANSITIONS[state]


def _reserve(row: Row, change: LedgerChange, money: SpendAccumulator) -> CapReached | None:
    # MONEY: the budget is judged and the intent written in the same transaction; a cap checked elsewhere would race.
    if change.run_id is None or change.token is None:
        raise InvariantError("reserve needs a run and a token")
    gateway, day = str(row["gateway"]), money.day_of(change.at)
    price = change.values.get("price_microusd", row["price_microusd"])
    if not isinstance(price, int) or price <= 0:
        raise InvariantError(f"request {row['request_id']} has no price; it can't be bought")
    spent = money.spent(change.caps, gateway=gateway, run_id=change.run_id, day=day)
    refusal = cap_reached(price, change.caps, spent)
    if refusal is not None:
        return refusal
    attempt, submits = row["attempt"], row["submit_attempts"]
    assert isinstance(attempt, int)
    assert isinstance(submits, int)
    row.update(
        run_id=change.run_id,
        token=change.token,
        spend_day=day,
        price_microusd=price,
        submitted_at=change.at,
        submit_attempts=submits + 1,
        idempotency_key=idempotency_key(str(row["request_id"]), attempt),
        reason=None,
    )
    return None


def _spend_key(row: Row) -> SpendKey:
    return (str(row["gateway"]), str(row["run_id"]), str(row["spend_day"]), str(row["model"]))


def _move(row: Row, state: State, after: State, change: LedgerChange, money: SpendAccumulator) -> None:
    price = row["price_microusd"]
    assert isinstance(price, int)
    price_after = change.values.get("price_microusd", price)
    # MONEY: the price is set by RESERVE and may only become 0 afterwards. Any other change would move a cap unseen.
    if not isinstance(price_after, int) or (price_after != price and (change.event not in REFUNDS or price_after)):
        raise InvariantError(f"{change.event} can't change the price of request {row['request_id']}")
    row.update(change.values)
    row["state"] = after.value
    before_cost, after_cost = COST_STATE[state], COST_STATE[after]
    # The sums change only when money changes its kind, e.g. from reserved to confirmed.
    if before_cost is not after_cost:
        key = _spend_key(row)
        money.add_spend(key, before_cost, -price)
        money.add_spend(key, after_cost, price_after)
