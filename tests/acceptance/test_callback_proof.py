"""A callback to the attempt's own address proves an unclear submit; forged and foreign ones prove nothing.

The gateway here takes every submit, charges it, and answers 502; then it calls back, each test in its own way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from pipeline.gateway.kinds.pixazo import POLL_PATH, SUBMIT_PATH
from tests.support.cli_driver import Dop, Ended, shots
from tests.support.http_server import http_server
from tests.support.webhook_catcher import serving

pytestmark = pytest.mark.long  # whole runs over HTTP; the money's own tests stay in the fast set

ALONE = ("--no-download", "--yes")
SECRET = "X-Webhook-Secret-Key"


Behaviour = Callable[["Unclear", int, dict[str, Any]], Awaitable[int]]


@dataclass
class Unclear:
    """A gateway whose submits all end unclear; `behave` gets each of them and may call back."""

    behave: Behaviour
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    polls: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    in_flight: set[asyncio.Task[None]] = field(default_factory=set)

    def soon(self, work: Coroutine[Any, Any, None]) -> None:
        self.in_flight.add(asyncio.create_task(work))

    async def submit(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(request.headers.get("X-Webhook-URL", ""))
        status = await self.behave(self, len(self.bodies), body)
        return web.Response(status=status, text="bad gateway")

    async def poll(self, request: web.Request) -> web.Response:
        job_set_id = (await request.json())["job_set_id"]
        self.polls.append(job_set_id)
        number = int(job_set_id.rpartition("-")[2])
        if number > len(self.bodies):
            return web.json_response({"error": "Job set not found"}, status=404)
        body = self.bodies[number - 1]
        results = {"raw": {"url": f"{self.url}/clip.mp4"}}
        echo = {"prompt": body["prompt"], "seed": body["seed"]}
        jobs = [{"id": "j", "status": "completed", "results": results}]
        return web.json_response({"job_set_id": job_set_id, "jobs": jobs, "input_params": echo})

    async def call(self, body: dict[str, Any], value: dict[str, Any], **headers: str) -> None:
        """One callback to the address of a submit."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(body["webhook_url"], json=value, headers=headers) as answer,
        ):
            self.statuses.append(answer.status)


@asynccontextmanager
async def unclear(behave: Behaviour) -> AsyncIterator[Unclear]:
    gateway = Unclear(behave)
    async with http_server(web.post(SUBMIT_PATH, gateway.submit), web.post(POLL_PATH, gateway.poll)) as gateway.url:
        yield gateway


async def buy(dop: Dop, gateway: Unclear, count: int, *words: str) -> Ended:
    dop.base_url = gateway.url
    return await asyncio.to_thread(dop.call, "run", dop.csv(shots(count)), "--webhook", *ALONE, *words)


async def before_the_answer(gateway: Unclear, number: int, body: dict[str, Any]) -> int:
    await gateway.call(body, {"job_set_id": f"job-{number}"}, **{SECRET: body["webhook_secret"]})
    return 502


async def after_the_answer(gateway: Unclear, number: int, body: dict[str, Any]) -> int:
    value = gateway.call(body, {"job_set_id": f"job-{number}"}, **{SECRET: body["webhook_secret"]})
    gateway.soon(value)
    return 502


async def with_the_token_alone(gateway: Unclear, number: int, body: dict[str, Any]) -> int:
    gateway.soon(gateway.call(body, {"request_id": f"job-{number}"}))
    return 502


@pytest.mark.parametrize("behave", [before_the_answer, after_the_answer, with_the_token_alone])
async def test_a_call_to_its_own_address_proves_a_submit(rehearsal: Dop, behave: Behaviour) -> None:
    async with unclear(behave) as gateway:
        end = await buy(rehearsal, gateway, 2)
    assert end.code == 0, end.err
    assert end.counts == {"done": 2}
    assert [row["job_set_id"] for row in rehearsal.rows()] == ["job-1", "job-2"]
    assert gateway.statuses == [204, 204]
    assert len(gateway.bodies) == 2
    assert gateway.headers == [body["webhook_url"] for body in gateway.bodies]
    assert len({body["webhook_url"] for body in gateway.bodies}) == 2
    assert len({body["webhook_secret"] for body in gateway.bodies}) == 2


async def forged_secret(gateway: Unclear, number: int, body: dict[str, Any]) -> int:
    await gateway.call(body, {"job_set_id": f"job-{number}"}, **{SECRET: "not-the-secret"})
    return 502


async def a_job_that_does_not_exist(gateway: Unclear, number: int, body: dict[str, Any]) -> int:
    await gateway.call(body, {"job_set_id": "job-999"})
    return 502


async def a_body_without_an_id(gateway: Unclear, number: int, body: dict[str, Any]) -> int:
    await gateway.call(body, {"status": "completed"})
    return 502


async def the_job_of_another_request(gateway: Unclear, number: int, body: dict[str, Any]) -> int:
    await gateway.call(body, {"job_set_id": "job-2" if number == 1 else "job-1"})
    return 502


@pytest.mark.parametrize(
    ("behave", "status"),
    [
        (forged_secret, 401),
        (a_job_that_does_not_exist, 204),
        (a_body_without_an_id, 204),
        (the_job_of_another_request, 204),
    ],
)
async def test_what_proves_nothing_leaves_the_submit_unknown(rehearsal: Dop, behave: Behaviour, status: int) -> None:
    async with unclear(behave) as gateway:
        end = await buy(rehearsal, gateway, 2)
    assert end.code == 3, end.err
    assert end.counts == {"unknown": 2}
    if behave is not a_job_that_does_not_exist:  # its polls take longer than the second that a callback is waited for
        assert "waiting up to 1 s for calls about 2 unclear submits" in end.err
    assert gateway.statuses == [status] * 2
    assert len(gateway.bodies) == 2


async def test_a_call_that_comes_between_two_runs_is_kept_and_proves_the_submit(rehearsal: Dop) -> None:
    async def silent(gateway: Unclear, number: int, body: dict[str, Any]) -> int:
        return 502

    async with unclear(silent) as gateway:
        rehearsal.base_url = gateway.url
        receiver = serving(rehearsal)
        assert receiver.stdout is not None
        address = (await asyncio.to_thread(receiver.stdout.readline)).strip()
        host = address.removeprefix("http://")
        value = ("--set", f"webhook.listen={host}", "--set", f"webhook.public_url={address}")
        end = await buy(rehearsal, gateway, 1, *value)
        assert end.code == 3, end.err
        await gateway.call(gateway.bodies[0], {"job_set_id": "job-1"})
        assert gateway.statuses == [204]
        again = await buy(rehearsal, gateway, 1, *value)
    assert again.code == 0, again.err
    assert again.counts == {"done": 1}
    assert len(gateway.bodies) == 1
    receiver.terminate()
    assert await asyncio.to_thread(receiver.wait, 30) == 0
