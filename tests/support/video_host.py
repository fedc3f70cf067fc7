"""A host of videos that answers exactly the bytes a test hands it: cuts, lies and stalls included."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


def head(status: str = "200 OK", /, **headers: object) -> bytes:
    """A status line and headers; `content_length=5` becomes `Content-Length: 5`."""
    lines = [f"{name.replace('_', '-').title()}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def whole(body: bytes, **headers: object) -> bytes:
    """A whole, honest answer."""
    return head(content_type="video/mp4", content_length=len(body), **headers) + body


def chunked(body: bytes, *, ended: bool = True) -> bytes:
    """An answer in one chunk, with or without the last, empty one."""
    end = b"0\r\n\r\n" if ended else b""
    return head(transfer_encoding="chunked") + f"{len(body):x}\r\n".encode() + body + b"\r\n" + end


@dataclass(slots=True)
class VideoHost:
    """Gives `answers` in order, the last one for ever, one to a connection. `heads` are the requests as they came."""

    answers: Sequence[Answer]
    port: int = 0
    scheme: str = "http"
    heads: list[str] = field(default_factory=list)
    connections: int = 0
    at_work: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/clip.mp4"

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.at_work.add(asyncio.create_task(self.serve(reader, writer)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = self.answers[min(self.connections, len(self.answers) - 1)]
        self.connections += 1
        try:
            await self.answer_one(answer, reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError, TimeoutError):
                await writer.wait_closed()

    async def answer_one(self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)


@asynccontextmanager
async def video_host(*answers: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[VideoHost]:
    """A running host on 127.0.0.1, any free port."""
    host = VideoHost(answers, scheme="https" if tls else "http")
    server = await asyncio.start_server(host.accept, "127.0.0.1", 0, ssl=tls)
    host.port = server.sockets[0].getsockname()[1]
    try:
        yield host
    finally:
        server.close()
        for task in host.at_work:
            task.cancel()
        await asyncio.gather(*host.at_work, return_exceptions=True)
        await server.wait_closed()
