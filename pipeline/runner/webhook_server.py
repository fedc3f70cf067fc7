"""The callback receiver: a small HTTP server that hands on which of our requests a caller named. Nothing else.

The token in the path decides. A caller gets a status and no other words; the server reads at most BODY_CAP_BYTES, gives
a connection one request and DEADLINE_S in all, and logs nothing that a caller wrote: it may hold tokens and secrets.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from pipeline.gateway.webhook_tokens import PATH, CallbackDelivery, WebhookTokens, ids_in, same_secret

BODY_CAP_BYTES = 64 * 1024
"""Longest body of a callback, in bytes; the longest known one is under 20 kB."""

DEADLINE_S = 10.0
"""Seconds of one connection, from its first byte to its last: the server library has no deadline for headers."""

MAX_CONNECTIONS = 256
"""Connections at a time; more are closed at once, so that slow callers cannot use up the process's file handles."""

SECRET_HEADER = "X-Webhook-Secret-Key"  # noqa: S105 - a header's name. Source: official SDK
SIGNATURE_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
"""Source: Standard Webhooks (official, newest scheme)."""

UNVERIFIED = "a callback's signature could not be verified: the token in its path counts, the signature does not"
"""Warning for a signature that fits neither our secret nor the account's: logged once a process, then counted."""

_SILENT = logging.Logger("pipeline.webhook.silent")
"""For the server library, whose tracebacks quote what it could not parse: tokens and secrets of a broken callback.

It has no parent, so that nothing reaches the handlers of the process."""
_SILENT.addHandler(logging.NullHandler())


class WebhookServer:
    """`start` it, `close` it.

    Args:
        taken: gets each delivery that proved itself, and must return at once. What it raises is answered 503, so that
            the gateway delivers again.
        warn: gets words about deliveries, without anything that a caller wrote.
        signing_secret: of the account at the upstream vendor (`whsec_...`), where it is configured.
    """

    def __init__(
        self,
        keys: WebhookTokens,
        taken: Callable[[CallbackDelivery], None],
        *,
        warn: Callable[[str], None] = lambda text: None,
        signing_secret: str | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._keys = keys
        self._taken = taken
        self._warn = warn
        self._signing_secret = signing_secret
        self._deadline_s = deadline_s
        self._warned: set[str] = set()
        app = web.Application(logger=_SILENT)
        # A proxy may leave a prefix of its own before ours.
        app.router.add_post("/{before:.*}" + PATH.strip("/") + "/{token}", self._take)
        self._runner = web.AppRunner(app, access_log=None, logger=_SILENT, auto_decompress=False, shutdown_timeout=1.0)
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
        """Stops listening; deliveries in flight are answered."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    def _connection(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None
        connection = server()
        # With 0 s the connection is cut in the loop's next turn, before anything of it is read.
        wait_s = self._deadline_s if len(server.connections) < MAX_CONNECTIONS else 0.0
        asyncio.get_running_loop().call_later(wait_s, _cut, connection)
        return connection

    async def _take(self, request: web.Request) -> web.Response:
        delivery = self._keys.read(request.match_info["token"])
        if delivery is None:
            return _answer(404)
        # After the token: a caller without one costs no memory.
        body = await _read(request)
        if body is None:
            return _answer(413)
        if not self._has_right_secret(request, delivery):
            return _answer(401)
        self._check_signature(request, body, delivery)
        try:
            self._taken(replace(delivery, job_set_ids=ids_in(body)))
        except BaseException as error:  # noqa: BLE001 - API: a 4xx or a cut ends the delivery, a 503 repeats it
            self._warn_once(f"a callback could not be kept ({type(error).__name__}): answered 503")
            return _answer(503)
        return _answer(204)

    def _has_right_secret(self, request: web.Request, delivery: CallbackDelivery) -> bool:
        """Whether `webhook_secret`, where it comes back in clear, is the attempt's own."""
        given = request.headers.get(SECRET_HEADER)
        return given is None or same_secret(given, self._keys.secret(delivery.request_id, delivery.attempt))

    def _check_signature(self, request: web.Request, body: bytes, delivery: CallbackDelivery) -> None:
        """Warn of a signature that fits no secret we know.

        API: the upstream signs with a secret of its account, which a reseller's customer cannot know, so a signature
        that does not fit is no reason to refuse: the token in the path has decided.
        """
        if SIGNATURE_HEADERS[-1] not in request.headers or SECRET_HEADER in request.headers:
            return
        for secret in (self._keys.secret(delivery.request_id, delivery.attempt), self._signing_secret):
            if secret is None:
                continue
            with suppress(WebhookVerificationError, ValueError):  # ValueErrors for malformed headers and secrets
                Webhook(secret).verify(body, dict(request.headers), json_parse=False)
                return
        self._warn_once(UNVERIFIED)

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._warn(text)


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
