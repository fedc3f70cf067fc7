"""The options of the command that follows the workers hold on every host; what it can't do is refused beforehand."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli.commands.run_on_cluster import check
from pipeline.cli.parser import build_parser
from pipeline.config.settings import Settings
from pipeline.errors import UsageError
from tests.support.cli_driver import ended, shots, wait_for
from tests.support.fake_gateway import GatewayDouble, Script
from tests.support.worker_processes import several

REFUSED = {
    "--pilot 3": "--first N",
    "--max-new 3": "--max-cost USD",
    "--webhook": "dop worker --webhook",
    "--no-download": "download.enabled",
    "--rate 10/1s": "pace.rate",
    "--max-in-flight 5": "pace.max_in_flight",
    "--log-json": "by the workers",
}


@pytest.mark.parametrize(("flag", "instead"), REFUSED.items())
def test_a_flag_that_belongs_to_one_machine_is_refused_with_what_to_do_instead(flag: str, instead: str) -> None:
    args = build_parser().parse_args(["run", "shots.csv", "--cluster", *flag.split()])
    with pytest.raises(
        UsageError, match=f"^{flag.split(maxsplit=1)[0]} is not for --cluster: .*{instead}.*; nothing was sent$"
    ):
        check(args, Settings())


@pytest.mark.parametrize("flag", ["--max-duration 2h", "--halt fail=3", "--lock-wait 5s", "--max-cost 5", "-q"])
def test_a_flag_of_the_following_command_is_not_refused(flag: str) -> None:
    pytest.importorskip("croniter")
    args = build_parser().parse_args(["run", "shots.csv", "--cluster", *flag.split()])
    with pytest.raises(UsageError, match=r"set ledger\.url"):  # the next thing that it looks at
        check(args, Settings())


@pytest.mark.long
def test_a_run_whose_time_is_over_buys_nothing_more_on_any_host_and_continues_when_called_again(
    tmp_path: Path, postgres: str
) -> None:
    with GatewayDouble(Script(generation_s=1)) as double, several(tmp_path, postgres, double) as machines:
        machines.environ["DOP_PACE__RATE"] = "10/1s"
        machines.hire(2)
        done = machines.buy(machines.csv(shots(200)), "--cluster", "--max-duration", "3s")
        assert done.code == 5, done.err + machines.all_said()
        assert "--max-duration of 3 s is over\n" in done.err
        wait_for(lambda: set(machines.states()) == {"planned", "done"})
        bought = double.charged
        assert 0 < bought < 100
        machines.environ["DOP_PACE__RATE"] = "200/1s"
        assert machines.dismiss() == [0, 0]
        machines.hire(1)
        assert double.charged == bought
        again = machines.buy(machines.csv(shots(200)), "--cluster", "--max-duration", "1h")
        assert (again.code, again.counts) == (0, {"done": 200}), again.err + machines.all_said()
        assert double.charged == 200


@pytest.mark.long
def test_collecting_may_be_left_to_the_workers_after_a_while(tmp_path: Path, postgres: str) -> None:
    with GatewayDouble(Script(generation_s=600)) as double, several(tmp_path, postgres, double) as machines:
        machines.hire(1)
        assert machines.call("submit", machines.csv(shots(6)), "--yes", "--cluster").counts == {"in_flight": 6}
        left = machines.call("collect", "--cluster", "--max-duration", "1s")
        assert (left.code, left.counts) == (5, {"in_flight": 6}), left.err + machines.all_said()
        assert "the workers go on; the same command follows them again\n" in left.err
        polls = len(double.polls)
        wait_for(lambda: len(double.polls) >= polls + 6)


@pytest.mark.long
def test_failures_of_all_hosts_together_stop_the_buying_and_what_is_paid_is_collected(
    tmp_path: Path, postgres: str
) -> None:
    bad = {str(number): {"end": "failed"} for number in (2, 5, 9)}
    with GatewayDouble(Script(generation_s=0.5, jobs=bad)) as double, several(tmp_path, postgres, double) as machines:
        machines.environ["DOP_PACE__RATE"] = "10/1s"
        machines.hire(2)
        done = machines.buy(machines.csv(shots(200)), "--cluster", "--halt", "fail=3")
        assert done.code == 5, done.err + machines.all_said()
        assert "--halt: 3 requests failed\n" in done.err
        assert done.counts["failed"] == 3
        assert done.counts["done"] == double.charged - 3
        assert done.counts["planned"] == 200 - double.charged > 100


@pytest.mark.long
def test_the_following_command_waits_for_a_plain_run_as_long_as_configured(tmp_path: Path, postgres: str) -> None:
    with GatewayDouble(Script(generation_s=600)) as double, several(tmp_path, postgres, double) as machines:
        plain = machines.start("run", machines.csv(shots(2), "plain.csv"), "--yes")
        wait_for(lambda: double.charged == 2)
        refused = machines.buy(machines.csv(shots(2)), "--cluster", "--lock-wait", "0s", timeout_s=20)
        assert refused.code == 11, refused.err
        plain.terminate()
        assert ended(plain).code == 143


@pytest.mark.long
def test_a_run_whose_turn_in_the_queue_has_not_come_is_followed_until_it_is_done(tmp_path: Path, postgres: str) -> None:
    with GatewayDouble(Script(generation_s=0.2)) as double, several(tmp_path, postgres, double) as machines:
        machines.environ |= {
            "DOP_PACE__RATE": "10/1s",
            "DOP_CLUSTER__WINDOW": "20",
            "DOP_PACE__SUBMIT_CONCURRENCY": "1",
        }
        machines.hire(1)
        first = machines.start("run", machines.csv(shots(50)), "--yes", "--cluster")
        wait_for(lambda: double.charged >= 1)  # its first window fills the queue for seconds
        second = machines.buy(machines.csv(shots(10, prompt="another scene"), "third.csv"), "--cluster")
        assert (second.code, second.counts) == (0, {"done": 10}), second.err + machines.all_said()
        assert ended(first).counts == {"done": 50}
        assert double.charged == 60
