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
import resource
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.bout import OURS, REPO, Bout, command, environ_alone
from benchmarks.figures import Figures, Unrest
from benchmarks.measuring import main
from pipeline.cli.main import main as dop
from pipeline.config.loader import gateway_id, load
from pipeline.gateway.responses import Response
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.records import Request
from pipeline.reports.run_folder import RunFolder
from tests.support.factories import make_request
from tests.support.ledgers import accept, make_run, reserve, start

COUNT = 100_000
BATCH_LIMIT = 400
NOWHERE = "http://127.0.0.1:9"
LOOKS_S = 30.0
"""How long they are polled once all are in flight."""


class InstantGateway:
    """Takes the place of the HTTP client."""

    def __init__(self, count: int, report: Path) -> None:
        self._count, self._report = count, report
        self.submits = self.polls = 0

    async def submit(self, _body: bytes, *, proof: Any = None, **_more: object) -> Response:
        self.submits += 1
        if proof is not None:
            proof.sent = True
        if self.submits == self._count:
            self._tell_soon()
        return _answer({"job_set_id": f"3c90c3cc-0d44-4b50-8888-{self.submits:012d}", "jobs": []})

    async def poll(self, job_set_id: str, *_more: object) -> Response:
        self.polls += 1
        if self.polls == 1 and not self.submits:
            self._tell_soon()
        await asyncio.sleep(0)
        return _answer({"job_set_id": job_set_id, "jobs": [{"status": "in_progress", "results": None}]})

    def _tell_soon(self) -> None:
        asyncio.get_running_loop().call_later(LOOKS_S, self._tell)

    def _tell(self) -> None:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        now_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = {
            "in_flight": self._count,
            "bought": self.submits,
            "polls": self.polls,
            "now_mb": now_kb / 1024,
            "peak_mb": peak_kb / 1024,
        }
        self._report.write_text(json.dumps(found), encoding="ascii")
        os._exit(0)


def _answer(value: object) -> Response:
    body = json.dumps(value).encode("ascii")
    return Response(status=200, headers={}, body=body)


def inside(count: int, report: Path, words: list[str]) -> None:
    """`dop run` with the instant gateway, in this process."""

    @asynccontextmanager
    async def instant(*_arguments: object) -> AsyncIterator[InstantGateway]:
        yield InstantGateway(count, report)

    with mock.patch("pipeline.runner.engine.gateway_client", instant):
        sys.exit(dop(words))


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
        code = f"from benchmarks.crowd import *; inside({count}, Path({str(report)!r}), {words!r})"
        subprocess.run([sys.executable, "-c", code], cwd=REPO, env=environ_alone(folder), check=False)
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
