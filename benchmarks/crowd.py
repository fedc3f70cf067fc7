"""100,000 jobs in flight: the memory of the process that waits for them.

`python -m benchmarks.crowd [--quick] [--write-docs]`. The jobs are bought through the ledger's own events, then
`dop collect` takes them up, as after a restart, in a process of its own. Only the HTTP client is replaced, by one whose
polls all say in_progress: over HTTP the gateway's own books would fill the machine. 10,000 and 100,000 are bought by
`dop run` for comparison.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bout import OURS, REPO, Bout, command, environ_alone
from benchmarks.figures import Figures, Unrest
from benchmarks.measuring import main
from pipeline.config.loader import gateway_id, load
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.records import Request
from pipeline.reports.run_folder import RunFolder
from tests.support.factories import make_request
from tests.support.ledgers import accept, make_run, reserve, start

COUNT = 100_000
BATCH_LIMIT = 400
NOWHERE = "http://127.0.0.1:9"


def bought(count: int, folder: Path) -> list[str]:
    """A ledger with a run of so many jobs in flight; the command that takes them up."""
    overrides = {"gateway.base_url": NOWHERE, "outputs.dir": str(folder / "outputs")}
    settings = load(REPO / "configs" / "live.yaml", overrides=overrides, environ={})
    ledger = SqliteLedger(settings.ledger_path)
    try:
        ledger.ready_to_spend()
        queries, gateway = LedgerQueries(ledger), gateway_id(settings)
        run = make_run(gateway=gateway, name="crowd")
        rows = [make_request(seed=seed, gateway=gateway) for seed in range(1, count + 1)]
        start(queries, rows, run)
        asyncio.run(_accepted(ledger, rows))
    finally:
        ledger.close()
    RunFolder(folder / "outputs", run.run_id).make(None)
    flags = [word for name, value in overrides.items() for word in ("--set", f"{name}={value}")]
    return ["collect", run.run_id, "--config", "configs/live.yaml", "-q", *flags, "--set", "poll.deadline_s=10000h"]


async def _accepted(ledger: SqliteLedger, rows: Sequence[Request]) -> None:
    for first in range(0, len(rows), BATCH_LIMIT):
        batch = rows[first : first + BATCH_LIMIT]
        await asyncio.gather(*(ledger.apply(reserve(row)) for row in batch))
        await asyncio.gather(*(ledger.apply(accept(row, f"job-{row.request_id}")) for row in batch))


def alone(count: int, *, buy: bool) -> dict[str, float]:
    """So many in flight in a process of its own; megabytes of its memory."""
    with tempfile.TemporaryDirectory() as name:
        folder, report = Path(name), Path(name) / "report.json"
        if buy:
            words = command(OURS, Bout(count=count, settings=("poll.deadline_s=10h",)), NOWHERE, folder)[3:]
        else:
            words = bought(count, folder)
        # In a process that imports nothing but the program: what makes the ledger here would count as its memory.
        process = [sys.executable, "-m", "benchmarks.instant", str(count), str(report), *words]
        subprocess.run(process, cwd=REPO, env=environ_alone(folder), check=False)
        found: dict[str, float] = json.loads(report.read_text(encoding="ascii"))
        return found


async def run(rounds: int) -> tuple[Figures, list[Unrest]]:
    """Memory with few and with 100,000 jobs in flight."""
    rows = []
    for count, buy in ((1_000, False), (10_000, True), (10_000, False), (COUNT, False), (COUNT, True)):
        rows.append(await asyncio.to_thread(alone, count, buy=buy))
        print(rows[-1], flush=True)
    return {"rows": rows}, [(os.getloadavg()[0], 0.0)]


if __name__ == "__main__":
    main("crowd", run)
