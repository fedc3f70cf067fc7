"""The part on the disk: durable before it has its name, one owner at a time, nothing left behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.files import UMASK
from pipeline.gateway.part_file import PartFile


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "clip.mp4"


def kept(target: Path, data: bytes, part_type: type[PartFile] = PartFile) -> str:
    part = part_type(target)
    part.claim()
    part.write(data)
    return part.keep()


def calls_of(monkeypatch: pytest.MonkeyPatch, folder: Path, act: Callable[[], object]) -> list[str]:
    """The order in which `act` syncs and renames; the calls still happen."""
    seen: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(fd: int) -> None:
        seen.append("sync folder" if os.path.samestat(os.fstat(fd), folder.stat()) else "sync file")
        fsync(fd)

    def spy_replace(source: Any, destination: Any) -> None:
        seen.append("rename")
        replace(source, destination)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    act()
    monkeypatch.undo()
    return seen


class NamesItFirst(PartFile):
    """Broken twin: after a power cut the name may stand over an empty file."""

    def keep(self) -> str:
        os.replace(self.path, self.target)
        return self._hash.hexdigest()


def test_the_file_is_durable_before_its_name_and_the_name_before_the_answer(
    monkeypatch: pytest.MonkeyPatch, target: Path
) -> None:
    order = ["sync file", "rename", "sync folder"]
    assert calls_of(monkeypatch, target.parent, lambda: kept(target, b"whole")) == order
    assert calls_of(monkeypatch, target.parent, lambda: kept(target, b"whole", NamesItFirst)) != order


def test_a_part_that_is_being_written_is_refused_to_another(target: Path) -> None:
    first, second = PartFile(target), PartFile(target)
    first.claim()
    first.write(b"first")
    with pytest.raises(BlockingIOError):
        second.claim()
    second.write(b"nothing")
    second.discard()
    first.keep()
    assert target.read_bytes() == b"first"


def test_a_part_that_a_killed_run_left_is_taken_over_empty(target: Path) -> None:
    stale = target.with_name("clip.mp4.part")
    stale.write_bytes(b"a longer, older part")
    stale.chmod(0o600)
    kept(target, b"new")
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o666 & ~UMASK
    assert not stale.exists()


class Late(PartFile):
    """Opens the part just before its owner finishes: the lock it gets is that of a finished video."""

    def __init__(self, target: Path, monkeypatch: pytest.MonkeyPatch, owner: PartFile) -> None:
        super().__init__(target)
        self._owner: PartFile | None = owner
        real_open = os.open

        def slow_open(path: Any, *rest: Any, **options: Any) -> int:
            fd = real_open(path, *rest, **options)
            if self._owner is not None and str(path).endswith(".part"):
                owner, self._owner = self._owner, None
                owner.keep()
            return fd

        monkeypatch.setattr(os, "open", slow_open)


def test_a_video_that_is_finished_between_open_and_lock_is_not_emptied(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = PartFile(target)
    owner.claim()
    owner.write(b"finished")
    late = Late(target, monkeypatch, owner)
    late.claim()
    assert target.read_bytes() == b"finished"
    late.write(b"newer")
    late.keep()
    assert target.read_bytes() == b"newer"


def test_after_discard_nothing_is_written_claimed_or_kept(target: Path) -> None:
    part = PartFile(target)
    part.claim()
    part.discard()
    part.discard()
    part.write(b"late")
    part.claim()
    with pytest.raises(OSError, match="given up"):
        part.keep()
    assert list(target.parent.iterdir()) == []


def test_discard_before_any_claim_leaves_other_parts_alone(target: Path) -> None:
    other = target.with_name("clip.mp4.part")
    other.write_bytes(b"another's")
    PartFile(target).discard()
    assert other.exists()


def test_discard_after_keep_leaves_the_video(target: Path) -> None:
    part = PartFile(target)
    part.claim()
    part.write(b"whole")
    part.keep()
    part.discard()
    assert target.read_bytes() == b"whole"
