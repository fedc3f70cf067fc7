"""An object is handed over only as the run was planned with, and from where the gateway can read it."""

from __future__ import annotations

from typing import Any

import pytest

import pipeline.assets.image_hosting
from pipeline.assets.image_hosting import ImageHost
from pipeline.assets.image_urls import InputImages
from pipeline.assets.object_store import ObjectInfo
from pipeline.config.settings import UploadSettings
from pipeline.errors import FatalError, UsageError
from tests.support.factories import make_params

ADDRESS = "s3://bucket/a.jpg"
PARAMS = make_params(input_images=(ADDRESS,))


class Shelf:
    def __init__(self, there: ObjectInfo | None) -> None:
        self.there = there
        self.looks = 0

    async def head(self, name: str) -> ObjectInfo | None:
        self.looks += 1
        return self.there

    def sign(self, name: str, expiry_s: float) -> str:
        return f"https://store.example/{name}?X-Amz-Signature=1"


def hosting(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, etag: str, **uploads: Any) -> ImageHost:
    monkeypatch.setattr(pipeline.assets.image_hosting, "open_store", lambda *_, **__: shelf)
    base_url = "https://gateway.example"
    images = InputImages({})
    return ImageHost(
        UploadSettings(**uploads),
        images,
        store=None,
        base_url=base_url,
        etag_of=lambda _: etag,
        wall=lambda: 1_800_000_000.0,
    )


@pytest.mark.parametrize("etag", ["same", ""])
async def test_an_object_is_looked_for_once_a_run(monkeypatch: pytest.MonkeyPatch, etag: str) -> None:
    shelf = Shelf(ObjectInfo(size_bytes=7, etag="same"))
    host = hosting(shelf, monkeypatch, etag)
    for _ in range(3):
        await host.ensure_available(PARAMS)
    assert host.url_for_submit(ADDRESS) == "https://store.example/a.jpg?X-Amz-Signature=1"
    assert shelf.looks == 1


@pytest.mark.parametrize(
    ("there", "why"),
    [(ObjectInfo(size_bytes=7, etag="other"), "changed since the run was planned"), (None, "not there")],
)
async def test_another_picture_than_was_planned_is_not_handed_over(
    monkeypatch: pytest.MonkeyPatch, there: ObjectInfo | None, why: str
) -> None:
    with pytest.raises(FatalError, match=why):
        await hosting(Shelf(there), monkeypatch, "same").ensure_available(PARAMS)


async def test_a_store_of_this_machine_is_refused_for_a_gateway_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    host = hosting(Shelf(None), monkeypatch, "", endpoint="http://127.0.0.1:9000")
    with pytest.raises(UsageError, match="is this machine"):
        await host.ensure_available(PARAMS)
