"""What may be lost, and the pause after losses, are one for all workers of a cluster."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.cli_driver import Dop, ended, shots, wait_for
from tests.support.fake_gateway import GatewayDouble, Script
from tests.support.worker_processes import several

pytestmark = pytest.mark.long

WORKERS = 3
LOST = {"*": {"status": 502, "body": "<html>Bad Gateway</html>", "book": True}}


def test_the_loss_budget_is_one_for_all_workers(tmp_path: Path, postgres: str) -> None:
    with GatewayDouble(Script(submits=LOST)) as double, several(tmp_path, postgres, double) as machines:
        machines.environ["DOP_PACE__SUBMIT_CONCURRENCY"] = "1"
        machines.hire(WORKERS)
        done = machines.buy(machines.csv(shots(60)), "--cluster", timeout_s=90)
        assert done.code == 3, done.err + machines.all_said()
        assert double.charged <= 5 + WORKERS, "the limit, and what was in flight when it was reached"
        assert "--max-unknown" in done.err


def test_the_pause_after_losses_is_one_for_all_workers(tmp_path: Path, postgres: str) -> None:
    """An outage that charges: three losses in a row over all workers pause all of them, and one probes at a time."""
    with GatewayDouble(Script(submits=LOST)) as double, several(tmp_path, postgres, double) as machines:
        machines.environ |= {"DOP_PACE__SUBMIT_CONCURRENCY": "1", "DOP_ON_UNKNOWN__MAX": "50"}
        machines.hire(WORKERS)
        command = machines.start("run", machines.csv(shots(60)), "--yes", "--cluster")
        wait_for(lambda: double.charged >= 3)
        time.sleep(20)  # well within the first pause of 30 s
        assert double.charged <= 3 + WORKERS, machines.all_said()
        double.script.submits.clear()
        command.terminate()
        ended(command)


def test_a_worker_does_not_buy_with_a_ledger_that_its_account_does_not_know(tmp_path: Path, postgres: str) -> None:
    """The account has bought with a file ledger; a worker on the new database refuses until it is said."""
    with GatewayDouble() as double, several(tmp_path, postgres, double) as machines:
        alone = Dop(folder=machines.folder, base_url=double.base_url, environ={"HOME": machines.environment()["HOME"]})
        assert alone.buy(alone.csv(shots(2), "alone.csv")).code == 0
        refused = machines.call("worker", timeout_s=30)
        assert refused.code == 2, refused.err
        assert "--new-ledger" in refused.err
        assert double.charged == 2
