"""Judges whether bytes are a whole MP4 file, box by box, while they pass. Pure: it never opens, reads or keeps a file.

It reads the top level only: no frame is decoded, and what is inside a box is skipped unseen.
Source: ISO/IEC 14496-12, section 4.2 (32-bit size and type; size 1 = a 64-bit size follows; size 0 = to the end).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

HEADER_BYTES = 8
"""Bytes of a box header: 32 bits of size and four letters of type (ISO/IEC 14496-12, 4.2)."""
WIDE_HEADER_BYTES = 16
"""A box header with a 64-bit size."""

MAX_BOXES = 10_000
"""Top-level boxes; a clip has 4 or 5, one that is cut into fragments a few hundred. More is a flood of empty boxes."""


class Mp4FaultKind(StrEnum):
    """What is wrong with a clip."""

    CUT = "cut"
    """bytes are missing, or nothing proves that none is: fetching it again may help"""
    FOREIGN = "foreign"
    """these bytes are no MP4: fetching them again gives the same"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mp4Fault:
    """One fault with the words for a report."""

    kind: Mp4FaultKind
    reason: str


class Mp4BoxScanner:
    """Walks the top-level boxes of one file. Feed it all bytes in order, then ask for the verdict.

    `fault` is set as soon as nothing that follows can make the bytes an MP4; what is fed after that is ignored.
    """

    def __init__(self) -> None:
        self.fault: Mp4Fault | None = None
        self._fed = 0  # bytes seen
        self._next = 0  # where the next box begins, counted from the file's first byte
        self._header = b""  # the part of that box's header seen so far
        self._open_ended = False
        self._boxes = 0
        self._kinds: set[bytes] = set()

    @property
    def size_bytes(self) -> int:
        """How many bytes were fed."""
        return self._fed

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the file, however they are split up."""
        view, start = memoryview(data), self._fed
        self._fed += len(view)
        while self.fault is None and not self._open_ended:
            at = self._next + len(self._header) - start
            if at >= len(view):
                return
            self._take_header(bytes(view[at : at + self._header_wanted() - len(self._header)]))

    def verdict(self, *, length_proven: bool) -> Mp4Fault | None:
        """What is wrong with the bytes as a whole file, or None.

        Args:
            length_proven: the transfer itself showed where the body ends (Content-Length or chunks). Where it did not,
                a file that could have been cut between two boxes without a trace counts as cut.
        """
        if self.fault is not None:
            return self.fault
        if self._header or self._fed < self._next or not self._boxes:
            return Mp4Fault(kind=Mp4FaultKind.CUT, reason=f"cut: its boxes go beyond the {self._fed} bytes that came")
        missing = [kind.decode() for kind in (b"moov", b"mdat") if kind not in self._kinds]
        if missing:
            kind = Mp4FaultKind.FOREIGN if length_proven else Mp4FaultKind.CUT
            return Mp4Fault(kind=kind, reason=f"not a playable MP4: no {' and no '.join(missing)} box")
        # A box that reaches to the end, or a list of fragments, has no end of its own that could show a cut.
        if not length_proven and (self._open_ended or b"moof" in self._kinds):
            return Mp4Fault(
                kind=Mp4FaultKind.CUT, reason="nothing proves that it came whole (no length, open-ended boxes)"
            )
        return None

    def _header_wanted(self) -> int:
        # Size 1 means that 64 bits of size follow the type (4.2); below four bytes it is not known yet, and 8 are asked
        # for.
        return WIDE_HEADER_BYTES if self._header[:4] == b"\0\0\0\1" else HEADER_BYTES

    def _take_header(self, data: bytes) -> None:
        self._header += data
        if len(self._header) < HEADER_BYTES or len(self._header) < self._header_wanted():
            return
        size, kind = int.from_bytes(self._header[:4], "big"), self._header[4:8]
        if size == 1:
            size = int.from_bytes(self._header[8:], "big")
        self.fault = self._header_fault(size, kind)
        self._boxes += 1
        self._kinds.add(kind)
        self._open_ended = size == 0
        self._next += size
        self._header = b""

    def _header_fault(self, size: int, kind: bytes) -> Mp4Fault | None:
        if not self._boxes and kind != b"ftyp":
            return _foreign("not an MP4: it does not begin with an ftyp box")
        if size and size < len(self._header):
            return _foreign(f"not an MP4: box {self._boxes + 1} claims {size} bytes")
        if self._boxes >= MAX_BOXES:
            return _foreign(f"not an MP4: more than {MAX_BOXES} boxes")
        return None


def _foreign(reason: str) -> Mp4Fault:
    return Mp4Fault(kind=Mp4FaultKind.FOREIGN, reason=reason)
