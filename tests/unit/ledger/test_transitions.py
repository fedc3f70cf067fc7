"""Changes judged against rows: compare and swap, the budget inside, a job's one owner."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import InvariantError
from pipeline.ledger.budget import CapReached, Caps
from pipeline.ledger.schema import MUTABLE
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import (
    PAID_TWICE,
    Applied,
    ChangeResult,
    Conflict,
    JobTaken,
    LedgerChange,
    Row,
    SpendAccumulator,
    apply_change,
    idempotency_key,
    utc_day,
)
from pipeline.records import CostState, State
from tests.support.factories import LITE_MICROUSD
from tests.support.ledgers import AT, RUN

KEY = ("sandbox", RUN, utc_day(AT), "dop-lite")


def make_row(state: State = State.PLANNED, **only_what_matters: Any) -> Row:
    row: Row = dict.fromkeys(MUTABLE)
    row.update(
        request_id="r1",
        attempt=1,
        gateway="sandbox",
        run_id=RUN,
        model="dop-lite",
        price_microusd=LITE_MICROUSD,
        state=state.value,
        submit_attempts=0,
        resends=0,
    )
    if state is not State.PLANNED:
        row.update(token="mine", spend_day=utc_day(AT))
    return row | only_what_matters


def judged(
    row: Row | None, event: Event, *, money: SpendAccumulator | None = None, owner: str | None = None, **given: Any
) -> ChangeResult:
    change = LedgerChange(request_id="r1", event=event, **{"at": AT, **given})
    return apply_change(row, change, money=money or SpendAccumulator(lambda *_: 0), job_owner=lambda *_: owner)


def test_an_intent_books_its_money_its_token_and_its_key() -> None:
    row, money = make_row(), SpendAccumulator(lambda *_: 0)
    outcome = judged(row, Event.RESERVE, money=money, token="t1", run_id="run-2", values={"price_microusd": 140_000})
    assert isinstance(outcome, Applied)
    assert (outcome.before, outcome.state) == (State.PLANNED, State.SUBMITTING)
    assert (row["token"], row["run_id"], row["submit_attempts"]) == ("t1", "run-2", 1)
    assert row["idempotency_key"] == idempotency_key("r1", 1)
    assert money.deltas == {("sandbox", "run-2", "2026-09-21", "dop-lite"): {CostState.RESERVED: 140_000}}


@pytest.mark.parametrize("state", [state for state in State if state not in (State.PLANNED, State.SKIPPED)])
def test_what_is_not_planned_cannot_be_reserved(state: State) -> None:
    row = make_row(state)
    before = dict(row)
    assert judged(row, Event.RESERVE, token="t2", run_id=RUN) == Conflict(state=state)
    assert row == before


def test_another_submits_token_changes_nothing() -> None:
    row = make_row(State.SUBMITTING)
    before = dict(row)
    assert judged(row, Event.ACCEPT, token="theirs", values={"job_set_id": "j"}) == Conflict(state=State.SUBMITTING)
    assert row == before


def test_a_request_that_is_not_there_is_a_conflict() -> None:
    assert judged(None, Event.RESERVE, token="t", run_id=RUN) == Conflict(state=None)


def test_a_forbidden_event_raises_and_changes_neither_row_nor_money() -> None:
    row, money = make_row(State.DONE), SpendAccumulator(lambda *_: 0)
    before = dict(row)
    with pytest.raises(InvariantError):
        judged(row, Event.LOSE, money=money)
    assert (row, money.deltas) == (before, {})


@pytest.mark.parametrize("given", [{"run_id": RUN}, {"token": "t"}])
def test_an_intent_without_its_run_or_token_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvariantError, match="needs a run and a token"):
        judged(make_row(), Event.RESERVE, **given)


@pytest.mark.parametrize("price", [0, -1, None, "135000", 0.135])
def test_nothing_is_bought_at_an_unknown_price(price: object) -> None:
    row = make_row()
    with pytest.raises(InvariantError, match="no price"):
        judged(row, Event.RESERVE, token="t", run_id=RUN, values={"price_microusd": price})
    assert row == make_row()


def test_the_budget_refuses_and_nothing_changes() -> None:
    row, money = make_row(), SpendAccumulator(lambda span, gateway, key: 200_000 if span == "day" else 0)
    outcome = judged(row, Event.RESERVE, money=money, token="t", run_id=RUN, caps=Caps(day_microusd=300_000))
    assert isinstance(outcome, CapReached)
    assert outcome.span == "day"
    assert (row, money.deltas) == (make_row(), {})


def test_a_batch_counts_what_it_has_just_reserved() -> None:
    money = SpendAccumulator(lambda *_: 0)
    given: dict[str, Any] = {"token": "t", "run_id": RUN, "caps": Caps(run_microusd=2 * LITE_MICROUSD), "money": money}
    outcomes = [judged(make_row(request_id=f"r{number}"), Event.RESERVE, **given) for number in range(4)]
    assert [isinstance(outcome, Applied) for outcome in outcomes] == [True, True, False, False]


def test_what_was_released_may_be_spent_again_in_the_same_batch() -> None:
    money = SpendAccumulator(lambda *_: LITE_MICROUSD)
    caps = Caps(run_microusd=LITE_MICROUSD)
    assert isinstance(judged(make_row(), Event.RESERVE, money=money, token="t", run_id=RUN, caps=caps), CapReached)
    judged(make_row(State.SUBMITTING), Event.RELEASE, money=money, token="mine")
    assert isinstance(judged(make_row(), Event.RESERVE, money=money, token="t", run_id=RUN, caps=caps), Applied)


def test_money_goes_back_where_it_was_booked_even_on_another_day() -> None:
    row, money = make_row(State.SUBMITTING), SpendAccumulator(lambda *_: 0)
    judged(row, Event.RELEASE, money=money, token="mine", at=AT + 86_400 * 40)
    assert money.deltas == {KEY: {CostState.RESERVED: -LITE_MICROUSD}}


def test_money_moves_between_the_sums_and_never_appears_or_vanishes() -> None:
    row, money = make_row(State.ACCEPTED), SpendAccumulator(lambda *_: 0)
    judged(row, Event.COMPLETE, money=money)
    assert money.deltas == {KEY: {CostState.RESERVED: -LITE_MICROUSD, CostState.CONFIRMED: LITE_MICROUSD}}


def test_a_job_of_another_request_is_not_ours() -> None:
    row = make_row(State.SUBMITTING)
    before = dict(row)
    outcome = judged(row, Event.ACCEPT, owner="r2", token="mine", values={"job_set_id": "j"})
    assert outcome == JobTaken(owner_request_id="r2")
    assert row == before


def test_the_job_of_an_earlier_attempt_of_the_same_request_is_not_this_ones() -> None:
    row = make_row(State.SUBMITTING, attempt=2)
    assert judged(row, Event.ACCEPT, owner="r1", token="mine", values={"job_set_id": "j"}) == JobTaken(
        owner_request_id="r1"
    )


def test_a_late_answer_finds_its_own_unknown_submit() -> None:
    row = make_row(State.UNKNOWN)
    assert isinstance(judged(row, Event.ACCEPT, token="mine", values={"job_set_id": "j"}), Applied)
    assert row["state"] == State.ACCEPTED


FREED = {KEY: {CostState.RESERVED: -LITE_MICROUSD}}
OUTCOMES = (Event.ACCEPT, Event.RELEASE, Event.REJECT, Event.LOSE)
SETTLED = [state for state in State if state not in (State.SUBMITTING, State.UNKNOWN, State.SKIPPED)]


@pytest.mark.parametrize(
    ("event", "after", "moved"),
    [
        (Event.RELEASE, State.PLANNED, FREED),
        (Event.REJECT, State.REJECTED, FREED),
        (Event.LOSE, State.UNKNOWN, {}),
    ],
)
def test_a_late_proof_of_the_very_submit_counts_as_one_in_time(event: Event, after: State, moved: object) -> None:
    row, money = make_row(State.UNKNOWN), SpendAccumulator(lambda *_: 0)
    outcome = judged(row, event, money=money, token="mine", values={"reason": "late"})
    assert isinstance(outcome, Applied)
    assert (outcome.before, outcome.state, row["reason"], money.deltas) == (State.UNKNOWN, after, "late", moved)


@pytest.mark.parametrize("event", OUTCOMES)
def test_words_that_do_not_name_their_submit_settle_no_unknown_outcome(event: Event) -> None:
    row, money = make_row(State.UNKNOWN), SpendAccumulator(lambda *_: 0)
    with pytest.raises(InvariantError, match="without a token"):
        judged(row, event, money=money)
    assert judged(row, event, money=money, token="another submit's") == Conflict(state=State.UNKNOWN)
    assert (row, money.deltas) == (make_row(State.UNKNOWN), {})


def test_a_submit_that_was_refused_and_released_is_rejected_later_under_its_token_only() -> None:
    row, money = make_row(State.PLANNED, token="mine"), SpendAccumulator(lambda *_: 0)
    with pytest.raises(InvariantError, match="without a token"):
        judged(row, Event.REJECT, money=money)
    assert judged(row, Event.REJECT, money=money, token="another submit's") == Conflict(state=State.PLANNED)
    outcome = judged(row, Event.REJECT, money=money, token="mine", values={"reason": "403"})
    assert isinstance(outcome, Applied)
    assert (outcome.state, row["reason"], money.deltas) == (State.REJECTED, "403", {})


@pytest.mark.parametrize(
    ("state", "event"),
    [(state, event) for state in SETTLED for event in OUTCOMES if (state, event) != (State.PLANNED, Event.REJECT)],
)
def test_what_was_settled_meanwhile_prevails_over_a_late_outcome(state: State, event: Event) -> None:
    row, money = make_row(state, token="mine"), SpendAccumulator(lambda *_: 0)
    before = dict(row)
    assert judged(row, event, money=money, token="mine", values={"job_set_id": "j"}) == Conflict(state=state)
    assert (row, money.deltas) == (before, {})


def test_an_idempotency_key_belongs_to_one_attempt() -> None:
    assert idempotency_key("r1", 1) == idempotency_key("r1", 1)
    assert len({idempotency_key("r1", 1), idempotency_key("r1", 2), idempotency_key("r2", 1)}) == 3


def test_a_second_paid_job_is_reported_whatever_happens_to_the_first() -> None:
    row = make_row(State.ACCEPTED, job_set_id="second")
    judged(row, Event.NOTE, values={"reason": f"{PAID_TWICE}: also as job first"})
    judged(row, Event.COMPLETE, values={"reason": None, "video_url": "https://cdn.example.com/1.mp4"})
    assert str(row["reason"]) == "paid twice: also as job first"
    judged(row, Event.EXPIRE, values={"reason": "410"})
    assert str(row["reason"]) == "paid twice: also as job first; 410"


def test_a_planned_request_that_was_sent_before_may_be_adopted_and_its_money_is_recorded() -> None:
    money = SpendAccumulator(lambda *_: 0)
    row = make_row(State.PLANNED, submit_attempts=1, spend_day=utc_day(AT), token="mine")
    outcome = judged(row, Event.ADOPT, money=money, values={"job_set_id": "j"})
    assert isinstance(outcome, Applied)
    assert outcome.state is State.ACCEPTED
    assert money.deltas == {KEY: {CostState.RESERVED: LITE_MICROUSD}}


def test_a_request_that_was_never_sent_owns_no_job() -> None:
    row = make_row(State.PLANNED)
    assert judged(row, Event.ADOPT, values={"job_set_id": "j"}) == Conflict(state=State.PLANNED)
    assert row["state"] == "planned"


def test_a_job_in_another_spelling_is_the_requests_own() -> None:
    job = "0b6cea37-238f-435b-8cff-fa0123456789"
    row = make_row(State.UNKNOWN, job_set_id=job)
    assert isinstance(judged(row, Event.ADOPT, owner="r1", values={"job_set_id": job.upper()}), Applied)
