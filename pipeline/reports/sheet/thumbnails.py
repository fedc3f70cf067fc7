"""Still pictures of clips: JPEG files beside them. Never touches a clip; one that cannot be read has no poster."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
from av.video.frame import VideoFrame
from PIL import Image

from pipeline.files import whole_path
from pipeline.reports.sheet.clip_reader import open_clip

POSTER_AT_S = 3.0
"""All seeds of a row start with the same picture; by second 3 they differ."""

POSTER_WIDTH_PX = 480
"""Width in pixels of a clip's still picture: a cell of the sheet at twice the density."""
START_WIDTH_PX = 240
"""Width in pixels of a start picture, which is shown at half a cell's width."""
JPEG_QUALITY = 82
"""JPEG quality of still pictures, in percent; higher ones look the same at this size."""

MAX_DECODE_S = 10.0
"""Seconds that the search for one picture may take; then the last one so far is taken. A clip of ours needs a tenth."""


def poster_path(clip: Path) -> Path:
    """Where a clip's poster is: beside it, `.jpg` for `.mp4`."""
    return clip.with_suffix(".jpg")


def start_path(clip: Path) -> Path:
    """Where the clip's first frame is, which shows the input image without the network."""
    return clip.with_suffix(".start.jpg")


def make_poster(clip: Path) -> Path | None:
    """The clip's poster, made unless it is there already; None when the clip cannot be read.

    Writes: `poster_path(clip)`. Takes tenths of a second: call it off the event loop.
    """
    return _still(clip, poster_path(clip), at_s=POSTER_AT_S, width_px=POSTER_WIDTH_PX)


def make_start(clip: Path) -> Path | None:
    """The clip's first frame, small, made unless it is there already; None when the clip cannot be read."""
    return _still(clip, start_path(clip), at_s=0.0, width_px=START_WIDTH_PX)


def save_poster(clip: Path, frame: VideoFrame) -> None:
    """Keep a frame that was decoded as the clip's poster, unless there is one."""
    _save(frame, poster_path(clip), POSTER_WIDTH_PX)


def save_start(clip: Path, frame: VideoFrame) -> None:
    """Keep a frame that was decoded as the clip's first one, unless there is one."""
    _save(frame, start_path(clip), START_WIDTH_PX)


def _save(frame: VideoFrame, target: Path, width_px: int) -> None:
    if not target.exists():
        try:
            _write(Image.fromarray(frame.to_ndarray(format="rgb24")), target, width_px)
        except (av.FFmpegError, OSError, ValueError):
            return


def _write(picture: Image.Image, target: Path, width_px: int) -> None:
    picture.thumbnail((width_px, width_px * 4), Image.Resampling.LANCZOS)
    with whole_path(target) as temporary:
        picture.save(temporary, "JPEG", quality=JPEG_QUALITY, optimize=True, progressive=True)


def make_stills(clips: Iterable[Path], starts: Iterable[Path]) -> None:
    """Every missing poster of `clips` and first frame of `starts`."""
    missing_posters = [clip for clip in clips if not poster_path(clip).exists()]
    missing_starts = [clip for clip in starts if not start_path(clip).exists()]
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="poster") as pool:
        list(pool.map(make_poster, missing_posters))
        list(pool.map(make_start, missing_starts))


def _still(clip: Path, target: Path, *, at_s: float, width_px: int) -> Path | None:
    if target.exists():
        return target
    try:
        _write(frame_at(clip, at_s), target, width_px)
    except (av.FFmpegError, OSError, ValueError, EOFError):
        return None
    return target


def frame_at(clip: Path, at_s: float) -> Image.Image:
    """The picture shown `at_s` seconds into the clip, or its last one when it is shorter.

    Raises:
        av.FFmpegError, OSError, ValueError: the clip cannot be read, holds no picture, or one that is too large.
    """
    until = time.monotonic() + MAX_DECODE_S
    with open_clip(clip) as (container, stream):
        stream.thread_type = "AUTO"
        if at_s > 0 and stream.time_base:
            # To the key frame before; what lies between is decoded and left out.
            container.seek(int(at_s / stream.time_base), stream=stream)
        last: VideoFrame | None = None
        for frame in container.decode(stream):
            last = frame
            if frame.time is None or frame.time >= at_s - 1e-3 or time.monotonic() > until:
                break
        if last is None:
            raise ValueError(f"{clip.name} holds no picture")
        return Image.fromarray(last.to_ndarray(format="rgb24"))


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, from the file's head."""
    with Image.open(path) as picture:
        return picture.size
