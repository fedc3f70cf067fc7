"""Local pictures at a live gateway: uploaded once, handed over by address, and resumed after the store was gone."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import KEY, Dop, table
from tests.support.s3_server import BUCKET, CREDENTIALS, S3Server, answers

pytestmark = pytest.mark.long  # whole runs over HTTP; the money's own tests stay in the fast set


@pytest.fixture
def live(against: Callable[..., Opened], store: S3Server) -> Opened:
    store.ready()
    dop, double = against()
    dop.environ = CREDENTIALS | {"DOP_UPLOADS__URL": f"s3://{BUCKET}/dop", "DOP_UPLOADS__ENDPOINT": store.url}
    return dop, double


def photo(dop: Dop, name: str, size: tuple[int, int] = (64, 48), *, orientation: int = 1) -> Path:
    path = dop.folder / name
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a camera"
    # A gradient: a picture of one colour would look alike however it is turned.
    Image.linear_gradient("L").resize(size).convert("RGB").save(path, exif=exif)
    return path


def manifest(dop: Dop, *images: str) -> Path:
    rows = ({"id": f"r{n}", "image": image, "prompt": f"scene {n}", "seed": n} for n, image in enumerate(images, 1))
    return dop.csv(table(rows))


def sent(double: Any) -> list[str]:
    return [submit["body"]["input_images"][0] for submit in double.submits]


def test_a_picture_is_uploaded_once_and_handed_over_by_a_signed_address(live: Opened, store: S3Server) -> None:
    dop, double = live
    path = photo(dop, "mill.jpg")
    (dop.folder / "copy.jpg").write_bytes(path.read_bytes())
    end = dop.buy(manifest(dop, "mill.jpg", "mill.jpg", "copy.jpg"))
    assert end.code == 0, end.err
    (name,) = store.names()
    assert name.startswith("dop/")
    urls = sent(double)
    assert len(set(urls)) == 1
    assert answers(urls[0]) == (200, path.read_bytes())
    assert "X-Amz-Expires=21600" in urls[0]
    assert KEY not in urls[0]
    assert {row["image"] for row in dop.rows()} == {str(path), str(dop.folder / "copy.jpg")}
    left = [file for file in dop.outputs.rglob("*") if file.is_file() and b"X-Amz-Signature" in file.read_bytes()]
    assert left == []
    again = dop.buy(manifest(dop, "copy.jpg"))
    assert (again.code, len(double.submits)) == (0, 3)


def test_a_public_base_is_used_as_it_is(live: Opened, store: S3Server) -> None:
    dop, double = live
    photo(dop, "mill.jpg")
    dop.environ["DOP_UPLOADS__PUBLIC_BASE"] = f"{store.url}/{BUCKET}/dop"
    assert dop.buy(manifest(dop, "mill.jpg")).code == 0
    assert sent(double) == [f"{store.url}/{BUCKET}/{store.names()[0]}"]


@pytest.mark.parametrize(
    ("size", "orientation", "max_px", "seen"),
    [
        ((64, 48), 6, "", (48, 64)),
        ((640, 480), 1, "320", (320, 240)),
        ((640, 480), 8, "320", (240, 320)),
        ((640, 480), 1, "640", (640, 480)),
    ],
)
def test_a_picture_is_turned_upright_and_made_smaller_on_request(
    live: Opened, size: tuple[int, int], orientation: int, max_px: str, seen: tuple[int, int]
) -> None:
    dop, double = live
    path = photo(dop, "mill.jpg", size, orientation=orientation)
    before = path.read_bytes()
    dop.environ["DOP_UPLOADS__MAX_PX"] = max_px
    assert dop.buy(manifest(dop, "mill.jpg")).code == 0
    status, content = answers(sent(double)[0])
    assert status == 200
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == seen
        assert picture.getexif().get(0x0112, 1) == 1
        assert (0x010F in picture.getexif()) == (content == before)
    assert path.read_bytes() == before


def test_a_store_that_stops_ends_the_buying_and_the_next_run_continues(live: Opened, store: S3Server) -> None:
    dop, double = live
    names = [f"p{number}.png" for number in range(6)]
    for number, name in enumerate(names):
        photo(dop, name, (16 + number, 16))
    shots = manifest(dop, *names)
    assert dop.buy(shots, "--max-new", "2").code == 5
    store.stop()
    end = dop.buy(shots)
    assert end.code == 5, end.err
    assert "can't be uploaded: s3://pictures/dop does not" in end.err
    assert end.counts == {"done": 2, "planned": 4}
    assert double.charged == 2
    store.start()
    end = dop.buy(shots)
    assert end.code == 0, end.err
    assert end.counts == {"done": 6}
    assert double.charged == 6
    assert all(answers(url)[0] == 200 for url in sent(double)[2:])


def test_without_a_store_local_pictures_are_refused_at_a_live_gateway(against: Callable[..., Opened]) -> None:
    dop, double = against()
    photo(dop, "mill.jpg")
    end = dop.buy(manifest(dop, "mill.jpg"))
    assert end.code == 2
    assert "configure `uploads`" in end.err
    assert double.charged == 0


def test_a_store_of_this_machine_is_refused_for_a_gateway_elsewhere(rehearsal: Dop) -> None:
    photo(rehearsal, "mill.jpg")
    upload = {"URL": f"s3://{BUCKET}", "ENDPOINT": "http://127.0.0.1:9", "REGION": "us-east-1"}
    rehearsal.environ = {f"DOP_UPLOADS__{name}": value for name, value in upload.items()}
    rehearsal.environ["DOP_GATEWAY__BASE_URL"] = "https://gateway.example"
    end = rehearsal.buy(manifest(rehearsal, "mill.jpg"))
    assert end.code == 2
    assert "the gateway can't read pictures from there" in end.err
