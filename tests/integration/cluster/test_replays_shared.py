"""Unclear submits with a ledger on PostgreSQL, at a gateway that honours keys: charged once, and found out.

By one process that is killed again and again, and by workers of a cluster.
"""

from __future__ import annotations

import itertools
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.sandbox.faults import FaultPlan
from tests.integration.runner.test_replays import Scripted, every_third_lost
from tests.support.cli_driver import Dop, killed, shots, wait_for
from tests.support.vendor_sandbox import VendorSandbox
from tests.support.worker_processes import Machines

pytestmark = pytest.mark.long

LOSING = Scripted(fault=every_third_lost)


def charges(sandbox: VendorSandbox) -> Counter[str]:
    """Charges by seed."""
    paid = (one for one in sandbox.books.requests.values() if one.canceled_at is None)
    return Counter(str(one.job.body["seed"]) for one in paid)


@contextmanager
def cluster(folder: Path, url: str, plan: FaultPlan) -> Iterator[tuple[Machines, VendorSandbox]]:
    with VendorSandbox(folder / "vendor", generation_s=1.0) as sandbox:
        sandbox.script(plan)
        machines = Machines(folder=folder, base_url=sandbox.base_url, url=url)
        machines.environ |= sandbox.environment | {"DOP_ON_UNKNOWN__MAX": "100"}
        try:
            yield machines, sandbox
        finally:
            machines.end_all()


def test_kills_of_a_run_whose_ledger_is_on_postgres(tmp_path: Path, postgres: str) -> None:
    points = itertools.cycle(["after-post:3", "before-lose:1", "before-replay:1", "after-replay:1", "after-accept:2"])
    with VendorSandbox(tmp_path / "vendor", generation_s=0.5) as sandbox:
        sandbox.script(LOSING)
        environ = {**sandbox.environment, "DOP_LEDGER__URL": postgres, "DOP_ON_UNKNOWN__MAX": "100"}
        dop = Dop(folder=tmp_path, environ=environ)
        sheet = dop.csv(shots(24))
        try:
            kills = sum(killed(dop.buy(sheet, fail_point=next(points), timeout_s=120)) for _ in range(5))
            last = dop.buy(sheet, timeout_s=120)
        finally:
            dop.end_all()
        assert kills >= 3
        assert set(charges(sandbox).values()) == {1}, last.err
        assert Counter(row["status"] for row in dop.rows()) == {"done": 24}, last.err


def test_workers_find_out_what_became_of_lost_answers(tmp_path: Path, postgres: str) -> None:
    with cluster(tmp_path, postgres, LOSING) as (machines, sandbox):
        machines.hire(2)
        done = machines.buy(machines.csv(shots(24)), "--cluster", timeout_s=240)
        said = done.err + machines.all_said()
        assert set(charges(sandbox).values()) == {1}, said
        assert done.counts == {"done": 24}, said
        assert done.code == 0, said


def test_what_a_killed_worker_was_finding_out_is_found_by_another(tmp_path: Path, postgres: str) -> None:
    """The gateway says for a while that it still works on the first calls, so that the worker dies meanwhile."""
    with cluster(tmp_path, postgres, replace(LOSING, busy=15)) as (machines, sandbox):
        (first,) = machines.hire(1)
        command = machines.start("run", machines.csv(shots(12)), "--yes", "--cluster")
        wait_for(lambda: machines.states().get("unknown", 0) > 0, at_most_s=120)
        first.send_signal(signal.SIGKILL)
        sandbox.script(LOSING)
        machines.hire(1)
        wait_for(lambda: command.poll() is not None, at_most_s=240)
        said = machines.all_said()
        assert set(charges(sandbox).values()) == {1}, said
        assert machines.states() == {"done": 12}, said


def test_keys_that_are_switched_off_leave_it_unknown_until_the_next_order(tmp_path: Path, postgres: str) -> None:
    with cluster(tmp_path, postgres, LOSING) as (machines, sandbox):
        sandbox.handlers.honours_keys = False
        machines.hire(1)
        done = machines.buy(machines.csv(shots(12)), "--cluster", timeout_s=240)
        said = done.err + machines.all_said()
        assert done.code == 3, said
        assert set(charges(sandbox).values()) == {1}, said
        assert machines.states()["unknown"] > 0, said
