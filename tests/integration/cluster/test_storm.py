"""The worst day: workers killed or frozen, a crash of the database; nothing is paid twice or lost."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.cli_driver import ended, shots, wait_for
from tests.support.fake_gateway import GatewayDouble, Script
from tests.support.postgres import PostgresServer
from tests.support.worker_processes import Machines, assert_nothing_lost, freeze, several, wake

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

REQUESTS = 900
KILLS = 6
LEASE_S = 5.0
SLOW_ANSWERS = {"*": {"book": True, "stall_s": 0.3}}
"""Each submit is charged at once and answered late, so that some are in flight whenever something breaks."""


def wait_until_charged(double: GatewayDouble, count: int) -> None:
    wait_for(lambda: double.charged >= count, at_most_s=120)


def test_nothing_is_paid_twice_or_lost_on_the_worst_day(
    tmp_path: Path, postgres: str, postgres_server: PostgresServer
) -> None:
    script = Script(generation_s=1.0, submits=SLOW_ANSWERS)
    with GatewayDouble(script) as double, several(tmp_path, postgres, double) as machines:
        machines.environ["DOP_PACE__RATE"] = "40/1s"
        machines.environ["DOP_ON_UNKNOWN__MAX"] = str(REQUESTS)  # so many kills use up the default limit
        machines.hire(3)
        command = machines.start("run", machines.csv(shots(REQUESTS)), "--yes", "--cluster")
        in_doubt = _worst_day(machines, double, postgres_server)
        done = ended(command, timeout_s=300)
        assert_nothing_lost(machines, double, done, requests=REQUESTS, in_doubt=in_doubt)
        assert all(code == 0 for code in machines.dismiss()), machines.all_said()


def _worst_day(machines: Machines, double: GatewayDouble, server: PostgresServer) -> int:
    """Six kills, two freezes and a crash of the database; how many submits were in flight when they struck."""
    in_doubt = 0
    for number in range(KILLS):
        wait_until_charged(double, (1 + number) * REQUESTS // 12)
        victim = next(one for one in machines.workers if one.poll() is None)
        victim.kill()
        in_doubt += machines.submitting()
        if number == 1:
            in_doubt += _frozen_past_the_lease(machines)
        if number == 3:
            server.crash()
            server.start()
        machines.hire(1)
    return in_doubt


def _frozen_past_the_lease(machines: Machines) -> int:
    """Two workers stand still until others have taken over, then go on as if nothing had been."""
    sleepers = [one for one in machines.workers if one.poll() is None][:2]
    for one in sleepers:
        freeze(one)
    in_doubt = machines.submitting()
    machines.hire(1)
    time.sleep(LEASE_S + 3.0)
    for one in sleepers:
        wake(one)
    return in_doubt
