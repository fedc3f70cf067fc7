"""What people use today, each doing the same work: submit `count` jobs until each is accepted, and poll if asked to.

`python -m benchmarks.rivals NAME FILE`: FILE is the JSON of a `Work`. Nothing here keeps a ledger, survives a crash or
knows whether a submit may have been paid; that is what they are, and why they are quick.

    bare            workers that post again 0.2 s after a refusal; without a limit the ceiling of what this machine does
    fresh           the same with a new connection for each submit, as paid calls have them here
    tenacity        Semaphore + aiolimiter + tenacity's random exponential wait, as its documentation has it
    aiohttp-retry   RetryClient with its ExponentialRetry
    botocore        adaptive retry mode: its rate limiter, its cubic law, its back-off, in threads
    cookbook        `fixedpause`
    sdk             as vendors' SDKs wait for a job: submits behind a semaphore, and for each job a loop of its own that
                    polls whatever the others do
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.fixedpause import FixedPause
from benchmarks.gateway import IMAGE
from pipeline.sandbox.gateway import POLL_PATH, SUBMIT_PATHS

WORKERS = 16
GUESS_PER_S = 100.0
"""What they are given where the limit is unknown: a guess that turns out too high."""
AGAIN_S = 0.2
HEADERS = {"Content-Type": "application/json", "Ocp-Apim-Subscription-Key": "bench-key-0123456789"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """How many jobs, at which known rate (None: unknown), and how often each is polled (None: never)."""

    base_url: str
    count: int
    known_per_s: float | None = None
    poll_every_s: float | None = None

    @property
    def per_s(self) -> float:
        """The rate for those that need one."""
        return self.known_per_s or GUESS_PER_S


class RefusedError(Exception):
    """429."""


Call = Callable[[str, bytes], Awaitable[dict[str, Any]]]


def submit_body(seed: int) -> bytes:
    """The paid body of one job."""
    fields = {
        "model": "dop-preview",
        "prompt": "A serene lake with gentle ripples",
        "seed": seed,
        "motions_id": "31177282-bde3-4870-b283-1135ca0a201a",
        "motions_strength": 0.7,
        "input_images": [IMAGE],
        "enhance_prompt": False,
    }
    return json.dumps(fields).encode("ascii")


def poll_body(job_set_id: str) -> bytes:
    """What asks for a job."""
    return json.dumps({"job_set_id": job_set_id}).encode("ascii")


def is_finished(answer: dict[str, Any]) -> bool:
    """Whether a poll's answer says so."""
    return bool(answer["jobs"][0]["status"] == "completed")


async def _live(call: Call, work: Work, seed: int) -> None:
    """One job: bought, and asked for at even distances until it is finished."""
    accepted = await call(SUBMIT_PATHS[0], submit_body(seed))
    if work.poll_every_s is None:
        return
    while True:
        await asyncio.sleep(work.poll_every_s)
        if is_finished(await call(POLL_PATH, poll_body(accepted["job_set_id"]))):
            return


async def _all(call: Call, work: Work) -> None:
    await asyncio.gather(*(_live(call, work, seed) for seed in range(1, work.count + 1)))


def _session(base_url: str, *, limit: int = WORKERS) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(base_url, connector=aiohttp.TCPConnector(limit=limit), headers=HEADERS)


async def _post(session: aiohttp.ClientSession, path: str, body: bytes) -> dict[str, Any]:
    async with session.post(path, data=body) as answer:
        if answer.status == 429:
            raise RefusedError
        answer.raise_for_status()
        found: dict[str, Any] = await answer.json()
        return found


async def bare(work: Work, *, fresh: bool = False) -> None:
    """The ceiling."""
    free = asyncio.Semaphore(WORKERS)
    paid = aiohttp.TCPConnector(force_close=True, limit=0) if fresh else aiohttp.TCPConnector(limit=WORKERS)
    async with (
        _session(work.base_url) as polls,
        aiohttp.ClientSession(work.base_url, connector=paid, headers=HEADERS) as submits,
    ):

        async def call(path: str, body: bytes) -> dict[str, Any]:
            async with free:
                while True:
                    try:
                        return await _post(polls if path == POLL_PATH else submits, path, body)
                    except RefusedError:
                        await asyncio.sleep(AGAIN_S)

        await _all(call, work)


async def sdk(work: Work) -> None:
    """A poll loop for each job; a refused poll is asked again like any other. Submits as `bare`."""
    free = asyncio.Semaphore(WORKERS)
    async with _session(work.base_url) as submits, _session(work.base_url, limit=0) as polls:

        async def call(path: str, body: bytes) -> dict[str, Any]:
            if path == POLL_PATH:
                with suppress(RefusedError):
                    return await _post(polls, path, body)
                return {"jobs": [{"status": "in_progress"}]}
            async with free:
                while True:
                    with suppress(RefusedError):
                        return await _post(submits, path, body)
                    await asyncio.sleep(AGAIN_S)

        await _all(call, work)


async def fresh(work: Work) -> None:
    """The ceiling for those who give every paid call a connection of its own."""
    await bare(work, fresh=True)


async def tenacious(work: Work) -> None:
    """Semaphore + aiolimiter + tenacity."""
    import tenacity  # noqa: PLC0415 - of the extra `bench`
    from aiolimiter import AsyncLimiter  # noqa: PLC0415 - of the extra `bench`

    free, limiter = asyncio.Semaphore(WORKERS), AsyncLimiter(max(1.0, work.per_s), 1.0)
    async with _session(work.base_url) as session:

        @tenacity.retry(
            wait=tenacity.wait_random_exponential(multiplier=1, max=60),
            retry=tenacity.retry_if_exception_type(RefusedError),
        )
        async def call(path: str, body: bytes) -> dict[str, Any]:
            async with free, limiter:
                return await _post(session, path, body)

        await _all(call, work)


async def retrying(work: Work) -> None:
    """aiohttp-retry."""
    from aiohttp_retry import ExponentialRetry, RetryClient  # noqa: PLC0415 - of the extra `bench`

    options = ExponentialRetry(attempts=1000, statuses={429})
    async with _session(work.base_url) as session:
        client = RetryClient(client_session=session, retry_options=options)

        async def call(path: str, body: bytes) -> dict[str, Any]:
            async with client.post(path, data=body) as answer:
                answer.raise_for_status()
                found: dict[str, Any] = await answer.json()
                return found

        await _all(call, work)


async def cookbook(work: Work) -> None:
    """The fixed pause."""
    pause = FixedPause(per_minute=work.per_s * 60, now=time.monotonic())
    turn = asyncio.Lock()
    async with _session(work.base_url, limit=0) as session:

        async def wait_for_turn() -> None:
            async with turn:
                while (wait_s := pause.ask(time.monotonic())) > 0:  # noqa: ASYNC110 - that is how it does
                    await asyncio.sleep(wait_s)
                await asyncio.sleep(0.001)

        async def call(path: str, body: bytes) -> dict[str, Any]:
            while True:
                await wait_for_turn()
                try:
                    return await _post(session, path, body)
                except RefusedError:
                    pause.refused(time.monotonic())

        await _all(call, work)


class Adaptive:
    """botocore's adaptive mode around any call: the limiter before sending, its verdict after, its back-off between."""

    def __init__(self) -> None:
        from botocore.retries import (  # type: ignore[import-untyped,unused-ignore] # noqa: PLC0415 - of the extra `bench`
            adaptive,
            bucket,
            standard,
            throttling,
        )

        self._context = standard.RetryContext
        clock = bucket.Clock()
        detector = standard.ThrottlingErrorDetector(retry_event_adapter=standard.RetryEventAdapter())
        self._backoff = standard.ExponentialBackoff(throttling_detector=detector)
        self._limiter = adaptive.ClientRateLimiter(
            rate_adjustor=throttling.CubicCalculator(starting_max_rate=0, start_time=clock.current_time()),
            rate_clocker=adaptive.RateClocker(clock),
            token_bucket=bucket.TokenBucket(max_rate=1, clock=clock),
            throttling_detector=detector,
            clock=clock,
        )

    def call(self, send: Callable[[], tuple[int, bytes]], sleep: Callable[[float], None] = time.sleep) -> bytes:
        """Sends until it is not refused; returns the answer's body."""
        attempt = 0
        while True:
            attempt += 1
            self._limiter.on_sending_request(None)
            status, body = send()
            parsed = {"Error": {"Code": "ThrottlingException"}} if status == 429 else {}
            self._limiter.on_receiving_response(
                response=(None, parsed),
                attempts=attempt,
                caught_exception=None,
                request_dict={"context": {}},
                operation=None,
            )
            if status != 429:
                return body
            sleep(self._backoff.delay_amount(self._context(attempt_number=attempt, parsed_response=parsed)))


async def botocore(work: Work) -> None:
    """Adaptive mode in threads, one keep-alive connection each."""
    await asyncio.to_thread(_in_threads, work)


def _in_threads(work: Work) -> None:
    import urllib3  # noqa: PLC0415 - of the extra `bench`

    adaptive, pool = Adaptive(), urllib3.PoolManager(maxsize=WORKERS, block=True)
    todo: queue.PriorityQueue[tuple[float, int, str | None]] = queue.PriorityQueue()
    for seed in range(1, work.count + 1):
        todo.put((0.0, seed, None))
    left = threading.Semaphore(0)

    def ask(path: str, body: bytes) -> dict[str, Any]:
        def send() -> tuple[int, bytes]:
            answer = pool.request("POST", work.base_url + path, body=body, headers=HEADERS, retries=False)
            return answer.status, answer.data

        found: dict[str, Any] = json.loads(adaptive.call(send))
        return found

    def carry() -> None:
        while True:
            due, seed, job_set_id = todo.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if job_set_id is None:
                job_set_id, finished = ask(SUBMIT_PATHS[0], submit_body(seed))["job_set_id"], work.poll_every_s is None
            else:
                finished = is_finished(ask(POLL_PATH, poll_body(job_set_id)))
            if finished:
                left.release()
            else:
                todo.put((time.monotonic() + (work.poll_every_s or 0.0), seed, job_set_id))

    for _ in range(WORKERS):
        threading.Thread(target=carry, daemon=True).start()
    for _ in range(work.count):
        left.acquire()


RIVALS: dict[str, Callable[[Work], Awaitable[None]]] = {
    "bare": bare,
    "fresh": fresh,
    "sdk": sdk,
    "tenacity": tenacious,
    "aiohttp-retry": retrying,
    "botocore": botocore,
    "cookbook": cookbook,
}


def main() -> None:
    """One rival, one piece of work."""
    work = Work(**json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
    asyncio.run(RIVALS[sys.argv[1]](work))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
