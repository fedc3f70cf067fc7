"""Faults on the wire: resets, cut and doubled responses, waits. Without a fault the response goes out unchanged."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from pipeline.sandbox import responses
from pipeline.sandbox.faults import FaultPlan, PollFault, ResultFault, SubmitFault
from pipeline.sandbox.responses import SandboxResponse

STALL_FACTOR = (2.0, 8.0)
"""Shortest and longest stall, in generation times."""
SILENCE_FACTOR = 30.0
WATCH_S = 0.05

HTML = (
    b"<html>\r\n<head><title>%b</title></head>\r\n<body>\r\n<center><h1>%b</h1></center>\r\n<hr><center>gateway"
    b"</center>\r\n</body>\r\n</html>\r\n"
)
_REASONS = {200: b"OK", 502: b"502 Bad Gateway", 520: b"520 Web Server Returned an Unknown Error"}

FaultKey = tuple[str, str, int]
"""Hook, name and number of a visit: what a wait's length is drawn from."""


def as_json(answer: SandboxResponse) -> web.Response:
    """The answer as it should be."""
    return web.Response(
        status=answer.status,
        body=json.dumps(answer.value).encode("ascii"),
        headers=answer.headers,
        content_type="application/json",
    )


class RawResponse(web.Response):
    """Bytes put on the connection as they are; afterwards it is closed unless `keep`."""

    def __init__(self, raw: bytes, *, keep: bool = False) -> None:
        super().__init__()
        self._raw = raw
        self._keep_alive = keep

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write the bytes instead of a head."""
        if request.transport is not None:
            request.transport.write(self._raw)
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing more to write."""


class CutConnection(web.Response):
    """No answer: the connection ends, with a reset (`hard`) or an ordinary close."""

    def __init__(self, *, hard: bool) -> None:
        super().__init__()
        self._hard = hard
        self._keep_alive = False

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Cut instead of writing a head."""
        transport = request.transport
        if transport is not None:
            if self._hard:
                raw_socket = transport.get_extra_info("socket")
                # With a linger time of 0 the kernel sends a reset instead of an orderly end.
                raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing to write."""


def _too_many(wait_s: float, number: int) -> SandboxResponse:
    return responses.too_many(wait_s, number=number, mode="yes")


class FaultInjector:
    """Puts answers on the wire, through a storm if there is one.

    Args:
        refused: (status, text) -> the API's error answer; `too_many`: (seconds, number) -> its 429.
    """

    def __init__(
        self,
        storm: FaultPlan | None,
        generation_s: float,
        *,
        inline: bool = False,
        refused: Callable[[int, str], SandboxResponse] = responses.refused,
        too_many: Callable[[float, int], SandboxResponse] = _too_many,
    ) -> None:
        self.storm = storm
        self._refused, self._too_many = refused, too_many
        self._inline = inline
        self._generation_s = generation_s

    def script(self, plan: FaultPlan) -> None:
        """Let go wrong what `plan` says, from now on."""
        self.storm = plan

    async def instead_of_accepting(
        self, fault: SubmitFault, request: web.Request, visit: FaultKey
    ) -> web.StreamResponse:
        """The answer to a submit that the storm keeps from being accepted. Nothing is charged."""
        if fault is SubmitFault.THROTTLE:
            return as_json(self._too_many(self._generation_s, visit[2]))
        if fault is SubmitFault.REDIRECT:
            location = str(request.url.with_path("/ai-model-api/v2/moved"))
            return web.Response(status=307, headers={"Location": location})
        if fault is SubmitFault.ERROR_BEFORE:
            return as_json(self._refused(500, responses.SERVER_ERROR))
        if fault is SubmitFault.BAD_GATEWAY_BEFORE:
            return _page(502)
        return _page(520) if fault is SubmitFault.PROXY_BEFORE else self._cut(visit)

    async def after_accepting(
        self, fault: SubmitFault, request: web.Request, visit: FaultKey, answer: SandboxResponse, other: SandboxResponse
    ) -> web.StreamResponse:
        """The answer to a submit that was charged, as the storm lets it through.

        Args:
            other: the answer to another request.
        """
        if fault is SubmitFault.ERROR_AFTER:
            return as_json(self._refused(500, responses.SERVER_ERROR))
        if fault in (SubmitFault.BAD_GATEWAY_AFTER, SubmitFault.HTML_AFTER):
            return _page(502 if fault is SubmitFault.BAD_GATEWAY_AFTER else 200)
        if fault is SubmitFault.NO_ID:
            return as_json(SandboxResponse(status=200, value={"success": True, "type": responses.JOB_SET_TYPE}))
        if fault is SubmitFault.ERROR_TEXT:
            return as_json(self._refused(200, responses.SERVER_ERROR))
        if fault is SubmitFault.GARBAGE:
            return RawResponse(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        if fault is SubmitFault.RESET_AFTER:
            return self._cut(visit)
        return await self._spoil(fault.name, request, visit, answer, other)

    async def poll(
        self, fault: PollFault, request: web.Request, visit: FaultKey, answer: SandboxResponse, other: SandboxResponse
    ) -> web.StreamResponse:
        """The answer to a poll, as the storm lets it through."""
        if fault is PollFault.LAG:
            return as_json(self._refused(404, "Job set not found"))
        if fault is PollFault.ERROR:
            return as_json(self._refused(500, responses.SERVER_ERROR))
        if fault in (PollFault.BAD_GATEWAY, PollFault.HTML):
            return _page(502 if fault is PollFault.BAD_GATEWAY else 200)
        if fault is PollFault.THROTTLE:
            return as_json(self._too_many(self._generation_s, visit[2]))
        if fault is PollFault.RESET:
            return self._cut(visit)
        return await self._spoil(fault.name, request, visit, answer, other)

    async def _spoil(
        self, fault: str, request: web.Request, visit: FaultKey, answer: SandboxResponse, other: SandboxResponse
    ) -> web.StreamResponse:
        raw = raw_http(answer)
        if fault == "TRUNCATED":
            # The head announces the whole length, so the client can see that the body was cut.
            return RawResponse(raw[: -len(raw_body(answer)) // 2])
        if fault == "NOT_JSON":
            return _text(answer.status, raw_body(answer)[: len(raw_body(answer)) // 2])
        if fault == "WRONG_ANSWER":
            return as_json(other)
        if fault == "SECOND_ANSWER":
            # The second answer waits on the connection: a client that keeps it alive takes it for the answer to its
            # next call.
            return RawResponse(raw + raw_http(other), keep=True)
        if fault == "DUPLICATE":
            return RawResponse(raw + raw, keep=True)
        if fault == "SILENCE":
            await self._wait(request, SILENCE_FACTOR)
            return self._cut(visit)
        if fault == "STALL":
            await self._wait(request, self._stall_factor(visit))
        return as_json(answer)

    async def result(self, fault: ResultFault, request: web.Request, visit: FaultKey, file: Path) -> web.StreamResponse:
        """The clip's file, as the storm lets it through."""
        if fault is ResultFault.RESET:
            return self._cut(visit)
        if fault is ResultFault.ERROR:
            return _page(502)
        if fault is ResultFault.HTML:
            return _page(200)
        if fault is ResultFault.REDIRECT and "r" not in request.query:
            return web.Response(status=302, headers={"Location": str(request.rel_url.update_query(r="1"))})
        if fault is ResultFault.STALL:
            await self._wait(request, self._stall_factor(visit))
        if fault in (ResultFault.CUT, ResultFault.CUT_UNANNOUNCED, ResultFault.WRONG_CONTENT):
            return _spoiled_file(fault, await asyncio.to_thread(file.read_bytes))
        if self._inline:  # the library's file answer needs real threads
            return web.Response(body=_read(file), content_type="video/mp4")
        return web.FileResponse(file, headers={"Content-Type": "video/mp4"})

    def _cut(self, visit: FaultKey) -> web.StreamResponse:
        return CutConnection(hard=self._draw(visit) < 0.5)

    def _stall_factor(self, visit: FaultKey) -> float:
        low, high = STALL_FACTOR
        return low + (high - low) * self._draw(visit)

    def _draw(self, visit: FaultKey) -> float:
        return self.storm.wait_share(*visit) if self.storm is not None else 0.0

    async def _wait(self, request: web.Request, factor: float) -> None:
        """Wait that many generation times, or until the client has gone."""
        loop = asyncio.get_running_loop()
        end = loop.time() + factor * self._generation_s
        while loop.time() < end and request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110  # a lost client sets no event
            await asyncio.sleep(min(WATCH_S, max(end - loop.time(), 0.0)))


def _read(file: Path) -> bytes:
    return file.read_bytes()


def raw_body(answer: SandboxResponse) -> bytes:
    """The answer's JSON as bytes."""
    return json.dumps(answer.value).encode("ascii")


def raw_http(answer: SandboxResponse) -> bytes:
    """The whole answer as HTTP/1.1."""
    body = raw_body(answer)
    head = f"HTTP/1.1 {answer.status} OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode("ascii") + body


def _page(status: int) -> web.Response:
    title = _REASONS[status]
    return web.Response(status=status, body=HTML % (title, title), content_type="text/html")


def _text(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")


def _spoiled_file(fault: ResultFault, clip: bytes) -> web.StreamResponse:
    if fault is ResultFault.WRONG_CONTENT:
        return web.Response(body=b"\x89PNG\r\n\x1a\n" + clip[8:2048], content_type="video/mp4")
    # Without a length the body ends with its connection, and a cut looks like its end.
    length = f"Content-Length: {len(clip)}\r\n" if fault is ResultFault.CUT else ""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n{length}Connection: close\r\n\r\n"
    return RawResponse(head.encode("ascii") + clip[: len(clip) // 2])
