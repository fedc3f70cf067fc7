"""Kind and size of pictures from their first bytes, against files that a picture library wrote."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.assets.image_header import ImageHeader, read_image_header


def drawn(kind: str, size: tuple[int, int] = (321, 123), mode: str = "RGB", **how: Any) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(file, kind, **how)
    return file.getvalue()


def exif(size: int) -> bytes:
    block = Image.Exif()
    block[0x9286] = "x" * size
    return block.tobytes()


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("PNG", {}),
        ("PNG", {"mode": "RGBA"}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"mode": "L"}),
        ("JPEG", {"mode": "CMYK"}),
        ("JPEG", {"exif": exif(60_000)}),
        ("JPEG", {"icc_profile": b"p" * 200_000}),
        ("WebP", {}),
        ("WebP", {"lossless": True}),
        ("WebP", {"mode": "RGBA"}),
        ("WebP", {"exif": exif(100)}),
    ],
)
def test_every_kind_tells_its_size(kind: str, how: dict[str, Any]) -> None:
    assert read_image_header(drawn(kind, **how)) == ImageHeader(kind=kind, width=321, height=123)


def test_a_size_that_is_not_reached_yet_is_not_known() -> None:
    data = drawn("JPEG", icc_profile=b"p" * 200_000)
    assert read_image_header(data[:65_536]) == ImageHeader(kind="JPEG")
    assert read_image_header(data[:210_000]) == ImageHeader(kind="JPEG", width=321, height=123)


@pytest.mark.parametrize("data", [b"", b"<html>", b"GIF89a", b"RIFF\0\0\0\0WAVE", b"\xff\xd8", b"%PDF-1.4"])
def test_what_is_no_picture_is_none(data: bytes) -> None:
    assert read_image_header(data) is None


BEGINNINGS = [
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\0\0\0\0WEBPVP8 ",
    b"RIFF\0\0\0\0WEBPVP8L",
    drawn("JPEG")[:40],
]


@given(st.sampled_from(BEGINNINGS), st.binary(max_size=80))
def test_no_bytes_make_it_raise_or_hang(beginning: bytes, rest: bytes) -> None:
    found = read_image_header(beginning + rest)
    assert found is not None
    assert found.width is None or found.width > 0
