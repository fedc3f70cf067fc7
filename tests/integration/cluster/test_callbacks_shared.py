"""A callback reaches any host, and the worker that waits for the job looks at it; forged ones reach no worker."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import pytest

from pipeline.config.settings import Settings
from pipeline.errors import UsageError
from pipeline.gateway.webhook_tokens import CallbackDelivery, callback_url
from pipeline.runner.cluster import callback_relay as calls_room
from pipeline.runner.cluster.callback_relay import CallbackRelay, shared_keys
from tests.acceptance.test_money import sandbox
from tests.support.cli_driver import ended, shots, wait_for
from tests.support.fake_gateway import GatewayDouble, Script
from tests.support.worker_processes import Machines

pytestmark = pytest.mark.long  # a database server, and whole runs over HTTP

GATEWAY = "http://127.0.0.1:9"
REQUEST, JOB = "4f" * 16, "3c90c3cc-0d44-4b50-8888-8dd25736052a"
PATIENT = ("--set", "poll.max_s=60s")
"""Without calls, jobs would wait two minutes for their first look."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listening_at(listen: str) -> Settings:
    return Settings.model_validate({"gateway": {"base_url": GATEWAY}, "webhook": {"listen": listen}})


@asynccontextmanager
async def host(
    url: str, listen: str, *, own: str = ""
) -> AsyncIterator[tuple[CallbackRelay, asyncio.Queue[CallbackDelivery]]]:
    """One worker's side of the callbacks, and what reached it; only the request `own` is its own."""
    reached: asyncio.Queue[CallbackDelivery] = asyncio.Queue()
    calls = CallbackRelay(listening_at(listen), url, GATEWAY)

    def here(delivery: CallbackDelivery) -> bool:
        reached.put_nowait(delivery)
        return delivery.request_id == own

    await calls.open(here)
    task = asyncio.create_task(calls.run())
    try:
        yield calls, reached
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await calls.close()


async def call(address: str, body: object) -> int:
    async with aiohttp.ClientSession() as session, session.post(address, json=body) as answer:
        return answer.status


async def heard(address: str, reached: asyncio.Queue[CallbackDelivery]) -> CallbackDelivery:
    """Calls as a gateway does, again and again, until it is heard."""
    for _ in range(100):
        with suppress(aiohttp.ClientConnectionError):  # no worker listens yet
            assert await call(address, {"job_set_id": JOB}) == 204
        try:
            return await asyncio.wait_for(reached.get(), 0.2)
        except TimeoutError:
            continue
    raise AssertionError("it was not heard")


async def test_a_call_to_one_host_is_heard_by_the_others(postgres: str) -> None:
    async with host(postgres, "127.0.0.1:0") as (one, _), host(postgres, "127.0.0.1:0") as (_, other_heard):
        address = callback_url(one.public_url, shared_keys(postgres, GATEWAY).token(REQUEST, 2))
        found = await heard(address, other_heard)
        assert found == CallbackDelivery(request_id=REQUEST, attempt=2, job_set_ids=(JOB,))


async def test_a_call_that_this_host_waited_for_is_not_passed_on(postgres: str) -> None:
    own = "b" * 32
    async with host(postgres, "127.0.0.1:0", own=own) as (one, _), host(postgres, "127.0.0.1:0") as (_, other_heard):
        keys = shared_keys(postgres, GATEWAY)
        theirs, mine = (callback_url(one.public_url, keys.token(letter * 32, 1)) for letter in "ab")
        await heard(theirs, other_heard)  # from here on the way is open
        assert await call(mine, {"job_set_id": JOB}) == 204
        assert (await heard(theirs, other_heard)).request_id == "a" * 32
        assert all(other_heard.get_nowait().request_id == "a" * 32 for _ in range(other_heard.qsize()))


async def test_a_forged_call_reaches_no_worker(postgres: str) -> None:
    async with host(postgres, "127.0.0.1:0") as (one, first_heard):
        token = shared_keys(postgres, GATEWAY).token(REQUEST, 1)
        assert await call(callback_url(one.public_url, token[:-1] + ("1" if token[-1] == "0" else "0")), {}) == 404
        assert first_heard.empty()


async def test_one_worker_of_a_host_listens_and_another_takes_over_when_it_is_gone(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls_room, "RETRY_INTERVAL_S", 0.05)
    listen = f"127.0.0.1:{free_port()}"
    async with host(postgres, listen) as (first, _), host(postgres, listen) as (second, second_heard):
        assert (first.listens, second.listens) == (True, False)
        assert first.public_url == second.public_url == f"http://{listen}"
        await first.close()
        token = shared_keys(postgres, GATEWAY).token(REQUEST, 1)
        assert (await heard(callback_url(f"http://{listen}", token), second_heard)).request_id == REQUEST
        assert second.listens


async def test_a_port_of_another_program_is_refused(postgres: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        calls = CallbackRelay(listening_at(f"127.0.0.1:{other.getsockname()[1]}"), postgres, GATEWAY)
        with pytest.raises(UsageError, match="can't be had"):
            await calls.open(lambda delivery: False)


@dataclass(slots=True, kw_only=True)
class Called(Machines):
    """Machines whose workers let the gateway call."""

    patience: tuple[str, ...] = ()

    def words(self, verb: str, words: object) -> list[str]:
        flags = ("--webhook", *self.patience) if verb == "worker" else ()
        return [*Machines.words(self, verb, words), *flags]  # type: ignore[arg-type]


def in_hands_of(machines: Machines) -> int:
    """How many workers hold something now."""
    if machines.asked("SELECT to_regclass('dop_jobs')") == [(None,)]:
        return 0
    ((count,),) = machines.asked("SELECT count(DISTINCT worker) FROM dop_jobs")
    return int(str(count))


def test_with_callbacks_a_job_costs_about_one_poll_whichever_worker_waits_for_it(tmp_path: Path, postgres: str) -> None:
    machines = Called(folder=tmp_path, url=postgres, patience=PATIENT)
    with sandbox(machines, "--generation", "4s", "--size", "180p", "--one-clip") as address:
        machines.base_url = address
        listen = f"127.0.0.1:{free_port()}"
        machines.environ |= {"DOP_WEBHOOK__LISTEN": listen, "DOP_PACE__RATE": "20/1s"}
        try:
            machines.hire(2)
            command: subprocess.Popen[str] = machines.start("run", machines.csv(shots(40)), "--yes", "--cluster")
            wait_for(lambda: in_hands_of(machines) == 2)
            done = ended(command, timeout_s=120)
            assert done.counts == {"done": 40}, done.err + machines.all_said()
            assert sum(int(row["polls"]) for row in machines.rows()) <= 44
            assert machines.dismiss() == [0, 0]
        finally:
            machines.end_all()


async def test_a_call_to_any_host_proves_a_submit_that_ended_unclear(tmp_path: Path, postgres: str) -> None:
    lost = {"2": {"book": True, "reset": "after"}}
    with GatewayDouble(Script(submits=lost)) as double:
        machines = Called(folder=tmp_path, url=postgres, base_url=double.base_url)
        machines.environ["DOP_PACE__RATE"] = "20/1s"
        try:
            machines.hire(2)
            done = machines.buy(machines.csv(shots(30)), "--cluster")
            assert (done.code, done.counts) == (3, {"done": 29, "unknown": 1}), done.err + machines.all_said()
            job = (set(double.jobs) - {row["job_set_id"] for row in machines.rows()}).pop()
            ours = urlsplit(double.submits[1]["body"]["webhook_url"])
            hosts = {urlsplit(line["body"]["webhook_url"]).netloc for line in double.submits}
            assert len(hosts) == 2, "one worker bought all of them"
            (other,) = hosts - {ours.netloc}
            assert await call(urlunsplit(ours._replace(netloc=other)), {"job_set_id": job}) == 204
            wait_for(lambda: machines.states() == {"done": 30})
            assert (double.charged, double.complaints) == (30, [])
        finally:
            machines.end_all()
