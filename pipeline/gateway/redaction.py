"""Redact what opens something from texts: signatures of addresses, tokens and secrets of callbacks, the key.

For words that are kept or shown, never for an address that is still to be called. A gateway repeats what it was sent in
errors and answers, in whatever spelling: quoted, escaped, percent-encoded, cut. A secret whose text is known is blanked
after decoding: whatever a reader of the text could decode it from, in any number of layers.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from html.entities import html5
from typing import Final

_NAMES: Final = (
    "X-Amz-Signature|X-Amz-Credential|X-Amz-Security-Token|X-Goog-Signature|X-Goog-Credential"
    "|AWSAccessKeyId|GoogleAccessId|SignatureProvided|StringToSign|CanonicalRequest"
)
"""Source: AWS Signature Version 4 and 2, Google Cloud Storage, and the XML errors that both answer with."""

_IS: Final = r"(?:=|%(?:25)?3D|\\u003d|&#61;|[\"'\s:>\\])+"
_VALUE: Final = r"(?:(?!%(?:25)?26|\\u0026|&|\\?[\"'])[^\s<>,;)}\]])+"
_SIGNED: Final = re.compile(rf"({_NAMES})({_IS}){_VALUE}", re.IGNORECASE)
_AZURE: Final = re.compile(rf"((?:[?&]|&amp;|%(?:25)?(?:3F|26)|\\u0026)sig)({_IS}){_VALUE}", re.IGNORECASE)
_TOKEN: Final = re.compile(r"-(?<=[0-9a-f]{32}-)([0-9]{1,6}-)[0-9a-f]{8,40}")
"""It begins with the dash, since a pattern that begins with one character is searched for fast."""
_SECRET: Final = re.compile(r"whsec_[A-Za-z0-9+/=_%\\-]+")
HIDDEN: Final = "***"
_LOWER_NAMES: Final = tuple(_NAMES.lower().split("|"))


def redact(text: str) -> str:
    """`text` with *** for every signature, credential and callback secret that it names."""
    for pattern, names in ((_SIGNED, _LOWER_NAMES), (_AZURE, ("sig",))):
        if _may_name(text, names):
            text = pattern.sub(rf"\1\2{HIDDEN}", text)
    text = _TOKEN.sub(rf"-\1{HIDDEN}", text)
    return _SECRET.sub(f"whsec_{HIDDEN}", text)


def _may_name(text: str, names: tuple[str, ...]) -> bool:
    """Ten times cheaper than the patterns. Beyond ASCII there are more letters that they take for the same."""
    if not text.isascii():
        return True
    lower = text.lower()
    return any(name in lower for name in names)


# --- secrets whose text is known -------------------------------------------------------------------------------------

MAX_LAYERS: Final = 6
"""Layers of escapes that are undone: JSON inside JSON inside a percent-encoded page is three."""

_ESCAPE_SIGNS: Final = re.compile(r"[\\%&]")
_JSON_ESCAPE: Final = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|u\{0*([0-9a-fA-F]{1,5})\}|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_PERCENT_ESCAPE: Final = re.compile(r"%([0-7][0-9a-fA-F])")


def blank_secret(text: str, secret: str) -> str:
    """`text` with *** for `secret` in every spelling: JSON, percent and HTML escapes, in layers.

    A spelling that can be decoded and not be cut out blanks the whole text.
    """
    if not holds_secret(text, secret):
        return text
    blanked = _spellings(secret).sub(HIDDEN, text)
    return HIDDEN if holds_secret(blanked, secret) else blanked


def blank_secret_bytes(body: bytes, secret: str) -> bytes:
    """The same for the body of an answer, in any encoding that keeps ASCII, or in UTF-16 and UTF-32.

    MONEY: where the secret cannot be cut out of JSON, only the texts that hold it are blanked: the id must stay.
    """
    is_wide = b"\0" in body and holds_secret(body.replace(b"\0", b"").decode("latin-1"), secret)
    blanked = HIDDEN if is_wide else blank_secret(body.decode("latin-1"), secret)
    if blanked != HIDDEN:
        return blanked.encode("latin-1")
    try:
        return json.dumps(_without_secret(json.loads(body), secret)).encode()
    except (ValueError, RecursionError):
        return HIDDEN.encode()


MIN_PART: Final = 12
"""Characters of a secret from which a part of it is blanked as well: what is left of a shorter one is not worth it."""


def blank_everywhere(body: bytes, secret: str) -> bytes:
    """`body` with *** for `secret`, and for what an encoder or a careless page makes of it; see `encodings_of`."""
    body = blank_secret_bytes(body, secret)
    text = body.replace(b"\0", b"").decode("latin-1")
    readings = list(_readings(text, secret)) if _ESCAPE_SIGNS.search(text) else []
    # Only what is there is cut out: the search for each spelling of each encoding would cost every answer milliseconds.
    for encoded in encodings_of(secret):
        if encoded in text or (readings and any(encoded in reading for reading in readings)):
            body = blank_secret_bytes(body, encoded)
    return body


@lru_cache(maxsize=16)
def encodings_of(secret: str) -> tuple[str, ...]:
    """What gives `secret` away without being it: base64, base32 and hex, other cases, backwards, and two thirds of it.

    Base64 of a text that holds the secret, such as `user:secret`, depends on where the secret begins in it; what the
    characters around it cannot change is looked for.
    """
    raw = secret.encode("utf-8", "surrogatepass")
    found = [secret.upper(), secret.lower(), secret.swapcase(), secret[::-1], raw.hex(), raw.hex().upper()]
    found += [" ".join(secret), ", ".join(map(str, raw)), ",".join(map(str, raw))]
    found += [*_base64_of(raw), *_base64_of(base64.b64encode(raw))]
    # Base32 takes five bytes at a time, so a secret may begin at five places of a group. Characters at both ends hold
    # bits of its neighbours too, and are left out.
    for before in range(5):
        padded = base64.b32encode(b"\0" * before + raw).decode("ascii").rstrip("=")
        found.append(padded[(0, 2, 4, 5, 7)[before] : len(padded) - (1 if (before + len(raw)) % 5 else 0)])
    # Two thirds, rounded up.
    part = -(-2 * len(secret) // 3)
    if part >= MIN_PART:
        found += [secret[:part], secret[-part:], secret[(len(secret) - part) // 2 :][:part]]
    return tuple(one for one in dict.fromkeys(found) if one != secret and len(one) >= min(MIN_PART, len(secret)))


def _base64_of(raw: bytes) -> Iterator[str]:
    """What base64, of both alphabets, makes of `raw` wherever it begins in a longer text."""
    # Three bytes at a time, and so three places to begin at; both ends hold bits of the neighbours.
    for before in range(3):
        padded = base64.b64encode(b"\0" * before + raw).decode("ascii").rstrip("=")
        core = padded[(0, 2, 3)[before] : len(padded) - (1 if (before + len(raw)) % 3 else 0)]
        yield core
        yield core.replace("+", "-").replace("/", "_")


def _without_secret(value: object, secret: str) -> object:
    """A JSON value whose texts and names that hold the secret are blanked."""
    if isinstance(value, str):
        return blank_secret(value, secret)
    if isinstance(value, list):
        return [_without_secret(item, secret) for item in value]
    if isinstance(value, dict):
        return {blank_secret(name, secret): _without_secret(item, secret) for name, item in value.items()}
    return value


def holds_secret(text: str, secret: str) -> bool:
    """Whether `secret` is in `text`, or in what is read after undoing the escapes of both."""
    if secret in text:
        return True
    return _ESCAPE_SIGNS.search(text) is not None and any(secret in read for read in _readings(text, secret))


def _readings(text: str, secret: str) -> Iterator[str]:
    """`text` after each round of undoing escapes; with `secret` in it where its own escapes were undone to the end."""
    # One layer of each kind of escape a round; a text without any ends after the first.
    for _ in range(MAX_LAYERS):
        before = text
        for undo in (_undo_json, _undo_percent, html.unescape):
            text = undo(text)
            yield text
        if text == before:
            break
    if (plain := _undone(secret)) != secret and plain in text:
        yield secret


@lru_cache(maxsize=16)
def _undone(secret: str) -> str:
    for _ in range(MAX_LAYERS):
        secret = html.unescape(_undo_percent(_undo_json(secret)))
    return secret


def _undo_json(text: str) -> str:
    return _JSON_ESCAPE.sub(lambda found: found[4] or chr(int(found[1] or found[2] or found[3], 16)), text)


def _undo_percent(text: str) -> str:
    return _PERCENT_ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)


@lru_cache(maxsize=16)
def _spellings(secret: str) -> re.Pattern[str]:
    """A pattern of every spelling of `secret`, character by character: `+` is also %2B, \\u002B, &#43; or &plus;."""
    return re.compile("".join(_spelling(character) for character in secret))


def _spelling(character: str) -> str:
    """The spellings of one ASCII character. The signs that begin an escape may be escaped themselves."""
    if character == "\\":
        return r"(?:\\+|%(?:25)*5[cC]|&(?:amp;)*(?:\#92|\#[xX]5[cC]|bsol);)"
    code = ord(character)
    digits = "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in f"{code:02x}")
    names = "|".join(name.removesuffix(";") for name, text in html5.items() if text == character and name.endswith(";"))
    backslash = r"(?:\\|%(?:25)*5[cC])"
    percent = r"(?:%|\\+u0025|&(?:amp;)*(?:\#37|percnt);)"
    ampersand = r"(?:&|%(?:25)*26|\\+u0026)"
    entity = rf"(?:\#0*{code}|\#[xX]0*{digits}" + (f"|{names})" if names else ")")
    literal = re.escape(character)
    return (
        rf"(?:{literal}"
        rf"|{backslash}+(?:u\{{?0*{digits}\}}?|x{digits}|{literal})"
        rf"|{percent}(?:25)*{digits}"
        rf"|{ampersand}(?:amp;)*{entity};?)"
    )
