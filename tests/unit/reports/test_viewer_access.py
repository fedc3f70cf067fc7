"""Who may ask the local server: its own pages and the user, no foreign page."""

from __future__ import annotations

import pytest

from pipeline.reports.viewer.access import access_refusal, is_token

PORT = 8123
OWN = {"Host": f"127.0.0.1:{PORT}"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": f"localhost:{PORT}"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    ],
)
def test_the_user_and_our_own_pages_may_read(headers: dict[str, str]) -> None:
    assert access_refusal("GET", OWN | headers, PORT) is None
    assert access_refusal("HEAD", OWN | headers, PORT) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": f"evil.example:{PORT}"},
        {"Host": "127.0.0.1"},
        {"Host": f"127.0.0.1:{PORT}.evil.example"},
        {"Host": f"127.0.0.1:{PORT + 1}"},
        {"Host": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://127.0.0.1:{PORT + 1}"},
        {"Origin": f"https://127.0.0.1:{PORT}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_other_client_may_read_or_write(method: str, headers: dict[str, str]) -> None:
    assert access_refusal(method, OWN | headers, PORT) is not None


def test_writing_needs_the_word_of_the_browser_that_our_page_asks() -> None:
    ours = {"Origin": f"http://127.0.0.1:{PORT}"}
    assert access_refusal("POST", OWN | ours, PORT) is None
    assert access_refusal("POST", OWN | ours | {"Sec-Fetch-Site": "same-origin"}, PORT) is None
    assert access_refusal("POST", OWN, PORT) is not None
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert access_refusal("POST", OWN | ours | followed, PORT) is not None


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
def test_no_other_method_is_known(method: str) -> None:
    assert access_refusal(method, OWN | {"Origin": f"http://127.0.0.1:{PORT}"}, PORT) is not None


def test_a_token_is_right_only_as_a_whole() -> None:
    assert is_token("abc", "abc")
    assert not any(is_token(wrong, "abc") for wrong in ("", "ab", "abcd", "ABC", "äbc"))
