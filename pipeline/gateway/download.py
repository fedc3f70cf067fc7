"""The download of a video: one guarded GET of a result URL into a file that is whole or not there at all.

It must never carry the key, a cookie or a referrer, never connect to an address that `ssrf_rules` refuses, never leave
anything under a final name but a whole, durable MP4, and never retry: that is for the caller to decide. A body that was
cut is continued where it ended, if the server can prove that it is the same one.
"""

from __future__ import annotations

import asyncio
import errno
import math
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

import aiohttp
from yarl import URL

from pipeline.config.network import NetworkEnvironment
from pipeline.files import TOO_MANY_FILES, remedy
from pipeline.gateway.download_outcomes import (
    DiskFull,
    DownloadOutcome,
    LinkExpired,
    Saved,
    TransientFailure,
    Unacceptable,
)
from pipeline.gateway.error_text import wait_hint_s
from pipeline.gateway.mp4_check import Mp4Fault, Mp4FaultKind
from pipeline.gateway.part_file import PartFile
from pipeline.gateway.partial_body import MAX_PIECES, PartialBody
from pipeline.gateway.ssrf_connector import guarded_connector, track_connects
from pipeline.gateway.ssrf_rules import readable_url, refused_host

MAX_BYTES = 512 * 1024 * 1024
"""Cap of one video. Inferred: a clip of 5 s at 1080p has 5-20 MB."""

TOTAL_TIMEOUT_S = 900.0
"""Longest transfer of one video: a server that drips a byte now and then holds a place no longer than this.
The price: a video of the largest size needs 0.6 MB/s, one of 20 MB needs 23 kB/s."""

BLOCK_BYTES = 512 * 1024
"""What is written at once: large enough that threads cost nothing, small enough that 16 downloads fit in memory."""

DISK_THREADS = 4
"""Threads that write videos, so that a slow disk does not stop the event loop."""

HEADERS = {"Accept": "video/mp4, */*;q=0.5", "Accept-Encoding": "identity", "User-Agent": "dop-batch"}

REDIRECTS = frozenset({301, 302, 303, 307, 308})

GONE = frozenset({400, 401, 403, 404, 410, 451})
"""The URL will not give the video (any more). Signed URLs that expired answer 400, 401 or 403, each store its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Redirect:
    location: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arrived:
    """The whole video is in the part, not yet durable."""

    size_bytes: int
    content_type: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """The connection failed: what came before may be continued."""

    failure: TransientFailure


_Step = DownloadOutcome | _Redirect | _Arrived


_P = ParamSpec("_P")
_T = TypeVar("_T")


class _DiskError(Exception):
    """A file operation failed; kept apart from the network's OSErrors."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror)
        self.outcome: DiskFull | TransientFailure
        if isinstance(error, BlockingIOError):
            self.outcome = TransientFailure(reason="another run is downloading the same video")
        elif error.errno in TOO_MANY_FILES:
            self.outcome = TransientFailure(reason="too many open files")
        elif error.errno is None:
            self.outcome = TransientFailure(reason=f"{type(error).__name__}: {error}".rstrip(": "))
        else:
            reason = error.strerror or errno.errorcode.get(error.errno or 0, "disk")
            self.outcome = DiskFull(reason=reason, remedy=remedy(error))


class VideoFetcher:
    """Fetches videos, each in one guarded GET. Use it as an async context manager; calls may run side by side.

    A connection is used once: an unrequested response, waiting on an idle connection, would otherwise be saved
    as another job's video.

    Args:
        gateway_is_loopback: lets `http` URLs and loopback addresses through as well.
        max_bytes: cap of one video, on what is announced and on what comes.
        total_timeout_s: longest transfer, all redirects included.
        ssl_context: for tests; default is the system's trust.
        network: the proxies and certificates of the environment.
        wall: Unix seconds, to read a date in Retry-After that comes without a Date; else it is the shortest wait.
    """

    def __init__(
        self,
        *,
        gateway_is_loopback: bool,
        max_bytes: int = MAX_BYTES,
        connect_timeout_s: float = 10,
        read_timeout_s: float = 60,
        total_timeout_s: float = TOTAL_TIMEOUT_S,
        max_redirects: int = 3,
        ssl_context: ssl.SSLContext | None = None,
        network: NetworkEnvironment | None = None,
        wall: Callable[[], float] | None = None,
    ) -> None:
        self._loopback = gateway_is_loopback
        self._max_bytes = max_bytes
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=connect_timeout_s, sock_connect=connect_timeout_s, sock_read=read_timeout_s
        )
        self._total_timeout_s = total_timeout_s
        self._max_redirects = max_redirects
        self._network = network if network is not None else NetworkEnvironment()
        self._ssl = ssl_context if ssl_context is not None else self._network.ssl_context()
        self._wall = wall
        self._session: aiohttp.ClientSession | None = None
        self._disk = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="video-file")

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=self._connector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=HEADERS,
            timeout=self._timeout,
            auto_decompress=False,
            read_bufsize=BLOCK_BYTES,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
        # Not awaited: a write to a network disk that hangs would hang the end of the run; threads end with their call.
        self._disk.shutdown(wait=False)

    async def fetch(self, url: str, target: Path) -> DownloadOutcome:
        """Download `url` to `target`, whose folder must exist; an existing file is replaced only by a whole video.

        Returns:
            Saved when the video has its final name. Anything else, and a cancelled call, leaves no file.
        Writes: `target` (mode 0600), and `<target>.part` while it runs.
        Source: inferred from public material about result URLs; the API document says nothing about them.
        """
        part = self._part(target)
        try:
            step = await self._in_time(url, part)
            if not isinstance(step, _Arrived):
                return step
            sha256 = await self._on_disk(part.keep)
            return Saved(size_bytes=step.size_bytes, sha256=sha256, content_type=step.content_type)
        except _DiskError as failed:
            return failed.outcome
        finally:
            with suppress(_DiskError):
                await self._on_disk(part.discard)

    async def _in_time(self, url: str, part: PartFile) -> DownloadOutcome | _Arrived:
        try:
            async with asyncio.timeout(self._total_timeout_s):
                return await self._follow(url, part)
        except TimeoutError:
            return TransientFailure(reason=f"not through after {self._total_timeout_s:g} s")

    async def _follow(self, url: str, part: PartFile) -> DownloadOutcome | _Arrived:
        """Redirects by hand, so that every hop is judged like the first."""
        base, secure = "", False
        for _ in range(self._max_redirects + 1):
            # `secure`: a chain that was https once must not go on over http, where the video could be exchanged.
            hop = readable_url(url, http_allowed=self._loopback and not secure, base=base)
            if isinstance(hop, Unacceptable):
                return hop
            step = await self._one_get(hop, part)
            if not isinstance(step, _Redirect):
                return step
            url, base, secure = step.location, str(hop), secure or hop.scheme == "https"
        return TransientFailure(reason=f"more than {self._max_redirects} redirects")

    async def _one_get(self, url: URL, part: PartFile) -> _Step:
        assert self._session is not None, "use it as `async with VideoFetcher(...)`"
        proxy = self._network.proxy_for(str(url))
        # Through a proxy our socket goes to the proxy only, so the guard at the socket never sees the target.
        if proxy is not None and (why_not := refused_host(url.host or "", loopback_allowed=self._loopback)):
            return Unacceptable(reason=f"{url.host}: {why_not}")
        body = PartialBody()
        step = await self._one_piece(url, part, body, proxy)
        for _ in range(MAX_PIECES - 1):
            # MONEY: what came is not thrown away, but two halves are joined only where a strong ETag proves that they
            # are one body.
            if not (isinstance(step, _Cut) and body.can_continue):
                break
            step = await self._one_piece(url, part, body, proxy)
        return step.failure if isinstance(step, _Cut) else step

    async def _one_piece(self, url: URL, part: PartFile, body: PartialBody, proxy: str | None) -> _Step | _Cut:
        """One answer: the whole body, or the rest of one that was cut."""
        assert self._session is not None
        connects = track_connects(proxy)
        try:
            async with self._session.get(
                url, allow_redirects=False, proxy=proxy, headers=body.request_headers
            ) as response:
                if body.received_bytes:
                    if not body.is_continued_by(response.status, response.headers):
                        return TransientFailure(reason=f"{url.host}: the body was cut, and the rest is not to be had")
                else:
                    refused = self._refused_answer(response)
                    if refused is not None:
                        return refused
                    body.begin(response.headers, response.content_length)
                # Before any wait for the disk: of a connection that breaks meanwhile, the library gives out nothing
                # that it had not given out before.
                first = await _read_block(response.content)
                # Only now: a link that has expired, or a refusal, leaves no file behind and holds no lock.
                if not body.received_bytes:
                    await self._on_disk(part.claim)
                return await self._receive(response, part, body, first)
        except (aiohttp.InvalidURL, UnicodeError):
            return Unacceptable(reason=f"{url.host}: not an address that can be called")
        except (aiohttp.ClientError, OSError) as error:
            # A name may have a private and a public address; only where every one was refused is the link to blame.
            if connects.refused and not connects.allowed:
                return Unacceptable(reason=f"{url.host}: {connects.refused[0]}")
            return _Cut(failure=TransientFailure(reason=f"{url.host}: {_words(error)}"))

    def _refused_answer(
        self, response: aiohttp.ClientResponse
    ) -> LinkExpired | TransientFailure | Unacceptable | _Redirect | None:
        """What the head of the answer decides; None when the video may follow."""
        status = response.status
        if status in REDIRECTS and "Location" in response.headers:
            return _Redirect(location=response.headers["Location"])
        if status in GONE:
            return LinkExpired(status=status)
        if status != 200:
            return TransientFailure(reason=f"answered {status}", wait_s=self._wait_hint_s(response.headers))
        if (response.content_length or 0) > self._max_bytes:
            return Unacceptable(
                reason=f"too large: {response.content_length} bytes announced, {self._max_bytes} allowed"
            )
        return None

    async def _receive(
        self, response: aiohttp.ClientResponse, part: PartFile, body: PartialBody, first: bytes
    ) -> Unacceptable | TransientFailure | _Arrived:
        walk = body.boxes
        block = body.add(first)
        gunzip = body.gunzip
        while block:
            for piece in gunzip.feed(block) if gunzip else (block,):
                walk.feed(piece)
                # Counted as it comes, after decompression: what was announced may be a lie, and a small gzip can be a
                # bomb.
                if walk.size_bytes > self._max_bytes:
                    return Unacceptable(reason=f"too large: more than {self._max_bytes} bytes")
                if walk.fault:
                    return _as_outcome(walk.fault)
                await self._on_disk(part.write, piece)
            block = body.add(await _read_block(response.content))
        if gunzip and not gunzip.whole:
            return TransientFailure(reason="it came compressed, and not whole")
        fault = walk.verdict(length_proven=gunzip is not None or self._length_proven(response))
        if fault:
            return _as_outcome(fault)
        return _Arrived(size_bytes=walk.size_bytes, content_type=response.headers.get("Content-Type"))

    def _length_proven(self, response: aiohttp.ClientResponse) -> bool:
        """Whether a cut would have raised: a body that ends with its connection looks whole wherever it is cut."""
        chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        return chunked or response.content_length is not None

    def _wait_hint_s(self, headers: Mapping[str, str]) -> float | None:
        named = {name.lower(): headers[name] for name in ("Retry-After", "Date") if name in headers}
        return wait_hint_s(named, "", now_wall=self._wall() if self._wall else math.inf)

    def _connector(self) -> aiohttp.TCPConnector:
        return guarded_connector(loopback_allowed=self._loopback, ssl_context=self._ssl)

    def _part(self, target: Path) -> PartFile:
        """The file that it grows in; a test breaks it on purpose."""
        return PartFile(target)

    async def _on_disk(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run a blocking file operation in a thread. A cancelled caller leaves; the operation still runs to its end."""
        loop = asyncio.get_running_loop()
        work = asyncio.ensure_future(loop.run_in_executor(self._disk, lambda: _storable(call, *args, **kwargs)))
        # A caller that was cancelled takes no result; without this the loop would report the error as never retrieved.
        work.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            return await asyncio.shield(work)
        except OSError as error:
            raise _DiskError(error) from error


def _storable(call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call it; a StopIteration, which no future can hold and whose caller would wait for ever, is another error."""
    try:
        return call(*args, **kwargs)
    except StopIteration as error:
        raise RuntimeError(f"StopIteration: {error}") from None


async def _read_block(stream: aiohttp.StreamReader) -> bytes:
    """The next BLOCK_BYTES or a little more; less only at the end or before a cut, empty after it."""
    block = bytearray()
    try:
        while len(block) < BLOCK_BYTES and (data := await stream.readany()):
            block += data
    except (aiohttp.ClientError, OSError):
        if not block:
            raise
        # What came before the cut is kept: the next reading raises again.
    return bytes(block)


def _as_outcome(fault: Mp4Fault) -> Unacceptable | TransientFailure:
    return (
        TransientFailure(reason=fault.reason) if fault.kind is Mp4FaultKind.CUT else Unacceptable(reason=fault.reason)
    )


def _words(error: Exception) -> str:
    """What happened, without the library's own text: that repeats the URL with its signature."""
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the body was cut"
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection ({error.os_error.strerror or type(error.os_error).__name__})"
    return type(error).__name__
