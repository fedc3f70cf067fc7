"""What is bought, what it costs, and what is not bought again: manifest, books, ledger and report agree to the cent."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from urllib.request import urlopen

import av
import pytest
from PIL import Image

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import COLUMNS, DOP, Dop, cost, shots, table
from tests.support.fake_gateway import Json

Against = Callable[..., Opened]
REPO = Path(__file__).resolve().parents[2]


@contextmanager
def sandbox(dop: Dop, *words: str) -> Iterator[str]:
    """`dop sandbox serve` as a process of its own; gives its address."""
    command = [str(DOP), "sandbox", "serve", "--data", str(dop.folder / "gateway"), *words]
    process = subprocess.Popen(command, cwd=dop.folder, env=dop.environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def books(address: str) -> Json:
    """What a sandbox says it charged."""
    with urlopen(f"{address}/_sandbox/books") as answer:
        found: Json = json.load(answer)
    return found


def frames(video: Path) -> tuple[float, int]:
    """Seconds of a video, and how many of its frames differ from the one before."""
    with av.open(str(video)) as box:
        pictures = [frame.to_ndarray(format="gray") for frame in box.decode(video=0)]
        assert box.duration is not None
        return box.duration / 1_000_000, sum((one != other).any() for one, other in pairwise(pictures))


@pytest.mark.long
@pytest.mark.process
def test_a_rehearsal_ends_with_playable_videos_and_books_that_agree(rehearsal: Dop) -> None:
    manifest = REPO / "manifests" / "example.yaml"
    rehearsal.environ["PIXAZO_API_KEY"] = "the-key-of-a-user-0123456789"
    end = rehearsal.buy(manifest, "--set", "sandbox.generation_s=0.2s", "--set", "sandbox.size=180p")
    assert end.code == 0, end.err
    rows = rehearsal.rows()
    assert len(rows) >= 12
    assert len({row["image"] for row in rows}) >= 3
    assert len({row["model"] for row in rows}) >= 2
    assert list(rows[0]) == COLUMNS
    for video in rehearsal.videos():
        seconds, moves = frames(video)
        assert video.read_bytes()[4:8] == b"ftyp"
        assert seconds == pytest.approx(5, abs=0.2)
        assert moves > 30
        assert re.fullmatch(r"[a-z0-9@._-]+-[0-9a-f]{8}-\d+\.mp4", video.name)
    again = rehearsal.buy(manifest)
    assert again.code == 0, again.err
    made = sum(row["status"] == "done" for row in rows)  # a row that keeps one clip needs not all of its seeds
    assert again.err.startswith(f"Nothing to buy: all {made} videos already exist ({end.run})")
    assert rehearsal.latest.name == end.run
    assert [path.parent.name for path in rehearsal.outputs.glob("20*/report.csv")] == [end.run]
    result = rehearsal.environment()["PIXAZO_API_KEY"].encode()
    assert [path for path in rehearsal.outputs.rglob("*") if path.is_file() and result in path.read_bytes()] == []
    command = [str(DOP), "sandbox", "serve", "--data", str(rehearsal.outputs / "sandbox")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = books(process.stdout.readline().strip())
        process.terminate()
    assert found["charged"] == made
    assert Decimal(found["usd"]) == cost(rehearsal.rows(end.run)) == Decimal(rehearsal.ledger_mills()) / 1000


def test_an_external_sandbox_has_the_ledgers_books(rehearsal: Dop) -> None:
    rehearsal.environ["PIXAZO_API_KEY"] = "any-key"
    with sandbox(
        rehearsal, "--generation", "200ms", "--key", "any-key", "--dialect", "queue", "--size", "180p"
    ) as address:
        rehearsal.base_url = address
        end = rehearsal.buy(rehearsal.csv(shots(5, image="sandbox:coffee")))
        assert end.code == 0, end.err
        found = books(address)
    assert found["charged"] == 5
    assert {job["job_set_id"] for job in found["jobs"]} == {row["job_set_id"] for row in rehearsal.rows()}
    assert Decimal(found["usd"]) == cost(rehearsal.rows()) == Decimal(rehearsal.ledger_mills()) / 1000
    assert {row["gateway"] for row in rehearsal.rows()} == {address}


def test_what_a_run_leaves_is_where_the_documents_say(against: Against) -> None:
    dop, _ = against(rows={"scene 2 ": {"end": "failed", "reason": "=out of memory"}})
    manifest = dop.csv(shots(3), "My Shots.csv")
    end = dop.buy(manifest)
    assert end.code == 1, end.err
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d{4}-my-shots-[0-9a-f]{4}", end.run)
    assert (dop.outputs / "latest").is_symlink()
    assert dop.latest.name == end.run
    assert (dop.latest / "manifest.csv").read_bytes() == manifest.read_bytes()
    failures = list(csv.DictReader((dop.latest / "failures.csv").read_text(encoding="utf-8-sig").splitlines()))
    assert [row["row_id"] for row in failures] == ["row-2"]
    assert failures[0]["reason"].startswith("'=")
    result = json.loads((dop.latest / "run.json").read_text())
    assert (result["run"], result["confirmed_usd"], result["disputed_usd"]) == (end.run, "0.270", "0.135")
    assert result["versions"]["python"]
    for line in (dop.latest / "run.log").read_text().splitlines():
        assert {"at", "level", "event"} <= set(json.loads(line))


def test_a_manifest_that_is_edited_buys_only_what_is_new(against: Against) -> None:
    dop, double = against()
    head, *lines = shots(4).splitlines()
    manifest = dop.csv(shots(4))
    assert dop.buy(manifest).code == 0
    assert double.charged == 4
    resorted = [line + ",1" for line in (*reversed(lines[1:]), lines[0])]
    inserted = 'new,https://cdn.example.com/new.jpg,"a new scene, at the front",9,1'
    reworded = resorted[0].replace("scene 4 of all", "scene four of all")
    dop.csv("\n".join([f"{head},take", inserted, reworded, *resorted[1:]]))
    end = dop.buy(manifest)
    assert end.code == 0, end.err
    assert double.charged == 6, "one inserted and one reworded row; re-sorting buys nothing"
    assert sum(not row["bought_in"] for row in dop.rows()) == 2
    assert cost(dop.rows()) == Decimal("0.270")
    assert [row["row_id"] for row in dop.rows()] == ["new", "row-4", "row-3", "row-2", "row-1"]
    dop.csv("\n".join([f"{head},take", lines[0] + ",1", lines[0].replace("row-1", "row-1b") + ",2", lines[0] + ",1"]))
    twice = dop.buy(manifest)
    assert twice.code == 2, "row ids must differ"
    dop.csv("\n".join([f"{head},take", lines[0] + ",1", lines[0].replace("row-1", "row-1b") + ",2"]))
    assert dop.buy(manifest).code == 0
    assert double.charged == 7, "a second take is bought once more"


def brackets(count: int, seeds: str) -> str:
    """A manifest of so many rows, each with several seeds."""
    return table(
        {"id": f"row-{number}", "image": "https://cdn.example.com/a.jpg", "prompt": f"scene {number}", "seeds": seeds}
        for number in range(1, count + 1)
    )


@pytest.mark.long
def test_an_unfinished_run_takes_up_an_edited_manifest(against: Against) -> None:
    dop, double = against()
    manifest = dop.csv(brackets(3, "1-2"))
    first = dop.buy(manifest, "--max-new", 2)
    assert first.code == 5, first.err
    dop.csv(brackets(2, "1-3"))
    end = dop.buy(manifest)
    assert end.code == 0, end.err
    assert end.run == first.run
    assert double.charged == 6
    assert len(dop.rows()) == 6
    assert cost(dop.rows()) == Decimal(dop.ledger_mills()) / 1000


@pytest.mark.long
def test_equal_rows_are_one_purchase_and_the_user_is_notified(against: Against) -> None:
    dop, double = against()
    line = "https://cdn.example.com/1.jpg,the same scene,5"
    end = dop.buy(dop.csv(f"id,image,prompt,seed\na,{line}\nb,{line}\nc,{line}\n"))
    assert end.code == 0, end.err
    assert double.charged == 1
    assert "2 rows" in end.err


@pytest.mark.long
def test_the_sandboxs_rehearsal_is_not_bought_on_the_live_gateway(against: Against) -> None:
    dop, double = against()
    address, dop.base_url = dop.base_url, None
    manifest = dop.csv(shots(2))
    assert dop.buy(manifest, "--set", "sandbox.generation_s=0.1s", "--set", "sandbox.size=180p").code == 0
    dop.base_url = address
    end = dop.buy(manifest)
    assert end.code == 0, end.err
    assert double.charged == 2
    assert not any(row["bought_in"] for row in dop.rows())


def test_a_plan_counts_by_what_the_ledger_knows_and_sends_nothing(against: Against) -> None:
    dop, double = against(
        rows={"scene 1 ": {"end": "failed"}}, prompts={"scene 2 ": {"status": 500, "body": "", "book": True}}
    )
    manifest = dop.csv(shots(4))
    dop.buy(manifest, "--max-new", 3, "--set", "pace.submit_concurrency=1")
    sent = len(double.submits), len(double.polls)
    end = dop.call("plan", manifest, "--json")
    assert end.code == 0, end.err
    result = json.loads(end.out)
    assert result | {"by_model": None} == result | {
        "requests": 4,
        "price_usd": "0.540",
        "new": 1,
        "new_price_usd": "0.135",
        "done": 1,
        "in_flight": 0,
        "unknown": 1,
        "failed": 1,
        "by_model": None,
    }
    assert result["by_model"] == {"dop-lite": {"requests": 4, "price_usd": "0.540"}}
    assert (len(double.submits), len(double.polls)) == sent


@pytest.mark.long
def test_a_plan_of_a_hundred_thousand_rows_counts_them_all(rehearsal: Dop) -> None:
    manifest = rehearsal.csv(shots(100_000))
    end = rehearsal.call("plan", manifest, "--json", timeout_s=110)
    assert end.code == 0, end.err
    result = json.loads(end.out)
    assert (result["requests"], result["new"], result["price_usd"]) == (100_000, 100_000, "13500.000")
    assert not (rehearsal.outputs / "latest").exists()


@pytest.mark.long
def test_local_pictures_work_on_the_sandbox_and_are_refused_by_a_live_gateway(against: Against) -> None:
    dop, double = against()
    Image.new("RGB", (64, 48), "teal").save(dop.folder / "mine.png")
    manifest = dop.csv(shots(1, image="mine.png"))
    live = dop.buy(manifest)
    assert live.code == 2, live.err
    assert "mine.png" in live.err
    assert double.submits == []
    dop.base_url = None
    end = dop.buy(manifest, "--set", "sandbox.generation_s=0.1s", "--set", "sandbox.size=180p")
    assert end.code == 0, end.err
    (dop.folder / "moved").mkdir()
    (dop.folder / "mine.png").rename(dop.folder / "moved" / "other.png")
    moved = dop.buy(dop.csv(shots(1, image="moved/other.png"), "again.csv"))
    assert moved.code == 0, moved.err
    assert f"the video exists already ({end.run})" in moved.err, "a picture is its content, not its name"
