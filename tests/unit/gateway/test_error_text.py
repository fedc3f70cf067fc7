"""The gateway's words for "no" and "not now"."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from pipeline.gateway.error_text import error_text, retry_after_s, wait_hint_s

NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{ "error": "Invalid request parameters" }', "Invalid request parameters"),
        (b'{"statusCode":429,"message":"Rate limit is exceeded."}', "Rate limit is exceeded."),
        (b'{"detail":"Not enough credits"}', "Not enough credits"),
        (b'{"detail":[{"loc":["body","seed"],"msg":"field required"}]}', "body.seed: field required"),
        (b'{"code":"too_many","limit":4}', "too_many"),
        (b'{"error":{"error":{"error":{"error":{"error":"deep"}}}}}', ""),
        (b"<html><head><title>502 Bad Gateway</title></head><body>x</body></html>", "a web page: 502 Bad Gateway"),
        (b"<p>Service   unavailable</p>", "Service unavailable"),
        (b"plain words", "plain words"),
        (b"", ""),
        (b"[]", ""),
        (b"\xff\xfe", "\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"),
        (b'{"error":"a\\u0000b\\u202ec"}', "a b c"),
    ],
)
def test_every_shape_of_error_gives_one_line(body: bytes, text: str) -> None:
    assert error_text(body) == text


def test_an_error_text_is_never_longer_than_a_line() -> None:
    assert len(error_text(b"x" * 500_000)) == 300


@pytest.mark.parametrize(
    ("headers", "text", "seconds"),
    [
        ({"retry-after": "7"}, "", 7.0),
        ({"retry-after": " 7 "}, "", 7.0),
        ({"retry-after": "1.5"}, "", 1.5),
        ({"retry-after": "0"}, "", 1.0),
        ({"retry-after": "3600"}, "", 900.0),
        ({"retry-after": formatdate(NOW + 30, usegmt=True)}, "", 30.0),
        ({"retry-after": formatdate(NOW - 30, usegmt=True)}, "", 1.0),
        ({"retry-after": formatdate(NOW + 530, usegmt=True), "date": formatdate(NOW + 500, usegmt=True)}, "", 30.0),
        ({"retry-after": "soon"}, "Try again in 5 seconds.", 5.0),
        ({"retry-after": "-3"}, "", None),
        ({"retry-after": "9" * 400}, "", None),
        ({"retry-after": "inf"}, "", None),
        ({"retry-after": "٣"}, "", None),
        ({}, "Rate limit is exceeded. Try again in 60 seconds.", 60.0),
        ({}, "try again in 2 minutes", 120.0),
        ({}, "Please retry after 250ms", 1.0),
        ({}, "retry in 1 hour", 900.0),
        ({}, "Out of call volume quota. Quota will be replenished in 00:01:05.", 65.0),
        ({}, '{"error":"slow down","retry_after":12}', 12.0),
        ({}, "Rate limit exceeded, please retry later", None),
        ({}, "Maximum number of concurrent requests (4) has been reached", None),
        ({}, "", None),
    ],
)
def test_every_wait_hint_is_read_and_bounded(headers: dict[str, str], text: str, seconds: float | None) -> None:
    assert wait_hint_s(headers, text, now_wall=NOW) == seconds


def test_the_stated_hint_keeps_its_length() -> None:
    text = "Quota will be replenished in 29.23:59:59."
    assert retry_after_s({}, text, now_wall=NOW) == 29 * 86400 + 86399
    assert retry_after_s({"retry-after": "3600"}, text, now_wall=NOW) == 3600


def test_a_header_beats_the_text() -> None:
    assert wait_hint_s({"retry-after": "3"}, "Try again in 60 seconds", now_wall=NOW) == 3
