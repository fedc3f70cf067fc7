"""Whether a picture's file reaches its own end. Pure; what follows the end does not matter: telephones append films."""

from __future__ import annotations

import mmap
import re
from typing import TypeAlias

Content: TypeAlias = bytes | mmap.mmap

_JPEG_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]", re.DOTALL)
"""A marker between entropy-coded data: neither a stuffed zero nor a restart marker. Source: ITU T.81, B.1.1."""
_JPEG_END = 0xD9
"""The marker that ends a JPEG file (EOI). Source: ITU T.81, table B.1."""
_PNG_START = 8
"""Bytes of the signature before the first chunk. Source: PNG specification, 5.2."""
_PNG_AROUND = 12
"""Bytes of a PNG chunk beside its data: length, type and checksum. Source: PNG specification, 5.3."""
_RIFF_HEAD = 8
"""Bytes of a RIFF file that its own size does not count: the word RIFF and the size."""


def is_whole(content: Content) -> bool:
    """Whether a JPEG, PNG or WebP ends where its format says; True for any other content."""
    if content[:3] == b"\xff\xd8\xff":
        return _whole_jpeg(content)
    if content[:4] == b"\x89PNG":
        return _whole_png(content)
    if content[:4] == b"RIFF":
        return _RIFF_HEAD + int.from_bytes(content[4:8], "little") <= len(content)
    return True


def _whole_jpeg(content: Content) -> bool:
    at = 2
    while marker := _JPEG_MARKER.search(content, at):
        at = marker.end()
        if content[at - 1] == _JPEG_END:
            return True
        # Over the whole segment: a camera's preview inside it is a JPEG of its own, and has an end of its own.
        at += int.from_bytes(content[at : at + 2], "big")
    return False


def _whole_png(content: Content) -> bool:
    at = _PNG_START
    while at + _PNG_AROUND <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        kind = content[at + 4 : at + 8]
        at += _PNG_AROUND + size
        if kind == b"IEND":
            return at <= len(content)
    return False
