"""One result answer -> one report: the state of a job set and the address of its clip, in every known shape.

Part of `wire`. The API document shows no result answer, so every shape here is `official` for a sister service
or `seen`; whatever is not understood means "not finished yet", never "failed".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from pipeline.gateway.error_text import error_text
from pipeline.gateway.json_fields import Json, as_object, find_id, objects, one_line, places, single

MAX_URL_CHARS: Final = 8192
"""Characters of a video's address that is believed; signed addresses have some 2,000, and it is stored in the
ledger."""


class JobStatus(StrEnum):
    """What a job's state word means for us."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    CANCELED = "canceled"


TERMINAL: Final = frozenset({JobStatus.DONE, JobStatus.FAILED, JobStatus.REFUSED, JobStatus.CANCELED})

STATE_WORDS: Mapping[str, JobStatus] = MappingProxyType(
    {
        word.replace("_", ""): phase
        for phase, words in {
            JobStatus.PENDING: "queued pending waiting submitted",
            JobStatus.RUNNING: "in_progress processing running generating",
            JobStatus.DONE: "completed succeeded success done ready finished",
            JobStatus.FAILED: "failed error",
            JobStatus.REFUSED: "nsfw moderated ip_detected",
            JobStatus.CANCELED: "canceled cancelled",
        }.items()
        for word in words.split()
    }
)
"""State word, letters only in lower case -> phase. Any other word means still pending. Source: official, seen."""

STATE_KEYS: Final = ("status", "state", "task_status", "taskStatus")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatusReport:
    """What one result answer says about one job set.

    Attributes:
        video_url: http(s) address of the full clip; None on a `done` report means "ask a few times more".
        other_address: what a `done` report has in its place where that is no http(s) address; it may be relative.
        preview_url: the smaller rendition, when there are two.
        reason: the gateway's own words for a failure.
        word: the state word as it was said; empty when only a video spoke for itself.
        known_word: False: a word we do not know; `phase` is then pending.
        job_set_id: the id the answer itself names, to be compared with the one asked for.
    """

    status: JobStatus
    video_url: str | None = None
    other_address: str | None = None
    preview_url: str | None = None
    reason: str | None = None
    word: str = ""
    known_word: bool = True
    job_set_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _StatusWord:
    text: str
    status: JobStatus | None


def parse_poll(payload: object) -> JobStatusReport | None:
    """The report in a result answer, or None when it holds neither a state nor a video.

    The words of the jobs and of what wraps the result are nearer to the job than the one on top, which some gateways
    use for "the call went well": they win, unless the top says that all is over.
    """
    for top in single(payload):
        url = _video_url(top)
        word = _state(top, has_video=url is not None)
        if word is None:
            return None
        phase = word.status or JobStatus.PENDING
        done = phase is JobStatus.DONE
        return JobStatusReport(
            status=phase,
            video_url=(url or _only_clip(top)) if done else None,
            other_address=next(_video_texts(top), None) if done and url is None else None,
            preview_url=_preview_url(top, url) if done else None,
            reason=(error_text(payload) or None) if phase in TERMINAL and not done else None,
            word=one_line(word.text, 60),
            known_word=word.status is not None,
            job_set_id=_own_id(top),
        )
    return None


def _own_id(top: Json) -> str | None:
    """The id an answer calls its own. A bare `id` may be a job's or a trace's and proves nothing."""
    found = find_id(top)
    return found[1] if found is not None and found[0] in ("job_set_id", "request_id") else None


def _word_of(place: Json) -> _StatusWord | None:
    said = next((v for key in STATE_KEYS if isinstance(v := place.get(key), str) and v.strip()), None)
    if said is None:
        return None
    # `IN_PROGRESS`, `in-progress` and `InProgress` are one word; most gateways write small letters alone.
    status = STATE_WORDS.get(said) or STATE_WORDS.get(re.sub(r"[\W_]+", "", said).lower())
    return _StatusWord(text=said, status=status)


def _state(top: Json, *, has_video: bool) -> _StatusWord | None:
    """The one word for the whole set: from its jobs, from what wraps it, from the top."""
    outer = None if _is_call_error(top) else _word_of(top)
    # Without the first place, which is the top itself: only what wraps the result is asked for here.
    inner = _jobs_word(top) or next((w for place in places(top)[1:] if (w := _word_of(place)) and w.status), None)
    if inner is None and outer is None:
        # Inferred: a document without a state but with a clip is finished; a bare `url` alone is no clip.
        return _StatusWord(text="", status=JobStatus.DONE) if has_video and not _only_bare_url(top) else None
    if inner is None or outer is None:
        return inner or outer
    # A failure on top ends the whole set, unless a clip is there: what can be fetched was paid for.
    over = outer.status in TERMINAL and outer.status is not JobStatus.DONE
    if over and not (inner.status is JobStatus.DONE and has_video):
        return outer
    return outer if inner.status is None and outer.status is not None else inner


def _is_call_error(top: Json) -> bool:
    """API: `{"status": "error", "message": ..}` and `{"statusCode": 429, ..}` speak of the call, not of a job.

    In doubt it is the call: a job taken for failed is a paid clip thrown away, one asked again costs nothing.
    """
    codes = [top.get("statusCode"), top.get("code")]
    if any(isinstance(code, int) and code >= 400 for code in codes):
        return True
    word = _word_of(top)
    about_job = find_id(top) is not None or any(key in top for key in ("jobs", "output", "results"))
    return word is not None and word.text.strip().lower() == "error" and not about_job


def _jobs_word(top: Json) -> _StatusWord | None:
    """Several jobs in one set: done when one is done with a clip, over only when all are over."""
    jobs = [job for place in places(top) for job in objects(place.get("jobs"))]
    words = [_word_of(job) or _StatusWord(text="", status=JobStatus.PENDING) for job in jobs]
    if not any(word.text for word in words):
        return None
    for job, word in zip(jobs, words, strict=True):
        # One clip is what was ordered: a sibling that failed or still runs makes no difference.
        if word.status is JobStatus.DONE and _has_clip(job):
            return word
    for word in words:
        if word.status not in TERMINAL:
            running = next((w for w in words if w.status is JobStatus.RUNNING), None)
            return running or next((w for w in words if w.status is JobStatus.PENDING), None) or word
    done = next((word for word in words if word.status is JobStatus.DONE), None)
    if done is not None or len({word.status for word in words}) <= 1:
        return done or next(iter(words), None)
    return next(
        (w for w in words if w.status is JobStatus.FAILED), _StatusWord(text=words[0].text, status=JobStatus.FAILED)
    )


# --- addresses of clips ----------------------------------------------------------------------------------------------

ADDRESS_PATTERN: Final = re.compile(r"(?i:https?)://[^\s\x00-\x20]+")
RESULT_URL_KEYS: Final = ("url", "video_url", "videoUrl", "imageUrl")
OUTPUT_URL_KEYS: Final = ("media_url", "mediaUrl", "video_url", "videoUrl", "url")
TOP_URL_KEYS: Final = ("video_url", "videoUrl", "output_url", "outputUrl", "url")


def _video_url(top: Json) -> str | None:
    """The best http(s) address of the clip."""
    return next((text for text in _video_texts(top) if _is_address(text)), None)


def _video_texts(top: Json) -> Iterator[str]:
    """What the places of the clip's address hold, best first. `input`, `input_params` and the `*_url`s of the API
    itself are never read."""
    around = places(top)
    jobs = [job for place in around for job in objects(place.get("jobs"))]
    # A finished job's clip comes before one of a sibling that is not.
    # `sorted` is stable, and False comes before True: finished jobs first, each group in the answer's order.
    for job in sorted(jobs, key=lambda job: (w := _word_of(job)) is None or w.status is not JobStatus.DONE):
        yield from _job_texts(job)
    for place in around:
        yield from _result_texts(place.get("results"))
    for place in around:
        yield from _output_texts(place.get("output"))
    for place in around:
        yield from _texts(as_object(place.get("video")).get("url"))
        yield from _texts(place.get("video"))
    for key in TOP_URL_KEYS:
        for place in around:
            yield from _texts(place.get(key))


def _job_texts(job: Json) -> Iterator[str]:
    yield from _result_texts(job.get("results"))
    yield from _result_texts(job.get("result"))


def _has_clip(job: Json) -> bool:
    return any(_is_address(text) for text in _job_texts(job))


def _result_texts(results: object) -> Iterator[str]:
    """`{raw, min}` (official), one object, or a list of objects or strings (official, another model's answer)."""
    for name in ("raw", "min"):
        for result in objects(results):
            yield from _texts(as_object(result.get(name)).get("url"))
            yield from _texts(result.get(name))
    for key in RESULT_URL_KEYS:
        for result in objects(results):
            yield from _texts(result.get(key))
    yield from _texts(results)


def _output_texts(output: object) -> Iterator[str]:
    """`output.media_url`, a list or a string (official); `output` itself a string or a list (seen)."""
    for key in OUTPUT_URL_KEYS:
        for place in objects(output):
            yield from _texts(place.get(key))
    yield from _texts(output)


_BEFORE_PATH: Final = re.compile(r"https?://[^\s/?#]+/", re.IGNORECASE)


def _texts(value: object) -> Iterator[str]:
    """A string, or those of a list, without white space round them; a space inside an address as `%20`."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str) and (text := item.strip()):
            # A file's name with a space in it is often put into an address as it is.
            yield text.replace(" ", "%20") if _BEFORE_PATH.match(text) else text


_CLIP_PATH: Final = re.compile(r"https?://[^\s?#]+\.(?:mp4|m4v|mov)(?:[?#]\S*)?", re.IGNORECASE)
_NO_RESULT_KEY: Final = re.compile(
    r"input|param|request|source|poll|status|cancel|webhook|callback|preview|thumb|poster|image|min\b", re.IGNORECASE
)
"""Names of what is no result, or not the full clip: echoes of the request, addresses of the API, smaller renditions."""
MAX_CLIP_NESTING: Final = 8
"""Levels of nesting at which a clip in a shape that no page describes is searched for."""


def _only_clip(top: Json) -> str | None:
    """The one address of a video file in an answer of a shape that no page describes; None where there are several.

    What is finished was paid for: an unknown name around its address is no reason to lose the clip. Source: inferred.
    """
    found = {text for text in _clip_texts(top, MAX_CLIP_NESTING) if _is_address(text)}
    return found.pop() if len(found) == 1 else None


def _clip_texts(value: object, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield from (text for text in _texts(value) if _CLIP_PATH.fullmatch(text))
    elif depth and isinstance(value, list):
        for item in value:
            yield from _clip_texts(item, depth - 1)
    elif depth and isinstance(value, Mapping):
        for name, inner in value.items():
            if not _NO_RESULT_KEY.search(str(name)):
                yield from _clip_texts(inner, depth - 1)


def _is_address(text: str) -> bool:
    return len(text) <= MAX_URL_CHARS and ADDRESS_PATTERN.fullmatch(text) is not None


def _preview_url(top: Json, video_url: str | None) -> str | None:
    jobs = [job for place in places(top) for job in objects(place.get("jobs"))]
    results = [one for holder in (*jobs, *places(top)) for one in objects(holder.get("results"))]
    found = (url for result in results for url in _texts(as_object(result.get("min")).get("url")))
    return next((url for url in found if _is_address(url) and url != video_url), None)


def _only_bare_url(top: Json) -> bool:
    return _video_url({key: value for key, value in top.items() if key != "url"}) is None
