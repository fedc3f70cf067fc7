"""`dop` in a process whose gateway is instant: the HTTP client is replaced, and nothing is imported but the program.

`python -m benchmarks.instant COUNT REPORT WORD ...` runs `dop WORD ...`; `REPORT` gets the memory of the process some
time after COUNT jobs were in flight, as JSON, and the process ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from pipeline.cli.main import main as dop
from pipeline.gateway.responses import Response

LOOKS_S = 30.0
"""Seconds for which the jobs are polled once all are in flight."""


MEMORY = NOW, PEAK = "VmRSS", "VmHWM"
"""The kernel's names of a process's memory: what it has, and the most that it ever had."""


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
            self._report_soon()
        return _answer({"job_set_id": f"3c90c3cc-0d44-4b50-8888-{self.submits:012d}", "jobs": []})

    async def poll(self, job_set_id: str, *_more: object) -> Response:
        self.polls += 1
        if self.polls == 1 and not self.submits:
            self._report_soon()
        await asyncio.sleep(0)
        return _answer({"job_set_id": job_set_id, "jobs": [{"status": "in_progress", "results": None}]})

    def _report_soon(self) -> None:
        asyncio.get_running_loop().call_later(LOOKS_S, self._write_report)

    def _write_report(self) -> None:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        # Not `ru_maxrss`, which counts what the process that started this one had as well.
        kb = {name: int(value.split()[0]) for name, value in (line.split(":", 1) for line in lines) if name in MEMORY}
        found = {
            "in_flight": self._count,
            "bought": self.submits,
            "polls": self.polls,
            "now_mb": kb[NOW] / 1024,
            "peak_mb": kb[PEAK] / 1024,
        }
        self._report.write_text(json.dumps(found), encoding="ascii")
        os._exit(0)


def _answer(value: object) -> Response:
    return Response(status=200, headers={}, body=json.dumps(value).encode("ascii"))


def run_dop(count: int, report: Path, words: list[str]) -> int:
    """The command with the instant gateway, in this process."""

    @asynccontextmanager
    async def instant(*_arguments: object) -> AsyncIterator[InstantGateway]:
        yield InstantGateway(count, report)

    with mock.patch("pipeline.runner.engine.gateway_client", instant):
        return dop(words)


if __name__ == "__main__":
    sys.exit(run_dop(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
