"""One response, read up to a cap and without the key, which a gateway may quote back in an error."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import aiohttp

from pipeline.gateway.allowance_headers import HEADER_PREFIXES
from pipeline.gateway.gzip_stream import unpacked
from pipeline.gateway.redaction import blank_everywhere
from pipeline.gateway.responses import Response

BODY_CAP_BYTES: Final = 1 << 20
"""Bytes of a decompressed response that are read; the longest known one is under 20 kB."""
READ_BYTES: Final = 1 << 16
"""Bytes that are read of a response at a time (64 KiB), so that the limit on its size stops it early."""
MIN_SECRET_CHARS: Final = 8
"""A key of fewer characters (a sandbox's) is no secret, and blanking it out would maim the responses."""

_REMEMBERED_TEXTS: Final = 256
"""Texts of headers and errors of which a client remembers what they are without the key."""

KEPT_HEADERS: Final = frozenset(
    {
        "content-type",
        "date",
        "location",
        "retry-after",
        "server",
        "x-correlation-id",
        "x-request-id",
        "x-should-retry",
    }
)


@dataclass(slots=True)
class PartialResponse:
    """What has been read of one answer so far."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    encoding: str = ""
    complete: bool = False
    what: str = ""
    is_permanent: bool = False


class ResponseReader:
    """The responses of one client: at most `cap_bytes` of each, and none of the secrets in it."""

    def __init__(self, *, secrets: Iterable[str], cap_bytes: int) -> None:
        self._secrets = tuple(secret for secret in secrets if len(secret) >= MIN_SECRET_CHARS)
        self._cap_bytes = cap_bytes
        self._blanked = lru_cache(_REMEMBERED_TEXTS)(self._blank_text)

    async def read(self, response: aiohttp.ClientResponse, taken: PartialResponse) -> None:
        """Read one answer up to the cap. What was read stays in `taken` whatever happens then."""
        taken.status = response.status
        taken.encoding = response.headers.get("Content-Encoding", "").strip().lower()
        named = ((name.lower(), value) for name, value in response.headers.items())
        taken.headers = {name: value for name, value in named if _kept(name)}
        try:
            # One byte beyond the cap is read: it is the difference between a body that ends there and a longer one.
            while (room := self._cap_bytes + 1 - len(taken.body)) > 0:
                block = await response.content.read(min(READ_BYTES, room))
                if not block:
                    taken.complete = True
                    return
                taken.body += block
        finally:
            if taken.complete:
                # A whole answer leaves a clean connection for the next poll; after a broken one the rest of it would be
                # read as the next answer.
                response.release()
            else:
                response.close()

    def response(self, taken: PartialResponse) -> Response:
        """What was read as a record."""
        body, is_whole = unpacked(bytes(taken.body), taken.encoding, self._cap_bytes)
        what = f"the answer is longer than {self._cap_bytes} bytes" if len(body) > self._cap_bytes else taken.what
        return Response(
            status=taken.status or 0,
            headers={name: self.blank_text(value) for name, value in taken.headers.items()},
            body=self._blank(body[: self._cap_bytes]),
            complete=taken.complete and is_whole,
            what="" if taken.complete and is_whole else self.blank_text(what or "it came compressed, and not whole"),
        )

    def _blank(self, said: bytes) -> bytes:
        """`said` without the key: a gateway may quote it back in an error."""
        for secret in self._secrets:
            said = blank_everywhere(said, secret)
        return said

    def blank_text(self, said: str) -> str:
        """`said` without the key. Headers say the same in most answers of a second: what became of them is known."""
        return self._blanked(said)

    def _blank_text(self, said: str) -> str:
        return self._blank(said.encode("utf-8", "replace")).decode("utf-8")


def _kept(name: str) -> bool:
    return name in KEPT_HEADERS or name.startswith(HEADER_PREFIXES)
