"""Callbacks: a POST to the job's webhook when it has ended, sent again until the receiver answers 2xx. Loopback only.

The secret goes back in clear in `X-Webhook-Secret-Key` (official, v1), and signs the body in the headers of Standard
Webhooks (official, newest). A delivery never changes a job.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import aiohttp

from pipeline.sandbox.faults import CallbackFault

FIRST_WAIT_S = 0.1
MAX_WAIT_S = 5.0
TIMEOUT_S = 5.0
SECRET_PREFIX = "whsec_"  # noqa: S105  # the scheme's public prefix
REPLAYED_AFTER_S = 3600
FORGED_SECRET = "not-the-secret"  # noqa: S105  # what a forger would guess


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One callback to be made. `in_clear`: the secret goes along, too; `age_s`: how long ago it says it was sent."""

    url: str
    secret: str | None
    message_id: str
    value: object
    in_clear: bool = True
    age_s: int = 0


def signature(secret: str, message_id: str, sent_at: int, body: bytes) -> str:
    """`v1,<base64>` of HMAC-SHA256 over `id.timestamp.body`. Source: Standard Webhooks."""
    signed = f"{message_id}.{sent_at}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(_secret_bytes(secret), signed, hashlib.sha256).digest()).decode()


def _secret_bytes(secret: str) -> bytes:
    if secret.startswith(SECRET_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error:
            pass
    return secret.encode()


def headers_of(delivery: Delivery, body: bytes, sent_at: int) -> dict[str, str]:
    """The headers of one delivery; without a secret (queue dialect) there is nothing to prove."""
    headers = {"Content-Type": "application/json", "webhook-id": delivery.message_id, "webhook-timestamp": str(sent_at)}
    if delivery.secret is None:
        return headers
    signed = signature(delivery.secret, delivery.message_id, sent_at, body)
    proved = {**headers, "webhook-signature": signed}
    return {**proved, "X-Webhook-Secret-Key": delivery.secret} if delivery.in_clear else proved


class WebhookSender:
    """Delivers callbacks in tasks of its own; `close` drops what is in flight."""

    def __init__(self, *, now: Callable[[], float], window_s: float) -> None:
        self._now = now
        self._window_s = window_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    def begin(self, work: Awaitable[None]) -> None:
        """Do `work` in the background."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def deliver(self, delivery: Delivery) -> bool:
        """Send until 2xx or until the window is over; says whether it was taken."""
        # The window counts the pauses alone: in virtual time an answer takes none.
        wait_s, left_s = FIRST_WAIT_S, self._window_s
        while not await self.send(delivery):
            left_s -= wait_s
            if left_s <= 0:
                return False
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, MAX_WAIT_S)
        return True

    async def send(self, delivery: Delivery) -> bool:
        """One POST; says whether it was answered with 2xx. Follows no redirect."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
        body = json.dumps(delivery.value).encode("ascii")
        headers = headers_of(delivery, body, int(self._now()) - delivery.age_s)
        try:
            # No redirect: a callback with a secret goes nowhere else.
            async with self._session.post(delivery.url, data=body, headers=headers, allow_redirects=False) as answer:
                return 200 <= answer.status < 300
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return False

    async def deliver_through(self, fault: CallbackFault, delivery: Delivery) -> bool:
        """Deliver with what the storm adds: forged, unproven, strange, doubled and replayed ones, or none at all."""
        if fault is CallbackFault.LOST:
            return True
        if fault is CallbackFault.UNPROVEN:
            await self.send(replace(delivery, secret=None))
        if fault is CallbackFault.FORGED:
            await self.send(Delivery(url=delivery.url, secret=FORGED_SECRET, message_id="forged", value=delivery.value))
        if fault is CallbackFault.UNKNOWN_JOB:
            unknown_job = {"job_set_id": "00000000-0000-4000-8000-000000000000", "status": "completed"}
            await self.send(
                Delivery(url=delivery.url, secret=delivery.secret, message_id="unknown-job", value=unknown_job)
            )
        taken = await self.deliver(delivery)
        if fault is CallbackFault.TWICE:
            await self.send(delivery)
        if fault is CallbackFault.REPLAYED:
            await self.send(replace(delivery, in_clear=False, age_s=REPLAYED_AFTER_S))
        return taken

    def idle(self) -> bool:
        """Whether no callback is waited for or in flight."""
        return not self._tasks

    async def done(self) -> None:
        """Wait for the callbacks that are waited for or in flight now."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Drop what is in flight."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
