"""Unknown outcomes: never sent again by default; with `on_unknown: resend` once each, under a cap, and reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import shots
from tests.support.fake_gateway import GatewayDouble

LOST = {"status": 500, "body": {"error": "An unexpected error occurred"}}
ONE = ("--set", "pace.submit_concurrency=1")
Against = Callable[..., Opened]


def again(usd: str) -> tuple[str, ...]:
    return ("--set", "on_unknown.policy=resend", "--set", f"on_unknown.max_cost={usd}")


def keys(double: GatewayDouble) -> Counter[tuple[str, str]]:
    """How often each prompt was submitted under each key."""
    return Counter((submit["body"]["prompt"], submit["headers"]["idempotency-key"]) for submit in double.submits)


def test_an_unknown_outcome_is_never_sent_again_by_default(against: Against) -> None:
    dop, double = against(submits={"1": LOST})
    manifest = dop.csv(shots(3))
    for _ in range(3):
        end = dop.buy(manifest, *ONE)
        assert end.code == 3, end.err
    assert len(double.submits) == 3
    assert set(keys(double).values()) == {1}


def test_when_configured_it_is_sent_again_once_under_the_same_key_and_the_report_says_so(against: Against) -> None:
    dop, double = against(submits={"1-2": LOST})
    manifest = dop.csv(shots(2))
    assert dop.buy(manifest, *ONE).code == 3
    end = dop.buy(manifest, *ONE, *again("1.00"))
    assert end.code == 0, end.err
    assert "2 unknown outcomes are sent again for $0.270; each may have been paid already" in end.err
    assert sorted(keys(double).values()) == [2, 2]
    rows = dop.rows()
    assert [row["status"] for row in rows] == ["done", "done"]
    assert [row["reason"] for row in rows] == ["sent again after an unknown outcome"] * 2
    assert dop.ledger_mills() == double.charged_mills == 270


def test_what_is_lost_a_second_time_waits_for_the_operator(against: Against) -> None:
    dop, double = against(submits={"*": LOST})
    manifest = dop.csv(shots(1))
    for _ in range(4):
        assert dop.buy(manifest, *ONE, *again("9.00")).code == 3
    assert len(double.submits) == 2
    assert dop.call("resolve", "row-1", "--charged").code == 0
    assert dop.ledger_mills() == 135


@pytest.mark.long
def test_the_cap_holds_over_restarts_of_the_run(against: Against) -> None:
    dop, double = against(submits={"1-2": LOST, "3": {**LOST, "book": True}})
    manifest = dop.csv(shots(2))
    assert dop.buy(manifest, *ONE).code == 3
    first = dop.buy(manifest, *ONE, *again("0.20"))
    assert first.code == 3
    assert "1 stay unknown: sending them again would pass on_unknown.max_cost" in first.err
    assert dop.buy(manifest, *ONE, *again("0.20")).code == 3
    assert len(double.submits) == 3
    assert dop.buy(manifest, *ONE, *again("0.30")).counts == {"done": 1, "unknown": 1}
    assert len(double.submits) == 4


def test_resend_without_a_cap_is_refused_before_anything_is_sent(against: Against) -> None:
    dop, double = against()
    end = dop.buy(dop.csv(shots(1)), "--set", "on_unknown.policy=resend")
    assert end.code == 2
    assert "max_cost" in end.err
    assert double.submits == []
