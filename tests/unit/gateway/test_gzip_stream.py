"""An unrequested gzip: opened in bounded steps, and whole only when its own end says so."""

from __future__ import annotations

import gzip

from hypothesis import given
from hypothesis import strategies as st

from pipeline.gateway.gzip_stream import GZIP_MAGIC, STEP_BYTES, Gunzip


def opened(*parts: bytes) -> tuple[bytes, bool]:
    gunzip = Gunzip()
    return b"".join(piece for part in parts for piece in gunzip.feed(part)), gunzip.whole


@given(st.binary(max_size=300), st.integers(0, 320))
def test_it_gives_the_same_bytes_wherever_the_stream_is_split(data: bytes, cut: int) -> None:
    packed = gzip.compress(data, mtime=0)
    assert packed.startswith(GZIP_MAGIC)
    assert opened(packed[:cut], packed[cut:]) == (data, True)


def test_a_cut_stream_is_never_whole() -> None:
    packed = gzip.compress(b"clip" * 50, mtime=0)
    assert not any(opened(packed[:cut])[1] for cut in range(len(packed)))


def test_a_stream_with_a_wrong_checksum_is_not_whole() -> None:
    packed = bytearray(gzip.compress(b"clip" * 50, mtime=0))
    packed[-6] ^= 1
    assert not opened(bytes(packed))[1]


def test_garbage_is_not_whole_and_gives_nothing() -> None:
    assert opened(GZIP_MAGIC + b"garbage" * 9, b"more") == (b"", False)


def test_bytes_after_the_end_are_a_fault_in_the_same_part_or_the_next() -> None:
    packed = gzip.compress(b"clip", mtime=0)
    assert opened(packed + b"x") == (b"clip", False)
    assert opened(packed, b"x") == (b"clip", False)


def test_a_bomb_is_opened_one_bounded_step_at_a_time() -> None:
    bomb = gzip.compress(b"\0" * (8 * STEP_BYTES), mtime=0)
    sizes = [len(piece) for piece in Gunzip().feed(bomb)]
    assert max(sizes) <= STEP_BYTES
    assert sum(sizes) == 8 * STEP_BYTES
