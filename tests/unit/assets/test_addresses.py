"""Objects of a store in a manifest: what is an address, whose place it is, and its key in the identity."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.assets.addresses import is_local, is_object, object_place
from pipeline.assets.image_urls import ImageUrlResolver, InputImages
from pipeline.manifest.image_refs import image
from pipeline.planning.binding import RequestBinder
from pipeline.records import Cell, Request
from tests.support.factories import LITE_MICROUSD, make_params

ADDRESS = "s3://bucket/in/old mill.jpg"


@pytest.mark.parametrize("address", [ADDRESS, "gs://b/k", "az://container/a/b.png", "s3://b.c-d_e/\u00e4?.jpg"])
def test_an_objects_address_is_kept_as_it_is_written(address: str) -> None:
    assert image(address, Path("/nowhere")) == address
    assert is_object(address)
    assert not is_local(address)


def test_an_object_has_a_bucket_and_a_key() -> None:
    assert object_place(ADDRESS) == ("s3://bucket", "in/old mill.jpg")


def bound(address: str, known: dict[str, str] | None) -> tuple[str, RequestBinder]:
    binder = RequestBinder(
        gateway="https://gateway.example:443",
        prices_microusd={"dop-lite": LITE_MICROUSD},
        manifest=Path("m.csv"),
        takes_local=False,
        takes_samples=False,
        object_sha256=None if known is None else known.get,
    )
    params = make_params(input_images=(address,))
    (request,) = binder.bind([Cell(row_id="a", params=params, motion="General", take=1, line=1)])
    assert isinstance(request, Request)
    return request.request_id, binder


def test_an_object_is_known_by_its_content_and_not_by_its_name() -> None:
    one, binder = bound(ADDRESS, {ADDRESS: "a" * 64})
    assert binder.sha256_of == {ADDRESS: "a" * 64}
    assert one == bound("s3://bucket/copy.jpg", {"s3://bucket/copy.jpg": "a" * 64})[0]
    assert one != bound(ADDRESS, {ADDRESS: "b" * 64})[0]


def test_an_unchecked_object_is_reported() -> None:
    assert bound(ADDRESS, {})[1].unseen == {ADDRESS}
    assert bound(ADDRESS, None)[1].unseen == set()


def test_a_rehearsal_sends_an_address_that_leads_nowhere_and_a_live_run_the_signed_one() -> None:
    inputs = InputImages({})
    rehearsal = ImageUrlResolver(inputs, embedded=True, base_url="http://127.0.0.1:1")
    params = make_params(input_images=(ADDRESS,))
    assert rehearsal.urls(params) == {ADDRESS: "https://object.invalid/s3/bucket/in/old%20mill.jpg"}
    live = ImageUrlResolver(
        inputs, embedded=False, base_url="", hosted=lambda key: f"https://signed.example/{len(key)}"
    )
    assert live.urls(params) == {ADDRESS: f"https://signed.example/{len(ADDRESS)}"}
    assert (inputs.local(params), inputs.objects(params)) == ({}, [ADDRESS])
