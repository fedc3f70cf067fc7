"""Small copies of clips, for a page that is sent to other people. Never changes a clip."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from os import cpu_count
from pathlib import Path

import av
from av.video.frame import VideoFrame

from pipeline.files import whole_path
from pipeline.reports.sheet.clip_reader import open_clip

SMALL_BYTES = 1_500_000
"""A clip that is smaller, and no wider than asked for, is copied as it is."""

_USUAL_RATE = Fraction(24)
_OPTIONS = {"crf": "28", "preset": "veryfast"}
"""H.264 at 640 pixels: about 300 kB for five seconds, hardly worse than the clip at that size."""


def make_web_clips(work: Sequence[tuple[Path, Path]], *, width_px: int) -> None:
    """Makes the second path of each pair from the first, several at a time.

    Writes: the targets, by rename. A clip that cannot be decoded is copied as it is.
    """
    with ThreadPoolExecutor(max_workers=cpu_count() or 2, thread_name_prefix="web-clip") as pool:
        list(pool.map(lambda pair: web_clip(*pair, width_px=width_px), work))


def web_clip(clip: Path, target: Path, *, width_px: int) -> None:
    """A copy of a clip at most `width_px` wide, as H.264 that every browser plays.

    Raises:
        OSError: the clip cannot be read, or the copy cannot be written.
    """
    with whole_path(target) as temporary:
        try:
            if _encode(clip, temporary, width_px=width_px):
                return
        except (av.FFmpegError, ValueError, EOFError):
            pass  # what cannot be made smaller is sent as it is
        shutil.copyfile(clip, temporary)


def _encode(clip: Path, target: Path, *, width_px: int) -> bool:
    """Writes the smaller clip; False where the clip is small already."""
    with open_clip(clip) as (source, stream):
        codec = stream.codec_context
        if codec.width <= width_px and codec.name == "h264" and clip.stat().st_size <= SMALL_BYTES:
            return False
        stream.thread_type = "AUTO"
        width = min(width_px, codec.width) // 2 * 2
        height = max(2, round(codec.height * width / codec.width / 2) * 2)
        rate = stream.average_rate or _USUAL_RATE
        with av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            made = container.add_stream("libx264", rate=rate, options=dict(_OPTIONS))
            made.width, made.height, made.pix_fmt = width, height, "yuv420p"
            made.codec_context.time_base = stream.time_base or 1 / rate
            for frame in source.decode(stream):
                container.mux(made.encode(_resized(frame, width, height)))
            container.mux(made.encode())
    return True


def _resized(frame: VideoFrame, width: int, height: int) -> VideoFrame:
    small = frame.reformat(width=width, height=height, format="yuv420p")
    small.pts, small.time_base = frame.pts, frame.time_base
    return small
