"""Callbacks over real HTTP: what arrives, how it proves itself, until when it comes again, and what forgers do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pipeline.sandbox.faults import CallbackFault, FaultPlan
from pipeline.sandbox.webhooks import FORGED_SECRET, signature
from tests.support.http_server import http_server
from tests.support.sandboxes import DOCUMENT_BODY, QUEUE_SUBMIT, Client, open_sandbox

SECRET = "webhook_secret_abc123"


class Receiver:
    """A webhook that gives the answers in its list (200 when none is left) and keeps what it got."""

    def __init__(self, *answers: int) -> None:
        self._answers = list(answers)
        self._got: asyncio.Queue[tuple[Mapping[str, str], bytes]] = asyncio.Queue()
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        await self._got.put((request.headers, await request.read()))
        return web.Response(status=self._answers.pop(0) if self._answers else 200)

    async def next(self) -> tuple[Mapping[str, str], Any]:
        async with asyncio.timeout(30):
            headers, body = await self._got.get()
        return headers, json.loads(body)

    async def next_raw(self) -> tuple[Mapping[str, str], bytes]:
        async with asyncio.timeout(30):
            return await self._got.get()

    def empty(self) -> bool:
        return self._got.empty()


@asynccontextmanager
async def receiving(*answers: int) -> AsyncIterator[Receiver]:
    receiver = Receiver(*answers)
    async with http_server(web.post("/hook", receiver.take)) as url:
        receiver.url = f"{url}/hook"
        yield receiver


async def bought(client: Client, receiver: Receiver) -> str:
    reply = await client.submit(webhook_url=receiver.url, webhook_secret=SECRET)
    client.at.now += 1000
    return str(reply.value["job_set_id"])


async def test_the_end_of_a_job_is_called_back_with_the_secret_and_a_signature(tmp_path: Path) -> None:
    async with receiving() as receiver, open_sandbox(tmp_path) as client:
        job_set_id = await bought(client, receiver)
        headers, raw = await receiver.next_raw()
        assert headers["X-Webhook-Secret-Key"] == SECRET
        sent_at = int(headers["webhook-timestamp"])
        assert headers["webhook-signature"] == signature(SECRET, headers["webhook-id"], sent_at, raw)
        assert json.loads(raw) == (await client.poll(job_set_id)).value
        assert json.loads(raw)["jobs"][0]["status"] == "completed"
        assert SECRET not in raw.decode()


async def test_a_callback_comes_again_until_it_is_taken(tmp_path: Path) -> None:
    async with receiving(500, 302) as receiver, open_sandbox(tmp_path) as client:
        await bought(client, receiver)
        deliveries = [await receiver.next() for _ in range(3)]
        assert len({headers["webhook-id"] for headers, _ in deliveries}) == 1


async def test_a_callback_that_was_not_taken_comes_after_a_restart_and_a_taken_one_does_not(tmp_path: Path) -> None:
    async with receiving() as receiver:
        async with open_sandbox(tmp_path, generation_s=500) as client:
            reply = await client.submit(webhook_url=receiver.url, webhook_secret=SECRET)
        assert receiver.empty()
        async with open_sandbox(tmp_path, generation_s=500) as client:
            client.at.now += 5000
            _, value = await receiver.next()
            assert value["job_set_id"] == reply.value["job_set_id"]
            async with asyncio.timeout(30):
                await client.sandbox.callbacks_done()
        async with open_sandbox(tmp_path, generation_s=500) as client:
            client.at.now += 5000
            assert client.sandbox.callbacks_idle()


async def test_the_queue_dialect_takes_the_address_from_a_header_and_sends_no_proof(tmp_path: Path) -> None:
    async with receiving() as receiver, open_sandbox(tmp_path, dialect="queue") as client:
        hook = {"X-Webhook-URL": receiver.url}
        reply = await client.call("POST", QUEUE_SUBMIT, json=DOCUMENT_BODY, headers=hook)
        client.at.now += 1000
        headers, value = await receiver.next()
        assert (value["request_id"], value["status"]) == (reply.value["request_id"], "COMPLETED")
        assert "X-Webhook-Secret-Key" not in headers


async def test_an_address_off_this_machine_is_never_called(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path) as client:
        reply = await client.submit(webhook_url="https://your-domain.com/webhook", webhook_secret=SECRET)
        assert reply.status == 200
        assert client.sandbox.callbacks_idle()


@pytest.mark.parametrize(
    ("fault", "secrets", "states"),
    [
        (CallbackFault.TWICE, [SECRET, SECRET], ["completed", "completed"]),
        (CallbackFault.FORGED, [FORGED_SECRET, SECRET], ["completed", "completed"]),
        (CallbackFault.UNKNOWN_JOB, [SECRET, SECRET], [None, "completed"]),
        (CallbackFault.EARLY, [SECRET, SECRET], ["queued", "completed"]),
        (CallbackFault.HASTY, [SECRET, SECRET], ["queued", "completed"]),
        (CallbackFault.UNPROVEN, [None, SECRET], ["completed", "completed"]),
        (CallbackFault.REPLAYED, [SECRET, None], ["completed", "completed"]),
    ],
)
async def test_a_storm_doubles_forges_and_hurries_callbacks(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: CallbackFault,
    secrets: list[str | None],
    states: list[str | None],
) -> None:
    monkeypatch.setattr(FaultPlan, "callback_fault", lambda *_args: fault)
    options: dict[str, Any] = {"chaos": "7", "chaos_intensity": 0.0, "generation_s": 500}
    async with receiving() as receiver, open_sandbox(tmp_path, **options) as client:
        await client.submit(webhook_url=receiver.url, webhook_secret=SECRET)
        first = [await receiver.next()] if fault in (CallbackFault.EARLY, CallbackFault.HASTY) else []
        client.at.now += 5000
        deliveries = [*first, *[await receiver.next() for _ in range(2 - len(first))]]
        assert [headers.get("X-Webhook-Secret-Key") for headers, _ in deliveries] == secrets
        assert [value["jobs"][0]["status"] if "jobs" in value else None for _, value in deliveries] == states
