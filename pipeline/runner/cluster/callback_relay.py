"""Callbacks among several workers: whichever host is called, the worker that waits for the job polls it.

A call that this host has no use for goes to all of them through the database (NOTIFY). It is a hint and nothing else:
lost ones cost polls. Must never: believe what a call says, or keep the gateway waiting for its answer.
"""

from __future__ import annotations

import asyncio
import errno
import json
import secrets
from collections.abc import Callable
from contextlib import suppress

import psycopg

from pipeline.config.settings import Settings
from pipeline.errors import LedgerUnavailableError, UsageError
from pipeline.gateway.webhook_tokens import MAX_IDS, SEED_BYTES, CallbackDelivery, WebhookTokens
from pipeline.ledger.postgres_session import cause_of, client
from pipeline.runner.callback_inbox import answers_as_ours, check_reachable, listen_address, netloc
from pipeline.runner.cluster.tables import ONE_AT_A_TIME
from pipeline.runner.submit_body import CallbackAddresses
from pipeline.runner.webhook_server import WebhookServer

CHANNEL = "dop_calls"
MAX_WAITING = 10_000
"""Calls that wait to be passed on; more than that are answered 503, so that they are delivered again."""
MAX_ID_CHARS = 200
"""Characters of an id that is passed on: a notification holds 8,000 bytes. Source: PostgreSQL, NOTIFY."""
RETRY_INTERVAL_S = 5.0
"""Seconds after which a lost connection is reopened, and a port that another worker had is asked for again."""
_AWAY = (psycopg.Error, OSError)


def shared_keys(url: str, gateway: str) -> WebhookTokens:
    """The tokens of this ledger at this gateway, the same on all hosts; the first worker makes their seed.

    Raises:
        LedgerUnavailableError: the database can't be asked.
    """
    try:
        with psycopg.connect(url, **client(url)) as connection:
            # CREATE TABLE IF NOT EXISTS fails with a duplicate key when two sessions run it at the same time.
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (ONE_AT_A_TIME,))
            connection.execute("CREATE TABLE IF NOT EXISTS dop_seeds (gateway text PRIMARY KEY, seed bytea NOT NULL)")
            mine = (gateway, secrets.token_bytes(SEED_BYTES))
            connection.execute("INSERT INTO dop_seeds (gateway, seed) VALUES (%s, %s) ON CONFLICT DO NOTHING", mine)
            found = connection.execute("SELECT seed FROM dop_seeds WHERE gateway = %s", (gateway,)).fetchone()
    except _AWAY as error:
        raise LedgerUnavailableError(f"the callbacks' seed can't be read: {cause_of(error)}") from None
    assert found is not None
    return WebhookTokens(bytes(found[0]), gateway)


class CallbackRelay:
    """This host's receiver, and the notifications by which workers pass calls on to each other."""

    def __init__(
        self, settings: Settings, url: str, gateway: str, *, warn: Callable[[str], None] = lambda text: None
    ) -> None:
        self._warn = warn
        self._settings, self._url, self._gateway = settings, url, gateway
        self._out: asyncio.Queue[CallbackDelivery] = asyncio.Queue(MAX_WAITING)
        self._receiver: WebhookServer | None = None
        self._deliver: Callable[[CallbackDelivery], bool] = lambda delivery: False
        self.public_url = settings.webhook.public_url or ""
        self.listens = False
        """whether it is this worker that listens, of those on its host"""

    async def open(self, deliver: Callable[[CallbackDelivery], bool]) -> None:
        """Listen, unless another worker of this ledger on this host does.

        Args:
            deliver: called with each delivery; says whether a job of this worker was meant.

        Raises:
            UsageError: it is not configured, or another program has the port.
            LedgerUnavailableError: the database can't be asked.
        """
        self._deliver = deliver
        check_reachable(self._settings, self._settings.gateway.base_url)
        self.keys = await asyncio.to_thread(shared_keys, self._url, self._gateway)
        host, port = listen_address(self._settings)
        bound = await self._bind()
        self.public_url = self.public_url or f"http://{netloc(host, bound or port)}"

    async def _bind(self) -> int | None:
        host, port = listen_address(self._settings)
        secret = self._settings.webhook.signing_secret
        receiver = WebhookServer(self.keys, self.taken, warn=self._warn, signing_secret=secret)
        try:
            bound = await receiver.start(host, port)
        except OSError as error:
            ours = error.errno == errno.EADDRINUSE and await answers_as_ours(f"http://{netloc(host, port)}", self.keys)
            if not ours:
                raise UsageError(f"webhook.listen {host}:{port} can't be had ({error.strerror})") from None
            return None
        self._receiver, self.listens = receiver, True
        return bound

    async def run(self) -> None:
        """Relays callbacks to other workers and takes over from a receiver that is gone."""
        await asyncio.gather(self._receive(), self._forward(), self._stand_in())

    async def close(self) -> None:
        """Stops listening."""
        if self._receiver is not None:
            await self._receiver.close()

    def taken(self, delivery: CallbackDelivery) -> None:
        """One delivery from the receiver.

        Raises:
            QueueFull: too many wait to be passed on; the gateway must deliver again.
        """
        if not delivery.is_self_test and not self._deliver(delivery):
            self._out.put_nowait(delivery)

    @property
    def addresses(self) -> CallbackAddresses:
        """The callback addresses that submits of this worker name; known once the relay is open."""
        return CallbackAddresses(self.keys, self.public_url)

    async def _connected(self) -> psycopg.AsyncConnection[tuple[object, ...]]:
        return await psycopg.AsyncConnection.connect(self._url, autocommit=True, **client(self._url))

    async def _forward(self) -> None:
        while True:
            with suppress(*_AWAY):
                async with await self._connected() as connection:
                    while True:
                        text = _written(await self._out.get(), self._gateway)
                        await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, text))
            await asyncio.sleep(RETRY_INTERVAL_S)

    async def _receive(self) -> None:
        while True:
            with suppress(*_AWAY):
                async with await self._connected() as connection:
                    await connection.execute(f"LISTEN {CHANNEL}".encode())
                    async for note in connection.notifies():
                        delivery = _read(note.payload, self._gateway)
                        if delivery is not None:
                            self._deliver(delivery)
            await asyncio.sleep(RETRY_INTERVAL_S)

    async def _stand_in(self) -> None:
        while not self.listens:
            await asyncio.sleep(RETRY_INTERVAL_S)
            with suppress(UsageError):
                await self._bind()


def _written(delivery: CallbackDelivery, gateway: str) -> str:
    ids = [one for one in delivery.job_set_ids if len(one) <= MAX_ID_CHARS]
    return json.dumps({"gateway": gateway, "request": delivery.request_id, "attempt": delivery.attempt, "ids": ids})


def _read(text: str, gateway: str) -> CallbackDelivery | None:
    """A call that another worker passed on; None for whatever else is said on the channel."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    match found:
        case {"gateway": str(where), "request": str(request_id), "attempt": int(attempt), "ids": list(ids)}:
            known = tuple(one for one in ids if isinstance(one, str))[:MAX_IDS]
            mine = CallbackDelivery(request_id=request_id, attempt=attempt, job_set_ids=known)
            return mine if where == gateway else None
    return None
