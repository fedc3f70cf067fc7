"""What lands in a store: once, whole, tables last; and patience with a store that is away."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import cast

import pytest

from pipeline.assets.object_store import ObjectInfo, ObjectStore, StoreError
from pipeline.assets.publishing import DOWN_S, LATEST, OutputPublisher
from pipeline.gateway.download_outcomes import Saved

SAVED = Saved(size_bytes=5, sha256="ab", content_type=None)


class Shelf:
    """A store in memory that counts what it is asked."""

    def __init__(self) -> None:
        self.there: dict[str, ObjectInfo] = {}
        self.put_names: list[str] = []
        self.asked = 0
        self.away = False

    def _asked(self) -> None:
        self.asked += 1
        if self.away:
            raise StoreError("s3://b/x is away")

    async def head(self, name: str) -> ObjectInfo | None:
        self._asked()
        return self.there.get(name)

    async def put(self, name: str, content: bytes | Path, *, kind: str, sha256: str = "") -> None:
        self._asked()
        size = len(content) if isinstance(content, bytes) else SAVED.size_bytes
        self.there[name] = ObjectInfo(size_bytes=size, etag="e", sha256=sha256)
        self.put_names.append(name)

    async def sizes(self, folder: str) -> dict[str, int]:
        self._asked()
        return {name: one.size_bytes for name, one in self.there.items() if name.startswith(f"{folder}/")}


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "videos" / "a.mp4"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"video")
    return path


def landing(shelf: Shelf, outputs: Path, clock: list[float] | None = None) -> OutputPublisher:
    now = clock or [0.0]
    return OutputPublisher(cast(ObjectStore, shelf), outputs, clock=lambda: now[0])


async def test_a_video_is_put_once_under_its_place_below_the_outputs(shelf: Shelf, video: Path, tmp_path: Path) -> None:
    lander = landing(shelf, tmp_path)
    assert await lander.publish_video(video, SAVED) == ""
    assert await lander.publish_video(video, SAVED) == ""
    assert shelf.put_names == ["run/videos/a.mp4"]


@pytest.mark.parametrize("other", [ObjectInfo(size_bytes=4, etag="e", sha256="ab"), ObjectInfo(size_bytes=5, etag="e")])
async def test_what_is_not_proved_to_be_the_video_is_replaced(
    shelf: Shelf, video: Path, tmp_path: Path, other: ObjectInfo
) -> None:
    shelf.there["run/videos/a.mp4"] = other
    assert await landing(shelf, tmp_path).publish_video(video, SAVED) == ""
    assert shelf.there["run/videos/a.mp4"].sha256 == "ab"


async def test_a_store_that_is_away_is_asked_again_after_a_while(shelf: Shelf, video: Path, tmp_path: Path) -> None:
    clock = [100.0]
    lander = landing(shelf, tmp_path, clock)
    shelf.away = True
    assert await lander.publish_video(video, SAVED) == "s3://b/x is away"
    shelf.away = False
    clock[0] += DOWN_S - 1
    assert await lander.publish_video(video, SAVED) == "s3://b/x is away"
    assert shelf.asked == 1
    clock[0] += 2
    assert await lander.publish_video(video, SAVED) == ""


async def test_what_an_earlier_run_staged_is_measured_again(shelf: Shelf, video: Path, tmp_path: Path) -> None:
    found = await landing(shelf, tmp_path).find_staged(video)
    assert found is not None
    assert (found.size_bytes, found.sha256) == (5, hashlib.sha256(b"video").hexdigest())
    assert await landing(shelf, tmp_path).find_staged(video.with_name("b.mp4")) is None


async def test_tables_land_last_and_what_is_unfinished_does_not(shelf: Shelf, video: Path, tmp_path: Path) -> None:
    folder = video.parents[1]
    names = ("run.json", "report.csv", "report.html", "failures.csv", "manifest.yaml", ".hidden", "videos/b.mp4.part")
    for name in (*names, "videos/a.jpg"):
        (folder / name).write_text(name)
    lander = landing(shelf, tmp_path)
    assert await lander.publish_reports(folder) == ""
    assert sorted(shelf.put_names[:-3]) == ["run/failures.csv", "run/manifest.yaml", "run/videos/a.jpg"]
    assert shelf.put_names[-3:] == ["run/report.html", "run/report.csv", "run/run.json"]
    shelf.put_names.clear()
    assert await lander.publish_reports(folder) == ""
    assert "run/videos/a.jpg" not in shelf.put_names, "a still never changes"
    assert len(shelf.put_names) == 5


async def test_before_anything_is_bought_the_store_takes_the_manifest(
    shelf: Shelf, video: Path, tmp_path: Path
) -> None:
    folder = video.parents[1]
    (folder / "manifest.csv").write_text("id\n")
    assert await landing(shelf, tmp_path).check_writable(folder) == ""
    assert shelf.put_names == ["run/manifest.csv", LATEST]
    shelf.away = True
    assert await landing(shelf, tmp_path).check_writable(folder) == "s3://b/x is away"


async def test_several_reports_at_once_do_no_harm(shelf: Shelf, video: Path, tmp_path: Path) -> None:
    (video.parents[1] / "report.csv").write_text("a\n")
    lander = landing(shelf, tmp_path)
    assert await asyncio.gather(*(lander.publish_reports(video.parents[1]) for _ in range(3))) == ["", "", ""]


def test_what_other_hosts_saved_is_brought_here_once_and_only_as_it_was_saved(tmp_path: Path, video: Path) -> None:
    content = b"a video of another host"
    good, bad = hashlib.sha256(content).hexdigest(), "of something else"
    asked: list[str] = []

    class Reads(Shelf):
        async def read(self, name: str, most_bytes: int) -> tuple[ObjectInfo, bytes] | None:
            asked.append(name)
            return None if name == "run/videos/gone.mp4" else (ObjectInfo(size_bytes=len(content), etag="e"), content)

    digests = {"run/videos/a.mp4": "", "run/videos/b.mp4": good, "run/videos/c.mp4": bad, "run/videos/gone.mp4": good}
    landing = OutputPublisher(cast(ObjectStore, Reads()), tmp_path)
    assert asyncio.run(landing.download_missing(digests)) == ""
    assert {path.name: path.read_bytes() for path in video.parent.iterdir()} == {"a.mp4": b"video", "b.mp4": content}
    assert asked == ["run/videos/b.mp4", "run/videos/c.mp4", "run/videos/gone.mp4"]
