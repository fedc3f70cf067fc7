"""Every shape in which answers to submits and polls have been seen, for clients that must be tolerant.

Number 0 is the API document's form, 1 the unified queue's; the others are official forms of the same gateway for other
models, or seen in public clients. All of them carry decoys where a URL must never be taken from: the echoed input and
the address of the status.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from pipeline.sandbox.jobs import Job, SandboxJobState
from pipeline.sandbox.responses import (
    REASONS,
    JobView,
    SandboxResponse,
    echo,
    job_set,
    queue_status,
    results,
    timestamp,
)

WORDS: Mapping[SandboxJobState, tuple[str, ...]] = MappingProxyType(
    {
        SandboxJobState.QUEUED: ("queued", "pending", "waiting", "submitted"),
        SandboxJobState.IN_PROGRESS: ("in_progress", "processing", "running", "generating", "warming_up"),
        SandboxJobState.COMPLETED: ("completed", "succeeded", "success", "done", "ready", "finished"),
        SandboxJobState.FAILED: ("failed", "error"),
        SandboxJobState.NSFW: ("nsfw", "moderated", "ip_detected"),
        SandboxJobState.CANCELED: ("canceled", "cancelled"),
    }
)
"""Spellings of each state; `warming_up` is a word that no client knows."""

_CASES: tuple[Callable[[str], str], ...] = (str.lower, str.upper, str.capitalize)

Value = dict[str, object]


def word(state: SandboxJobState, number: int) -> str:
    """One spelling of a state; the numbers 0..17 go through all words and cases."""
    words = WORDS[state]
    return _CASES[number // len(words) % 3](words[number % len(words)])


def _reason(outcome: JobView) -> str | None:
    return outcome.reason or REASONS.get(outcome.state)


def _plain(outcome: JobView, number: int, name: str = "status") -> Value:
    return {
        "id": outcome.job.job_set_id,
        name: word(outcome.state, number),
        "created_at": timestamp(outcome.job.accepted_at),
        "input": echo(outcome.job.body),
        "status_url": "https://status.invalid/not-a-video.mp4",
    }


def _with(value: Value, name: str, content: object, outcome: JobView) -> Value:
    """`content` under `name` once there is a URL, and the reason in one of its forms once there is one."""
    if outcome.url is not None:
        value[name] = content
    return value


def _several_jobs(outcome: JobView) -> Value:
    value = job_set(outcome)
    other = {"id": "0", "job_set_type": "image2video", "status": "failed", "results": None}
    if outcome.state in (SandboxJobState.QUEUED, SandboxJobState.IN_PROGRESS):
        other["status"] = "in_progress"
    jobs = value["jobs"]
    return {**value, "jobs": [other, *(jobs if isinstance(jobs, list) else [])]}


def _preview_only(outcome: JobView) -> Value:
    found = results(outcome)
    job = {"id": outcome.job.job_id, "status": outcome.state.value, "results": found and {"min": found["min"]}}
    if _reason(outcome):
        job["error"] = _reason(outcome)
    return {"job_set_id": outcome.job.job_set_id, "jobs": [job], "input_params": echo(outcome.job.body)}


def _results_above(outcome: JobView) -> Value:
    value = {"job_set_id": outcome.job.job_set_id, "status": word(outcome.state, 1), "results": results(outcome)}
    return {**value, "error_message": _reason(outcome)}


def _results_list(key: str, number: int) -> Callable[[JobView], Value]:
    def shape(outcome: JobView) -> Value:
        value = _plain(outcome, number, "state")
        value["detail"] = [{"loc": ["job"], "msg": _reason(outcome)}] if _reason(outcome) else []
        return _with(value, "results", [{key: outcome.url, "job_id": outcome.job.job_id}], outcome)

    return shape


def _media_text(outcome: JobView) -> Value:
    value = queue_status(outcome)
    return {**value, "output": outcome.url and {"media_url": outcome.url, "media_type": "video/mp4"}}


def _output_text(outcome: JobView) -> Value:
    value = {**_plain(outcome, 5), "message": _reason(outcome) or "ok"}
    return _with(value, "output", outcome.url, outcome)


def _output_video(outcome: JobView) -> Value:
    value: Value = {
        "task_id": outcome.job.job_set_id,
        "task_status": word(outcome.state, 4),
        "reason": _reason(outcome),
    }
    return _with(value, "output", {"video_url": outcome.url}, outcome)


def _data_output(outcome: JobView) -> Value:
    inner: Value = {
        "state": word(outcome.state, 8),
        "error": {"message": _reason(outcome)} if _reason(outcome) else None,
    }
    return {"success": True, "data": _with(inner, "output", {"url": outcome.url}, outcome)}


def _video_object(outcome: JobView) -> Value:
    return _with({**_plain(outcome, 13), "details": _reason(outcome)}, "video", {"url": outcome.url}, outcome)


def _top(key: str, number: int) -> Callable[[JobView], Value]:
    def shape(outcome: JobView) -> Value:
        value = {**_plain(outcome, number), "error": [_reason(outcome)] if _reason(outcome) else []}
        return _with(value, key, outcome.url, outcome)

    return shape


def _no_jobs(outcome: JobView) -> Value:
    value: Value = {"job_set_id": outcome.job.job_set_id, "status": word(outcome.state, 3), "jobs": []}
    return _with({**value, "error": _reason(outcome)}, "video_url", outcome.url, outcome)


SHAPES: tuple[Callable[[JobView], Value], ...] = (
    job_set,
    queue_status,
    _several_jobs,
    _preview_only,
    _results_above,
    _results_list("imageUrl", 2),
    _results_list("url", 6),
    _results_list("video_url", 9),
    _results_list("videoUrl", 11),
    _media_text,
    _output_text,
    _output_video,
    _data_output,
    _video_object,
    _top("video_url", 10),
    _top("output_url", 14),
    _top("url", 17),
    _no_jobs,
)


def accepted_as(job: Job, number: int, base_url: str) -> SandboxResponse:
    """The answer to a charged submit in one of the tolerable forms: other statuses, the id under other names."""
    job_set_id = job.job_set_id
    forms: tuple[tuple[int, Value], ...] = (
        (200, {"job_set_id": job_set_id, "type": "image2video", "created_at": timestamp(job.accepted_at)}),
        (201, {"success": True, "data": {"jobSetId": job_set_id}}),
        (
            202,
            {
                "request_id": job_set_id,
                "status": "QUEUED",
                "polling_url": f"{base_url}/v2/requests/status/{job_set_id}",
            },
        ),
        (200, {"id": job_set_id, "status": "queued", "jobs": [{"id": job.job_id, "status": "queued"}]}),
        (202, {"output": {"task_id": job_set_id, "task_status": "PENDING"}}),
        (200, {"result": {"requestId": job_set_id}}),
    )
    status, value = forms[number % len(forms)]
    return SandboxResponse(status=status, value=value)
