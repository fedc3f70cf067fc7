"""The vendor's answers as JSON values: submit, status, errors, estimate, usage, models, callbacks.

Source: official where not marked otherwise.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from pipeline.sandbox.higgsfield.rules import CREDIT_MICROUSD, CREDITS, MODELS
from pipeline.sandbox.jobs import SandboxJobState
from pipeline.sandbox.responses import JobView, SandboxResponse
from pipeline.sandbox.settings import RetryAfter

KEPT_S = 7 * 24 * 3600.0
SERVER_ERROR = "Internal server error"
MISMATCH = "Idempotency-Key was already used with different request parameters"
"""Source: inferred; the vendor's own words are not known."""
IN_FLIGHT = "A request with this Idempotency-Key is still being processed"
"""Source: inferred."""


def refused(status: int, detail: object) -> SandboxResponse:
    """The vendor's error body."""
    return SandboxResponse(status=status, value={"detail": detail})


def queue_full(limit: int | None, wait_s: float, mode: RetryAfter) -> SandboxResponse:
    """429 of an account whose queue is full (`limit` may run at once), or that calls too often (None)."""
    hint_s = 3600 if mode == "misleading" else max(1, math.ceil(wait_s))
    full = {"code": "account_queue_full", "limit": limit}
    value = full if limit is not None else {"detail": "Too many requests"}
    return SandboxResponse(status=429, value=value, headers={} if mode == "no" else {"Retry-After": str(hint_s)})


def status(view: JobView, base_url: str, ended_at: float) -> dict[str, object]:
    """What a submit and a status call say about a request."""
    request_id = view.job.job_set_id
    value: dict[str, object] = {
        "status": view.state.value,
        "request_id": request_id,
        "status_url": f"{base_url}/requests/{request_id}/status",
        "cancel_url": f"{base_url}/requests/{request_id}/cancel",
    }
    if view.state in (SandboxJobState.COMPLETED, SandboxJobState.FAILED):
        value["expires_at"] = _moment(ended_at + KEPT_S)
    if view.state is SandboxJobState.COMPLETED and view.url is not None:
        value["video"] = {"url": view.url, "content_type": "video/mp4"}
    if view.state is SandboxJobState.FAILED:
        value["error"] = view.reason or "Generation failed"
    return value


def callback(view: JobView) -> dict[str, object]:
    """The body of a callback, in its newer form. Source: seen."""
    payload = {} if view.url is None else {"video": {"url": view.url, "content_type": "video/mp4"}}
    error = (view.reason or "Generation failed") if view.state is SandboxJobState.FAILED else None
    return {"request_id": view.job.job_set_id, "status": view.state.value, "error": error, "payload": payload}


def estimate(model: str) -> dict[str, object]:
    """The price of one clip."""
    credits_ = CREDITS[MODELS[model]]
    return {"type": "estimate", "credits": f"{credits_:.3f}", "usd": f"{credits_ * CREDIT_MICROUSD / 1e6:.3f}"}


def models() -> dict[str, object]:
    """What is sold. Source: seen."""
    items = [{"slug": slug, "title": slug, "output_type": "video"} for slug in MODELS]
    return {"items": items}


def usage(completed: Iterable[tuple[float, str]], start: str, end: str) -> dict[str, object]:
    """Completed clips by day and model; `completed` gives (Unix seconds, model)."""
    days: dict[str, Counter[str]] = {}
    for at, model in completed:
        day = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
        if start[:10] <= day <= end[:10]:
            days.setdefault(day, Counter())[model] += 1
    series = [
        {"bucket": f"{day}T00:00:00Z", "results": [_line(*one) for one in found.items()]}
        for day, found in sorted(days.items())
    ]
    return {"time_series": series}


def _line(model: str, count: int) -> dict[str, object]:
    price = CREDITS[MODELS[model]] * CREDIT_MICROUSD / 1e6
    return {
        "model": model,
        "unit": "generation",
        "quantity": str(count),
        "unit_price": f"{price:.4f}",
        "cost": f"{price * count:.4f}",
    }


def books(views: Iterable[tuple[JobView, str, str | None]], charged_microusd: int) -> Mapping[str, object]:
    """Everything that was accepted, for tests and benchmarks: (view, model, key)."""
    jobs = [
        {"request_id": view.job.job_set_id, "status": view.state.value, "model": model, "key": key}
        | {"fingerprint": view.job.fingerprint, "visit": view.job.visit, "prompt": view.job.body["prompt"]}
        | {"seed": view.job.body["seed"]}
        for view, model, key in views
    ]
    return {"jobs": jobs, "usd": f"{charged_microusd / 1e6:.6f}"}


def _moment(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
