"""Days of budgets never run backwards, and a clock behind the newest event is noticed and can be accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import LedgerError
from pipeline.ledger.budget import CapReached, Caps
from pipeline.ledger.clock import TOLERANCE_S, check_clock, is_behind
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.ledger.transitions import Applied
from tests.support.factories import LITE_MICROUSD
from tests.support.ledgers import AT, opened, read, requests, reserve, start

DAY_S = 86_400.0
ONE_A_DAY = Caps(day_microusd=LITE_MICROUSD)


def test_a_clock_that_is_set_back_during_a_run_opens_no_day_again(tmp_path: Path) -> None:
    with opened(tmp_path / "ledger.db") as (ledger, queries):
        one, two, three = requests(3)
        start(queries, [one, two, three])
        assert isinstance(ledger.apply_now(reserve(one, caps=ONE_A_DAY)), Applied)
        assert isinstance(ledger.apply_now(reserve(two, caps=ONE_A_DAY, at=AT - DAY_S)), CapReached)
        assert isinstance(ledger.apply_now(reserve(three, caps=ONE_A_DAY, at=AT + DAY_S)), Applied)


def test_a_clock_that_was_set_back_between_two_runs_opens_no_day_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    one, two = requests(2)
    with opened(path) as (ledger, queries):
        start(queries, [one, two])
        ledger.apply_now(reserve(one, caps=ONE_A_DAY))
    with opened(path) as (ledger, _):
        assert isinstance(ledger.apply_now(reserve(two, caps=ONE_A_DAY, at=AT - DAY_S)), CapReached)
    assert read(path, "select count(distinct day) from spend") == [(1,)]


@pytest.mark.parametrize(("ahead_s", "refused"), [(0.0, False), (-TOLERANCE_S, False), (-TOLERANCE_S - 1, True)])
def test_a_clock_minutes_behind_the_newest_event_is_refused(ahead_s: float, refused: bool) -> None:
    assert is_behind(AT + ahead_s, AT) is refused
    if refused:
        with pytest.raises(LedgerError, match=r"2026-09-21T14:08:19Z.*2026-09-21T14:13:20Z.*dop ledger adopt"):
            check_clock("ledger.db", AT + ahead_s, AT)


def test_an_event_of_a_wrong_future_stops_counting_when_the_clock_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    one, two, three = requests(3)
    with opened(path) as (ledger, queries):
        start(queries, [one, two, three])
        ledger.apply_now(reserve(one, caps=ONE_A_DAY, at=AT + 3650 * DAY_S))
    ledger = SqliteLedger(path, inline=True)
    ledger.ready_to_spend()
    assert is_behind(AT, ledger.newest_at)
    ledger.adopt(AT)
    ledger.close()
    with opened(path) as (ledger, _):
        assert not is_behind(AT, ledger.newest_at)
        assert isinstance(ledger.apply_now(reserve(two, caps=ONE_A_DAY)), Applied)
        assert isinstance(ledger.apply_now(reserve(three, caps=ONE_A_DAY)), CapReached)
