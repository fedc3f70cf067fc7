"""The free calls of the vendor's API, and the body that its submits and its estimates share.

Marks as in `higgsfield.py`: official, seen, inferred.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Final
from urllib.parse import quote, urlencode

from pipeline.gateway.json_fields import as_object, objects, read_json
from pipeline.gateway.kinds.interface import Call, GatewayKind, UploadTicket, UsageLine
from pipeline.gateway.responses import NoResponse, Response
from pipeline.records import MICROUSD, STRENGTH_STEPS, Params

MODEL_IDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "dop-lite": "higgsfield-ai/dop/lite",
        "dop-turbo": "higgsfield-ai/dop/turbo",
        "dop-preview": "higgsfield-ai/dop/standard",
    }
)
"""A manifest's model -> the vendor's, which is the path; `model_ids` of the configuration override it. Official."""

CREDITS_A_DOLLAR: Final = 16
"""Source: seen (official examples give credits and dollars)."""

UPLOAD_PATH: Final = "/files/generate-upload-url"
ESTIMATE_PATH: Final = "/estimate/"
USAGE_PATH: Final = "/models/usage"
MODELS_PATH: Final = "/models?limit=500"
"""Source: official; the list of models and its limit are seen."""


class HiggsfieldFreeCalls(GatewayKind):
    """Uploads, estimates, models and usage.

    Args:
        model_ids: a manifest's model -> the vendor's id, beside and before those of MODEL_IDS.
    """

    def __init__(self, model_ids: Mapping[str, str] = MappingProxyType({})) -> None:
        self.model_ids = {**MODEL_IDS, **model_ids}

    def body_of(self, params: Params, images: Mapping[str, str]) -> bytes:
        """No field is left to the vendor's default: an absent one, null and the default are three bodies (official)."""
        body: dict[str, object] = {
            "prompt": params.prompt,
            "image_url": images.get(params.input_images[0], params.input_images[0]),
        }
        if params.input_images_end:
            body["end_image_url"] = images.get(params.input_images_end[0], params.input_images_end[0])
        # The order of the fields is part of the bytes that an idempotency key belongs to: it must not depend on what is
        # given.
        body["motions"] = [{"id": params.motions_id, "strength": params.strength_hundredths / STRENGTH_STEPS}]
        body["seed"] = params.seed
        body["enhance_prompt"] = params.enhance_prompt
        return json.dumps(body).encode("ascii")

    def upload_call(self, content_type: str) -> Call:
        """Asks for an address to upload to. Source: official."""
        return Call(method="POST", target=UPLOAD_PATH, body=json.dumps({"content_type": content_type}).encode("ascii"))

    def read_upload(self, outcome: Response | NoResponse) -> UploadTicket | None:
        """The two addresses, and the headers that the upload needs."""
        top = whole_json(outcome)
        public_url, upload_url = top.get("public_url"), top.get("upload_url")
        headers = as_object(top.get("upload_headers"))
        if not isinstance(public_url, str) or not isinstance(upload_url, str):
            return None
        texts = {name: value for name, value in headers.items() if isinstance(value, str)}
        return UploadTicket(public_url=public_url, upload_url=upload_url, headers=texts)

    def estimate_call(self, params: Params, images: Mapping[str, str]) -> Call:
        """The price of one submit for this account. Source: official; it checks the body as the submit does (seen)."""
        target = ESTIMATE_PATH + quote(self.vendor_model(params.model), safe="/")
        return Call(method="POST", target=target, body=self.body_of(params, images))

    def read_estimate(self, outcome: Response | NoResponse) -> int | None:
        """Micro-dollars; None where the gateway names no figure."""
        top = whole_json(outcome)
        usd, credits_ = _amount(top.get("usd")), _amount(top.get("credits"))
        # Dollars are preferred: the rate of credits was only seen in examples.
        if usd is not None:
            return int(usd * MICROUSD)
        return None if credits_ is None else int(credits_ * MICROUSD / CREDITS_A_DOLLAR)

    def models_call(self) -> Call:
        """What the account may buy. Source: seen."""
        return Call(method="GET", target=MODELS_PATH)

    def read_models(self, outcome: Response | NoResponse) -> frozenset[str] | None:
        """The vendor's ids; None for an answer that is no list."""
        items = whole_json(outcome).get("items")
        if not isinstance(items, list):
            return None
        return frozenset(slug for item in objects(items) if isinstance(slug := item.get("slug"), str))

    def vendor_model(self, model: str) -> str:
        """The vendor's id of a manifest's model."""
        return self.model_ids.get(model, model)

    def usage_call(self, start: str, end: str) -> Call:
        """What was completed between two moments, by day and model. Source: official."""
        query = urlencode({"start": start, "end": end, "timeframe": "day", "expand": "time_series"})
        return Call(method="GET", target=f"{USAGE_PATH}?{query}")

    def read_usage(self, outcome: Response | NoResponse) -> tuple[UsageLine, ...] | None:
        """One line a day and model; None for an answer that is no list."""
        series = whole_json(outcome).get("time_series")
        if not isinstance(series, list):
            return None
        found: list[UsageLine] = []
        for bucket in objects(series):
            for line in objects(bucket.get("results")):
                quantity, cost = _amount(line.get("quantity")), _amount(line.get("cost"))
                if quantity is not None:
                    found.append(
                        UsageLine(
                            day=str(bucket.get("bucket", ""))[:10],
                            model=str(line.get("model", "")),
                            quantity=int(quantity),
                            cost_microusd=None if cost is None else int(cost * MICROUSD),
                        )
                    )
        return tuple(found)


def whole_json(outcome: Response | NoResponse) -> Mapping[str, object]:
    """The object of a whole 2xx answer; an empty one otherwise."""
    if isinstance(outcome, NoResponse) or not 200 <= outcome.status <= 299 or not outcome.complete:
        return {}
    return as_object(read_json(outcome.body))


def _amount(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        return None
    return found if found.is_finite() and found >= 0 else None
