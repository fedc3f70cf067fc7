"""kill -9 again and again at the vendor's own API: nothing is paid twice, nothing stays undone, nothing stays unknown.

DOP_TEST_SIZE=full python -m pytest -n 0 -s -m long tests/acceptance/test_vendor_kills.py    # 50 kills, 14 minutes
"""

from __future__ import annotations

import itertools
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.sandbox.faults import FaultPlan, SubmitFault
from tests.support.cli_driver import Dop, killed, shots
from tests.support.scale import scaled
from tests.support.vendor_sandbox import VendorSandbox

KILLS, ROWS = scaled(50, 5), scaled(200, 60)

POINTS = (
    *("after-reserve:1", "before-post:1", "after-post:1", "before-accept:1"),
    *("before-lose:1", "before-replay:1", "after-replay:1"),
    *("after-reserve:2", "before-post:2", "after-post:2", "after-accept:2"),
    *("after-lose:1", "before-replay:2", "after-replay:3"),
)
"""Where a run is killed: at the so-manieth time that it comes by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Losing(FaultPlan):
    """Loses the answers of many first submits, and of some repeated ones, before and after they are charged."""

    seed: str = "kills"
    intensity: float = 0.0
    faults: Callable[[], SubmitFault] = lambda: SubmitFault.NONE

    def submit_fault(self, fingerprint: str, visit: int) -> SubmitFault:
        return self.faults()


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_kill_after_kill(tmp_path: Path) -> None:
    drawn = random.Random(7)
    faults = [SubmitFault.NONE] * 6 + [SubmitFault.RESET_AFTER, SubmitFault.ERROR_AFTER, SubmitFault.ERROR_BEFORE]
    with VendorSandbox(tmp_path / "vendor", generation_s=1.0) as vendor:
        vendor.script(Losing(faults=lambda: drawn.choice(faults)))
        dop = Dop(folder=tmp_path, environ={**vendor.environment, "DOP_ON_UNKNOWN__MAX": "1000"})
        sheet, kills, points = dop.csv(shots(ROWS)), 0, itertools.cycle(POINTS)
        try:
            for _ in range(3 * KILLS):
                ending = dop.buy(sheet, fail_point=next(points), timeout_s=300)
                kills += killed(ending)
                if kills == KILLS:
                    break
            last = dop.buy(sheet, timeout_s=600)
        finally:
            dop.end_all()
        jobs = Counter(str(one.job.body["prompt"]) for one in vendor.books.requests.values() if one.canceled_at is None)
        states = Counter(row["status"] for row in dop.rows())
    sys.stdout.write(f"{kills} kills, {len(jobs)} videos charged, {sum(jobs.values())} charges, {dict(states)}\n")
    assert kills == KILLS
    assert [row for row, times in jobs.items() if times > 1] == []
    assert states == {"done": ROWS}, last.err
