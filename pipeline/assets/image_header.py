"""What the first bytes of a picture say: its kind and its size in pixels. Pure; no bytes make it raise.

Read by hand from the format's header, because a picture library wants all of a WebP before it says anything.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""JPEG markers of a frame header. Source: ITU T.81, table B.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """`kind` is JPEG, PNG or WebP; the sizes are pixels as stored, None while the bytes do not reach that far."""

    kind: str
    width: int | None = None
    height: int | None = None


def read_image_header(start: bytes) -> ImageHeader | None:
    """What a file that begins with `start` is; None: none of the three. Source: API document, input_images."""
    if start.startswith(PNG_MAGIC):
        return _sized("PNG", _png(start))
    if start.startswith(b"\xff\xd8\xff"):
        return _sized("JPEG", _jpeg(start))
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return _sized("WebP", _webp(start))
    return None


def _sized(kind: str, size: tuple[int, int] | None) -> ImageHeader:
    if size is None or 0 in size:
        return ImageHeader(kind=kind)
    return ImageHeader(kind=kind, width=size[0], height=size[1])


def _png(data: bytes) -> tuple[int, int] | None:
    if len(data) < 24 or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """Walks from marker to marker to the first frame header; a large EXIF block may stand before it."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAMES:
            if at + 9 > len(data):
                return None
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    """Each of the three kinds of WebP keeps its size elsewhere. Source: RFC 9649, section 2; RFC 6386, section 9.1."""
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X" and len(body) == 10:
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L" and len(body) >= 5 and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and len(body) == 10 and body[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    return None
