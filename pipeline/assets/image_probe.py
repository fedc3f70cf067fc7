"""One probe of an image that the gateway will fetch: is it there, and is it a picture. Free, and guarded.

It reads the beginning of the file and no more, carries no key, cookie or referrer, and never says "bad" of what it
only could not reach: the gateway is elsewhere in the network than this machine.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import re
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import aiohttp
from aiolimiter import AsyncLimiter
from yarl import URL

from pipeline.assets.image_header import ImageHeader, read_image_header
from pipeline.assets.probe_results import ProbeResult, ProbeStatus, bad, unsure
from pipeline.config.network import NetworkEnvironment
from pipeline.gateway.download_outcomes import Unacceptable
from pipeline.gateway.ssrf_connector import ConnectAudit, guarded_connector, track_connects
from pipeline.gateway.ssrf_rules import readable_url, refused_host

HEAD_BYTES = 64 * 1024
"""Bytes of a picture's beginning that are hashed, so that another picture under the same address is noticed."""
MAX_BYTES = 1024 * 1024
"""Bytes that are read at the most, where a picture's size comes after a large EXIF block or colour profile."""
PROBE_TIMEOUT_S = 10.0
"""Seconds for one probe with its redirects; a slower host is reported as unsure, and does not stop the run."""
PER_HOST = 4
"""Connections to one host at a time."""

PROBES_PER_S = 50.0
"""Probes of one host in a second, and at once at the most: a host that answers in a millisecond would get thousands."""

MAX_REDIRECTS = 3
"""Redirects that are followed for one picture, so that a loop ends."""

GONE = frozenset({404, 410})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
HEADERS = {
    "Accept": "image/*, */*;q=0.5",
    "Accept-Encoding": "identity",
    "Range": f"bytes=0-{MAX_BYTES - 1}",
    "User-Agent": "dop-batch",
}
_TOTAL = re.compile(r"bytes \d+-\d+/(\d+)")


class ImageProbe:
    """Probes images; use it as an async context manager. Calls may run side by side.

    Args:
        gateway_is_loopback: lets loopback addresses through: a gateway of this machine can fetch from them.
        network: the proxies and certificates of the environment.
    """

    def __init__(
        self,
        *,
        gateway_is_loopback: bool,
        timeout_s: float = PROBE_TIMEOUT_S,
        network: NetworkEnvironment | None = None,
    ) -> None:
        self._network = network if network is not None else NetworkEnvironment()
        self._loopback = gateway_is_loopback
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._rates: dict[str, AsyncLimiter] = {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=guarded_connector(
                loopback_allowed=self._loopback, per_host=PER_HOST, ssl_context=self._network.ssl_context()
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=HEADERS,
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def probe(self, url: str, *, etag: str = "") -> ProbeResult:
        """Probe `url`. With the `etag` of an earlier probe the response may be `unchanged`, and nothing else."""
        async with self._rates.setdefault(_host(url), AsyncLimiter(PROBES_PER_S, 1.0)):
            return await self._probe_in_time(url, etag)

    async def _probe_in_time(self, url: str, etag: str) -> ProbeResult:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(url, etag)
        except TimeoutError:
            return unsure(f"did not answer within {self._timeout_s:g} s")

    async def _follow(self, url: str, etag: str) -> ProbeResult:
        base = ""
        for _ in range(MAX_REDIRECTS + 1):
            hop = readable_url(url, http_allowed=True, base=base)
            if isinstance(hop, Unacceptable):
                return bad(hop.reason) if not base else unsure(f"redirects to what is {hop.reason}")
            found = await self._one_get(hop, etag)
            if isinstance(found, ProbeResult):
                return found
            url, base = found, str(hop)
        return unsure(f"redirects more than {MAX_REDIRECTS} times")

    async def _one_get(self, url: URL, etag: str) -> ProbeResult | str:
        """One GET: what it saw, or where it was sent on to."""
        assert self._session is not None, "use it as `async with ImageLooker(...)`"
        proxy = self._network.proxy_for(str(url))
        if proxy is not None and (why_not := refused_host(url.host or "", loopback_allowed=self._loopback)):
            return bad(f"leads to a host that {why_not}: the gateway can't see it")
        connects = track_connects(proxy)
        headers = {"If-None-Match": etag} if etag else {}
        try:
            async with self._session.get(url, headers=headers, allow_redirects=False, proxy=proxy) as answer:
                if answer.status in REDIRECTS and "Location" in answer.headers:
                    return answer.headers["Location"]
                return await _seen(answer, etag)
        except (aiohttp.InvalidURL, UnicodeError):
            return bad("is not an address that can be called")
        except (aiohttp.ClientError, OSError) as error:
            return _unreached(url, connects, error)


def _unreached(url: URL, connects: ConnectAudit, error: Exception) -> ProbeResult:
    if connects.refused and not connects.allowed:
        # A name may mean another address to the gateway; a number means the same to everybody.
        found = f"leads to {connects.refused[0]}"
        return bad(f"{found}: the gateway can't see it") if _is_number(url.host or "") else unsure(found)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return unsure("its name can't be resolved from here")
    if isinstance(error, aiohttp.ClientPayloadError):
        return unsure("its answer was cut")
    return unsure("can't be reached from here")


def _host(url: str) -> str:
    """The host that a URL names; "" for one that can't be read, which the probe refuses."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _seen(answer: aiohttp.ClientResponse, etag: str) -> ProbeResult:
    if answer.status in GONE:
        return bad(f"answers {answer.status}: it is not there")
    if answer.status == 304 and etag:
        return ProbeResult(kind=ProbeStatus.GOOD, etag=etag, unchanged=True)
    if answer.status not in (200, 206):
        return unsure(f"answers {answer.status}")
    data, picture = await _beginning(answer)
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        return unsure("comes compressed, although that was not asked for")
    if picture is None:
        return bad(_what_instead(answer, data))
    return ProbeResult(
        kind=ProbeStatus.GOOD,
        picture=picture.kind,
        width=picture.width,
        height=picture.height,
        size_bytes=_whole_size(answer),
        head_sha256=hashlib.sha256(data[:HEAD_BYTES]).hexdigest(),
        etag=answer.headers.get("ETag", "")[:200],
    )


async def _beginning(answer: aiohttp.ClientResponse) -> tuple[bytes, ImageHeader | None]:
    """The first bytes, as many as it takes: HEAD_BYTES for the hash, more only while the size is not known."""
    data = bytearray()
    picture: ImageHeader | None = None
    async for block in answer.content.iter_any():
        data += block
        if len(data) >= MAX_BYTES:
            break
        if len(data) >= HEAD_BYTES:
            picture = read_image_header(bytes(data))
            # The kind shows in the first bytes; a JPEG's size may stand behind a long block of EXIF data, so more is
            # read.
            if picture is None or picture.width is not None:
                break
    return bytes(data), read_image_header(bytes(data))


def _what_instead(answer: aiohttp.ClientResponse, data: bytes) -> str:
    if not data:
        return "is empty"
    said = answer.headers.get("Content-Type", "").partition(";")[0].strip()[:60]
    printable = said if said.isascii() and said.isprintable() else ""
    return f"is not a JPEG, PNG or WebP by its content{f' (it says {printable})' if printable else ''}"


def _whole_size(answer: aiohttp.ClientResponse) -> int | None:
    if answer.status == 200:
        return answer.content_length
    match = _TOTAL.fullmatch(answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else None
