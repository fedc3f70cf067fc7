"""How much of a video's body has come, and how to ask for the rest of the very same one. Pure.

A server that names its content by a strong ETag can be asked for a part of it (RFC 9110: Range with If-Range). A weak
ETag, a date, or none at all says too little: two halves of two videos would make one that plays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.gateway.gzip_stream import GZIP_MAGIC, Gunzip
from pipeline.gateway.mp4_check import Mp4BoxScanner

MAX_PIECES = 4
"""Pieces in which one download may come without a pause; a server that cuts oftener is left for a while."""

_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]+"')


@dataclass(slots=True)
class PartialBody:
    """One body, over the connections that brought it. `received_bytes` counts what came, before it is decompressed."""

    etag: str | None = None
    total_bytes: int | None = None
    received_bytes: int = 0
    boxes: Mp4BoxScanner = field(default_factory=Mp4BoxScanner)
    gunzip: Gunzip | None = None

    def begin(self, headers: Mapping[str, str], length: int | None) -> None:
        """Note which body this is, from the head of its first answer."""
        etag = headers.get("ETag", "")
        # With a content encoding the ranges count compressed bytes, which two servers may compress differently.
        self.etag = etag if _STRONG_ETAG.fullmatch(etag) and "Content-Encoding" not in headers else None
        self.total_bytes = length

    def add(self, block: bytes) -> bytes:
        """Count the next block that came, and return it; the first one shows whether the body is compressed."""
        if not self.received_bytes and block.startswith(GZIP_MAGIC):
            self.gunzip = Gunzip()
        self.received_bytes += len(block)
        return block

    @property
    def can_continue(self) -> bool:
        """Whether the server can be asked for the rest, and nothing but the rest."""
        return self.etag is not None and self.total_bytes is not None and 0 < self.received_bytes < self.total_bytes

    @property
    def request_headers(self) -> dict[str, str]:
        """What asks for the rest; nothing before the first byte."""
        if not self.can_continue:
            return {}
        return {"Range": f"bytes={self.received_bytes}-", "If-Range": str(self.etag)}

    def is_continued_by(self, status: int, headers: Mapping[str, str]) -> bool:
        """Whether an answer is the rest of this body, by its own words."""
        if status != 206 or not self.can_continue or self.total_bytes is None:
            return False
        rest = f"bytes {self.received_bytes}-{self.total_bytes - 1}/{self.total_bytes}"
        return headers.get("Content-Range", "").strip().lower() == rest and headers.get("ETag") == self.etag
