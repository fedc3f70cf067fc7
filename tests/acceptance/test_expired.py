"""What is made and did not come (an expired link, or none) is paid: it is asked for again before it is bought again."""

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


NO_LINK = {"no_link": True}
QUICK = ("--set", "poll.min_s=0.01", "--set", "poll.max_s=0.05")


def test_a_link_that_comes_after_the_last_poll_is_fetched_by_collect(against: Against) -> None:
    dop, double = against(rows={"scene 1": NO_LINK})
    end = dop.buy(dop.csv(shots(2)), *QUICK)
    assert end.counts == {"done": 1, "failed": 1}, end.err
    assert "names no video; `dop collect RUN` asks again, free of charge" in end.err
    polls = len(double.polls)
    assert dop.call("collect", end.run).counts == {"done": 1, "failed": 1}
    assert len(double.polls) == polls + 1, "one free poll, and no more"
    first, _ = dop.rows()
    assert (first["status"], first["cost_state"]) == ("failed", "disputed")
    assert first["reason"].startswith("no_result: asked again")
    for job in double.jobs.values():
        job.script.no_link = False
    back = dop.call("collect", end.run)
    assert back.code == 0, back.err
    assert [(row["status"], row["cost_state"], row["reason"]) for row in dop.rows()] == [("done", "confirmed", "")] * 2
    assert len(dop.videos()) == 2
    assert double.charged == 2
    assert dop.typed("ledger", "check", "--outputs", str(dop.outputs)).code == 0


def test_retry_asks_a_job_that_named_no_video_before_it_buys_again(against: Against) -> None:
    dop, double = against(rows={"scene 1": NO_LINK, "scene 2": NO_LINK, "scene 3": {"end": "failed"}})
    end = dop.buy(dop.csv(shots(3)), *QUICK)
    assert end.counts == {"failed": 3}, end.err
    next(iter(double.jobs.values())).script.no_link = False
    double.script.rows.clear()
    again = dop.call("retry", end.run, "--failed", "--yes", *QUICK)
    assert again.code == 0, again.err
    assert "2 videos of finished jobs: asked for once more" in again.err
    assert [row["status"] for row in dop.rows()] == ["done", "failed", "done", "failed", "done"]
    assert double.charged == 5, "the first was fetched; the second and the third are lost for good"


def test_retry_buys_nothing_where_no_poll_of_a_finished_job_is_answered(against: Against) -> None:
    dop, double = against(rows={"scene 1": NO_LINK})
    end = dop.buy(dop.csv(shots(1)), *QUICK)
    for job in double.jobs.values():
        job.polls, job.script.polls_in_trouble = 0, 999
    again = dop.call("retry", end.run, "--failed", "--yes", *QUICK)
    assert "no answer about its paid job" in again.err
    assert double.charged == 1


def test_a_link_that_gives_no_video_for_a_day_is_expired_and_can_be_bought_again(
    against: Against, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left `done`, it would keep the run unfinished for ever, and no verb could end that."""
    monkeypatch.setattr("pipeline.runner.downloader.FIRST_PAUSE_S", 0.01)
    dop, double = against(rows={"scene 1": {"not_a_video": 10_000}})
    end = dop.buy(dop.csv(shots(2)))
    assert (end.code, [row["status"] for row in dop.rows()]) == (5, ["done", "done"]), end.err
    assert dop.call("collect").code == 5, "a page of an hour is no reason to give the video up"
    monkeypatch.setattr("pipeline.runner.link_renewal.MIN_AGE_TO_EXPIRE_S", 0.0)
    late = dop.call("collect")
    assert (late.code, [row["status"] for row in dop.rows()]) == (1, ["expired", "done"]), late.err
    assert "it gives no video: not an MP4" in dop.rows()[0]["reason"]
    assert dop.call("dismiss", "row-1").code == 0
    double.script.rows.clear()
    again = dop.call("retry", end.run, "--expired", "--yes")
    assert (again.code, double.charged) == (0, 3), again.err
    assert [row["status"] for row in dop.rows()] == ["expired", "done", "done"]
