"""Pictures of a manifest that lie in an object store: known by their content, handed over by signed addresses."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import Dop, table
from tests.support.s3_server import BUCKET, CREDENTIALS, S3Server, answers

pytestmark = pytest.mark.long  # whole runs over HTTP; the money's own tests stay in the fast set


@pytest.fixture
def live(against: Callable[..., Opened], store: S3Server) -> Opened:
    store.ready()
    dop, double = against()
    dop.environ = CREDENTIALS | {"DOP_UPLOADS__ENDPOINT": store.url}
    return dop, double


def picture(colour: str = "red", size: tuple[int, int] = (64, 48)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def manifest(dop: Dop, *images: str) -> Any:
    rows = ({"id": f"r{n}", "image": image, "prompt": "a scene", "seed": n} for n, image in enumerate(images, 1))
    return dop.csv(table(rows))


def sent(double: Any) -> list[str]:
    return [submit["body"]["input_images"][0] for submit in double.submits]


ADDRESS = f"s3://{BUCKET}/in/old mill.png"


def test_an_object_is_handed_over_by_a_signed_address_and_bought_once(live: Opened, store: S3Server) -> None:
    dop, double = live
    store.put("in/old mill.png", picture())
    store.put("in/copy.png", picture())
    shots = manifest(dop, ADDRESS, ADDRESS)
    end = dop.buy(shots)
    assert end.code == 0, end.err
    (url,) = set(sent(double))
    assert answers(url) == (200, picture())
    assert "X-Amz-Expires=21600" in url
    assert {row["image"] for row in dop.rows()} == {ADDRESS}
    left = [file for file in dop.outputs.rglob("*") if file.is_file() and b"X-Amz-" in file.read_bytes()]
    assert left == []
    assert json.loads(dop.call("plan", shots, "--json").out)["done"] == 2
    # The same content under another name is the same request, and so is the file that it came from.
    (dop.folder / "mill.png").write_bytes(picture())
    dop.environ["DOP_UPLOADS__URL"] = f"s3://{BUCKET}/dop"
    for other in (f"s3://{BUCKET}/in/copy.png", "mill.png"):
        again = dop.buy(manifest(dop, other, other))
        assert (again.code, double.charged) == (0, 2), again.err


def test_a_picture_that_changed_is_another_request_and_said_so(live: Opened, store: S3Server) -> None:
    dop, double = live
    store.put("in/old mill.png", picture())
    shots = manifest(dop, ADDRESS)
    assert dop.buy(shots).code == 0
    store.put("in/old mill.png", picture("blue"))
    assert json.loads(dop.call("plan", shots, "--json").out)["new"] == 0, "a plan sends no request"
    end = dop.call("plan", shots, "--json", "--look")
    assert json.loads(end.out)["new"] == 1
    assert "is another picture than on" in end.err
    end = dop.buy(shots)
    assert (end.code, double.charged) == (0, 2), end.err
    assert "sha256" in dop.call("plan", shots).out


def test_a_plan_sends_no_request_and_a_saved_one_wants_to_know(live: Opened, store: S3Server) -> None:
    dop, double = live
    store.put("in/old mill.png", picture())
    store.stop()
    shots, plan = manifest(dop, ADDRESS), dop.folder / "plan.json"
    end = dop.call("plan", shots, "--json")
    assert (end.code, json.loads(end.out)["new"]) == (0, 1)
    assert "not checked yet" in end.err
    assert dop.call("plan", shots, "--out", plan).code == 2
    store.start()
    store.put("in/old mill.png", picture())
    assert dop.call("plan", shots, "--out", plan, "--look").code == 0
    end = dop.call("run", "--plan", plan, "--yes")
    assert (end.code, double.charged) == (0, 1), end.err
    store.put("in/old mill.png", picture("blue"))
    end = dop.call("run", "--plan", plan, "--yes")
    assert (end.code, double.charged) == (2, 1), end.err


@pytest.mark.parametrize(
    ("content", "why"), [(None, "is not there"), (b"", "is empty"), (b"<html>", "is not a JPEG, PNG or WebP")]
)
def test_what_is_no_picture_is_refused_before_anything_is_bought(
    live: Opened, store: S3Server, content: bytes | None, why: str
) -> None:
    dop, double = live
    store.put("in/good.png", picture())
    if content is not None:
        store.put("in/old mill.png", content)
    end = dop.buy(manifest(dop, f"s3://{BUCKET}/in/good.png", ADDRESS))
    assert (end.code, double.charged) == (2, 0)
    assert f"row r2: {ADDRESS} {why}" in end.err


def test_a_store_that_stops_in_the_middle_costs_nothing_and_the_next_run_continues(
    live: Opened, store: S3Server
) -> None:
    dop, double = live
    names = [f"in/p{number}.png" for number in range(5)]

    def fill() -> None:
        for number, name in enumerate(names):
            store.put(name, picture(size=(16 + number, 16)))

    fill()
    shots = manifest(dop, *(f"s3://{BUCKET}/{name}" for name in names))
    assert dop.buy(shots, "--max-new", "2").code == 5
    store.stop()
    end = dop.buy(shots)
    assert end.code == 5, end.err
    assert "is taken for what it was" in end.err
    assert end.counts == {"done": 2, "planned": 3}
    store.start()
    fill()
    end = dop.buy(shots)
    assert (end.code, end.counts, double.charged) == (0, {"done": 5}, 5), end.err


def test_a_store_that_was_never_seen_and_is_away_buys_nothing(live: Opened, store: S3Server) -> None:
    dop, double = live
    store.stop()
    end = dop.buy(manifest(dop, ADDRESS))
    assert (end.code, double.charged) == (2, 0)
    assert "nothing was sent" in end.err


def test_a_rehearsal_asks_no_store(rehearsal: Dop) -> None:
    end = rehearsal.buy(manifest(rehearsal, ADDRESS), "--set", "sandbox.size=180p")
    assert end.code == 0, end.err
    assert rehearsal.rows()[0]["image"] == ADDRESS
