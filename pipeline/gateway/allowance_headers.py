"""Read what an answer's headers say of the gateway's rate limit.

No gateway is obliged to send them, and there are four dialects:

    RateLimit: "default";r=50;t=30            draft-ietf-httpapi-ratelimit-headers, newest form (structured fields)
    RateLimit: limit=100, remaining=50, reset=30                the same draft, form of 2023
    RateLimit-Remaining: 50, RateLimit-Reset: 30                the same draft, first form
    X-RateLimit-Remaining: 50, X-RateLimit-Reset: 30            custom: a duration ("30", "1.5s", "6m0s", "20ms")
                                                                or Unix seconds or milliseconds

A window's size comes as `RateLimit-Policy: "default";q=100;w=60`, or as `RateLimit-Limit: 100, 100;w=60`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

UNIX_FROM_S = 1e9
"""A reset from here on is a Unix time in seconds (2001), not a duration of thirty years."""

UNIX_FROM_MS = 1e11
"""A reset from here on is a Unix time in milliseconds (1973), since one in seconds would be in the year 5138."""

MAX_COUNT = 10**9
"""Larger counts are no counts of calls."""

HEADER_PREFIXES = ("ratelimit", "x-ratelimit", "x-rate-limit")
"""Beginnings of the names, in lower case, that `allowance_of` reads."""

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_ITEM = re.compile(r'^\s*(?:"[^"]*"|[\w./*:-]+)?\s*((?:;\s*[\w*-]+\s*=\s*[^;,]+)+)')
_PARAMETER = re.compile(r";\s*([\w*-]+)\s*=\s*([^;,\s]+)")
_ASSIGNMENT = re.compile(r"\b(limit|remaining|reset)\s*=\s*(\d+(?:\.\d+)?)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedAllowance:
    """What the headers say; None where they say nothing.

    Attributes:
        remaining: calls that are still allowed before the reset.
        reset_s: seconds from the answer until more are allowed.
        count: calls of the whole window.
        span_s: seconds that the window is long.
    """

    remaining: int | None = None
    reset_s: float | None = None
    count: int | None = None
    span_s: float | None = None


def allowance_of(headers: Mapping[str, str], *, now_unix: float) -> StatedAllowance | None:
    """What `headers` (names in lower case) say of the allowance; None where they say nothing that can be used.

    Args:
        now_unix: Unix seconds, for a reset that is given as a time.
    """
    names = {name: value for name, value in headers.items() if name.startswith(HEADER_PREFIXES)}
    if not names:
        return None
    remaining, reset_s = _structured(names) or _assigned(names) or _separate(names, now_unix)
    count, span_s = _window(names)
    if remaining is None and count is None:
        return None
    return StatedAllowance(remaining=remaining, reset_s=reset_s, count=count, span_s=span_s)


_Pair = tuple[int | None, float | None]


def _structured(headers: Mapping[str, str]) -> _Pair | None:
    """The tightest item of `"name";r=50;t=30, ..`."""
    found: list[tuple[int, float | None]] = []
    for item in _items(headers.get("ratelimit", "")):
        remaining = _count(item.get("r"))
        if remaining is not None:
            found.append((remaining, _seconds(item.get("t"))))
    # Several policies may hold at once (a minute, a day): the one with the fewest calls left is met first.
    return min(found, key=lambda pair: pair[0]) if found else None


def _assigned(headers: Mapping[str, str]) -> _Pair | None:
    said = {name.lower(): value for name, value in _ASSIGNMENT.findall(headers.get("ratelimit", ""))}
    remaining = _count(said.get("remaining"))
    return None if remaining is None else (remaining, _seconds(said.get("reset")))


def _separate(headers: Mapping[str, str], now_unix: float) -> _Pair:
    """A header for each number. `-requests` is a usual ending; `-tokens` counts something else."""
    for prefix in HEADER_PREFIXES:
        for suffix in ("", "-requests"):
            remaining = _count(headers.get(f"{prefix}-remaining{suffix}"))
            if remaining is not None:
                return remaining, _reset(headers.get(f"{prefix}-reset{suffix}"), now_unix)
    return None, None


def _window(headers: Mapping[str, str]) -> tuple[int | None, float | None]:
    """The window that allows the fewest calls a second."""
    policies = _items(headers.get("ratelimit-policy", ""))
    found = [(_count(item.get("q")), _seconds(item.get("w"))) for item in policies]
    for name in ("ratelimit-limit", "ratelimit-policy", "x-ratelimit-limit", "x-rate-limit-limit"):
        for count, span in re.findall(r"(\d+)\s*;\s*w\s*=\s*\"?(\d+)", headers.get(name, "")):
            found.append((_count(count), _seconds(span)))
    windows = [(count, span_s) for count, span_s in found if count and span_s]
    return min(windows, key=lambda it: it[0] / it[1]) if windows else (None, None)


def _items(text: str) -> list[dict[str, str]]:
    """The parameters of each item of a structured list."""
    matches = (_ITEM.match(part) for part in text.split(","))
    return [
        {name.lower(): value.strip('"') for name, value in _PARAMETER.findall(match[1])} for match in matches if match
    ]


def _count(text: str | None) -> int | None:
    # Neither the 100 of `100.5` nor that of `100;w=60`, which is a window's size and not a count that is left.
    match = re.match(r"\s*(\d{1,12})\b(?!\s*[.;])", text) if text else None
    return int(match[1]) if match and int(match[1]) <= MAX_COUNT else None


def _seconds(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", text.strip()) else None


def _reset(text: str | None, now_unix: float) -> float | None:
    """Seconds until the reset of a custom header."""
    said = (text or "").strip()
    if re.fullmatch(r"\d{1,16}(?:\.\d{1,9})?", said):
        value = float(said)
        if value >= UNIX_FROM_MS:
            return max(0.0, value / 1000 - now_unix)
        return max(0.0, value - now_unix) if value >= UNIX_FROM_S else value
    match = _DURATION.fullmatch(said) if said else None
    if match is None or not any(match.groups()):
        return None
    hours, minutes, seconds, millis = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + millis / 1000
