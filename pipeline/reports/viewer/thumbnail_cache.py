"""Posters of clips that have none on the disk yet, made when a page asks for them and kept in memory only."""

from __future__ import annotations

import asyncio
import io
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import av
from PIL import Image

from pipeline.reports.sheet.cells import CellMedia
from pipeline.reports.sheet.thumbnails import JPEG_QUALITY, POSTER_AT_S, POSTER_WIDTH_PX, START_WIDTH_PX, frame_at

MAX_CACHED = 1_000
"""Pictures of 10 to 50 kB each."""

CONCURRENCY = 2
"""Decoding takes a core; the run that is going on needs the others."""

_START = ".start.jpg"


class ThumbnailCache:
    """Pictures of clips by the name under which a page asks for them."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Path, int], bytes] = OrderedDict()
        self._turns = asyncio.Semaphore(CONCURRENCY)

    async def picture(self, wanted: Path) -> bytes | None:
        """The JPEG that `wanted` would hold; None when there is no such clip, or it can't be read."""
        clip = clip_of(wanted)
        try:
            key = (wanted, clip.stat().st_mtime_ns)
        except OSError:
            return None
        if key not in self._kept:
            async with self._turns:
                made = await asyncio.to_thread(_made, clip, is_start=wanted.name.endswith(_START))
            if made is None:
                return None
            self._kept[key] = made
            while len(self._kept) > MAX_CACHED:
                self._kept.popitem(last=False)
        return self._kept[key]


def clip_of(wanted: Path) -> Path:
    """The clip that a poster or a start frame belongs to."""
    ending = _START if wanted.name.endswith(_START) else wanted.suffix
    return wanted.with_name(wanted.name.removesuffix(ending) + ".mp4")


def _made(clip: Path, *, is_start: bool) -> bytes | None:
    width_px = START_WIDTH_PX if is_start else POSTER_WIDTH_PX
    try:
        picture = frame_at(clip, 0.0 if is_start else POSTER_AT_S)
        picture.thumbnail((width_px, width_px * 4), Image.Resampling.LANCZOS)
        target = io.BytesIO()
        picture.save(target, "JPEG", quality=JPEG_QUALITY)
    except (av.FFmpegError, OSError, ValueError, EOFError):
        return None
    return target.getvalue()


def with_stills(stills: CellMedia) -> CellMedia:
    """The links of a cell with those pictures added that this server makes when asked."""
    if not stills.clip:
        return stills
    stem = stills.clip.removesuffix(".mp4")
    return replace(stills, poster=stills.poster or f"{stem}.jpg", start=stills.start or f"{stem}{_START}")
