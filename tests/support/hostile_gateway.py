"""A gateway with its own books whose answers are Python functions, for faults that a script in JSON cannot describe.

It follows the API document for everything that a test leaves alone, and shares no code with the client. Every submit,
poll and download is recorded with the moment of its arrival. It listens on 127.0.0.1, in a thread with its own event
loop, so that the command can run in the test's process.
"""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from aiohttp import web

from tests.support.cli_driver import Ended, Here
from tests.support.fake_gateway import POLL_PATH, PRICE_MILLS, STATUS_PATH, SUBMIT_PATHS, tiny_clip

Json = dict[str, Any]

MAX_WAIT_S = 20.0
"""Longest wait of the gateway for a condition, in seconds: a test that never meets it must still end."""


@dataclass(slots=True, kw_only=True)
class Order:
    """One submit. `job` is the id that the gateway gives it; `charged` says whether its books hold it."""

    number: int
    body: Json
    headers: dict[str, str]
    job: str
    at: float
    base: str
    charged: bool = False
    polls: int = 0
    fetches: int = 0

    @property
    def prompt(self) -> str:
        """What was asked for."""
        return str(self.body["prompt"])


Submitted = Callable[["HostileGateway", Order], Awaitable[web.StreamResponse]]
Polled = Callable[["HostileGateway", Order | None, str], Awaitable[web.StreamResponse]]
Fetched = Callable[["HostileGateway", Order], Awaitable[web.StreamResponse]]


@dataclass(slots=True, kw_only=True)
class Heard:
    """A poll or a download: the job's id and the moment on the monotonic clock, in seconds."""

    job: str
    at: float


@dataclass
class HostileGateway:
    """`with HostileGateway(submit=..., poll=..., fetch=...) as gateway`. Each function replaces one kind of answer."""

    submit: Submitted = field(default=lambda gateway, order: gateway.accept(order))
    poll: Polled = field(default=lambda gateway, order, job: gateway.report(order, job))
    fetch: Fetched = field(default=lambda gateway, order: gateway.clip(order))
    url: str = ""
    orders: list[Order] = field(default_factory=list)
    polls: list[Heard] = field(default_factory=list)
    fetches: list[Heard] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    """Statuses that callbacks of this gateway were answered with."""

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._aside: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        tiny_clip()
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self.thread.join()
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application(client_max_size=2**20)
        for path in SUBMIT_PATHS:
            app.router.add_post(path, self._submitted)
        app.router.add_post(POLL_PATH, self._polled)
        app.router.add_get(STATUS_PATH + "{job}", self._polled)
        app.router.add_get("/clips/{job:.+}", self._fetched)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        for task in self._aside:
            task.cancel()
        await asyncio.gather(*self._aside, return_exceptions=True)
        await self._runner.cleanup()

    # -- the books

    @property
    def charged(self) -> list[Order]:
        """The submits that cost money."""
        return [order for order in self.orders if order.charged]

    @property
    def charged_jobs(self) -> set[str]:
        """Their job ids."""
        return {order.job for order in self.charged}

    @property
    def charged_mills(self) -> int:
        """Their sum, in thousandths of a dollar."""
        return sum(PRICE_MILLS[order.body["model"]] for order in self.charged)

    def order_of(self, job: str) -> Order | None:
        """The submit that a job id belongs to."""
        return next((order for order in self.orders if order.job == job), None)

    # -- the usual answers

    async def accept(self, order: Order, **more: Any) -> web.Response:
        """Charges the submit and answers as the document does."""
        order.charged = True
        jobs = [{"id": f"part-{order.job}", "job_set_type": "image2video", "status": "queued", "results": None}]
        return web.json_response({"job_set_id": order.job, "type": "image2video", "jobs": jobs, **more})

    async def queue(self, order: Order, polling_url: str | None = None) -> web.Response:
        """Charges the submit and answers in the unified queue's words."""
        order.charged = True
        said = polling_url or f"{self.url}{STATUS_PATH}{order.job}"
        return web.json_response({"request_id": order.job, "status": "QUEUED", "polling_url": said}, status=202)

    async def lose(self, order: Order, body: Json | str = "<html>Bad Gateway</html>") -> web.Response:
        """Charges the submit and answers 502."""
        order.charged = True
        return web.json_response(body, status=502) if isinstance(body, dict) else web.Response(status=502, text=body)

    async def report(self, order: Order | None, job: str, **more: Any) -> web.Response:
        """The job is completed; an id that the books do not hold is 404."""
        if order is None:
            return web.json_response({"error": "Job set not found"}, status=404)
        part = {
            "id": "j",
            "status": "completed",
            "results": {"raw": {"url": f"{self.url}/clips/{quote(order.job, safe='')}"}},
        }
        echo = {"prompt": order.prompt, "seed": order.body["seed"], "model": order.body["model"]}
        return web.json_response({"job_set_id": job, "jobs": [part], "input_params": echo, **more})

    async def clip(self, order: Order) -> web.Response:
        """A playable video."""
        return web.Response(body=tiny_clip(), content_type="video/mp4")

    # -- what tests use inside their answers

    async def until(self, condition: Callable[[], bool]) -> bool:
        """Waits for a condition; whether it came in time."""
        end = time.monotonic() + MAX_WAIT_S
        while not condition():
            if time.monotonic() > end:
                return False
            await asyncio.sleep(0.01)
        return True

    def aside(self, work: Coroutine[Any, Any, None]) -> None:
        """Does something beside the answer, such as a callback."""
        task = asyncio.get_running_loop().create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def call_back(self, order: Order, said: Json | bytes, headers: dict[str, str] | None = None) -> int:
        """One callback to the address that a submit named; its status, which `calls` keeps."""
        kind: Json = {"data": said} if isinstance(said, bytes) else {"json": said}
        async with (
            aiohttp.ClientSession() as session,
            session.post(order.body["webhook_url"], headers=headers, **kind) as answer,
        ):
            self.calls.append(answer.status)
            return answer.status

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Runs a coroutine in the gateway's event loop from the test's thread, and waits for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=MAX_WAIT_S)

    # -- HTTP

    async def _submitted(self, request: web.Request) -> web.StreamResponse:
        at = time.monotonic()
        body = await request.json()
        headers = {name.lower(): value for name, value in request.headers.items()}
        number, job = len(self.orders) + 1, str(uuid.uuid4())
        order = Order(number=number, body=body, headers=headers, job=job, at=at, base=self.url)
        self.orders.append(order)
        return await self.submit(self, order)

    async def _polled(self, request: web.Request) -> web.StreamResponse:
        at = time.monotonic()
        job = request.match_info.get("job") or str((await request.json()).get("job_set_id"))
        self.polls.append(Heard(job=job, at=at))
        order = self.order_of(job)
        if order is not None:
            order.polls += 1
        return await self.poll(self, order, job)

    async def _fetched(self, request: web.Request) -> web.StreamResponse:
        job = request.match_info["job"]
        self.fetches.append(Heard(job=job, at=time.monotonic()))
        order = self.order_of(job)
        if order is None:
            return web.Response(status=404)
        order.fetches += 1
        return await self.fetch(self, order)


class Contained(Here):
    """`Here`, for commands that may crash: an exception that leaves the command is an end with exit code CRASHED."""

    CRASHED = 70

    def typed(self, *words: str) -> Ended:
        try:
            return Here.typed(self, *words)
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, AssertionError)):
                raise
            return Ended(code=self.CRASHED, out="", err="".join(traceback.format_exception(error)))

    def recorded(self) -> list[tuple[str, str]]:
        """State and job id ("" without one) of the newest attempt of every request, from the ledger's file."""
        found = self.ledger("select state, job_set_id from attempts where superseded = 0")
        return [(str(state), str(job or "")) for state, job in found]

    def states(self) -> dict[str, int]:
        """How many requests are in which state."""
        return dict(Counter(state for state, _ in self.recorded()))

    def jobs(self) -> set[str]:
        """The job ids that the ledger holds, over all attempts."""
        found = self.ledger("select job_set_id from attempts where job_set_id is not null")
        return {str(job) for (job,) in found}


def against(folder: Path, gateway: HostileGateway) -> Contained:
    """The command in a folder, pointed at a gateway."""
    return Contained(folder=folder, base_url=gateway.url)
