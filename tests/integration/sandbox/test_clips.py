"""Rendered clips: playable, five seconds, frames that differ, the same bytes for the same request in every process."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.sandbox.image_store import PHOTOS
from pipeline.sandbox.rendering.clip import ClipPlan, frame_size, open_still, render
from pipeline.sandbox.rendering.placeholder import draw_scene

ROCKET = (PHOTOS / "rocket.jpg").read_bytes()


def make_plan(**only_what_matters: object) -> ClipPlan:
    fields: dict[str, object] = {"image": ROCKET, "motion": "Dolly In", "strength": 0.7, "seed": 7, "long_side_px": 96}
    return ClipPlan(**{**fields, **only_what_matters})  # type: ignore[arg-type]


def rendered(folder: Path, **only_what_matters: object) -> bytes:
    target = folder / "clip.mp4"
    render(make_plan(**only_what_matters), target)
    return target.read_bytes()


def frames_of(clip: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(clip), "r") as container:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]


def test_a_clip_is_five_seconds_of_h264_in_an_mp4_that_streams(tmp_path: Path) -> None:
    clip = rendered(tmp_path)
    assert clip[4:8] == b"ftyp"
    assert clip.index(b"moov") < clip.index(b"mdat")
    with av.open(io.BytesIO(clip), "r") as container:
        (stream,) = container.streams.video
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert container.duration is not None
        assert container.duration / 1_000_000 == pytest.approx(5.0)


def test_frames_differ_and_the_first_one_looks_like_the_photograph(tmp_path: Path) -> None:
    frames = frames_of(rendered(tmp_path))
    steps = [np.abs(a - b).mean() for a, b in pairwise(frames)]
    assert np.mean([step > 0.05 for step in steps]) > 0.9
    assert np.abs(frames[0] - frames[-1]).mean() > 3
    height, width, _ = frames[0].shape
    photo = np.asarray(open_still(ROCKET).resize((width, height))).astype(int)
    assert np.abs(frames[0] - photo).mean() < 12


def test_the_same_request_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from pipeline.sandbox.rendering.clip import ClipPlan, render\n"
        "render(ClipPlan(image=Path(sys.argv[1]).read_bytes(), motion='Set on Fire', strength=0.7, seed=7,"
        " long_side_px=96), Path(sys.argv[2]))"
    )
    other = tmp_path / "other.mp4"
    subprocess.run([sys.executable, "-c", script, str(PHOTOS / "rocket.jpg"), str(other)], check=True)
    assert other.read_bytes() == rendered(tmp_path, motion="Set on Fire")


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"strength": 0.2}, {"motion": "Crane Up"}, {"prompt": "at night"}, {"end_image": ROCKET}]
)
def test_another_request_gives_another_clip(tmp_path: Path, change: dict[str, object]) -> None:
    if "end_image" in change:
        change = {"end_image": (PHOTOS / "cat.jpg").read_bytes()}
    assert hashlib.sha256(rendered(tmp_path, **change)).digest() != hashlib.sha256(rendered(tmp_path)).digest()


def test_a_clip_with_an_end_frame_ends_near_it(tmp_path: Path) -> None:
    end = (PHOTOS / "coffee.jpg").read_bytes()
    frames = frames_of(rendered(tmp_path, end_image=end, motion="Static", long_side_px=96))
    height, width, _ = frames[0].shape
    start, last = (np.asarray(open_still(image).resize((width, height))).astype(int) for image in (ROCKET, end))
    assert np.abs(frames[0] - start).mean() < np.abs(frames[0] - last).mean() / 3
    assert np.abs(frames[-1] - last).mean() < np.abs(frames[-1] - start).mean() / 3


@pytest.mark.parametrize(
    ("image_px", "size"),
    [((640, 427), (320, 214)), ((512, 512), (320, 320)), ((300, 600), (160, 320)), ((5000, 10), (320, 106))],
)
def test_the_aspect_of_the_image_is_kept_in_even_numbers(image_px: tuple[int, int], size: tuple[int, int]) -> None:
    assert frame_size(image_px, 320) == size


def test_a_file_that_is_no_image_makes_no_clip(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot identify"):
        rendered(tmp_path, image=b"<html>not an image</html>")
    assert list(tmp_path.iterdir()) == []


def test_a_placeholder_depends_on_its_url_alone() -> None:
    again = draw_scene.__wrapped__("https://example.com/a.jpg")
    assert draw_scene("https://example.com/a.jpg") == again
    assert draw_scene("https://example.com/a.jpg") != draw_scene("https://example.com/b.jpg")


def test_the_shipped_photographs_are_real_pictures_with_named_sources() -> None:
    sources = (PHOTOS / "SOURCES.md").read_text(encoding="utf-8")
    photos = sorted(PHOTOS.glob("*.jpg"))
    assert len(photos) >= 5
    for photo in photos:
        assert photo.stat().st_size <= 200_000
        assert f"| {photo.name}, " in sources
        with Image.open(photo) as opened:
            assert f"{opened.width}x{opened.height}" in sources
            assert np.asarray(opened.convert("L")).std() > 20
