"""Clips for tests: hand-made MP4 files of the smallest size, and the pieces to make broken ones from."""

from __future__ import annotations


def box(kind: bytes, payload: bytes) -> bytes:
    """One box with a 32-bit size."""
    return (8 + len(payload)).to_bytes(4, "big") + kind + payload


def wide_box(kind: bytes, payload: bytes) -> bytes:
    """One box with a 64-bit size."""
    return b"\0\0\0\1" + kind + (16 + len(payload)).to_bytes(8, "big") + payload


def clip_bytes(*, media_bytes: int = 200, moov_first: bool = True) -> bytes:
    """Well-formed at its top level: ftyp, moov and mdat. No player would show it."""
    moov, mdat = box(b"moov", b"m" * 40), box(b"mdat", bytes(i % 251 for i in range(media_bytes)))
    head = box(b"ftyp", b"isom\0\0\2\0isomiso2")
    return head + (moov + mdat if moov_first else mdat + moov)


def fragmented_clip(*, fragments: int = 3) -> bytes:
    """ftyp, moov, then a moof and an mdat for each fragment."""
    return (
        box(b"ftyp", b"iso5")
        + box(b"moov", b"m" * 30)
        + (box(b"moof", b"f" * 12) + box(b"mdat", b"x" * 50)) * fragments
    )


def open_ended_clip() -> bytes:
    """The last box says size 0: it reaches to the end of the file, wherever that is."""
    return box(b"ftyp", b"isom") + box(b"moov", b"m" * 30) + b"\0\0\0\0mdat" + b"x" * 100
