"""A video that is gone is named by status, run and collect, and fetched again for nothing; what was meant stays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import Dop, shots
from tests.support.fake_gateway import tiny_clip

Against = Callable[..., Opened]


def bought(against: Against, rows: int = 2) -> tuple[Opened, Path, Path]:
    """A user with so many videos: the manifest, and the first video."""
    dop, double = against()
    manifest = dop.csv(shots(rows))
    assert dop.buy(manifest).code == 0
    return (dop, double), manifest, sorted(dop.videos())[0]


def gone(video: Path) -> None:
    video.unlink()


def emptied(video: Path) -> None:
    video.write_bytes(b"")


def cut(video: Path) -> None:
    video.write_bytes(video.read_bytes()[:-7])


def zeroed(video: Path) -> None:
    video.write_bytes(bytes(len(video.read_bytes())))


def dangling(video: Path) -> None:
    video.unlink()
    video.symlink_to("nowhere.mp4")


def folder_removed(video: Path) -> None:
    shutil.rmtree(video.parent)


WAYS = pytest.mark.parametrize("way", [gone, emptied, cut, zeroed, dangling, folder_removed])


@WAYS
def test_collect_fetches_it_again_where_it_was(against: Against, way: Callable[[Path], None]) -> None:
    (dop, double), _, video = bought(against)
    way(video)
    status = dop.call("status")
    assert "missing: row-1" in status.out
    assert json.loads(dop.call("status", "--json").out)["missing_videos"] >= 1
    end = dop.call("collect")
    assert end.code == 0, end.err
    assert "row-1" in end.err
    assert video.read_bytes() == tiny_clip()
    assert not video.is_symlink()
    assert json.loads(dop.call("status", "--json").out)["missing_videos"] == 0
    assert double.charged == 2


def test_the_same_manifest_again_fetches_it_where_it_was(against: Against) -> None:
    (dop, double), manifest, video = bought(against)
    gone(video)
    end = dop.buy(manifest)
    assert end.code == 0, end.err
    assert video.read_bytes() == tiny_clip()
    assert double.charged == 2


@pytest.mark.long
def test_it_is_unfinished_until_it_is_there(against: Against) -> None:
    (dop, double), manifest, video = bought(against)
    gone(video)
    job = next(job for job in double.jobs.values() if job.body["prompt"] == prompt_of(dop, "row-1"))
    job.script.not_a_video = 1_000
    for _ in range(2):
        end = dop.buy(manifest, "--max-duration", "1s")
        assert end.code == 5, end.err
    job.script.not_a_video = 0
    assert dop.call("collect").code == 0
    assert video.read_bytes() == tiny_clip()
    assert double.charged == 2


def prompt_of(dop: Dop, row: str) -> str:
    """The prompt of a row."""
    return next(str(line["prompt"]) for line in dop.rows() if line["row_id"] == row)


def test_a_whole_video_that_the_user_edited_stays(against: Against) -> None:
    (dop, _), manifest, video = bought(against)
    free_box = (16).to_bytes(4, "big") + b"free" + b"my words"
    video.write_bytes(tiny_clip() + free_box)
    assert "missing" not in dop.call("status").out
    assert dop.buy(manifest).code == 0
    assert dop.call("collect").code == 0
    assert video.read_bytes() == tiny_clip() + free_box


def test_what_was_pruned_is_not_fetched_again(against: Against) -> None:
    (dop, double), manifest, video = bought(against)
    assert dop.typed("prune", "--keep", "0s", "--yes", "--outputs", str(dop.outputs)).code == 0
    assert not video.exists()
    downloads = len(double.downloads)
    assert dop.call("collect").code == 0
    assert dop.buy(manifest).code == 0
    assert len(double.downloads) == downloads


def test_a_run_whose_folder_was_moved_away_is_fetched_only_when_it_is_named(against: Against) -> None:
    (dop, double), _, video = bought(against)
    run = video.parent.parent
    run.rename(dop.folder / "archive")
    downloads = len(double.downloads)
    assert dop.call("collect").code == 0
    assert len(double.downloads) == downloads
    assert dop.call("collect", run.name).code == 0
    assert video.read_bytes() == tiny_clip()


def test_a_link_that_has_expired_is_renewed_by_a_poll(against: Against) -> None:
    (dop, double), manifest, video = bought(against)
    gone(video)
    polls = len(double.polls)
    job = next(job for job in double.jobs.values() if job.body["prompt"] == prompt_of(dop, "row-1"))
    job.script.dead_links = 1
    end = dop.buy(manifest)
    assert end.code == 0, end.err
    assert len(double.polls) == polls + 1, end.err
    assert video.read_bytes() == tiny_clip()
    assert double.charged == 2


def test_status_does_not_call_a_video_ready_that_was_never_downloaded(against: Against) -> None:
    dop, _ = against()
    manifest = dop.csv(shots(2))
    run = dop.buy(manifest, "--no-download").run
    status = dop.call("status")
    assert "not downloaded       2" in status.out
    assert "ready                0" in status.out
    listed = dop.call("list").out
    assert "0/2" in listed
    assert "2 not downloaded" in listed
    assert f"`dop collect {run}` fetches" in status.out
    assert json.loads(dop.call("status", "--json").out)["missing_videos"] == 2
    assert dop.call("collect", run).code == 0
    assert "not downloaded" not in dop.call("status").out
