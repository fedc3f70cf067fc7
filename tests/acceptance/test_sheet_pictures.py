"""Posters, the grid video and the contact print of a run with real clips, opened again and checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import pytest
from PIL import Image

from pipeline.errors import UsageError
from pipeline.records import State
from pipeline.reports.sheet.contact_print import write_contact_print
from pipeline.reports.sheet.grid_video import write_grid_video
from pipeline.reports.sheet.image_pages import EDGE_PX, GAP_PX, MAX_CELL_PX
from pipeline.reports.sheet.page import write_sheet
from pipeline.reports.sheet.run_view import Line
from pipeline.reports.sheet.thumbnails import frame_at, make_poster, make_start, poster_path, start_path
from tests.support.factories import make_attempt
from tests.support.sheet_run import RUN, make_clip, make_study, make_view


def bright_column(picture: Image.Image) -> int:
    """Where the white bar of the test clips is."""
    row = picture.convert("L").crop((0, picture.height // 2, picture.width, picture.height // 2 + 1))
    values = list(row.tobytes())
    return values.index(max(values))


def test_a_poster_shows_second_three_and_the_start_frame_second_zero(tmp_path: Path) -> None:
    clip = tmp_path / "a.mp4"
    make_clip(clip, hue=40)
    assert make_poster(clip) == poster_path(clip)
    assert make_start(clip) == start_path(clip)
    with Image.open(poster_path(clip)) as poster, Image.open(start_path(clip)) as start:
        assert bright_column(start) <= 2
        assert abs(bright_column(poster) - 3 / 5 * (160 - 12)) <= 3


def test_a_poster_of_a_short_clip_is_its_last_picture(tmp_path: Path) -> None:
    clip = tmp_path / "a.mp4"
    make_clip(clip, hue=40)
    assert bright_column(frame_at(clip, 60.0)) >= 140


@pytest.mark.parametrize("content", [b"", b"not a clip", b"\x00\x00\x00\x18ftypmp42" + b"\x00" * 40])
def test_a_clip_that_cannot_be_read_has_no_poster_and_the_page_is_written_all_the_same(
    tmp_path: Path, content: bytes
) -> None:
    clip = tmp_path / RUN / "videos" / "broken.mp4"
    clip.parent.mkdir(parents=True)
    clip.write_bytes(content)
    assert make_poster(clip) is None
    view = make_view(tmp_path, [make_attempt(state=State.DONE, local_path=f"{RUN}/videos/broken.mp4")])
    write_sheet(view, tmp_path / RUN / "report.html")
    assert "no poster" in (tmp_path / RUN / "report.html").read_text(encoding="utf-8")
    assert sorted(file.name for file in clip.parent.iterdir()) == ["broken.mp4"]


def test_a_poster_is_made_once(tmp_path: Path) -> None:
    clip = tmp_path / "a.mp4"
    make_clip(clip, hue=40)
    poster_path(clip).write_bytes(b"there already")
    assert make_poster(clip) == poster_path(clip)
    assert poster_path(clip).read_bytes() == b"there already"


@pytest.mark.long
def test_the_grid_video_shows_every_tab_for_five_seconds(tmp_path: Path) -> None:
    assert write_grid_video(make_study(tmp_path), tmp_path / RUN / "grid.mp4") == 2
    with av.open(str(tmp_path / RUN / "grid.mp4")) as container:
        frames = sum(1 for _ in container.decode(video=0))
        stream = container.streams.video[0]
        assert frames == 2 * 5 * 24
        assert (stream.width % 2, stream.height % 2) == (0, 0)
        assert stream.width <= 1920


@pytest.mark.long
def test_clips_of_the_grid_video_are_in_step(tmp_path: Path) -> None:
    lines: list[Line] = []
    for seed in (1, 2):
        path = f"{RUN}/videos/{seed}.mp4"
        make_clip(tmp_path / path, hue=40 * seed)
        lines.append(make_attempt(seed=seed, axes=(("seed", str(seed)),), state=State.DONE, local_path=path))
    view = make_view(tmp_path, lines, x="seed")
    write_grid_video(view, tmp_path / "grid.mp4")
    for at_s in (0.5, 2.0, 4.5):
        picture = frame_at(tmp_path / "grid.mp4", at_s).convert("L")
        middle = list(picture.crop((0, 200, picture.width, 201)).tobytes())
        bright = [x for x, value in enumerate(middle) if value > 230]
        lefts = [x for x in bright if x - 1 not in bright]
        assert len(lefts) == 2
        assert abs(lefts[1] - lefts[0] - (MAX_CELL_PX + GAP_PX)) <= 2
        assert abs(lefts[0] - EDGE_PX - int(at_s * 12) / 60 * (160 - 12) * MAX_CELL_PX / 160) <= 10


@pytest.mark.long
def test_the_contact_print_is_one_picture_of_all_tabs(tmp_path: Path) -> None:
    view = make_study(tmp_path)
    write_contact_print(view, tmp_path / RUN / "contact.png")
    with Image.open(tmp_path / RUN / "contact.png") as picture:
        assert picture.format == "PNG"
        assert picture.width <= 2400
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 24)
        assert colours is not None
        assert len(colours) > 50


def test_a_run_without_clips_has_no_pictures(tmp_path: Path) -> None:
    view = replace(make_view(tmp_path, [make_attempt()]), run="run-9")
    for draw in (write_grid_video, write_contact_print):
        with pytest.raises(UsageError, match="run-9 has no clip"):
            draw(view, tmp_path / "x.mp4")
    assert list(tmp_path.iterdir()) == []
