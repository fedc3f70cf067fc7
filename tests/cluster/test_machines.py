"""Workers on several machines buy each request once, whatever happens to them, and a person sees one run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.driving import shots
from tests.acceptance.gatewaydouble import GatewayDouble, Script
from tests.cluster.machines import several

pytestmark = pytest.mark.long


def test_two_workers_carry_a_run_out_and_one_command_follows_it(tmp_path: Path, postgres: str) -> None:
    with GatewayDouble(Script(generation_s=0.3)) as double, several(tmp_path, postgres, double) as machines:
        machines.hire(2)
        ended = machines.buy(machines.csv(shots(40)), "--cluster")
        assert ended.code == 0, ended.err + machines.all_said()
        assert ended.counts == {"done": 40}
        assert double.charged == 40
        assert len(machines.videos()) == 40
        assert all(path.is_file() for path in machines.videos())
        assert machines.dismiss() == [0, 0]
        assert machines.asked("SELECT count(*) FROM procrastinate_jobs") == [(0,)]
