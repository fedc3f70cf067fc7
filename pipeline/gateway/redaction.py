"""Texts without what opens something: signatures of signed addresses, and the tokens and secrets of callbacks. Pure.

For words that are kept or shown, never for an address that is still to be called. A gateway repeats what it was sent in
errors and answers, in whatever spelling: quoted, escaped, percent-encoded, cut.
"""

from __future__ import annotations

import re
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
