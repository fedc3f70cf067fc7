"""100,000 jobs in flight: the memory of the process that waits for them.

`python -m benchmarks.crowd [--quick] [--write-docs]`. The whole program with its durable ledger; only the HTTP client
is replaced by one that answers at once (over HTTP the gateway's own books would fill the machine): every submit is
accepted, every poll says in_progress.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.bout import OURS, REPO, Bout, _environ, command
from benchmarks.figures import Figures, Unrest
from benchmarks.measuring import main
from pipeline.cli import main as dop
from pipeline.gateway.answer import Answer

COUNT = 100_000
LOOKS_S = 30.0
"""How long they are polled once all are in flight."""


class InstantGateway:
    """Stands where the HTTP client does."""

    def __init__(self, count: int, report: Path) -> None:
        self._count, self._report = count, report
        self.submits = self.polls = 0

    async def submit(self, _body: bytes, *, proof: Any = None, **_more: object) -> Answer:
        self.submits += 1
        if proof is not None:
            proof.sent = True
        if self.submits == self._count:
            asyncio.get_running_loop().call_later(LOOKS_S, self._tell)
        return _answer({"job_set_id": f"3c90c3cc-0d44-4b50-8888-{self.submits:012d}", "jobs": []})

    async def poll(self, job_set_id: str, *_more: object) -> Answer:
        self.polls += 1
        await asyncio.sleep(0)
        return _answer({"job_set_id": job_set_id, "jobs": [{"status": "in_progress", "results": None}]})

    def _tell(self) -> None:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        now_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = {"in_flight": self.submits, "polls": self.polls, "now_mb": now_kb / 1024, "peak_mb": peak_kb / 1024}
        self._report.write_text(json.dumps(found), encoding="ascii")
        os._exit(0)


def _answer(value: object) -> Answer:
    body = json.dumps(value).encode("ascii")
    return Answer(status=200, headers={}, body=body, complete=True, what="", elapsed_s=0.0)


def inside(count: int, report: Path, words: list[str]) -> None:
    """`dop run` with the instant gateway, in this process."""

    @asynccontextmanager
    async def instant(*_arguments: object) -> AsyncIterator[InstantGateway]:
        yield InstantGateway(count, report)

    with mock.patch("pipeline.run.gateway_client", instant):
        sys.exit(dop(words))


def alone(count: int) -> dict[str, float]:
    """Such a run in a process of its own; megabytes of its memory."""
    with tempfile.TemporaryDirectory() as name:
        folder, report = Path(name), Path(name) / "report.json"
        bout = Bout(count=count, settings=("poll.deadline_s=10h",))
        words = command(OURS, bout, "http://127.0.0.1:9", folder)[3:]
        code = f"from benchmarks.crowd import *; inside({count}, Path({str(report)!r}), {words!r})"
        subprocess.run([sys.executable, "-c", code], cwd=REPO, env=_environ(folder), check=False)
        found: dict[str, float] = json.loads(report.read_text(encoding="ascii"))
        return found


async def run(rounds: int) -> tuple[Figures, list[Unrest]]:
    """Memory with 1,000 and with 100,000 jobs in flight."""
    rows = []
    for count in (1_000, 10_000, COUNT):
        rows.append(await asyncio.to_thread(alone, count))
        print(rows[-1], flush=True)
    return {"rows": rows}, [(os.getloadavg()[0], 0.0)]


if __name__ == "__main__":
    main("crowd", run)
