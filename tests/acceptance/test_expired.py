"""An expired video is paid: it is asked for again, free of charge, before anything is bought a second time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import shots

pytestmark = pytest.mark.long

Against = Callable[..., Opened]
DEAD = {"dead_links": 999}


def test_a_link_that_comes_back_is_fetched_by_collect_and_nothing_is_bought(against: Against) -> None:
    dop, double = against(rows={"scene 1": DEAD}, generation_s=0.1)
    end = dop.buy(dop.csv(shots(2)))
    assert end.counts == {"done": 1, "failed": 1}, end.err
    assert "asks again, free of charge" in end.err
    still = dop.call("collect", end.run)
    assert [row["status"] for row in dop.rows()] == ["expired", "done"], still.err
    for job in double.jobs.values():
        job.script.dead_links = 0
    back = dop.call("collect", end.run)
    assert back.code == 0, back.err
    assert [row["status"] for row in dop.rows()] == ["done", "done"]
    assert double.charged == 2


def test_retry_asks_before_it_buys_again(against: Against) -> None:
    dop, double = against(rows={"scene 1": DEAD, "scene 2": DEAD}, generation_s=0.1)
    end = dop.buy(dop.csv(shots(2)))
    assert end.counts == {"failed": 2}, end.err
    first, second = (job for job in double.jobs.values())
    first.script.dead_links = 0
    double.script.rows.clear()
    again = dop.call("retry", end.run, "--expired", "--yes", timeout_s=120)
    assert again.code == 0, again.err
    assert [row["status"] for row in dop.rows()] == ["done", "expired", "done"]
    assert double.charged == 3, "the first was fetched, the second is dead for good"
    assert second.script.dead_links == 999


def test_retry_buys_nothing_where_the_gateway_does_not_answer_about_the_paid_job(against: Against) -> None:
    dop, double = against(rows={"scene 1": DEAD}, generation_s=0.1)
    end = dop.buy(dop.csv(shots(1)))
    assert end.counts == {"failed": 1}, end.err
    for job in double.jobs.values():
        job.script.polls_in_trouble = 999
        job.polls = 0
    again = dop.call("retry", end.run, "--expired", "--yes", timeout_s=120)
    assert "no answer about its paid job" in again.err
    assert double.charged == 1
