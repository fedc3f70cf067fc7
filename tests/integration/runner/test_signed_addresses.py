"""Signed addresses are fresh when they leave, however long a submit waited for its turn. Virtual time."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import pipeline.assets.image_hosting
from pipeline.assets.object_store import ObjectInfo, StoreError
from pipeline.records import State
from pipeline.runner.firewall import NOT_SENT
from pipeline.sandbox import Sandbox, SandboxSettings
from pipeline.sandbox.jobs import Job
from tests.support.ledgers import RUN
from tests.support.virtual_time import KEY, Story, carried, in_virtual_time, ledger_for, wall, wanted

pytestmark = pytest.mark.filterwarnings("ignore::async_solipsism.SolipsismWarning")

EXPIRY_S = 600.0


class Signer:
    """A store whose addresses say when they were signed; `breaks_at` is when it stops to sign (loop seconds)."""

    breaks_at = float("inf")

    async def head(self, name: str) -> ObjectInfo:
        return ObjectInfo(size_bytes=7, etag="e")

    def sign(self, name: str, expiry_s: float) -> str:
        if asyncio.get_running_loop().time() > self.breaks_at:
            raise StoreError("the store signs no address")
        return f"https://store.example/{name}?at={wall()}&for={expiry_s}"


async def story(folder: Path, rows: int) -> tuple[Story, list[Job]]:
    settings = SandboxSettings(
        data_dir=folder / "sandbox", key=KEY, inline=True, one_clip=True, size="180p", generation_s=5
    )
    sandbox = Sandbox(settings, now=wall)
    base_url = await sandbox.start()
    options = {"pace.rate": "3/1h", "uploads.presign_expiry_s": str(EXPIRY_S)}
    try:
        with ledger_for(folder, base_url, **options) as workspace:
            images: Any = {"input_images": ("s3://pictures/a.png",)}
            ran = await carried(workspace, wanted(workspace, rows, **images))
            return ran, list(sandbox._books.jobs.values())
    finally:
        await sandbox.close()


def test_an_address_is_renewed_before_a_submit_that_waited_longer_than_it_is_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.assets.image_hosting, "open_store", lambda *_, **__: Signer())
    ran, jobs = in_virtual_time(monkeypatch, partial(story, tmp_path, 4))
    assert ran.result.totals.count(State.DONE) == 4
    assert ran.elapsed_s > 2 * EXPIRY_S
    ages = [job.accepted_at - float(parse_qs(urlsplit(_image(job)).query)["at"][0]) for job in jobs]
    assert max(ages) <= EXPIRY_S / 2, ages
    assert len({_image(job) for job in jobs}) > 1


def test_nothing_is_bought_with_an_address_that_is_no_longer_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.assets.image_hosting, "open_store", lambda *_, **__: Signer())
    monkeypatch.setattr(Signer, "breaks_at", 1500.0)
    ran, jobs = in_virtual_time(monkeypatch, partial(story, tmp_path, 4))
    left = ran.queries.attempts_in(RUN, (State.PLANNED,))
    assert all((attempt.reason or "").startswith(NOT_SENT) for attempt in left)
    assert ran.result.totals.count(State.PLANNED) == 4 - len(jobs) > 0
    assert ran.result.totals.count(State.SUBMITTING, State.UNKNOWN) == 0


def _image(job: Job) -> str:
    return str(job.body["input_images"][0])  # type: ignore[index]
