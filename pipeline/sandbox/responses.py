"""The gateway's answers as JSON values: submit, poll, motions, errors, in both dialects.

Sources: API document, "Response - Image To Video Request" and "Common Status Codes and Responses"; the other forms are
those of the vendor's own pages (official) or seen in public clients.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType

from pipeline.sandbox.jobs import Job, SandboxJobState
from pipeline.sandbox.rendering.motion import Preset
from pipeline.sandbox.settings import Dialect, RetryAfter

JOB_SET_TYPE = "image2video"

MISSING_KEY = (
    "Access denied due to missing subscription key. "
    "Make sure to include subscription key when making requests to an API."
)
INVALID_KEY = (
    "Access denied due to invalid subscription key. Make sure to provide a valid key for an active subscription."
)
LIMIT_TEXT = "Rate limit exceeded, please retry later"
SERVER_ERROR = "An unexpected error occurred, please try again later"
NOT_FOUND = "Endpoint not found"
NSFW_REASON = "Content was flagged as NSFW"
FAILED_REASON = "Generation failed"

MISLEADING_WAIT_S = 3600

QUEUE_WORDS: Mapping[SandboxJobState, str] = MappingProxyType(
    {
        SandboxJobState.QUEUED: "QUEUED",
        SandboxJobState.IN_PROGRESS: "PROCESSING",
        SandboxJobState.COMPLETED: "COMPLETED",
        SandboxJobState.FAILED: "FAILED",
        SandboxJobState.NSFW: "FAILED",
        SandboxJobState.CANCELED: "ERROR",
    }
)

REASONS: Mapping[SandboxJobState, str] = MappingProxyType(
    {
        SandboxJobState.FAILED: FAILED_REASON,
        SandboxJobState.NSFW: NSFW_REASON,
        SandboxJobState.CANCELED: "Job was canceled",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxResponse:
    """One answer before it is put on the wire: status, JSON value, extra headers."""

    status: int
    value: object
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """What a poll has to tell: the job, its state, and the URLs of its clip once completed."""

    job: Job
    state: SandboxJobState
    url: str | None = None
    preview_url: str | None = None
    reason: str | None = None


def refused(status: int, text: str) -> SandboxResponse:
    """The document's error body. Source: API document, "Common Status Codes and Responses"."""
    return SandboxResponse(status=status, value={"error": text})


def no_key(given: str | None) -> SandboxResponse:
    """401 in the manner of API management: the key is missing or not the one that was sold."""
    text = INVALID_KEY if given else MISSING_KEY
    return SandboxResponse(status=401, value={"statusCode": 401, "message": text})


def too_many(wait_s: float, *, number: int, mode: RetryAfter) -> SandboxResponse:
    """429 with the two bodies that are seen, in turn: even numbers the document's, odd ones API management's.

    Args:
        wait_s: seconds until the limiter would admit a call.
        number: how many 429 were answered before.
        mode: `no` leaves every hint out, `misleading` always hints at an hour.
    """
    hint_s = MISLEADING_WAIT_S if mode == "misleading" else max(1, math.ceil(wait_s))
    again = "" if mode == "no" else f" Try again in {hint_s} seconds."
    managed = {"statusCode": 429, "message": f"Rate limit is exceeded.{again}"}
    value = managed if number % 2 else {"error": LIMIT_TEXT}
    return SandboxResponse(status=429, value=value, headers={} if mode == "no" else {"Retry-After": str(hint_s)})


def accepted(job: Job, dialect: Dialect, base_url: str) -> SandboxResponse:
    """The answer to a submit that was charged: 200 and the full job set, or 202 and the queue's address."""
    if dialect == "queue":
        polling_url = f"{base_url}/v2/requests/status/{job.job_set_id}"
        return SandboxResponse(
            status=202, value={"request_id": job.job_set_id, "status": "QUEUED", "polling_url": polling_url}
        )
    return SandboxResponse(status=200, value=job_set(JobView(job=job, state=SandboxJobState.QUEUED)))


def job_set(outcome: JobView) -> dict[str, object]:
    """The document's full form: job set with one job and the echoed input."""
    job = outcome.job
    return {
        "job_set_id": job.job_set_id,
        "type": JOB_SET_TYPE,
        "created_at": timestamp(job.accepted_at),
        "jobs": [
            {
                "id": job.job_id,
                "job_set_type": JOB_SET_TYPE,
                "status": outcome.state.value,
                "results": results(outcome),
            }
        ],
        "input_params": echo(job.body),
    }


def results(outcome: JobView) -> dict[str, object] | None:
    """`raw` and `min` of a completed job. Source: official upstream; the document shows null only."""
    if outcome.url is None:
        return None
    return {
        "raw": {"type": "video", "url": outcome.url},
        "min": {"type": "video", "url": outcome.preview_url or outcome.url},
    }


def queue_status(outcome: JobView) -> dict[str, object]:
    """The unified queue's answer to a poll. Source: official."""
    output = None if outcome.url is None else {"media_url": [outcome.url], "media_type": "video/mp4"}
    return {
        "request_id": outcome.job.job_set_id,
        "status": QUEUE_WORDS[outcome.state],
        "output": output,
        "error": outcome.reason or REASONS.get(outcome.state),
    }


def echo(body: Mapping[str, object]) -> dict[str, object]:
    """`input_params`: the input as the document's example gives it back."""
    echoed: dict[str, object] = {
        "prompt": body["prompt"],
        "model": body["model"],
        "seed": body["seed"],
        "motions": [{"id": body["motions_id"], "strength": body["motions_strength"]}],
        "input_images": _image_list(body["input_images"]),
    }
    if "input_images_end" in body:
        echoed["input_images_end"] = _image_list(body["input_images_end"])
    return {
        **echoed,
        "enhance_prompt": body["enhance_prompt"],
        "check_nsfw": body.get("check_nsfw", True),
    }


def timestamp(unix_s: float) -> str:
    """`2025-09-16T11:16:51.045020Z`."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def dollars(microusd: int) -> str:
    """Money with three decimals; every price is a whole number of tenths of a cent."""
    return f"{microusd // 1_000_000}.{microusd % 1_000_000 // 1000:03d}"


def books(outcomes: Sequence[JobView], charged_microusd: int) -> dict[str, object]:
    """What was charged, in the order of acceptance."""
    return {
        "charged": len(outcomes),
        "usd": dollars(charged_microusd),
        "jobs": [
            {
                "job_set_id": outcome.job.job_set_id,
                "fingerprint": outcome.job.fingerprint,
                "price_usd": dollars(outcome.job.price_microusd),
                "status": outcome.state.value,
            }
            for outcome in outcomes
        ],
    }


def _image_list(images: object) -> list[dict[str, object]]:
    return [{"type": "image_url", "image_url": image} for image in images] if isinstance(images, list) else []


def motions(presets: Iterable[Preset]) -> list[dict[str, object]]:
    """The motion list. Source: inferred (upstream answers a bare list of this form)."""
    return [
        {
            "id": preset.motion_id,
            "name": preset.name,
            "description": f"{preset.name} motion preset",
            "preview_url": None,
            "start_end_frame": preset.start_end_frame,
        }
        for preset in presets
    ]
