"""Local pictures through the gateway's own uploads: it names an address to upload to, and one to read at.

The address to upload to is a store's: it is signed, and never gets the gateway's key.
"""

from __future__ import annotations

import asyncio

import aiohttp

from pipeline.assets.object_store import StoreError
from pipeline.errors import UsageError
from pipeline.gateway.client import GatewayClient
from pipeline.gateway.kinds.interface import GatewayKind, UploadTicket
from pipeline.gateway.origin import Origin

TRIES = 4
"""Tries for one picture; each asks for a new address."""

FIRST_PAUSE_S = 1.0
"""Seconds before the second try, doubled each time."""

TIMEOUT_S = 120.0
"""Seconds for one upload of an input image, connecting and answer included."""


class GatewayUploads:
    """The uploads of one run."""

    def __init__(self, client: GatewayClient, kind: GatewayKind) -> None:
        self._client, self._kind = client, kind

    async def upload(self, content: bytes, content_type: str) -> str:
        """Upload one picture; return the address under which the gateway reads it. Free.

        Raises:
            StoreError: it can't be uploaded now.
        """
        for tries in range(TRIES):
            ticket = self._kind.read_upload(await self._client.ask(self._kind.upload_call(content_type)))
            if ticket is not None and await self._put(ticket, content, content_type):
                return ticket.public_url
            await asyncio.sleep(FIRST_PAUSE_S * 2**tries)
        raise StoreError("the gateway takes no picture now; run again later")

    async def _put(self, ticket: UploadTicket, content: bytes, content_type: str) -> bool:
        """Whether the store took it. The type that is sent must be the one that was asked for (official)."""
        try:
            # Without the query, where the signature is: `Origin` takes an address with one for a mistake.
            Origin(ticket.upload_url.partition("?")[0])
        except UsageError:
            raise StoreError("the gateway names an address to upload to that is not https") from None
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        headers = dict(ticket.headers)
        if "content-type" not in {name.lower() for name in headers}:
            headers["Content-Type"] = content_type
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
                session.put(ticket.upload_url, data=content, headers=headers, allow_redirects=False) as answer,
            ):
                return 200 <= answer.status <= 299
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
