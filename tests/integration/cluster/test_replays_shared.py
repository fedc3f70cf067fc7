"""Unclear submits in a cluster at a gateway that honours keys: found out by a worker, charged once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.integration.runner.test_replays import Scripted, every_third_lost
from tests.support.cli_driver import shots
from tests.support.vendor_sandbox import VendorSandbox
from tests.support.worker_processes import Machines

pytestmark = pytest.mark.long


def charges(sandbox: VendorSandbox) -> Counter[str]:
    return Counter(str(one.job.body["seed"]) for one in sandbox.books.requests.values())


def test_workers_find_out_what_became_of_lost_answers(tmp_path: Path, postgres: str) -> None:
    with VendorSandbox(tmp_path / "vendor") as sandbox:
        sandbox.script(Scripted(fault=every_third_lost))
        machines = Machines(folder=tmp_path, base_url=sandbox.base_url, url=postgres)
        machines.environ |= sandbox.environment | {"DOP_ON_UNKNOWN__MAX": "100"}
        try:
            machines.hire(2)
            done = machines.buy(machines.csv(shots(24)), "--cluster", timeout_s=240)
            said = done.err + machines.all_said()
            assert max(charges(sandbox).values()) == 1, said
            assert done.counts == {"done": 24}, said
            assert done.code == 0, said
        finally:
            machines.end_all()
