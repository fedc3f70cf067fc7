"""The vendor's own API (Higgsfield API, "v2"): calls, error table, mapping of our parameters, free calls.

Marks in this module: official = the vendor's pages or SDKs; seen = public third-party code; inferred = our reasoning.
What a submit came to can be found out here: the same bytes under the same `Idempotency-Key` give the original job and
are charged once (official). What a repeated call may prove is in `classify_replay`; who sends it and when in
`runner/replays.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from pipeline.config.api_key import HIGGSFIELD_CREDENTIAL
from pipeline.gateway.classification import (
    ClassificationRule,
    PollOutcome,
    SubmitOutcome,
    SubmitOutcomeKind,
    judge_poll,
    judge_submit,
    statuses,
)
from pipeline.gateway.error_hints import CONCURRENCY, CREDIT, KEY
from pipeline.gateway.error_text import error_text
from pipeline.gateway.job_status import parse_poll
from pipeline.gateway.json_fields import as_object, read_json
from pipeline.gateway.kinds.higgsfield_free import HiggsfieldFreeCalls
from pipeline.gateway.kinds.interface import (
    JSON_HEADERS,
    Abilities,
    Call,
    Callback,
    CancelOutcome,
    KeyShown,
    Recovery,
    ReplayKind,
    ReplayOutcome,
)
from pipeline.gateway.origin import checked_header, checked_path
from pipeline.gateway.responses import NoResponse, Response
from pipeline.records import Params

MAX_IMAGE_URL_CHARS: Final = 2083
"""Longest address of an image. Source: seen elsewhere in this API."""

STATUS_PATH: Final = "/requests/{id}/status"
CANCEL_PATH: Final = "/requests/{id}/cancel"
"""Source: official."""

REFUSALS: Final = frozenset({400, 401, 402, 403, 404, 405, 406, 410, 411, 413, 414, 415, 422, 423, 429, 431, 451})
"""Statuses by which a FIRST post is refused: nothing was created. 409 is not among them: here it may mean that this
very key is being worked on (inferred). Nor is 503: a proxy's looks like the vendor's "model not ready"."""


RULES: Final = (
    #    status                                 text           what it means           buy on?
    ClassificationRule(statuses(400, 402, 403), CREDIT, SubmitOutcomeKind.FATAL, stop=True),
    ClassificationRule(statuses(401, 402), None, SubmitOutcomeKind.FATAL, stop=True),
    ClassificationRule(statuses(403), KEY, SubmitOutcomeKind.FATAL, stop=True),
    # No quota with a time exists here (official): a 403 is never a wait.
    ClassificationRule(statuses(403, 451), None, SubmitOutcomeKind.FORBIDDEN),
    ClassificationRule(statuses(400, 423, 429), CONCURRENCY, SubmitOutcomeKind.CONCURRENCY),
    ClassificationRule(statuses(423, 429), None, SubmitOutcomeKind.THROTTLED),
    ClassificationRule(statuses(404, 405, 410), None, SubmitOutcomeKind.MODEL_GONE),
    ClassificationRule(statuses(400, 406, 411, 413, 414, 415, 422, 431), None, SubmitOutcomeKind.REJECTED),
)
"""What a refused FIRST submit means; the first row that applies. Every status that is in no row is UNKNOWN."""

MISMATCH: Final = re.compile(
    r"idempot|mismatch|(?:does not|doesn.t|not) match|original request|same key|(?:already|was) (?:been )?used"
    r"|different (?:request|body|payload|parameters|content)",
    re.IGNORECASE,
)
"""Words of a 422 that say that the key belongs to other bytes. Source: inferred; a validation error has a list."""


INVALID_BODY: Final = b'{"image_url": {}}'
"""Without `prompt`, which is required, and with an object for `image_url`, which is refused: 422 for two reasons."""


class Higgsfield(HiggsfieldFreeCalls):
    """The vendor's own API. `model_ids` as in HiggsfieldFreeCalls."""

    name = "higgsfield"
    abilities = Abilities(
        recovery=Recovery.REPLAY,
        cancel=True,
        upload=True,
        estimate=True,
        usage=True,
        models=True,
        refunds_known=True,
        key_probe=True,
    )
    headers = JSON_HEADERS  # Source: seen. The front refuses the usual user agents of HTTP libraries.
    credential = HIGGSFIELD_CREDENTIAL
    poll_styles = ("status",)
    poll_probes = (("poll path", "status"),)

    # --- the key

    def auth_headers(self, key: str) -> Mapping[str, str]:
        """`Authorization: Key ID:SECRET`. Source: official."""
        return {"Authorization": f"Key {key}"}

    def secrets_of(self, key: str) -> tuple[str, ...]:
        """The pair and each half: both are secret."""
        identifier, _, secret = key.partition(":")
        return (key, secret, identifier) if secret else (key,)

    # --- the paid call

    def submit_call(
        self,
        params: Params,
        *,
        idempotency_key: str,
        images: Mapping[str, str],
        callback: Callback | None = None,
        path: str = "",
    ) -> Call:
        """The paid call: the model is the path, the callback's address a query. Source: official.

        Raises:
            UsageError: a header or a path that cannot be sent.
        """
        query = "" if callback is None else "?" + urlencode({"hf_webhook": callback.url})
        return Call(
            method="POST",
            target=checked_path("/" + quote(self.vendor_model(params.model), safe="/") + query),
            body=self.body_of(params, images),
            headers={"Idempotency-Key": checked_header("idempotency key", idempotency_key)},
        )

    def inexpressible(self, params: Params) -> str | None:
        """Two end images, `check_nsfw`, a model without an id here."""
        if len(params.input_images_end) > 1:
            return f"this gateway takes one end image, not {len(params.input_images_end)}"
        if params.check_nsfw is not None:
            return "this gateway has no check_nsfw (its moderation is always on): leave the field out"
        if params.model not in self.model_ids and "/" not in params.model:
            return f"this gateway has no id for model {params.model}: set model_ids.{params.model}"
        long = [one for one in (*params.input_images, *params.input_images_end) if len(one) > MAX_IMAGE_URL_CHARS]
        if long:
            return f"an image's address has {len(long[0])} characters; this gateway takes {MAX_IMAGE_URL_CHARS}"
        return None

    def classify_submit(
        self, outcome: Response | NoResponse, *, now_unix: float, params: Params | None = None
    ) -> SubmitOutcome:
        """What the end of a FIRST post means.

        MONEY: a 422 that says that the key was used for other bytes is no refusal of a first post: something was
        bought under this key, by this ledger before it was rebuilt or by another one.
        """
        found = judge_submit(
            outcome, refusals=REFUSALS, rules=RULES, now_unix=now_unix, params=params, tells_state=_tells_state
        )
        if isinstance(outcome, Response) and outcome.status == 422 and _is_mismatch(outcome):
            return SubmitOutcome(kind=SubmitOutcomeKind.UNKNOWN, reason=found.reason, status=422)
        return found

    def classify_replay(
        self, outcome: Response | NoResponse, *, now_unix: float, params: Params | None = None
    ) -> ReplayOutcome:
        """What the end of a repeated post means.

        MONEY: nothing but a 2xx with an id settles anything. A 403, 404, 422, 423 or 429 speaks of this call; the first
        one may have been accepted (inferred; the order of the vendor's checks is not stated).
        """
        found = self.classify_submit(outcome, now_unix=now_unix, params=params)
        if found.kind is SubmitOutcomeKind.ACCEPTED and found.ticket is not None:
            return ReplayOutcome(kind=ReplayKind.JOB, job=found.ticket)
        # 409 and 422 are the two that speak of the key, and so of the first call.
        kind = {409: ReplayKind.IN_FLIGHT, 422: ReplayKind.MISMATCH}.get(found.status or 0, ReplayKind.UNCLEAR)
        return ReplayOutcome(kind=kind, reason=found.reason, wait_s=found.stated_wait_s)

    # --- whether keys are honoured

    def key_probe_call(self, call: Call, key: str | None = None) -> Call:
        """A submit that is refused as invalid: `prompt` is required, and `image_url` must be a string (official).

        Where keys are honoured and checked first, the call is refused because its body is not that of the key
        (official: 422, nothing bought). Which of the two checks comes first is not stated.
        """
        # The query is left out below: it holds the callback address, and no callback should follow a call that must
        # fail.
        headers = call.headers if key is None else {**call.headers, "Idempotency-Key": key}
        return Call(method=call.method, target=urlsplit(call.target).path, body=INVALID_BODY, headers=headers)

    def classify_key_probe(self, outcome: Response | NoResponse, control: Response) -> KeyShown:
        """A 422 that is not the refusal of an invalid body: the key was known.

        MONEY: what is called HONOURED lets a paid call be repeated. A list of mistakes is a validation error
        (official), and so are the words that the same body gets under a fresh key.
        """
        if isinstance(outcome, NoResponse) or not outcome.complete:
            return KeyShown.UNCLEAR
        if outcome.status == 422:
            is_invalid = _lists_mistakes(outcome) or _words(outcome) in ("", _words(control))
            return KeyShown.NOT_SHOWN if is_invalid else KeyShown.HONOURED
        is_refused = self.classify_submit(outcome, now_unix=0.0).kind is SubmitOutcomeKind.REJECTED
        return KeyShown.NOT_SHOWN if is_refused else KeyShown.UNCLEAR

    # --- the job

    def poll_call(self, job_set_id: str, own_url: str | None, style: str) -> Call:
        """GET of the address that the gateway gave, if it is its own, else of the one made from the id (official)."""
        return Call(method="GET", target=own_url or _path(STATUS_PATH, job_set_id))

    def classify_poll(
        self, outcome: Response | NoResponse, *, now_unix: float, job_set_id: str | None = None
    ) -> PollOutcome:
        """See `classification.POLL_KINDS`."""
        return judge_poll(outcome, now_unix=now_unix, job_set_id=job_set_id)

    def cancel_call(self, job_set_id: str) -> Call:
        """Cancels a job that is still queued. Source: official."""
        return Call(method="POST", target=_path(CANCEL_PATH, job_set_id), body=b"{}")

    def classify_cancel(self, outcome: Response | NoResponse) -> CancelOutcome:
        """202 with an empty body: canceled and refunded; 400: it had started (official)."""
        if isinstance(outcome, NoResponse):
            return CancelOutcome.UNCLEAR
        if 200 <= outcome.status <= 299:
            return CancelOutcome.CANCELED
        return CancelOutcome.TOO_LATE if outcome.status in (400, 404) else CancelOutcome.UNCLEAR


def _path(template: str, job_set_id: str) -> str:
    return template.replace("{id}", quote(job_set_id, safe=""))


def _tells_state(payload: object) -> bool:
    """Whether an answer gives the state of a job, also when it tells why the job failed.

    The answer to a repeated call says how the job is now, and `error` then belongs to the job, not to the call.
    """
    report = parse_poll(payload)
    return report is not None and bool(report.word) and report.known_word and report.job_set_id is not None


def _is_mismatch(outcome: Response) -> bool:
    return not _lists_mistakes(outcome) and MISMATCH.search(error_text(outcome.body)) is not None


def _lists_mistakes(outcome: Response) -> bool:
    """Whether it is a validation error. Source: official."""
    return isinstance(as_object(read_json(outcome.body)).get("detail"), list)


def _words(outcome: Response) -> str:
    """The words of a refusal without what differs from call to call: ids and numbers."""
    return re.sub(r"[0-9a-f-]*[0-9][0-9a-f-]*", "#", error_text(outcome.body).lower())
