"""The sandbox in virtual time: a job of ten minutes, from submit to clip, in no time at all."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.connector
import async_solipsism
import pytest

from pipeline.sandbox import DEFAULT_KEY, Sandbox, SandboxSettings
from tests.support.sandboxes import DOCUMENT_BODY, POLL, SUBMIT


async def bought_and_fetched(folder: Path) -> tuple[Any, bytes]:
    loop = asyncio.get_running_loop()
    settings = SandboxSettings(data_dir=folder, inline=True, size="180p", generation_s=600)
    headers = {"Ocp-Apim-Subscription-Key": DEFAULT_KEY}
    async with Sandbox(settings, now=loop.time) as url, aiohttp.ClientSession(headers=headers) as session:
        async with session.post(url + SUBMIT, json=DOCUMENT_BODY) as answer:
            job_set_id = (await answer.json())["job_set_id"]
        await asyncio.sleep(2000)
        async with session.post(url + POLL, json={"job_set_id": job_set_id}) as answer:
            job = (await answer.json())["jobs"][0]
        async with session.get(job["results"]["raw"]["url"]) as answer:
            return job, await answer.read()


def test_a_job_lives_through_its_generation_time_without_waiting_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = async_solipsism.aiohappyeyeballs_start_connection
    monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", connect)
    began = time.monotonic()
    loop = async_solipsism.EventLoop()
    try:
        job, clip = loop.run_until_complete(bought_and_fetched(tmp_path))
    finally:
        loop.close()
    assert job["status"] == "completed"
    assert clip[4:8] == b"ftyp"
    assert time.monotonic() - began < 60
