"""Decode a clip once, within bounds, into small pictures that fit in memory whatever the file claims."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

Luma = NDArray[np.float32]
"""Brightness 0..255: height x width, or frames x height x width."""

SMALL_SIDE_PX = 160
"""Longer side of the small pictures: half a per cent of the width is then 0.8 px, and a clip fits in 30 MB."""

DETAIL_SIDE_PX = 480
"""Longer side of the pictures that sharpness is measured on: what a viewer sees at a glance on a 1080p screen."""

MAX_PIXELS = 4096 * 4096
"""Larger pictures are not decoded: one frame would take 25 MB, and a decoder keeps up to 17 of them."""

MAX_SECONDS = 8.0
"""Decoding stops here: clips last 5 s, and a longer one is a finding already."""

MAX_FRAMES = 800
"""Decoding stops here: 8 s at 90 frames per second and some more."""

START_FRAMES = 4
"""So many first frames are kept in detail."""

END_S = 0.5
"""Frames of this last stretch are kept in detail, seconds."""

END_FRAMES = 6
"""So many of them at most."""

NO_CONTENT = bytes(128)
"""Zeros that no coded picture holds: H.264 and HEVC forbid three of them in a row, and the arithmetic coders of VP9 and
AV1 would need a thousand bits that all went the same way. A download that was put together wrongly has them."""


class UndecodableError(Exception):
    """The clip does not decode to its end; the message says how far it came."""


class TooLargeError(Exception):
    """The clip is beyond the bounds of a check; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """A clip as the checks see it.

    Args:
        width, height: pixels as shown (after rotation and with square pixels).
        times: seconds from the first frame, one for each decoded frame, rising.
        rgb: frames x height x width x 3, 0..255; the longer side has SMALL_SIDE_PX.
        luma: the brightness of `rgb`.
        start_detail, end_detail: brightness of the first and the last frames, longer side DETAIL_SIDE_PX at most.
        end_indices: the index of each frame of `end_detail`.
        duration_s: length of the track as decoded, or as the file says when decoding stopped early.
        stopped: decoding stopped before the end, because the clip is longer than the checks look.
    """

    width: int
    height: int
    codec: str
    times: NDArray[np.float64]
    rgb: NDArray[np.uint8]
    luma: Luma
    start_detail: tuple[Luma, ...]
    end_detail: tuple[Luma, ...]
    end_indices: tuple[int, ...]
    duration_s: float
    stopped: bool

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.times)

    @property
    def fps(self) -> float:
        """Frames per second on average; 0 for a single frame."""
        return 0.0 if self.count < 2 else float((self.count - 1) / max(1e-6, self.times[-1] - self.times[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the file says about its video track before anything is decoded."""

    codec: str
    width: int
    height: int
    duration_s: float | None
    frames: int
    pixel_ratio: float


def read_film(path: Path, *, max_cpu_s: float, watch: Callable[[VideoFrame, float], None] | None = None) -> Film | None:
    """Decode the clip; None when the file has no video track.

    Args:
        max_cpu_s: CPU seconds of this thread after which the check is given up.
        watch: called with each decoded frame and its time in seconds, for those who need whole frames.

    Raises:
        UndecodableError: the file is no video, or breaks off.
        TooLargeError: it claims or holds more than the bounds allow.
        FileNotFoundError, PermissionError: the file cannot be opened.
    """
    # CPU and not the clock: a busy machine must not leave good clips unchecked.
    deadline = time.thread_time() + max_cpu_s
    try:
        with av.open(str(path), container_options={"max_streams": "16", "probesize": "2000000"}) as container:
            if not container.streams.video:
                return None
            stream = container.streams.video[0]
            context = stream.codec_context
            if context is None:
                raise UndecodableError("no decoder for its codec")
            _refuse_size(context.width, context.height)
            # Only this thread's CPU is counted, and each core has a worker of its own.
            context.thread_count = 1
            # `explode`: damage is an error. By default a decoder hides it behind a copy of the frame before.
            context.options = {"max_pixels": str(MAX_PIXELS), "err_detect": "crccheck+bitstream+buffer+explode"}
            head = _header(container, stream)
            collector = _Collector(head)
            for frame in _frames(container, stream):
                if frame is None or frame.is_corrupt:
                    raise UndecodableError(f"damaged at {collector.last_s:.1f} s")
                at_s = collector.take(frame)
                if watch is not None:
                    watch(frame, at_s)
                if collector.is_full:
                    break
                if time.thread_time() > deadline:
                    raise TooLargeError(f"more than {max_cpu_s:g} s of CPU ({head.width}x{head.height} {head.codec})")
    except (FileNotFoundError, PermissionError):
        raise
    except (av.FFmpegError, OSError, ValueError, EOFError, MemoryError) as error:
        if isinstance(error, av.FFmpegError) and "max_pixels" in str(error):
            raise TooLargeError("more pixels than the check decodes") from None
        raise UndecodableError(f"does not decode ({_first_words(error)})") from None
    return collector.film()


def _frames(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[VideoFrame | None]:
    """Every frame; None at a packet that lost its content, which some decoders pass without an error."""
    for packet in container.demux(stream):
        if packet.size >= len(NO_CONTENT) and bytes(packet).find(NO_CONTENT) >= 0:
            yield None
        yield from stream.decode(packet)


def _first_words(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text)[:80]


def _refuse_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise TooLargeError(f"{width}x{height} px, checked up to {MAX_PIXELS // 1_000_000} megapixels")


def _header(container: av.container.InputContainer, stream: av.VideoStream) -> Header:
    duration_s: float | None = None
    if stream.duration is not None and stream.time_base is not None:
        duration_s = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        duration_s = container.duration / 1_000_000
    ratio = stream.sample_aspect_ratio
    return Header(
        codec=stream.codec_context.codec.name if stream.codec_context.codec is not None else "",
        width=stream.codec_context.width,
        height=stream.codec_context.height,
        duration_s=duration_s,
        frames=stream.frames,
        pixel_ratio=float(ratio) if ratio else 1.0,
    )


class _Collector:
    """Takes frames one by one and keeps what the checks need of each."""

    def __init__(self, head: Header) -> None:
        self._head = head
        self._small, self._detail = VideoReformatter(), VideoReformatter()
        self._rgb: list[NDArray[np.uint8]] = []
        self._times: list[float] = []
        self._first_s: float | None = None
        self._starts: list[Luma] = []
        self._ends: deque[tuple[int, float, VideoFrame]] = deque(maxlen=END_FRAMES + 1)
        self._size = (0, 0)
        self._quarter_turns = 0
        self._last_length_s = 0.0

    @property
    def last_s(self) -> float:
        return self._times[-1] if self._times else 0.0

    @property
    def is_full(self) -> bool:
        return len(self._times) >= MAX_FRAMES or self.last_s >= MAX_SECONDS

    def take(self, frame: VideoFrame) -> float:
        """Keep what is needed of one frame; returns its time."""
        # Once more, for a stream may change its size whatever its head says.
        _refuse_size(frame.width, frame.height)
        at_s = self._time_of(frame)
        if not self._rgb:
            self._size = (frame.width, frame.height)
            self._quarter_turns = round((frame.rotation or 0) / 90) % 4
        self._rgb.append(self._rgb_of(frame))
        self._times.append(at_s)
        if len(self._starts) < START_FRAMES:
            self._starts.append(self._luma_of(frame))
        if not self._ends or at_s - self._ends[-1][1] >= END_S / END_FRAMES - 1e-6:
            self._ends.append((len(self._times) - 1, at_s, frame))
        self._latest = (len(self._times) - 1, at_s, frame)
        return at_s

    def _time_of(self, frame: VideoFrame) -> float:
        """Seconds from the first frame; frames without a usable time follow at 24 a second."""
        shown = None if frame.time is None else float(frame.time)
        if self._first_s is None:
            self._first_s = shown or 0.0
        at_s = (self.last_s + 1 / 24 if self._times else 0.0) if shown is None else shown - self._first_s
        # Times have to rise, because moments are searched for by halves.
        if self._times and at_s <= self.last_s:
            at_s = self.last_s + 1e-3
        if frame.duration and frame.time_base:
            self._last_length_s = float(frame.duration * frame.time_base)
        return at_s

    def _rgb_of(self, frame: VideoFrame) -> NDArray[np.uint8]:
        width, height = _fitted(self._size, SMALL_SIDE_PX, self._head.pixel_ratio)
        small = self._small.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=Interpolation.AREA, threads=1
        )
        return np.rot90(small.to_ndarray(), self._quarter_turns)

    def _luma_of(self, frame: VideoFrame) -> Luma:
        width, height = _fitted(self._size, DETAIL_SIDE_PX, self._head.pixel_ratio)
        small = self._detail.reformat(
            frame, width=width, height=height, format="gray", interpolation=Interpolation.AREA, threads=1
        )
        return np.rot90(small.to_ndarray(), self._quarter_turns).astype(np.float32)

    def film(self) -> Film:
        """Everything that was kept.

        Raises:
            UndecodableError: there was no frame, or far fewer than the file says.
        """
        if not self._rgb:
            raise UndecodableError("holds no picture")
        steps = np.diff(self._times)
        step_s = float(np.median(steps)) if len(steps) else self._last_length_s
        duration_s, promised_s = self.last_s + step_s, self._head.duration_s
        if self.is_full:
            duration_s = max(duration_s, promised_s or 0.0)
        elif promised_s is not None and duration_s < 0.9 * promised_s - 0.2 and self._is_short(promised_s):
            raise UndecodableError(f"ends at {duration_s:.1f} of {promised_s:.1f} s")
        rgb = np.ascontiguousarray(np.stack(self._rgb))
        width, height = self._size[0] * self._head.pixel_ratio, float(self._size[1])
        if self._quarter_turns % 2:
            width, height = height, width
        ends = [end for end in self._ends if self.last_s - end[1] <= END_S + 1e-6][-END_FRAMES:]
        if ends[-1][0] != self._latest[0]:
            ends.append(self._latest)
        return Film(
            width=round(width),
            height=round(height),
            codec=self._head.codec,
            times=np.array(self._times),
            rgb=rgb,
            luma=luma_of(rgb),
            start_detail=tuple(self._starts),
            end_detail=tuple(self._luma_of(frame) for _, _, frame in ends),
            end_indices=tuple(index for index, _, _ in ends),
            duration_s=duration_s,
            stopped=self.is_full,
        )

    def _is_short(self, promised_s: float) -> bool:
        """Whether frames are missing, and not only a last frame that is shown for long."""
        if self._head.frames:
            return len(self._times) < 0.95 * self._head.frames
        return promised_s - self.last_s > 0.5


def _fitted(size: tuple[int, int], side_px: int, pixel_ratio: float) -> tuple[int, int]:
    """Size of a picture within a square of `side_px`, never below 16 px, never larger than it is."""
    width, height = size[0] * pixel_ratio, float(size[1])
    scale = min(1.0, side_px / max(width, height))
    return max(16, round(width * scale)), max(16, round(height * scale))


def luma_of(rgb: NDArray[np.uint8] | Luma) -> Luma:
    """Brightness by the weights of BT.601, which video of unknown origin mostly uses."""
    weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    luma: Luma = rgb.astype(np.float32) @ weights
    return luma


def spread(values: Sequence[float] | NDArray[np.floating]) -> float:
    """Standard deviation as a plain number."""
    return float(np.std(np.asarray(values, dtype=np.float64)))
