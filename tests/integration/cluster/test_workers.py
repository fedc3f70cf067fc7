"""Workers on several machines buy each request once, whatever happens to them, and the user sees one run."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from statistics import linear_regression

import pytest

from tests.support.cli_driver import ended, shots, wait_for
from tests.support.fake_gateway import GatewayDouble, Script
from tests.support.worker_processes import Heartbeat, several

pytestmark = pytest.mark.long


def test_two_workers_carry_a_run_out_and_one_command_follows_it(tmp_path: Path, postgres: str) -> None:
    with GatewayDouble(Script(generation_s=0.3)) as double, several(tmp_path, postgres, double) as machines:
        machines.hire(2)
        done = machines.buy(machines.csv(shots(40)), "--cluster")
        assert done.code == 0, done.err + machines.all_said()
        assert done.counts == {"done": 40}
        assert double.charged == 40
        assert len(machines.videos()) == 40
        assert all(path.is_file() for path in machines.videos())
        assert machines.dismiss() == [0, 0]
        assert machines.asked("SELECT count(*) FROM dop_jobs") == [(0,)]


def test_workers_that_are_to_download_nothing_ask_for_no_video(tmp_path: Path, postgres: str) -> None:
    with GatewayDouble(Script(generation_s=0.3)) as double, several(tmp_path, postgres, double) as machines:
        machines.environ["DOP_DOWNLOAD__ENABLED"] = "false"
        machines.hire(1)
        done = machines.buy(machines.csv(shots(8)), "--cluster")
        assert done.counts == {"done": 8}, done.err + machines.all_said()
        assert machines.dismiss() == [0]
        assert double.downloads == []


def test_a_configured_rate_is_met_by_all_workers_together(tmp_path: Path, postgres: str) -> None:
    with GatewayDouble() as double, several(tmp_path, postgres, double) as machines:
        # Two durable commits a submit: a busy machine takes its time for them, so more submits are open at once.
        machines.environ |= {"DOP_PACE__RATE": "25/1s", "DOP_PACE__SUBMIT_CONCURRENCY": "48"}
        machines.hire(3)
        with Heartbeat() as heart:
            left = machines.call("submit", machines.csv(shots(300)), "--yes", "--cluster", timeout_s=120)
        assert left.counts == {"in_flight": 300}, left.err + machines.all_said()
        moments = [line["at"] for line in double.submits]
        assert (len(moments) - 1) / (moments[-1] - moments[0]) <= 25.5
        rate = linear_regression(moments[25:], range(len(moments) - 25)).slope
        if heart.too_busy():
            pytest.skip(f"{rate:.1f} a second; this machine is too busy to tell single seconds: {heart.too_busy()}")
        assert 24.5 <= rate <= 25.5
        seconds = [begin for begin in moments if not heart.stood_still(begin - 0.5, begin + 1)]
        assert len(seconds) > len(moments) / 2, "the whole machine stood still again and again"
        # The rate, the hundredth that late ones may catch up, the fence post, and two calls that the machine shifts.
        assert max(sum(1 for at in moments if begin <= at < begin + 1) for begin in seconds) <= 28


def test_a_retry_after_that_one_sees_silences_all(tmp_path: Path, postgres: str) -> None:
    shut = {"after": 60, "for_s": 5, "says": "seconds"}
    with GatewayDouble(Script(shut=shut)) as double, several(tmp_path, postgres, double) as machines:
        machines.environ["DOP_PACE__RATE"] = "50/1s"
        machines.hire(3)
        done = machines.buy(machines.csv(shots(120)), "--cluster", timeout_s=120)
        assert done.counts == {"done": 120}, done.err + machines.all_said()
        assert double.shut_at is not None
        refused = [line["at"] for line in double.submits if line["job"] is None]
        assert refused
        held = (refused[0] + 0.5, double.shut_until - 0.1)  # half a second for the news to get round on a busy machine
        assert [line["at"] - refused[0] for line in double.submits if held[0] < line["at"] < held[1]] == []


def test_a_budget_is_met_to_the_cent_by_workers_that_race(tmp_path: Path, postgres: str) -> None:
    with GatewayDouble() as double, several(tmp_path, postgres, double) as machines:
        machines.hire(3)
        done = machines.buy(machines.csv(shots(90)), "--cluster", "--max-cost", "2.834")
        assert done.code == 8, done.err + machines.all_said()
        assert double.charged_mills == 20 * 135
        assert done.counts == {"done": 20, "planned": 70}
        assert "budget reached" in done.err
        more = machines.buy(machines.csv(shots(90)), "--cluster", "--max-cost", "2.835")
        assert (more.code, double.charged) == (8, 21), more.err


def test_workers_that_must_stop_leave_everything_to_others(tmp_path: Path, postgres: str) -> None:
    slow = {"*": {"book": True, "stall_s": 0.5}}
    with GatewayDouble(Script(generation_s=3, submits=slow)) as double, several(tmp_path, postgres, double) as machines:
        machines.environ["DOP_PACE__RATE"] = "20/1s"
        machines.hire(2)
        assert machines.call("worker", "--health").code == 0
        command = machines.start("run", machines.csv(shots(60)), "--yes", "--cluster")
        wait_for(lambda: double.charged >= 20)
        assert machines.dismiss() == [0, 0]
        assert machines.call("worker", "--health").code == 5
        assert machines.submitting() == 0
        assert not machines.states().keys() & {"unknown"}
        dropped = machines.call("worker", "--rebuild-queue")
        assert dropped.err.endswith(" 60 queued from the ledger\n"), dropped.err
        machines.hire(1)
        done = ended(command)
        assert done.counts == {"done": 60}, done.err + machines.all_said()
        assert double.charged == 60


def test_a_signal_to_the_following_command_stops_the_buying_on_every_host(tmp_path: Path, postgres: str) -> None:
    with GatewayDouble(Script(generation_s=1)) as double, several(tmp_path, postgres, double) as machines:
        machines.environ["DOP_PACE__RATE"] = "10/1s"
        machines.hire(2)
        command = machines.start("run", machines.csv(shots(200)), "--yes", "--cluster")
        wait_for(lambda: double.charged >= 10)
        command.send_signal(signal.SIGINT)
        assert ended(command).code == 130
        wait_for(lambda: set(machines.states()) == {"planned", "done"})
        bought = double.charged
        assert bought < 200
        machines.environ["DOP_PACE__RATE"] = "200/1s"
        machines.dismiss()
        machines.hire(1)
        assert double.charged == bought
        done = machines.buy(machines.csv(shots(200)), "--cluster")
        assert done.counts == {"done": 200}, done.err + machines.all_said()
        assert double.charged == 200


def test_what_is_submitted_is_collected_by_another_command(tmp_path: Path, postgres: str) -> None:
    with GatewayDouble(Script(generation_s=0.2)) as double, several(tmp_path, postgres, double) as machines:
        machines.hire(2)
        left = machines.call("submit", machines.csv(shots(12)), "--yes", "--cluster")
        assert left.counts == {"in_flight": 12}, left.err + machines.all_said()
        assert double.polls == []
        found = machines.call("collect", "--cluster")
        assert found.counts == {"done": 12}, found.err + machines.all_said()
        status = json.loads(machines.call("status", "--json").out)
        assert (status["done"], double.charged) == (12, 12)


def test_an_unknown_outcome_is_settled_while_workers_run_but_not_sent_again(tmp_path: Path, postgres: str) -> None:
    lost = {"2": {"book": True, "reset": "after"}}
    with GatewayDouble(Script(submits=lost)) as double, several(tmp_path, postgres, double) as machines:
        machines.hire(1)
        done = machines.buy(machines.csv(shots(4)), "--cluster")
        assert (done.code, done.counts) == (3, {"done": 3, "unknown": 1}), done.err + machines.all_said()
        (row,) = [row for row in machines.rows() if row["status"] == "unknown"]
        assert machines.call("resolve", row["row_id"], "--resend").code == 11
        assert machines.buy(machines.csv(shots(4)), "--lock-wait", "0s").code == 11
        lost_job = set(double.jobs) - {row["job_set_id"] for row in machines.rows()}
        assert machines.call("resolve", row["row_id"], "--adopt", lost_job.pop()).code == 0
        assert machines.call("collect", "--cluster").counts == {"done": 4}
        assert double.charged == 4


def test_a_run_of_the_timetable_is_started_once_by_one_host(tmp_path: Path, postgres: str) -> None:
    with GatewayDouble() as double, several(tmp_path, postgres, double) as machines:
        manifest = machines.csv(shots(6))
        machines.environ |= {"DOP_SCHEDULE__CRON": "* * * * * */3", "DOP_SCHEDULE__MANIFEST": str(manifest)}
        machines.environ["DOP_BUDGET__MAX_COST"] = "5"
        machines.hire(2)
        wait_for(lambda: machines.states() == {"done": 6}, at_most_s=60)
        wait_for(lambda: "scheduled run" in machines.all_said(), at_most_s=60)
        machines.dismiss()
        assert double.charged == 6
        assert len(machines.asked("SELECT run_id FROM runs WHERE ended_at IS NULL")) == 0
