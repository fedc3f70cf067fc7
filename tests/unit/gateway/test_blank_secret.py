"""A secret whose text is known is blanked in every spelling that a reader could decode."""

from __future__ import annotations

import base64
import html
import json
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.gateway.redaction import blank_everywhere, blank_secret, blank_secret_bytes, holds_secret

KEY = "c4n4ry+K/9=w\"q&tail0123<x>'%41#"
LAYERS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "json": lambda text: json.dumps(text)[1:-1],
    "json slash": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "json every character": lambda text: "".join(f"\\u{ord(sign):04X}" for sign in text),
    "json signs": lambda text: "".join(sign if sign.isalnum() else f"\\u{ord(sign):04x}" for sign in text),
    "x": lambda text: "".join(sign if sign.isalnum() else f"\\x{ord(sign):02x}" for sign in text),
    "percent": lambda text: quote(text, safe=""),
    "percent small": lambda text: "".join(sign if sign.isalnum() else f"%{ord(sign):02x}" for sign in text),
    "html": html.escape,
    "html numbers": lambda text: "".join(sign if sign.isalnum() else f"&#{ord(sign)};" for sign in text),
    "html hex": lambda text: "".join(f"&#X{ord(sign):X};" for sign in text),
}


@pytest.mark.parametrize("outer", LAYERS)
@pytest.mark.parametrize("inner", LAYERS)
def test_two_layers_of_any_escapes_are_blanked_and_what_is_around_them_stays(inner: str, outer: str) -> None:
    spelled = LAYERS[outer](LAYERS[inner](KEY))
    assert holds_secret(spelled, KEY)
    blanked = blank_secret(f"refused {spelled} for you", KEY)
    assert not holds_secret(blanked, KEY)
    assert blanked in {"***", "refused *** for you"}
    if "plain" in (inner, outer):
        assert blanked == "refused *** for you"


def test_go_and_django_escape_an_ampersand_of_html_again() -> None:
    spelled = html.escape(KEY).replace("&", "\\u0026")
    assert blank_secret(spelled, KEY) == "***"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-32"])
def test_a_body_in_another_encoding_is_blanked(encoding: str) -> None:
    body = json.dumps({"error": f"key {KEY}"}).encode(encoding)
    blanked = blank_secret_bytes(body, KEY)
    assert not holds_secret(blanked.replace(b"\0", b"").decode("latin-1"), KEY)


def test_what_cannot_be_cut_out_blanks_its_text_and_leaves_the_id_of_a_paid_job() -> None:
    twice = LAYERS["json signs"](LAYERS["percent"](html.escape(html.escape(KEY))))
    for body in (
        f'{{"job_set_id": "a1", "note": "for {twice}"}}'.encode(),
        json.dumps({"job_set_id": "a1", "note": KEY}).encode("utf-16"),
    ):
        blanked = blank_secret_bytes(body, KEY)
        assert json.loads(blanked)["job_set_id"] == "a1"
        assert not holds_secret(blanked.decode(), KEY)


@settings(deadline=None)
@given(st.text(), st.sampled_from(sorted(LAYERS)))
def test_no_text_around_it_keeps_a_secret_readable(text: str, layer: str) -> None:
    assert not holds_secret(blank_secret(text + LAYERS[layer](KEY) + text, KEY), KEY)


@settings(deadline=None)
@given(st.binary())
def test_bytes_without_the_secret_stay_as_they_are(body: bytes) -> None:
    assert blank_secret_bytes(body, KEY) == body


def test_a_long_hostile_body_takes_no_long_time() -> None:
    begun = time.process_time()
    for body in (b"\\" * 2**20, b"%25" * 2**18, b"&amp;" * 2**18, b"c4n4ry" * 2**17, base64.b64encode(bytes(2**19))):
        blank_secret_bytes(body, KEY)
        blank_secret_bytes(body + KEY.encode(), KEY)
    assert time.process_time() - begun < 20


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "base64": base64.b64encode,
    "base64 for addresses": base64.urlsafe_b64encode,
    "base64 without padding": lambda raw: base64.b64encode(raw).rstrip(b"="),
    "base64 of a user and the key": lambda raw: base64.b64encode(b"user:" + raw + b":x"),
    "base64 with one character before": lambda raw: base64.b64encode(b"k" + raw),
    "base64 twice": lambda raw: base64.b64encode(base64.b64encode(raw)),
    "base32": base64.b32encode,
    "hex": lambda raw: raw.hex().encode(),
    "HEX": lambda raw: raw.hex().upper().encode(),
    "capitals": bytes.upper,
    "backwards": lambda raw: raw[::-1],
    "one character short": lambda raw: raw[:-1],
    "numbers": lambda raw: ", ".join(map(str, raw)).encode(),
}


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("outer", ["plain", "json", "percent", "html numbers"])
def test_what_an_encoder_makes_of_the_key_is_blanked_and_the_id_stays(encoder: str, outer: str) -> None:
    encoded = ENCODERS[encoder](KEY.encode()).decode()
    body = json.dumps({"job_set_id": "8f14e45f-ceea-467f", "error": f"bad key {LAYERS[outer](encoded)} given"})
    blanked = blank_everywhere(body.encode(), KEY).decode()
    assert json.loads(blanked)["job_set_id"] == "8f14e45f-ceea-467f"
    assert "***" in blanked
    assert encoded[3:-3] not in html.unescape(blanked)


def test_what_has_nothing_to_do_with_the_key_stays() -> None:
    body = json.dumps(
        {"job_set_id": "8f14e45f", "url": "https://cdn.example.com/a%20b.mp4?x=1&y=2", "n": list(range(50))}
    )
    assert blank_everywhere(body.encode(), KEY).decode() == body
