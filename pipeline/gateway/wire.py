"""JSON of the API <-> records: with `json_fields`, `job_status` and `error_text` all that knows how the gateway spells.

Everything read here was written by another program: no shape raises, what is not understood becomes None. Nothing
here decides what an answer means for money (`classification`), and no address found here is ever followed (`client`).
Sources: the API document; `official`, `seen` and `inferred` shapes are marked where they are read.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from pipeline.gateway.json_fields import (
    ID_KEYS,
    Json,
    as_id,
    as_object,
    find_id,
    first,
    one_line,
    places,
    single,
)
from pipeline.records import Params, canonical_job_id

# --- the submit answer -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedJob:
    """What a submit answer gives: the id that was paid for and how to ask for it.

    Attributes:
        job_set_id: the id to poll; in the queue dialect the gateway calls it request_id.
        polling_url: as the gateway said it: untrusted, perhaps on another host, perhaps relative.
        id_key: the field the id stood in; a bare `id` is weaker evidence than `job_set_id`.
        echoed_seed, echoed_prompt: the request as the answer repeats it, when it does.
    """

    job_set_id: str
    polling_url: str | None = None
    id_key: str
    echoed_seed: int | None = None
    echoed_prompt: str | None = None


def parse_submit(payload: object) -> SubmittedJob | None:
    """The ticket in a submit answer, or None when it names no id that can be polled.

    API: `jobs[0].id` is not the id to poll and is never read. An answer that names two job sets is not understood.
    """
    for top in single(payload):
        found = find_id(top)
        if found is None:
            return None
        id_key, job_set_id = found
        echo = parse_echo(top)
        return SubmittedJob(
            job_set_id=job_set_id,
            polling_url=_text(first(places(top), ("polling_url", "pollingUrl", "status_url", "statusUrl"))),
            id_key=id_key,
            echoed_seed=echo.seed,
            echoed_prompt=echo.prompt,
        )
    return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


ECHO_KEYS: Final = ("input_params", "inputParams", "input", "params")
"""Where an answer repeats the request. Source: API document (`input_params`); seen for the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Echo:
    """A request as an answer repeats it; None for what the answer does not repeat, or only in enhanced form."""

    seed: int | None = None
    prompt: str | None = None
    model: str | None = None


def parse_echo(top: Json) -> Echo:
    """The request that `top`, or what wraps the result in it, repeats."""
    said = next((value for place in places(top) for key in ECHO_KEYS if (value := as_object(place.get(key)))), {})
    return Echo(
        seed=_whole_number(said.get("seed")),
        prompt=None if said.get("enhance_prompt") is True else _text(said.get("prompt")),
        model=_text(said.get("model")),
    )


def _whole_number(value: object) -> int | None:
    """An integer, however it is written: 7, 7.0 or "7"."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def echo_differs(ticket: SubmittedJob, params: Params) -> str | None:
    """Why `ticket` cannot be the answer to `params`, or None when nothing speaks against it."""
    return echo_contradicts(Echo(seed=ticket.echoed_seed, prompt=ticket.echoed_prompt), params)


def echo_contradicts(echo: Echo, params: Params) -> str | None:
    """What in `echo` shows that another request was repeated than `params`, or None.

    API: with enhance_prompt, ours or the echo's, the echoed prompt may be the enhanced one, so it is compared only
    without; white space, case and Unicode form never count, nor does a prompt that was cut or added to.
    """
    if echo.seed is not None and echo.seed != params.seed:
        return f"it repeats seed {echo.seed} where {params.seed} was sent"
    if echo.prompt is None or params.enhance_prompt:
        return None
    said, sent = _folded(echo.prompt), _folded(params.prompt)
    return None if said in sent or sent in said else "it repeats another prompt than was sent"


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


ID_SEARCH_BYTES: Final = 65_536
"""Bytes of an answer that are searched for what is in the place of an id, for a message."""

_ID_SPELLINGS: Final = tuple(spelling for _, spellings in ID_KEYS for spelling in spellings)
_JOB_SET_SPELLINGS: Final = dict(ID_KEYS)["job_set_id"]
_OTHER_THINGS: Final = re.compile(r'"(?:jobs|input_params|inputParams|input|motions|input_images)"\s*:')
_ID_FIELD: Final = r'"(?:%s)"\s*:\s*(?:"([^"\\]+)"|([0-9]+)\s*[,}])'
_QUOTED_JSON: Final = re.compile(r'(?:^\s*|:\s*)"\s*\{\s*\\"')
"""Text that is a JSON object itself: the value of a field, or the whole answer."""
_ONLY_ID: Final = re.compile(r'\A\s*"?([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})"?\s*\Z')
"""An answer that is a UUID and nothing else."""
_IN_POLLING_URL: Final = re.compile(r'/requests/status/([^"/?\\\s]+)"')


def recoverable_ids(partial: bytes) -> tuple[str, ...]:
    """Ids in a body that is cut, garbled or not understood, best evidence first; each is worth one free poll.

    An id counts only with its closing quote. A bare `id` counts only where no id is named more clearly, and before the
    first key that may hold ids of other things: `jobs[0].id` and a motion's id are never returned.
    """
    text = partial.decode("utf-8", "replace")
    if _QUOTED_JSON.search(text):
        # API: inferred. A proxy that wraps the answer as text, `{"statusCode": 200, "body": "{\"job_set_id\": ..}"}`.
        text = text.replace('\\"', '"')
    # The part before the first key under which an `id` is a job's, a motion's or a picture's.
    own = _OTHER_THINGS.split(text, maxsplit=1)[0]
    fields = {name: _ID_FIELD % "|".join(spellings) for name, spellings in ID_KEYS}
    bare = fields.pop("id")
    found = [match[1] or match[2] for pattern in fields.values() for match in re.finditer(pattern, text)]
    found += [match[1] for match in _IN_POLLING_URL.finditer(text)]
    # A bare `id` is the weakest evidence: it counts only where nothing better was found.
    found = found or [match[1] or match[2] for match in re.finditer(bare, own)]
    found = found or _ONLY_ID.findall(text)
    return tuple(dict.fromkeys(one for text in found if (one := as_id(text)) is not None))


def names_job_set(body: bytes) -> bool:
    """Whether a body, whole or cut, gives a job set's id under its own name (a trace's `request_id` does not count)."""
    return bool(_job_sets_in(body.decode("utf-8", "replace")))


def job_sets_named(body: bytes) -> frozenset[str]:
    """One spelling of each job set that an answer calls its own, before the first key that may hold other things.

    An answer that names several is not understood: which of them was paid for is not known.
    """
    # Almost no refusal names one; the cheap look spares most bodies the decoding.
    if not any(spelling.encode() in body for spelling in _JOB_SET_SPELLINGS):
        return frozenset()
    return _job_sets_in(_OTHER_THINGS.split(body.decode("utf-8", "replace"), maxsplit=1)[0])


def _job_sets_in(text: str) -> frozenset[str]:
    found = re.finditer(_ID_FIELD % "|".join(_JOB_SET_SPELLINGS), text)
    ids = (as_id(match[1] or match[2]) for match in found)
    return frozenset(canonical_job_id(one) for one in ids if one is not None)


def without_id(body: bytes) -> str:
    """What is wrong with an answer that gives no id that can be polled, in words; it repeats the id that it gives."""
    if not body.strip():
        return "it is empty"
    keys = "|".join(_ID_SPELLINGS)
    text = body[:ID_SEARCH_BYTES].decode("utf-8", "replace")
    named = re.search(rf'"(?:{keys})"\s*:\s*(?:"(?:[^"\\]|\\.){{0,80}}"?|[^\s,}}"]{{1,80}})', text)
    return f"no id in it can be polled ({one_line(named[0])})" if named else "it names no job"
