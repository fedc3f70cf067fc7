"""A job the sandbox was paid for, and what has become of it by a given moment."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from pipeline.sandbox.request_validation import PRICES_MICROUSD
from pipeline.sandbox.settings import SandboxSettings

CLIP_VERSION = 3
"""Raised whenever the renderer draws the same request differently, so that old clips are not handed out as new ones."""

QUEUED_SHARE = 0.15
"""Part of its generation time that a job is shown as queued."""

MODEL_FACTOR: Mapping[str, float] = {"dop-lite": 1.25, "dop-preview": 1.0, "dop-turbo": 0.7}
"""Generation time relative to the setting. Source: seen (lite takes minutes, turbo about 40 s)."""


class JobOutcome(StrEnum):
    """How a job will end. Fixed when it is accepted."""

    COMPLETED = "completed"
    FAILED = "failed"
    NSFW = "nsfw"
    CANCELED = "canceled"
    ENDLESS = "endless"
    """never leaves in_progress"""


class SandboxJobState(StrEnum):
    """The states of the upstream vendor's own list."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    NSFW = "nsfw"
    CANCELED = "canceled"


TERMINAL = frozenset(
    {SandboxJobState.COMPLETED, SandboxJobState.FAILED, SandboxJobState.NSFW, SandboxJobState.CANCELED}
)

MARKS: Mapping[str, JobOutcome] = {
    "[sandbox:fail]": JobOutcome.FAILED,
    "[sandbox:nsfw]": JobOutcome.NSFW,
    "[sandbox:cancel]": JobOutcome.CANCELED,
    "[sandbox:stuck]": JobOutcome.ENDLESS,
}
"""Words in a prompt that decide the job's fate, so that a rehearsal can show every ending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One accepted submit. `accepted_at` is Unix seconds; `visit` counts acceptances of the same fingerprint from 1.

    `body` is the JSON object as received, webhook fields included.
    """

    job_set_id: str
    job_id: str
    fingerprint: str
    visit: int
    body: Mapping[str, object]
    price_microusd: int
    accepted_at: float
    generation_s: float
    fate: JobOutcome
    clip_key: str
    callback_url: str | None = None
    callback_secret: str | None = None


def state_of(job: Job, now: float, *, clip_ready: bool, spoiled: bool = False) -> SandboxJobState:
    """What a poll at `now` says.

    Args:
        clip_ready: the clip exists; without it a job is never completed.
        spoiled: the clip cannot be made (the image is not an image).
    """
    age_s = now - job.accepted_at
    if age_s < job.generation_s * QUEUED_SHARE:
        return SandboxJobState.QUEUED
    if age_s < job.generation_s or job.fate is JobOutcome.ENDLESS:
        return SandboxJobState.IN_PROGRESS
    if job.fate is not JobOutcome.COMPLETED:
        return SandboxJobState(job.fate.value)
    if spoiled:
        return SandboxJobState.FAILED
    return SandboxJobState.COMPLETED if clip_ready else SandboxJobState.IN_PROGRESS


def share(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` alone."""
    # A separator that no part holds: ("a", "bc") and ("ab", "c") are two draws. Texts from JSON may have lone
    # surrogates.
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)


def generation_time(model: str, fingerprint: str, visit: int, settings: SandboxSettings) -> float:
    """Seconds from acceptance to completion: the setting, times the model's factor, times a spread fixed per job."""
    low, high = settings.generation_spread
    spread = low + (high - low) * share("generation", fingerprint, visit)
    return settings.generation_s * MODEL_FACTOR[model] * spread


def marked_fate(prompt: str) -> JobOutcome:
    """The fate a prompt asks for with one of MARKS; completed without."""
    return next((fate for mark, fate in MARKS.items() if mark in prompt), JobOutcome.COMPLETED)


def new_job(
    body: Mapping[str, object],
    *,
    fingerprint: str,
    visit: int,
    books_token: str,
    now: float,
    settings: SandboxSettings,
    callback_url: str | None = None,
) -> Job:
    """The job of a body that passed the rules. Its ids depend on the books' token, the fingerprint and the visit."""
    model = str(body["model"])
    # Ids are made and not drawn: a storm under the same seed gives the same jobs, whatever the order of the calls.
    secret = body.get("webhook_secret")
    return Job(
        job_set_id=_uuid(books_token, fingerprint, visit, "set"),
        job_id=_uuid(books_token, fingerprint, visit, "job"),
        fingerprint=fingerprint,
        visit=visit,
        body=body,
        price_microusd=PRICES_MICROUSD[model],
        accepted_at=now,
        generation_s=generation_time(model, fingerprint, visit, settings),
        fate=marked_fate(str(body["prompt"])),
        clip_key=clip_key(body, fingerprint, settings),
        callback_url=callback_url or (str(body["webhook_url"]) if "webhook_url" in body else None),
        callback_secret=str(secret) if secret is not None else None,
    )


def clip_key(body: Mapping[str, object], fingerprint: str, settings: SandboxSettings) -> str:
    """Name of the clip's file: 32 hex digits of what it is drawn from."""
    # All that the pixels depend on, and nothing else: equal requests share a clip, and a sandbox of another size or
    # version in the same folder makes its own.
    what = str(body["input_images"]) if settings.one_clip else fingerprint
    spoiled = f" defects {settings.defects:g}" if settings.defects else ""
    spoiled += " broken" if body.get("seed") in settings.defect_seeds else ""
    return hashlib.sha256(
        f"{CLIP_VERSION} {settings.size} {what}{spoiled}".encode("utf-8", "surrogatepass")
    ).hexdigest()[:32]


def _uuid(*parts: object) -> str:
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode("utf-8", "surrogatepass")).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))
