"""A raw TCP gateway that sends exactly the bytes of its script, and remembers every byte it was sent."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

ANSWER_BODY = b'{"job_set_id": "a1", "type": "image2video"}'


def http(
    body: bytes = ANSWER_BODY, *, status: str = "200 OK", headers: bytes = b"", length: int | None = None
) -> bytes:
    """A whole HTTP answer; `length` lies about Content-Length."""
    size = len(body) if length is None else length
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status.encode(), size, headers, body)


@dataclass
class Caller:
    """One connection, as the script sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int
    heard: bytearray = field(default_factory=bytearray)
    whole_requests: int = 0

    async def read_head(self) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.heard += head
        return head

    async def read_request(self) -> bytes:
        """Reads one whole request and counts it."""
        head = await self.read_head()
        sizes = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        body = await self.reader.readexactly(int(sizes[0].split(b":")[1])) if sizes else b""
        self.heard += body
        self.whole_requests += 1
        return head + body

    async def read_some(self, size: int) -> None:
        """Reads once, at most `size` bytes, whatever they are; counts the request if it happened to be whole."""
        self.heard += await self.reader.read(size)
        head, _, body = bytes(self.heard).partition(b"\r\n\r\n")
        sizes = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        self.whole_requests = int(bool(sizes) and len(body) >= int(sizes[0].split(b":")[1]))

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Breaks the connection off with RST instead of FIN."""
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def stall(self) -> None:
        """Says nothing more until the other side gives up."""
        await self.reader.read()


Script = Callable[[Caller], Awaitable[None]]


class ScriptedGateway:
    """`async with ScriptedGateway(script) as gateway`: one call of `script` per connection, closed when it returns."""

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._tls = tls
        self._running: set[asyncio.Task[None]] = set()
        self.callers: list[Caller] = []
        self.url = ""

    @property
    def heard(self) -> bytes:
        return b"".join(bytes(caller.heard) for caller in self.callers)

    @property
    def whole_requests(self) -> int:
        return sum(caller.whole_requests for caller in self.callers)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        caller = Caller(reader, writer, len(self.callers))
        self.callers.append(caller)
        try:
            await self._script(caller)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._running.discard(task)
            writer.close()
