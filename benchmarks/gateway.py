"""The sandbox as a process of its own that keeps count: every submit and poll that arrived, when, and its answer.

`python -m benchmarks.gateway FILE`: FILE is the JSON of a `Terms`. The first line on stdout is the base URL; `begun`
comes with the first submit, `enough` when as much is done as the terms want. On TERM it writes the tally and ends.
Its clock is `time.monotonic`, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from pipeline.sandbox.gateway import POLL_PATH, SUBMIT_PATHS
from pipeline.sandbox.jobs import Job, clip_key
from pipeline.sandbox.server import Sandbox
from pipeline.sandbox.settings import SandboxSettings

TICK_S = 0.05
IMAGE = "https://example.com/lake.jpg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the gateway does: `sandbox` are arguments of SandboxSettings, `changes` (seconds after the first submit,
    rate), and `until` (accepted | noticed, how many) says when enough is done."""

    folder: str
    until: tuple[str, int]
    sandbox: dict[str, Any]
    changes: tuple[tuple[float, str], ...] = ()


@dataclass(slots=True, kw_only=True)
class Tally:
    """What came and what the answer was. Times are seconds of the monotonic clock; a submit is (arrived, answered,
    status, hint in seconds or None), a poll (arrived, status); `jobs` are (accepted, generation seconds, when a poll
    first found it done or None). `late_s`: how late a timer of every TICK_S rang, which tells of the machine alone."""

    submits: list[tuple[float, float, int, float | None]] = field(default_factory=list)
    polls: list[tuple[float, int]] = field(default_factory=list)
    jobs: dict[str, list[float | None]] = field(default_factory=dict)
    noticed: int = 0
    late_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0


class CountingSandbox(Sandbox):
    """The sandbox, with a line in the tally for each call it answered."""

    def __init__(self, settings: SandboxSettings, terms: Terms, say: Callable[[str], None]) -> None:
        super().__init__(settings, now=time.monotonic)
        self.tally = Tally()
        self._terms, self._say = terms, say
        self._begun = False
        self._accepted = 0

    def _application(self) -> web.Application:
        app = super()._application()

        @web.middleware
        async def count(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            return await self._count(request, handler)

        app.middlewares.append(count)
        return app

    async def _count(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        arrived = time.monotonic()
        if request.path in SUBMIT_PATHS:
            self._begin(arrived)
            answer = await handler(request)
            self._submitted(arrived, answer)
            return answer
        answer = await handler(request)
        if request.path == POLL_PATH:
            self.tally.polls.append((arrived, answer.status))
            if answer.status == 200:
                self._polled(arrived, json.loads(await request.read())["job_set_id"], answer)
        return answer

    def _begin(self, arrived: float) -> None:
        """The rate's changes count from the first submit."""
        if self._begun:
            return
        self._begun = True
        self._say("begun")
        loop = asyncio.get_running_loop()
        for after_s, rate in self._terms.changes:
            loop.call_later(arrived + after_s - time.monotonic(), self.set_rate, rate)

    def _submitted(self, arrived: float, answer: web.StreamResponse) -> None:
        hint = answer.headers.get("Retry-After")
        line = (arrived, time.monotonic(), answer.status, float(hint) if hint else None)
        self.tally.submits.append(line)
        self._accepted += answer.status < 300
        self._reach("accepted", self._accepted)

    def _polled(self, arrived: float, job_set_id: str, answer: web.StreamResponse) -> None:
        job: Job = self._gateway._books.jobs[job_set_id]
        seen = self.tally.jobs.setdefault(job_set_id, [job.accepted_at, job.generation_s, None])
        body = answer.body if isinstance(answer, web.Response) else None
        if seen[2] is None and isinstance(body, bytes) and b'"completed"' in body:
            seen[2] = max(arrived, job.accepted_at + job.generation_s)
            self.tally.noticed += 1
            self._reach("noticed", self.tally.noticed)

    def _reach(self, what: str, count: int) -> None:
        if (what, count) == tuple(self._terms.until):
            self._say("enough")

    def finished_tally(self) -> Tally:
        """The tally, with the jobs that no poll asked for."""
        for key, job in self._gateway._books.jobs.items():
            self.tally.jobs.setdefault(key, [job.accepted_at, job.generation_s, None])
        self.tally.cpu_s = time.process_time()
        return self.tally


async def _watch_the_machine(late_s: list[float]) -> None:
    while True:
        due = time.monotonic() + TICK_S
        await asyncio.sleep(TICK_S)
        late_s.append(round(time.monotonic() - due, 4))


def _with_clip(settings: SandboxSettings) -> None:
    """The one clip is there already: what is measured is calls, not an encoder."""
    clips = settings.data_dir / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    (clips / f"{clip_key({'input_images': [IMAGE]}, '', settings)}.mp4").write_bytes(b"\0\0\0\x18ftypmp42")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def serve(terms: Terms) -> None:
    """Serves until TERM, then writes `tally.json` into the folder."""
    folder = Path(terms.folder)
    settings = SandboxSettings(data_dir=folder / "sandbox", key=None, one_clip=True, size="180p", **terms.sandbox)
    _with_clip(settings)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    sandbox = CountingSandbox(settings, terms, _say)
    async with sandbox as base_url:
        _say(base_url)
        watch = asyncio.create_task(_watch_the_machine(sandbox.tally.late_s))
        await stopped.wait()
        watch.cancel()
        tally = sandbox.finished_tally()
    (folder / "tally.json").write_text(json.dumps(asdict(tally)), encoding="ascii")


def main() -> None:
    """Reads the terms and serves."""
    asyncio.run(serve(Terms(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))


if __name__ == "__main__":
    main()
