"""The gateway's words for "no" and "not now" as one line of text and a number of seconds.

Bodies of any shape, from the gateway or from a proxy before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from pipeline.gateway.json_fields import CONTAINERS, Json, one_line, read_json

MAX_NESTING: Final = 4
"""Levels of nesting at which an error object is searched for its text."""

MIN_WAIT_S: Final = 1.0
"""Seconds; a shorter stated wait is raised to it, because a hint of 0 would be a busy loop."""
MAX_WAIT_S: Final = 900.0
"""Bounds of a wait hint that is obeyed: 1 s to 15 min."""


REASON_KEYS: Final = (
    "error", "error_message", "errorMessage", "message", "detail", "details", "reason", "msg", "title", "code",
)  # fmt: skip


def error_text(said: object) -> str:
    """The gateway's own words in an error answer as one line, or "" when there are none.

    Args:
        said: the parsed payload, or the raw body: JSON in any of the known shapes, HTML, or plain text.
    Source: API document (`error`), official (`message`, `detail`), seen.
    """
    if not isinstance(said, bytes):
        return one_line(_words(said, MAX_NESTING))
    payload = read_json(said)
    if payload is not None:
        return one_line(_words(payload, MAX_NESTING))
    # A page is searched by regular expressions; its beginning has the title, and a megabyte would hold up the loop.
    return one_line(_page_text(said[:20_000].decode("utf-8", "replace")))


def _words(value: object, depth: int) -> str:
    """Text of a string, of a list's items, of an object's telling keys; `jobs[].error` last."""
    if isinstance(value, str):
        return value
    if depth == 0:
        return ""
    if isinstance(value, list):
        # Five mistakes are enough for a line; a validation error may list one for each field of each row.
        return "; ".join(text for item in value[:5] if (text := _words(item, depth - 1)))
    if not isinstance(value, Mapping):
        return ""
    for key in REASON_KEYS:
        text = _words(value.get(key), depth - 1)
        if text:
            return _located(value, text)
    nested = (
        _words(value.get(name), depth - 1) for name in ("jobs", *CONTAINERS) if not isinstance(value.get(name), str)
    )
    return next((text for text in nested if text), "")


def _located(value: Json, text: str) -> str:
    """`{"loc": ["body", "seed"], "msg": ".."}` names its field first."""
    where = value.get("loc")
    return f"{'.'.join(str(part) for part in where[:6])}: {text}" if isinstance(where, list) else text


def _page_text(text: str) -> str:
    """A proxy's HTML page by its title; anything else without its tags."""
    title = re.search(r"<title[^>]*>([^<]{1,300})", text, re.IGNORECASE)
    if title:
        return f"a web page: {title[1]}"
    return re.sub(r"<[^>]{0,500}>", " ", text)


# --- wait hints ------------------------------------------------------------------------------------------------------

_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_IN_UNITS: Final = re.compile(
    r"(?:again|retry|wait|retry[-_ ]?after)[^0-9\n]{0,20}?([0-9]{1,9}(?:\.[0-9]{1,6})?)"
    r"\s*(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?)?\b",
    re.IGNORECASE,
)
_REPLENISHED: Final = re.compile(r"replenished in (?:([0-9]{1,4})\.)?([0-9]{1,4}):([0-9]{2}):([0-9]{2})", re.IGNORECASE)


def wait_hint_s(headers: Mapping[str, str], text: str, *, now_wall: float) -> float | None:
    """Seconds the gateway asks us to wait, within 1 s .. 15 min, or None when it does not say.

    Args:
        headers: names in lower case.
        text: the body or the error text; read when the header says nothing that can be understood.
        now_wall: Unix seconds; only for a date in Retry-After that comes without a Date header beside it.
    Source: official (Azure API Management's header and texts); RFC 9110, 10.2.3.
    """
    return bounded(retry_after_s(headers, text, now_wall=now_wall))


def bounded(stated_s: float | None) -> float | None:
    """A wait hint within 1 s .. 15 min."""
    return None if stated_s is None else min(max(stated_s, MIN_WAIT_S), MAX_WAIT_S)


def retry_after_s(headers: Mapping[str, str], text: str, *, now_wall: float) -> float | None:
    """The wait hint as it was said, in seconds, at least 0 and without the 15-minute bound."""
    said = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", said):
        return float(said)
    # RFC 9110 allows seconds or a date here.
    if until := _wall(said):
        # The server's own Date makes a skewed clock on either side harmless.
        return max(0.0, until - (_wall(headers.get("date", "")) or now_wall))
    return _wait_in_text(text)


def _wall(http_date: str) -> float | None:
    """Unix seconds of an HTTP date, None when it is none."""
    try:
        moment = parsedate_to_datetime(http_date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


def _wait_in_text(text: str) -> float | None:
    """`Try again in 60 seconds.`, `replenished in 01:02:03`, `"retry_after": 30`."""
    quota = _REPLENISHED.search(text)
    if quota:
        days, hours, minutes, seconds = (int(part or 0) for part in quota.groups())
        return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    spoken = _IN_UNITS.search(text)
    if not spoken:
        return None
    unit = (spoken[2] or "s").lower()
    return float(spoken[1]) * (_UNIT_S["ms"] if unit.startswith(("ms", "milli")) else _UNIT_S[unit[0]])
