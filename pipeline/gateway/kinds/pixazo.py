"""The gateway of the API document (Pixazo): its calls, its error table, its mapping of our parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Final
from urllib.parse import quote

from pipeline.config.api_key import PIXAZO_CREDENTIAL
from pipeline.gateway.classification import (
    ClassificationRule,
    PollOutcome,
    SubmitOutcome,
    SubmitOutcomeKind,
    judge_poll,
    judge_submit,
    statuses,
)
from pipeline.gateway.error_hints import CONCURRENCY, CREDIT, HINT, KEY, QUOTA
from pipeline.gateway.kinds.interface import JSON_HEADERS, Abilities, Call, Callback, GatewayKind
from pipeline.gateway.origin import checked_header, checked_path
from pipeline.gateway.responses import NoResponse, Response
from pipeline.records import STRENGTH_STEPS, Params

SUBMIT_PATH: Final = "/ai-model-api/v1/generateImageToVideoRequest"
POLL_PATH: Final = "/ai-model-api-polling/getGenerationResults"
"""Source: API document."""

QUEUE_STATUS_PATH: Final = "/v2/requests/status/{job_set_id}"
"""Source: official (the unified queue)."""

MOTIONS_PATH: Final = "/ai-model-api-polling/motions"
"""Source: inferred from the document's name of the operation."""

KEY_HEADER: Final = "Ocp-Apim-Subscription-Key"

# The order of the document's own example: what is sent is frozen to the byte.
HEADERS: Final = {"Content-Type": JSON_HEADERS["Content-Type"], "Cache-Control": "no-cache", **JSON_HEADERS}

OTHER_SUBMIT_PATH = "/ai-model-api/v1/image-to-video"
"""Source: official (the unified queue); a 404 at one path means that nothing was created there."""


class PollStyle(StrEnum):
    """How a result is asked for."""

    AUTO = "auto"
    """GET the answer's own polling_url when it is the gateway's, else the document's POST"""
    JOB_SET = "job-set"
    """the document's POST"""
    QUEUE = "queue"
    """GET polling_url when it is the gateway's, else the unified queue's own address"""


REFUSALS: Final = statuses(400, 401, 402, 403, 404, 405, 406, 410, 411, 413, 414, 415, 422, 423, 429, 431, 451)
"""Statuses by which a server says that it did not do what was asked. 408, 409, 425 and 499 are not among them: they can
come after the request was taken. Nor is a status whose meaning no standard gives."""


RULES: Final = (
    #    status                                 text or hint   what it means           buy on?
    ClassificationRule(REFUSALS, CREDIT, SubmitOutcomeKind.FATAL, stop=True),
    ClassificationRule(statuses(401, 402), None, SubmitOutcomeKind.FATAL, stop=True),
    ClassificationRule(statuses(403), HINT, SubmitOutcomeKind.THROTTLED),
    ClassificationRule(statuses(403), QUOTA, SubmitOutcomeKind.THROTTLED),
    ClassificationRule(statuses(403), KEY, SubmitOutcomeKind.FATAL, stop=True),
    ClassificationRule(statuses(403, 451), None, SubmitOutcomeKind.FORBIDDEN),
    ClassificationRule(statuses(400, 423, 429), CONCURRENCY, SubmitOutcomeKind.CONCURRENCY),
    ClassificationRule(statuses(423, 429), None, SubmitOutcomeKind.THROTTLED),
    ClassificationRule(statuses(404, 405, 410), None, SubmitOutcomeKind.WRONG_PATH),
    ClassificationRule(statuses(400, 406, 411, 413, 414, 415, 422, 431), None, SubmitOutcomeKind.REJECTED),
)
"""What a refused submit means; the first row that applies. Every status that is in no row is UNKNOWN."""


def classify_submit(outcome: Response | NoResponse, *, now_unix: float, params: Params | None = None) -> SubmitOutcome:
    """What the end of one submit means for its request; see `classification.judge_submit`."""
    return judge_submit(outcome, refusals=REFUSALS, rules=RULES, now_unix=now_unix, params=params)


def classify_poll(outcome: Response | NoResponse, *, now_unix: float, job_set_id: str | None = None) -> PollOutcome:
    """What the end of one poll means; see `classification.judge_poll`."""
    return judge_poll(outcome, now_unix=now_unix, job_set_id=job_set_id)


def submit_body(
    params: Params,
    *,
    images: Mapping[str, str] | None = None,
    webhook_url: str | None = None,
    webhook_secret: str | None = None,
) -> bytes:
    """The body of one submit: ASCII JSON, fields in the document's order, optional ones only when given.

    Args:
        images: image as the manifest wrote it -> URL to send instead (uploads, sandbox pictures).
        webhook_url: needs `webhook_secret` and the other way round.

    Raises:
        ValueError: one of the two webhook fields without the other.
    Source: API document, "Parameters for /generateImageToVideoRequest".
    """
    if (webhook_url is None) != (webhook_secret is None):
        raise ValueError("webhook_url and webhook_secret go together")
    sent = images or {}
    body: dict[str, object] = {
        "model": params.model,
        "prompt": params.prompt,
        "seed": params.seed,
        "motions_id": params.motions_id,
        # An integer divided by 100 is the nearest double, which prints with two decimals at most.
        "motions_strength": params.strength_hundredths / STRENGTH_STEPS,
        "input_images": [sent.get(image, image) for image in params.input_images],
    }
    if params.input_images_end:
        body["input_images_end"] = [sent.get(image, image) for image in params.input_images_end]
    body["enhance_prompt"] = params.enhance_prompt
    if params.check_nsfw is not None:
        body["check_nsfw"] = params.check_nsfw
    if webhook_url is not None:
        body["webhook_url"] = webhook_url
        body["webhook_secret"] = webhook_secret
    return json.dumps(body).encode("ascii")


def poll_body(job_set_id: str) -> bytes:
    """The body of one result call. Source: API document, "Retrieving Video Result and URL"."""
    return json.dumps({"job_set_id": job_set_id}).encode("ascii")


def submit_call(body: bytes, *, idempotency_key: str, path: str = SUBMIT_PATH, webhook_url: str | None = None) -> Call:
    """The paid call.

    Args:
        body: from `submit_body`.
        idempotency_key: a hint the gateway may ignore. Source: official for the upstream vendor only.
        path: another submit path than the document's (queue dialect).
        webhook_url: sent as `X-Webhook-URL` (queue dialect); the document's own field goes into the body.

    Raises:
        UsageError: a header value or a path that cannot be sent.
    """
    headers = {"Idempotency-Key": checked_header("idempotency key", idempotency_key)}
    if webhook_url is not None:
        headers["X-Webhook-URL"] = checked_header("webhook_url", webhook_url)
    return Call(method="POST", target=checked_path(path), body=body, headers=headers)


class Pixazo(GatewayKind):
    """The gateway of the API document.

    Raises:
        UsageError: a path that cannot be put behind a host name.
    """

    name = "pixazo"
    abilities = Abilities(motions=True)
    headers = HEADERS
    credential = PIXAZO_CREDENTIAL
    poll_styles = (PollStyle.AUTO, PollStyle.QUEUE, PollStyle.JOB_SET)
    poll_probes = (("poll path", PollStyle.JOB_SET), ("queue's poll path", PollStyle.QUEUE))

    def __init__(
        self,
        *,
        submit_path: str = SUBMIT_PATH,
        poll_path: str = POLL_PATH,
        queue_status_path: str = QUEUE_STATUS_PATH,
        motions_path: str = MOTIONS_PATH,
    ) -> None:
        paths = (submit_path, poll_path, queue_status_path, motions_path)
        submit_path, self._poll_path, self._queue_status_path, self._motions_path = map(checked_path, paths)
        # In this order and each once: the configured path first, the others only after a 404.
        self.submit_paths = tuple(dict.fromkeys((submit_path, SUBMIT_PATH, OTHER_SUBMIT_PATH)))

    def auth_headers(self, key: str) -> Mapping[str, str]:
        """The subscription key. Source: API document."""
        return {KEY_HEADER: key}

    def submit_call(
        self,
        params: Params,
        *,
        idempotency_key: str,
        images: Mapping[str, str],
        callback: Callback | None = None,
        path: str = "",
    ) -> Call:
        """The paid call.

        API: which dialect answers is known from the response only, so the callback's address goes into the body's
        fields and into the queue's header as well.
        """
        path = path or self.submit_paths[0]
        if callback is None:
            return submit_call(submit_body(params, images=images), idempotency_key=idempotency_key, path=path)
        body = submit_body(params, images=images, webhook_url=callback.url, webhook_secret=callback.secret)
        return submit_call(body, idempotency_key=idempotency_key, path=path, webhook_url=callback.url)

    def poll_call(self, job_set_id: str, own_url: str | None, style: str) -> Call:
        """GET of the address that the gateway gave, GET of the queue's own, or the document's POST."""
        # The gateway's own address is right by definition, whichever dialect it speaks.
        if style != PollStyle.JOB_SET and own_url is not None:
            return Call(method="GET", target=own_url)
        if style == PollStyle.QUEUE:
            path = self._queue_status_path.replace("{job_set_id}", quote(job_set_id, safe=""))
            return Call(method="GET", target=path)
        return Call(method="POST", target=self._poll_path, body=poll_body(job_set_id))

    def motions_call(self, method: str) -> Call:
        """The catalogue of motion presets. Source: inferred; some gateways want POST."""
        return Call(method=method, target=self._motions_path, body=b"{}" if method == "POST" else None)

    def classify_submit(
        self, outcome: Response | NoResponse, *, now_unix: float, params: Params | None = None
    ) -> SubmitOutcome:
        """See the table RULES."""
        return classify_submit(outcome, now_unix=now_unix, params=params)

    def classify_poll(
        self, outcome: Response | NoResponse, *, now_unix: float, job_set_id: str | None = None
    ) -> PollOutcome:
        """See `classification.POLL_KINDS`."""
        return classify_poll(outcome, now_unix=now_unix, job_set_id=job_set_id)
