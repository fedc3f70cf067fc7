"""`outputs.dir: s3://..`: videos and reports land in the store whole or not at all, and the ledger stays here."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import Dop, ended, killed, shots, wait_for
from tests.support.s3_server import BUCKET, CREDENTIALS, S3Server

pytestmark = pytest.mark.long  # whole runs over HTTP; the money's own tests stay in the fast set

FOLDER = f"s3://{BUCKET}/films"


@pytest.fixture
def live(against: Callable[..., Opened], store: S3Server) -> Callable[..., Opened]:
    store.ready()

    def opened(**script: object) -> Opened:
        dop, double = against(**script)
        dop.environ = CREDENTIALS | {"DOP_OUTPUTS__ENDPOINT": store.url}
        return dop, double

    return opened


def words(dop: Dop) -> tuple[str, ...]:
    """After the test's own --outputs, which is the staging folder."""
    return ("--set", f"outputs.staging={dop.outputs}", "--outputs", FOLDER)


def rows(store: S3Server, run: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(store.get(f"films/{run}/report.csv").decode("utf-8-sig"))))


def check(dop: Dop, store: S3Server, run: str, count: int) -> None:
    """Every video that the report in the store names is beside it, whole; the page's links lead there."""
    stored = rows(store, run)
    assert [row["status"] for row in stored] == ["done"] * count
    for row in stored:
        content = store.get(f"films/{run}/{row['local_path']}")
        assert hashlib.sha256(content).hexdigest() == row["sha256"]
        assert len(content) == int(row["size_bytes"])
    page = store.get(f"films/{run}/report.html").decode()
    names = set(store.names())
    links = set(re.findall(r"videos/[A-Za-z0-9@._-]+\.(?:mp4|jpg)", page))
    assert len([link for link in links if link.endswith(".mp4")]) == count
    assert {f"films/{run}/{link}" for link in links} <= names
    assert not [name for name in names if ".part" in name or "ledger" in name or "/." in name]


def test_videos_and_reports_land_in_the_store_and_the_ledger_does_not(
    live: Callable[..., Opened], store: S3Server
) -> None:
    dop, double = live()
    end = dop.buy(dop.csv(shots(4)), *words(dop))
    assert end.code == 0, end.err
    check(dop, store, end.run, 4)
    there = {name.removeprefix(f"films/{end.run}/") for name in store.names()}
    assert {"report.csv", "failures.csv", "report.html", "run.json", "run.log", "manifest.csv", "films/latest"} <= there
    assert store.get("films/latest").decode().strip() == end.run
    assert (dop.outputs / "ledger.db").is_file()
    assert json.loads(store.get(f"films/{end.run}/run.json"))["settings"]["outputs.dir"] == FOLDER
    again = dop.buy(dop.csv(shots(5)), *words(dop))
    assert (again.code, double.charged) == (0, 5)
    older = [row["local_path"] for row in rows(store, again.run) if row["bought_in"]]
    assert len(older) == 4
    assert all(path.startswith(f"../{end.run}/videos/") for path in older)


def test_a_store_that_stops_in_the_middle_loses_nothing_and_no_video_is_fetched_twice(
    live: Callable[..., Opened], store: S3Server
) -> None:
    dop, double = live(jobs={str(number): {"slow_s": 4} for number in range(3, 7)})
    manifest = dop.csv(shots(6))
    process = dop.start("run", manifest, "--yes", *words(dop))
    wait_for(lambda: sum(name.endswith(".mp4") for name in store.names()) == 2)
    kept = store.dump()
    store.stop()
    end = ended(process)
    assert end.code == 5, end.err
    assert "videos can't be put into the store" in end.err
    bought, fetched = double.charged, len(double.downloads)
    assert end.counts["done"] == bought
    staged = sorted(path.name for path in (dop.outputs / end.run / "videos").glob("*.mp4"))
    assert len(staged) == fetched
    assert len(dop.ledger("select request_id from attempts where local_path is not null")) < len(staged)
    again = dop.buy(manifest, *words(dop))
    assert again.code == 5, "the store is still away"
    assert double.charged == bought
    store.start()
    store.fill(kept)
    last = dop.buy(manifest, *words(dop))
    assert (last.code, last.counts, last.run) == (0, {"done": 6}, end.run), last.err
    assert double.charged == 6
    assert len(double.downloads) == 6, "what was staged is not fetched again"
    check(dop, store, last.run, 6)


def test_a_store_that_is_away_from_the_start_buys_nothing(live: Callable[..., Opened], store: S3Server) -> None:
    dop, double = live()
    store.stop()
    end = dop.buy(dop.csv(shots(3)), *words(dop))
    assert (end.code, end.counts, double.charged) == (5, {"planned": 3}, 0), end.err
    assert "nothing is bought: s3://pictures/films does not take" in end.err


@pytest.mark.parametrize("moment", ["after-download", "after-landing"])
def test_a_run_that_is_killed_around_the_publishing_continues(
    live: Callable[..., Opened], store: S3Server, moment: str
) -> None:
    dop, double = live()
    manifest, stored = dop.csv(shots(3)), ("--set", "download.concurrency=1", *words(dop))
    assert killed(dop.buy(manifest, *stored, fail_point=f"{moment}:2"))
    end = dop.buy(manifest, *stored)
    assert (end.code, end.counts, double.charged) == (0, {"done": 3}, 3), end.err
    assert len(double.downloads) == 3
    check(dop, store, end.run, 3)


def test_a_report_that_did_not_land_is_put_there_later(live: Callable[..., Opened], store: S3Server) -> None:
    dop, _ = live()
    end = dop.buy(dop.csv(shots(2)), *words(dop))
    store.empty()
    assert dop.call("report", end.run, *words(dop)).code == 0
    assert f"films/{end.run}/report.csv" in store.names()
    store.stop()
    started = time.monotonic()
    late = dop.call("report", end.run, *words(dop))
    assert late.code == 5
    assert "does not list" in late.err
    assert time.monotonic() - started < 30


def test_doctor_asks_the_store(live: Callable[..., Opened], store: S3Server) -> None:
    dop, _ = live()

    def outputs() -> object:
        end = dop.call("doctor", "--live", "--json", *words(dop))
        assert end.out, end.err
        return {one["name"]: one["ok"] for one in json.loads(end.out)["checks"]}["outputs"]

    assert outputs() is True
    store.stop()
    assert outputs() is False


def test_a_large_video_goes_up_in_parts_and_is_whole(tmp_path: Path, store: S3Server) -> None:
    import asyncio

    from pipeline.assets.object_store import PART_BYTES, open_store
    from pipeline.assets.publishing import OutputPublisher
    from pipeline.gateway.download_outcomes import Saved

    store.ready()
    video = tmp_path / "run" / "videos" / "a.mp4"
    video.parent.mkdir(parents=True)
    content = bytes(range(256)) * (2 * PART_BYTES // 256) + b"the end"
    video.write_bytes(content)
    saved = Saved(size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), content_type=None)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        landing = OutputPublisher(open_store(FOLDER, endpoint=store.url), tmp_path)
        assert asyncio.run(landing.publish_video(video, saved)) == ""
    assert store.get("films/run/videos/a.mp4") == content
