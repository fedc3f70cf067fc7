"""Reading JSON of other programs: any value in, small typed pieces out, nothing raises.

Part of `wire`: what the gateway's answers have in common, whichever call they belong to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Final

from pipeline.gateway.redaction import redact
from pipeline.records import canonical_job_id

MAX_REASON_CHARS: Final = 300
"""Characters of a gateway's reason that are kept: one line on a terminal and in a report."""

Json = Mapping[str, object]


def read_json(body: bytes) -> object:
    """The JSON value of a body, or None when it is not JSON: cut, HTML, nested too deep, a number too long."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # UnicodeDecodeError and over-long integers are ValueErrors
        return None


def one_line(text: str, limit: int = MAX_REASON_CHARS) -> str:
    """`text` as one printable line of at most `limit` characters, fit for a terminal, a log and a spreadsheet.

    Signatures and secrets that it repeats are hidden: every word of a gateway that is kept comes through here.
    """
    if text.isalnum() and text.isascii():  # every pattern of a secret asks for a sign beside letters and digits
        return text[:limit]
    # The rest of a long page is cut before it is searched for secrets; four times the length, as white space is folded
    # afterwards.
    clean = "".join(c if c.isprintable() else " " for c in redact(text[: 4 * limit]))
    return " ".join(clean.split())[:limit]


def as_object(value: object) -> Json:
    """`value` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def objects(value: object) -> list[Json]:
    """The JSON objects in `value`: itself, or those of a list."""
    if isinstance(value, dict):
        return [value]
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


ID_KEYS: Final = (
    ("job_set_id", ("job_set_id", "jobSetId")),
    ("request_id", ("request_id", "requestId")),
    ("task_id", ("task_id", "taskId")),
    ("id", ("id",)),
)
"""Field of the id, strongest first, with its spellings. Source: API document (job_set_id), official, seen."""

_ID_SPELLINGS: Final = frozenset(spelling for _, spellings in ID_KEYS for spelling in spellings)

ID_PATTERN: Final = re.compile(r"[A-Za-z0-9_({-][A-Za-z0-9._:~+=/|@,{}()-]{0,511}")
"""An id is opaque: a number, a UUID in any spelling, base64. This only keeps out what cannot safely stand in a log or,
with percent signs, in a path. White space round an id is not part of it."""

CONTAINERS: Final = ("data", "output", "result")
"""Where some answers wrap what the document puts on top. Source: seen."""


def single(payload: object) -> list[Json]:
    """The one object of `payload`, bare or alone in a list."""
    found = objects(payload)
    return found if len(found) == 1 else []


def places(top: Json) -> list[Json]:
    """The answer itself and the objects some gateways wrap it in."""
    found = [top]
    for name in CONTAINERS:
        if (inner := top.get(name)) is not None:
            found += single(inner)
    return found


def first(places: Iterable[Json], keys: Iterable[str]) -> object:
    """The first value that is there and not null."""
    wanted = tuple(keys)
    return next((place[key] for place in places for key in wanted if place.get(key) is not None), None)


def doubled_ids(body: bytes) -> frozenset[str]:
    """The ids that one object of a body gives under one name, where it gives that name more than one.

    A reader keeps the last of them. The others are ids of jobs that may be paid for.
    """
    doubled: set[str] = set()

    def seen(pairs: list[tuple[str, object]]) -> Json:
        made = dict(pairs)
        # Most objects give no name twice and at most one id: nothing in them can be doubled.
        if len(made) == len(pairs) and len(_ID_SPELLINGS & made.keys()) < 2:
            return made
        for _, spellings in ID_KEYS:
            ids = (as_id(value) for name, value in pairs if name in spellings)
            named = {canonical_job_id(one): one for one in ids if one is not None}
            if len(named) > 1:
                doubled.update(named)
        return made

    try:
        json.loads(body, object_pairs_hook=seen)
    except (ValueError, RecursionError):
        return frozenset()
    return frozenset(doubled)


def find_id(top: Json) -> tuple[str, str] | None:
    for name, spellings in ID_KEYS:
        for place in places(top):
            for spelling in spellings:
                value = as_id(place.get(spelling))
                if value is not None:
                    return name, value
    return None


def as_id(value: object) -> str | None:
    """`value` as an id that can be polled, without white space round it, or None. Numbers become their digits."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**20:
        return str(value)
    text = value.strip() if isinstance(value, str) else ""
    return text if ID_PATTERN.fullmatch(text) else None
