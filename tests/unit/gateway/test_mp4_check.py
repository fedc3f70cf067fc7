"""The judge of an MP4's boxes: every way in which a file can be short, foreign or hostile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.gateway.mp4_check import MAX_BOXES, Mp4BoxScanner, Mp4Fault, Mp4FaultKind
from tests.support.clip_files import box, clip_bytes, fragmented_clip, open_ended_clip, wide_box


def judge(data: bytes, *, step: int | None = None, length_proven: bool = True) -> Mp4Fault | None:
    walk = Mp4BoxScanner()
    for start in range(0, len(data), step or len(data) or 1):
        walk.feed(data[start : start + (step or len(data))])
    assert walk.size_bytes == len(data)
    return walk.verdict(length_proven=length_proven)


def kind_of(data: bytes, *, length_proven: bool = True) -> Mp4FaultKind | None:
    fault = judge(data, length_proven=length_proven)
    return fault.kind if fault else None


@pytest.mark.parametrize("step", [1, 3, 7, 8, 9, 1000, None])
def test_a_whole_clip_is_fit_however_it_is_split(step: int | None) -> None:
    for clip in (clip_bytes(), clip_bytes(moov_first=False), fragmented_clip(), open_ended_clip()):
        assert judge(clip, step=step) is None


@given(cut=st.integers(0, len(clip_bytes()) - 1), step=st.integers(1, 64))
def test_a_clip_that_is_cut_anywhere_is_never_fit(cut: int, step: int) -> None:
    assert judge(clip_bytes()[:cut], step=step, length_proven=False) is not None


@pytest.mark.parametrize("length_proven", [True, False])
def test_a_cut_inside_a_box_may_be_tried_again(length_proven: bool) -> None:
    assert kind_of(clip_bytes()[:-1], length_proven=length_proven) is Mp4FaultKind.CUT


def test_a_cut_inside_a_box_header_may_be_tried_again() -> None:
    assert kind_of(clip_bytes() + b"\0\0\0") is Mp4FaultKind.CUT


def test_no_byte_at_all_counts_as_cut() -> None:
    assert kind_of(b"") is Mp4FaultKind.CUT


@pytest.mark.parametrize(
    "data",
    [b"<!doctype html><title>502</title>", b'{"error": "gone"}', b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", box(b"moov", b"")],
    ids=["page", "json", "picture", "no ftyp"],
)
def test_what_does_not_begin_with_ftyp_is_foreign_at_once(data: bytes) -> None:
    walk = Mp4BoxScanner()
    walk.feed(data[:8])
    assert walk.fault is not None
    assert walk.fault.kind is Mp4FaultKind.FOREIGN


@pytest.mark.parametrize("missing", [b"moov", b"mdat"])
def test_a_file_without_moov_or_mdat_is_no_clip(missing: bytes) -> None:
    parts = {kind: box(kind, b"x" * 20) for kind in (b"ftyp", b"moov", b"mdat")}
    data = b"".join(part for kind, part in parts.items() if kind != missing)
    fault = judge(data)
    assert fault is not None
    assert fault.kind is Mp4FaultKind.FOREIGN
    assert missing.decode() in fault.reason
    assert kind_of(data, length_proven=False) is Mp4FaultKind.CUT, (
        "without a length the missing box may have been cut off"
    )


def test_sizes_of_64_bits_are_read() -> None:
    clip = box(b"ftyp", b"isom") + wide_box(b"mdat", b"x" * 300) + box(b"moov", b"m" * 40)
    assert judge(clip, step=5) is None
    assert kind_of(clip[:-1]) is Mp4FaultKind.CUT


def test_an_open_ended_box_needs_a_proven_length() -> None:
    assert kind_of(open_ended_clip()) is None
    assert kind_of(open_ended_clip(), length_proven=False) is Mp4FaultKind.CUT


def test_fragments_need_a_proven_length_because_a_cut_between_two_leaves_no_trace() -> None:
    clip = fragmented_clip()
    shorter = fragmented_clip(fragments=2)
    assert clip.startswith(shorter), "a cut between two fragments is itself a well-formed file"
    assert kind_of(clip) is None
    assert kind_of(shorter, length_proven=False) is Mp4FaultKind.CUT


@pytest.mark.parametrize("size", [2, 7])
def test_a_box_smaller_than_its_header_is_foreign(size: int) -> None:
    assert kind_of(box(b"ftyp", b"isom") + size.to_bytes(4, "big") + b"free" + b"\0" * 64) is Mp4FaultKind.FOREIGN


@pytest.mark.parametrize("size", [0, 1, 8, 15])
def test_a_wide_box_smaller_than_its_header_is_foreign_or_open_ended_but_never_loops(size: int) -> None:
    data = box(b"ftyp", b"isom") + b"\0\0\0\1mdat" + size.to_bytes(8, "big") + b"\0" * 64
    assert kind_of(data) is Mp4FaultKind.FOREIGN


def test_the_largest_size_is_only_a_cut_clip() -> None:
    assert kind_of(box(b"ftyp", b"isom") + b"\0\0\0\1mdat" + b"\xff" * 8 + b"x" * 64) is Mp4FaultKind.CUT


def test_a_flood_of_empty_boxes_is_stopped() -> None:
    walk = Mp4BoxScanner()
    walk.feed(box(b"ftyp", b"") + box(b"free", b"") * (MAX_BOXES + 5))
    assert walk.fault is not None
    assert walk.fault.kind is Mp4FaultKind.FOREIGN


@given(st.binary(max_size=400), st.integers(1, 32))
def test_any_bytes_get_the_same_verdict_however_they_are_split(data: bytes, step: int) -> None:
    data = box(b"ftyp", b"isom") + data
    assert judge(data, step=step) == judge(data)
