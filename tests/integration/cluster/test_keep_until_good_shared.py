"""Keep buying until good with several workers: the next candidate is bought by any of them, and none twice."""

from __future__ import annotations

import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.support.cli_driver import candidates, ended, wait_for
from tests.support.fake_gateway import GatewayDouble, Script
from tests.support.worker_processes import several

pytestmark = pytest.mark.long

OFF = {"DOP_CHECKS__ENABLED": "false"}
"""The double's clips are grey noise, which no check passes."""


def test_a_failed_candidate_is_replaced_and_the_rest_is_not_needed(tmp_path: Path, postgres: str) -> None:
    failing = {str(number): {"end": "failed"} for number in (1, 2, 5)}
    with (
        GatewayDouble(Script(generation_s=0.3, jobs=failing)) as double,
        several(tmp_path, postgres, double) as machines,
    ):
        machines.environ |= OFF
        machines.hire(2)
        done = machines.buy(machines.csv(candidates(6, "1-4")), "--cluster", timeout_s=120)
        assert done.code == 0, done.err + machines.all_said()
        assert double.charged == 9
        assert done.counts == {"done": 6, "failed": 3}
        assert "6 of 6 shots have their clips" in done.err
        again = machines.buy(machines.csv(candidates(6, "1-4")), "--cluster", timeout_s=120)
        assert (again.code, double.charged) == (0, 9), again.err


def test_clips_are_checked_by_the_worker_that_fetched_them(tmp_path: Path, postgres: str) -> None:
    with GatewayDouble(Script(generation_s=0.3)) as double, several(tmp_path, postgres, double) as machines:
        machines.environ["DOP_CHECKS__ENABLED"] = "true"
        machines.hire(2)
        done = machines.buy(machines.csv(candidates(3, "1-3")), "--cluster", timeout_s=180)
        assert done.code == 1, done.err + machines.all_said()
        assert double.charged == 9, "grey noise is bad: every candidate is used up"
        assert "no candidate left" in done.err
        grades = machines.asked("SELECT grade, count(*) FROM clip_checks GROUP BY grade")
        assert grades == [("bad", 9)]


def _has_charged(double: GatewayDouble, count: int, command: subprocess.Popen[str]) -> bool:
    """Also true at the end of the command: what the first kill leaves unknown is not bought again, so few may come."""
    return double.charged >= count or command.poll() is not None


def test_workers_that_are_killed_buy_no_candidate_twice(tmp_path: Path, postgres: str) -> None:
    failing = {str(number): {"end": "failed"} for number in range(1, 30, 2)}
    with (
        GatewayDouble(Script(generation_s=0.5, jobs=failing)) as double,
        several(tmp_path, postgres, double) as machines,
    ):
        machines.environ |= OFF | {"DOP_ON_UNKNOWN__MAX": "100"}  # two kills with full hands use up the default limit
        machines.hire(2)
        command = machines.start("run", machines.csv(candidates(12, "1-8")), "--yes", "--cluster")
        for charged in (6, 14):
            wait_for(partial(_has_charged, double, charged, command), at_most_s=120)
            machines.workers[0].send_signal(signal.SIGKILL)
            machines.workers.pop(0)
            machines.hire(1)
        done = ended(command, timeout_s=120)
        unknown = done.counts.get("unknown", 0)
        assert done.code == (3 if unknown else 0), done.err + machines.all_said()
        paid = [(line["body"]["prompt"], line["body"]["seed"]) for line in double.submits if line["job"] is not None]
        assert len(paid) == len(set(paid)), "bought twice"
        assert done.counts["done"] + unknown >= 12 or done.code == 3
