"""Opening a clip to decode it, within bounds: a few kilobytes of video can hold pictures that fill the memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

MAX_PIXELS = 4096 * 4096
"""Pixels of one picture that is decoded. The API sells 1080p; a picture of 16 megapixels takes 50 MB in memory."""


@contextmanager
def open_clip(clip: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The clip, and its first track of pictures.

    Raises:
        av.FFmpegError, OSError: the clip cannot be read.
        ValueError: it holds no pictures, or pictures of more than MAX_PIXELS.
    """
    with av.open(str(clip)) as container:
        if not container.streams.video:
            raise ValueError(f"{clip.name} holds no pictures")
        stream = container.streams.video[0]
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MAX_PIXELS:
            raise ValueError(f"{clip.name} is too large to be drawn: {width}x{height} pixels")
        # The decoder refuses pictures that turn out larger than the file's head says.
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        yield container, stream
