"""Drafts: whole or not there, and removed by the next process when their owner died, never before."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import files
from pipeline.files import draft_beside, remove_abandoned, whole_text
from pipeline.gateway.part_file import PartFile
from pipeline.ledger.leftovers import remove_leftovers

OWNER = """
import sys
from pathlib import Path
from pipeline.files import draft_beside, temporary_folder
with draft_beside(Path(sys.argv[1])) as draft:
    folder, _ = temporary_folder()
    print(draft, folder, sep="\\n", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a draft and a temporary folder; the test kills it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "report.csv")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    yield process
    process.kill()
    process.wait()
    process.communicate()


def owned(process: subprocess.Popen[str]) -> tuple[Path, Path]:
    """The draft and the folder of the other process."""
    assert process.stdout is not None
    return Path(process.stdout.readline().strip()), Path(process.stdout.readline().strip())


def test_the_draft_of_a_living_process_stays_and_that_of_a_dead_one_goes(
    tmp_path: Path, owner: subprocess.Popen[str]
) -> None:
    draft, folder = owned(owner)
    assert remove_abandoned(tmp_path) == 0
    files.temporary_folder()
    assert draft.exists()
    assert folder.exists()
    owner.kill()
    owner.wait()
    assert remove_abandoned(tmp_path) == 1
    files.temporary_folder()
    assert not draft.exists()
    assert not folder.exists()


def test_a_cleaner_that_does_not_ask_for_the_lock_is_caught(
    tmp_path: Path, owner: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin: it removes what a living process writes."""
    draft, _ = owned(owner)
    monkeypatch.setattr(files, "_lock", lambda handle: True)
    assert remove_abandoned(tmp_path) == 1
    assert not draft.exists()


def test_nothing_is_removed_where_the_file_system_has_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".draft-0123abcd-report.csv").touch()
    monkeypatch.setattr(files, "_lock", lambda handle: None)
    assert remove_abandoned(tmp_path) == 0
    with whole_text(tmp_path / "x.txt") as stream:
        stream.write("written all the same")
    assert (tmp_path / "x.txt").read_text() == "written all the same"


@pytest.mark.parametrize("name", [".gitignore", ".draft", "draft-0123abcd-x.csv", ".report-abcdefgh.csv", "x.mp4.part"])
def test_files_of_the_user_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    assert remove_abandoned(tmp_path) == 0
    assert (tmp_path / name).read_text() == "mine"


def test_a_link_or_folder_with_the_name_of_a_draft_stays(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / ".draft-0123abcd-link").symlink_to(mine)
    (tmp_path / ".draft-0123abcd-folder").mkdir()
    os.mkfifo(tmp_path / ".draft-0123abcd-fifo")
    assert remove_abandoned(tmp_path) == 0
    assert mine.read_text() == "mine"


def test_the_leftovers_of_a_run_go_and_a_living_download_stays(tmp_path: Path) -> None:
    videos = tmp_path / "run" / "videos"
    videos.mkdir(parents=True)
    living = PartFile(videos / "a.mp4")
    living.claim()
    for name in ("b.mp4.part", ".draft-0123abcd-b.jpg", "c.mp4"):
        (videos / name).touch()
    (tmp_path / ".latest-0123abcd").symlink_to("run")
    (tmp_path / "latest").symlink_to("run")
    (tmp_path / "ledger.db.rebuilding-wal").touch()
    remove_leftovers(tmp_path, tmp_path / "ledger.db", ["run", "gone"])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.mp4.part", "c.mp4", "latest", "run", "videos"]
    living.discard()


def test_a_block_that_fails_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    target = tmp_path / "x.csv"
    target.write_text("old")

    def fail() -> None:
        with whole_text(target) as stream:
            stream.write("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]
    assert target.read_text() == "old"


def test_a_long_name_still_has_a_draft(tmp_path: Path) -> None:
    target = tmp_path / ("é" * 125 + ".csv")
    with draft_beside(target) as draft:
        assert draft.suffix == ".csv"
