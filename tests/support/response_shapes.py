"""How gateways of this family word the same three answers, for the double. Written from the published pages alone.

A shape says where the id is in the answer to a submit, which words a job's states have, and where the video's
address is. Every answer to a poll also repeats the input image and a page of its own: addresses that are traps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """One wording. `submit` makes (status, body) of (id, base URL); `poll` makes the body of (id, word, link)."""

    submit: Callable[[str, str], tuple[int, Json]]
    poll: Callable[[str, str, str | None], Json]
    waiting: tuple[str, ...] = ("queued", "in_progress")
    done: str = "completed"


TRAP = "https://images.invalid/input.png"


def _job_set(job: str, base: str, **more: Any) -> tuple[int, Json]:
    return 200, {
        "job_set_id": job,
        "type": "image2video",
        "created_at": "2025-09-16T11:16:51.045020Z",
        "jobs": [{"id": f"part-of-{job}", "job_set_type": "image2video", "status": "queued", "results": None}],
        **more,
    }


def _short(job: str, base: str) -> tuple[int, Json]:
    return 200, {"job_set_id": job, "type": "image2video", "created_at": "2025-09-16T11:16:51.045020Z"}


def _queue(job: str, base: str) -> tuple[int, Json]:
    return 202, {"request_id": job, "status": "QUEUED", "polling_url": f"{base}/v2/requests/status/{job}"}


def _foreign_polling_url(job: str, base: str) -> tuple[int, Json]:
    return 202, {"request_id": job, "status": "QUEUED", "polling_url": f"https://elsewhere.invalid/status/{job}"}


def _at(*path: str, status: int = 200) -> Callable[[str, str], tuple[int, Json]]:
    def submit(job: str, base: str) -> tuple[int, Json]:
        found: Any = job
        for name in reversed(path):
            found = {name: found}
        return status, {"message": "created", **found}

    return submit


def _jobs(results: Callable[[str], object]) -> Callable[[str, str, str | None], Json]:
    def poll(job: str, word: str, link: str | None) -> Json:
        part = {"id": f"part-of-{job}", "status": word, "results": None if link is None else results(link)}
        return {
            "job_set_id": job,
            "jobs": [part],
            "input_params": {"input_images": [{"type": "image_url", "image_url": TRAP}]},
        }

    return poll


def _flat(where: Callable[[str], Json], *, state: str = "status") -> Callable[[str, str, str | None], Json]:
    def poll(job: str, word: str, link: str | None) -> Json:
        answer = {state: word, "error": None, "input": {"url": TRAP}, "status_url": TRAP, "cancel_url": TRAP}
        return {**answer, **({} if link is None else where(link))}

    return poll


def _two_jobs(job: str, word: str, link: str | None) -> Json:
    """One of the two fails; the set is done when the other one is."""
    video = {"id": "b", "status": word, "results": None if link is None else {"raw": {"url": link}}}
    return {"id": job, "jobs": [{"id": "a", "status": "failed", "results": None}, video]}


_RAW = _jobs(lambda link: {"raw": {"url": link, "type": "video"}, "min": {"url": f"{link}?preview"}})

SHAPES: dict[str, Shape] = {
    "document": Shape(_job_set, _RAW),
    "document short": Shape(_short, _RAW, done="succeeded"),
    "queue": Shape(
        _queue,
        _flat(lambda link: {"output": {"media_url": [link], "media_type": "video/mp4"}}),
        waiting=("QUEUED", "PROCESSING"),
        done="COMPLETED",
    ),
    "queue, one text": Shape(_queue, _flat(lambda link: {"output": {"media_url": link}}), ("QUEUED",), "COMPLETED"),
    "queue elsewhere": Shape(
        _foreign_polling_url, _flat(lambda link: {"output": {"media_url": [link]}}), ("PROCESSING",), "COMPLETED"
    ),
    "preview only": Shape(_job_set, _jobs(lambda link: {"min": {"url": link}})),
    "list of results": Shape(_short, _jobs(lambda link: [{"imageUrl": link, "job_id": "x"}])),
    "results on top": Shape(
        _at("id", status=201), _flat(lambda link: {"results": {"raw": {"url": link}}}), ("pending",), "ready"
    ),
    "listed url": Shape(
        _at("requestId"), _flat(lambda link: {"results": [{"url": link}]}, state="state"), ("Waiting",), "Finished"
    ),
    "listed video_url": Shape(
        _at("jobSetId"), _flat(lambda link: {"results": [{"video_url": link}]}), ("submitted",), "success"
    ),
    "listed videoUrl": Shape(
        _at("task_id"),
        _flat(lambda link: {"results": [{"videoUrl": link}]}, state="task_status"),
        ("processing",),
        "DONE",
    ),
    "output is text": Shape(_at("data", "request_id"), _flat(lambda link: {"output": link}), ("running",), "succeeded"),
    "output.video_url": Shape(
        _at("output", "id"), _flat(lambda link: {"output": {"video_url": link}}), ("generating",), "Completed"
    ),
    "output.url": Shape(
        _at("result", "job_set_id"), _flat(lambda link: {"output": {"url": link}}), ("thinking it over",), "done"
    ),
    "video.url": Shape(_job_set, _flat(lambda link: {"video": {"url": link}}), ("queued",), "completed"),
    "video_url": Shape(_job_set, _flat(lambda link: {"video_url": link}), ("queued",), "completed"),
    "output_url": Shape(_job_set, _flat(lambda link: {"output_url": link}), ("queued",), "completed"),
    "url": Shape(_job_set, _flat(lambda link: {"url": link}), ("queued",), "completed"),
    "two jobs": Shape(_job_set, _two_jobs),
    "no created_at": Shape(_at("job_set_id", status=202), _RAW),
}
