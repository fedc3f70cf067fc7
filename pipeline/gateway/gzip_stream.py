"""Opens what came compressed although the request said `identity`. Pure: bytes in, bytes out, in steps of bounded size.

A bomb costs at most one step of memory: the reader stops asking as soon as its cap is passed.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

GZIP_MAGIC = b"\x1f\x8b"
STEP_BYTES = 1 << 20
"""The most that one step gives back."""

_EITHER_FRAMING = 32 + zlib.MAX_WBITS
"""The window size by which zlib takes a stream with a gzip header or its own (its manual, inflateInit2)."""


def unpacked(body: bytes, encoding: str, cap_bytes: int) -> tuple[bytes, bool]:
    """A body as its own first bytes say: some fronts name a Content-Encoding and send plain text.

    Returns:
        At most `cap_bytes` + 1 bytes, and whether all of it came out; a body that is not compressed is itself, and one
        in an encoding that is not known as well: its status line counts all the same.
    """
    if not body.startswith(GZIP_MAGIC) and not (encoding == "deflate" and body.startswith(b"x")):
        return body, True
    stream, found = Gunzip(), bytearray()
    for piece in stream.feed(body):
        found += piece
        if len(found) > cap_bytes:
            return bytes(found[: cap_bytes + 1]), False
    return bytes(found), stream.whole


class Gunzip:
    """One gzip stream. After a fault it gives nothing more, and is never `whole`."""

    def __init__(self) -> None:
        self._engine = zlib.decompressobj(_EITHER_FRAMING)
        self._broken = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What `data` opens to, in pieces of at most STEP_BYTES."""
        while data and not self._broken:
            if self._engine.eof:
                self._broken = True  # something follows the end
                return
            try:
                piece = self._engine.decompress(data, STEP_BYTES)
            except zlib.error:
                self._broken = True
                return
            # What did not fit into the step, or what follows the end of the stream; the latter makes the next round
            # break off.
            data = self._engine.unconsumed_tail or self._engine.unused_data
            if piece:
                yield piece

    @property
    def whole(self) -> bool:
        """The stream came to its own end and its checksum was right."""
        return self._engine.eof and not self._broken
