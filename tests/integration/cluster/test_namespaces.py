"""A host that the network loses while it works: the others take over, and nothing is paid twice or lost."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.cli_driver import ended, shots, wait_for
from tests.support.fake_gateway import GatewayDouble, Script
from tests.support.postgres import PostgresServer
from tests.support.tcp_proxy import Cables
from tests.support.worker_processes import assert_nothing_lost, several

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

REQUESTS, PER_S = 500, 6
CUT_S = 60.0
"""Shorter than the rest of the run takes: the host comes back while there is work."""
SLOW_ANSWERS = {"*": {"book": True, "stall_s": 2.0}}
"""Each submit is charged at once and answered late, so that some are in flight when the cable is pulled."""


def test_a_host_that_is_cut_off_for_a_minute_costs_nothing_and_comes_back(
    tmp_path: Path, postgres: str, postgres_server: PostgresServer
) -> None:
    script = Script(generation_s=1.0, submits=SLOW_ANSWERS)
    with Cables(3) as cables, GatewayDouble(script) as double, several(tmp_path, postgres, double) as machines:
        postgres_server.trust(cables.subnet)
        machines.environ["DOP_PACE__RATE"] = f"{PER_S}/1s"
        cut_off, *others = [machines.hire(within=cables.within(host))[0] for host in range(3)]
        command = machines.start("run", machines.csv(shots(REQUESTS)), "--yes", "--cluster")
        wait_for(lambda: double.charged >= 10 * PER_S)
        cables.pull(0)
        until = time.monotonic() + CUT_S
        in_doubt = machines.submitting()
        wait_for(lambda: any("takes over" in machines.said(one) for one in others))
        charged = double.charged
        wait_for(lambda: double.charged > charged)
        wait_for(lambda: time.monotonic() > until, at_most_s=CUT_S)
        cables.plug(0)
        wait_for(lambda: "restarts its session" in machines.said(cut_off), at_most_s=60)
        assert command.poll() is None
        done = ended(command, timeout_s=200)
        assert_nothing_lost(machines, double, done, requests=REQUESTS, in_doubt=in_doubt)
        machines.dismiss(others)
        rest = machines.csv(shots(20, prompt="what is left to the one that was cut off"), "rest.csv")
        more = machines.buy(rest, "--cluster")
        assert more.counts == {"done": 20}, more.err + machines.all_said()
        assert machines.dismiss() == [0]
        assert cut_off.returncode == 0
