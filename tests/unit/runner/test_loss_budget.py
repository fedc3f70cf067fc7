"""How much may be lost to unknown outcomes, and what is said when that is reached."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config.loss_limit import LossLimit, parse_loss_limit
from pipeline.records import State, Totals
from pipeline.runner.loss_budget import LossBudget, default_limit
from pipeline.runner.loss_guard import LossGuard
from pipeline.runner.stop import StopScope, StopSignal

PRICE = 135_000
"""Micro-dollars of one video."""


def budget(limit: LossLimit, lost: int) -> LossBudget:
    this = LossBudget(limit)
    for number in range(lost):
        this.lose(f"row-{number}", PRICE, "502 Bad Gateway")
    return this


@pytest.mark.parametrize(
    ("rows", "max_cost", "limit"),
    [
        (40, None, LossLimit(rows=5)),
        (250, None, LossLimit(rows=5)),
        (600, None, LossLimit(rows=12)),
        (600, 5_400_000, LossLimit(rows=12, microusd=270_000)),
    ],
)
def test_the_default_is_a_share_of_the_batch_and_of_the_cap(rows: int, max_cost: int | None, limit: LossLimit) -> None:
    assert default_limit(rows, max_cost) == limit


def test_the_budget_is_used_up_at_its_rows_and_never_before_anything_is_lost() -> None:
    assert [budget(LossLimit(rows=2), lost).is_used_up for lost in range(4)] == [False, False, True, True]
    assert not budget(LossLimit(rows=0), 0).is_used_up


def test_the_budget_is_used_up_when_one_more_would_pass_its_money() -> None:
    limit = LossLimit(microusd=2 * PRICE)
    assert [budget(limit, lost).is_used_up for lost in range(4)] == [False, False, True, True]
    assert [budget(LossLimit(microusd=2 * PRICE + 1), lost).is_used_up for lost in range(3)] == [False, False, True]


def test_what_is_proved_is_given_back_and_one_row_counts_once() -> None:
    this = budget(LossLimit(rows=2), 2)
    this.lose("row-1", PRICE, "once more")
    assert this.lost_microusd == 2 * PRICE
    this.give_back("row-1")
    this.give_back("row-1")
    assert not this.is_used_up
    assert this.lost_microusd == PRICE


def test_the_block_names_count_money_faults_the_rest_and_the_ways_to_continue() -> None:
    this = budget(LossLimit(rows=3), 2)
    this.lose("row-9", PRICE, "the connection broke (job 0f9c7a1b-1111-2222)")
    for _ in range(3):
        this.count_known()
    block = this.block(36, PRICE)
    for words in ("3 outcomes are unknown", "$0.405", "502 Bad Gateway (2 x)", "(job ..) (1 x)", "36 rows", "$2.430"):
        assert words in block, block
    assert "dop resolve" in block
    assert "--max-unknown" in block


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("5", LossLimit(rows=5)),
        (" 0 ", LossLimit(rows=0)),
        ("0.50", LossLimit(microusd=500_000)),
        ("$5", LossLimit(microusd=5_000_000)),
        ("$0.27", LossLimit(microusd=270_000)),
    ],
)
def test_a_limit_is_rows_or_dollars(text: str, limit: LossLimit) -> None:
    assert parse_loss_limit(text) == limit


@pytest.mark.parametrize("text", ["", "-1", "5 rows", "1e3", "0.1234567", "all", "nan", "$"])
def test_anything_else_is_no_limit(text: str) -> None:
    with pytest.raises(ValueError, match="write a number of rows"):
        parse_loss_limit(text)


def test_what_was_proved_after_the_stop_is_not_called_unknown() -> None:
    this = budget(LossLimit(rows=2), 2)
    for number in range(2):
        this.give_back(f"row-{number}")
    assert not this.is_used_up
    assert this.given_back_text(6) == (
        "the buying stopped at the limit of unknown outcomes (2 rows); what they came to is known since, or enough "
        "of it; 6 rows left to buy: run the same command again"
    )
    assert this.given_back_text(0).endswith("or enough of it")


def test_the_reasons_of_an_ended_run_speak_of_what_is_unknown_then() -> None:
    lost: list[Any] = [SimpleNamespace(request_id=f"row-{n}", price_microusd=PRICE, reason="500") for n in range(3)]
    context: Any = SimpleNamespace(
        stop=StopSignal(),
        events=SimpleNamespace(subscribe=lambda *_: None),
        recorder=SimpleNamespace(totals=Totals(counts={State.PLANNED: 6})),
    )
    guard = LossGuard(context, LossBudget(LossLimit(rows=3)), lost)
    guard.start()
    context.stop.request("stopped by SIGINT", exit_code=130, reach=StopScope.ALL)
    first, signal = guard.final(context.stop.reasons)
    assert first.text.startswith("3 outcomes are unknown, and perhaps paid: $0.405 may be lost")
    guard.recount(lost[:1])
    first, signal = guard.final(context.stop.reasons)
    assert first.text.startswith("the buying stopped at the limit of unknown outcomes (3 rows)")
    assert (first.exit_code, signal.text) == (3, "stopped by SIGINT")
