"""The callback receiver: a small HTTP server that hands on which of our requests somebody called about. Nothing else.

It never tells a caller anything but a status, never reads more than BODY_CAP_BYTES, gives every connection one request
and DEADLINE_S in all, and takes nobody's word: a delivery with our token makes somebody look, that is all it can do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from pipeline.gateway.webhook_tokens import PATH, CallbackDelivery, WebhookTokens, ids_in, same_secret

BODY_CAP_BYTES = 64 * 1024
DEADLINE_S = 10.0
"""of one connection, from its first byte to its last: the server library has no deadline for headers or bodies"""
MAX_CONNECTIONS = 256

SECRET_HEADER = "X-Webhook-Secret-Key"  # noqa: S105 - a header's name. Source: official SDK
SIGNATURE_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
"""Source: Standard Webhooks (official, newest scheme)."""


class WebhookServer:
    """`start` it, `close` it. `taken` is told each delivery that proved itself, and must return at once."""

    def __init__(
        self, keys: WebhookTokens, taken: Callable[[CallbackDelivery], None], *, deadline_s: float = DEADLINE_S
    ) -> None:
        self._keys = keys
        self._taken = taken
        self._deadline_s = deadline_s
        app = web.Application()
        # A proxy may leave a prefix of its own before ours.
        app.router.add_post("/{before:.*}" + PATH.strip("/") + "/{token}", self._take)
        self._runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=1.0)
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listens; returns the port (another one when 0 was asked).

        Raises:
            OSError: it cannot be had.
        """
        await self._runner.setup()
        try:
            self._server = await asyncio.get_running_loop().create_server(self._connection, host, port)
        except OSError:
            await self._runner.cleanup()
            raise
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stops listening; deliveries under way are answered."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    def _connection(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None
        connection = server()
        wait_s = self._deadline_s if len(server.connections) < MAX_CONNECTIONS else 0.0
        asyncio.get_running_loop().call_later(wait_s, _cut, connection)
        return connection

    async def _take(self, request: web.Request) -> web.Response:
        delivery = self._keys.read(request.match_info["token"])
        if delivery is None:
            return _answer(404)
        body = await _read(request)
        if body is None:
            return _answer(413)
        if not self._proved(request, body, delivery):
            return _answer(401)
        self._taken(replace(delivery, job_set_ids=ids_in(body)))
        return _answer(204)

    def _proved(self, request: web.Request, body: bytes, delivery: CallbackDelivery) -> bool:
        """Whether the proof that is offered is right. Without any (queue dialect) the token in the path is the proof.

        API: which of the two forms this gateway sends is not documented; the secret in clear decides where it is there.
        """
        secret = self._keys.secret(delivery.request_id, delivery.attempt)
        given = request.headers.get(SECRET_HEADER)
        if given is not None:
            return same_secret(given, secret)
        if SIGNATURE_HEADERS[-1] not in request.headers:
            return True
        with suppress(WebhookVerificationError, ValueError):  # the library raises ValueErrors for malformed headers
            Webhook(secret).verify(body, dict(request.headers), json_parse=False)
            return True
        return False


async def _read(request: web.Request) -> bytes | None:
    """The body; None when it is longer than it may be."""
    body = bytearray()
    async for block in request.content.iter_any():
        body += block
        if len(body) > BODY_CAP_BYTES:
            return None
    return bytes(body)


def _answer(status: int) -> web.Response:
    """One request a connection: a kept one would outlive its deadline."""
    response = web.Response(status=status, headers={"Server": "dop"})
    response.force_close()
    return response


def _cut(connection: object) -> None:
    transport = getattr(connection, "transport", None)
    if transport is not None:
        transport.abort()
