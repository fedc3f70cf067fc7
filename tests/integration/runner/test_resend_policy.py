"""What may be sent again: once a request, up to a sum, and only what is unknown."""

from __future__ import annotations

from pipeline.ledger.resend_policy import ResendPolicy
from pipeline.records import Attempt, State
from pipeline.reports.tables import reason_of
from pipeline.runner.unknowns import to_send_again
from tests.support.factories import LITE_MICROUSD, make_attempt

PRICES = {"dop-lite": LITE_MICROUSD, "dop-turbo": 416_000}


def unknowns(count: int, **same: object) -> list[Attempt]:
    return [make_attempt(seed=seed, state=State.UNKNOWN, **same) for seed in range(1, count + 1)]


def rule(max_cost: int, used: int = 0, resent: frozenset[str] = frozenset()) -> ResendPolicy:
    return ResendPolicy(max_cost_microusd=max_cost, used_microusd=used, resent=resent)


def test_as_many_are_sent_again_as_the_money_allows_in_order() -> None:
    rows = unknowns(4)
    assert to_send_again(rule(2 * LITE_MICROUSD), rows, PRICES) == (rows[:2], 2)
    assert to_send_again(rule(2 * LITE_MICROUSD - 1), rows, PRICES) == (rows[:1], 3)
    assert to_send_again(rule(0), rows, PRICES) == ([], 4)


def test_what_the_run_has_sent_again_before_counts() -> None:
    rows = unknowns(3)
    assert to_send_again(rule(3 * LITE_MICROUSD, used=2 * LITE_MICROUSD), rows, PRICES) == (rows[:1], 2)


def test_nothing_is_sent_again_twice() -> None:
    rows = unknowns(2)
    assert to_send_again(rule(10**9, resent=frozenset({rows[0].request_id})), rows, PRICES) == ([rows[1]], 0)


def test_only_what_is_unknown_is_sent_again() -> None:
    rows = [make_attempt(seed=number, state=state) for number, state in enumerate(State, start=1)]
    chosen, _ = to_send_again(rule(10**9), rows, PRICES)
    assert [attempt.state for attempt in chosen] == [State.UNKNOWN]


def test_a_cheap_one_may_pass_where_a_dear_one_may_not() -> None:
    dear, cheap = make_attempt(model="dop-turbo", state=State.UNKNOWN), unknowns(1)[0]
    assert to_send_again(rule(LITE_MICROUSD), [dear, cheap], PRICES) == ([cheap], 1)


def test_without_a_price_nothing_is_sent_again() -> None:
    assert to_send_again(rule(10**9), unknowns(1), {}) == ([], 1)


def test_the_report_says_that_it_was_sent_again() -> None:
    note = "sent again after an unknown outcome"
    assert reason_of(make_attempt(resends=1)) == note
    assert reason_of(make_attempt(resends=1, reason="out of memory")) == f"{note}; out of memory"
    assert reason_of(make_attempt(reason="out of memory")) == "out of memory"
    assert reason_of(make_attempt()) is None
