"""A sandbox in the test's own loop, its clock, and the calls a client of it would make."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from pipeline.sandbox import DEFAULT_KEY, Sandbox, SandboxSettings

SUBMIT = "/ai-model-api/v1/generateImageToVideoRequest"
QUEUE_SUBMIT = "/ai-model-api/v1/image-to-video"
POLL = "/ai-model-api-polling/getGenerationResults"
START = 1_790_000_000.0

DOCUMENT_BODY: dict[str, Any] = {
    "model": "dop-lite",
    "prompt": "A serene lake with gentle ripples, birds flying overhead, cinematic lighting",
    "seed": 123456,
    "motions_id": "3c90c3cc-0d44-4b50-8888-8dd25736052a",
    "motions_strength": 0.7,
    "input_images": ["https://example.com/images/lake-scene.jpg"],
    "enhance_prompt": True,
}


class Clock:
    """Wall time as the test says."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    value: Any
    headers: Any


@dataclass
class Client:
    """One client of one sandbox; `at` is the sandbox's clock."""

    url: str
    session: aiohttp.ClientSession
    at: Clock
    sandbox: Sandbox

    async def call(self, method: str, path: str, **more: Any) -> Reply:
        async with self.session.request(method, path if "://" in path else self.url + path, **more) as answer:
            json_type = answer.content_type == "application/json"
            return Reply(answer.status, await (answer.json() if json_type else answer.read()), answer.headers)

    async def submit(self, path: str = SUBMIT, **changes: Any) -> Reply:
        body = {**DOCUMENT_BODY, **changes}
        return await self.call("POST", path, json={name: value for name, value in body.items() if value is not ...})

    async def poll(self, job_set_id: str) -> Reply:
        return await self.call("POST", POLL, json={"job_set_id": job_set_id})

    async def books(self) -> Any:
        return (await self.call("GET", "/_sandbox/books")).value


@asynccontextmanager
async def open_sandbox(folder: Path, *, key: str | None = DEFAULT_KEY, **options: Any) -> AsyncIterator[Client]:
    """A sandbox with inline rendering of the smallest clips, so that a clip is there as soon as its time is over."""
    settings = SandboxSettings(data_dir=folder, **{"size": "180p", "inline": True, "one_clip": True, **options})
    clock = Clock()
    sandbox = Sandbox(settings, now=clock)
    headers = {"Ocp-Apim-Subscription-Key": key} if key is not None else {}
    url = await sandbox.start()
    try:
        async with aiohttp.ClientSession(headers=headers) as session:
            yield Client(url, session, clock, sandbox)
    finally:
        await sandbox.close()
