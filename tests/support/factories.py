"""Records for tests: each factory takes only what matters to the test and fills in the rest, always alike."""

from __future__ import annotations

from typing import Any

from pipeline.records import Attempt, Cell, Params, Request, State, request_key

GENERAL = "31177282-bde3-4870-b283-1135ca0a201a"
"""The motion preset "General"."""

LITE_MICROUSD = 135_000
"""Price of one dop-lite video. Source: API document, pricing."""


def make_params(**only_what_matters: Any) -> Params:
    """The paid fields of one submit; by default a small, valid dop-lite request."""
    fields: dict[str, Any] = {
        "model": "dop-lite",
        "prompt": "A serene lake with gentle ripples",
        "seed": 7,
        "motions_id": GENERAL,
        "strength_hundredths": 70,
        "input_images": ("https://example.com/images/lake-scene.jpg",),
        "enhance_prompt": False,
    }
    return Params(**fields | only_what_matters)


def _split(only_what_matters: dict[str, Any]) -> tuple[Params, dict[str, Any]]:
    """Fields of Params may be given beside the record's own; `params=` given whole wins."""
    names = set(Params.__dataclass_fields__)
    paid = {name: value for name, value in only_what_matters.items() if name in names}
    rest = {name: value for name, value in only_what_matters.items() if name not in names}
    return rest.pop("params", None) or make_params(**paid), rest


def make_cell(**only_what_matters: Any) -> Cell:
    """One wanted video; takes fields of Cell and of Params alike (`make_cell(seed=8, tags=("hero",))`)."""
    params, rest = _split(only_what_matters)
    fields: dict[str, Any] = {"row_id": f"lake-{params.seed}", "params": params, "motion": "General"}
    return Cell(**fields | rest)


def make_request(**only_what_matters: Any) -> Request:
    """A cell bound to the sandbox at the document's price; its `request_id` is the true key of what it buys."""
    params, rest = _split(only_what_matters)
    take, gateway = rest.get("take", 1), rest.get("gateway", "sandbox")
    fields: dict[str, Any] = {
        "request_id": request_key(params, take=take, gateway=gateway),
        "gateway": gateway,
        "row_id": f"lake-{params.seed}",
        "params": params,
        "motion": "General",
        "take": take,
        "price_microusd": LITE_MICROUSD,
    }
    return Request(**fields | rest)


def make_attempt(**only_what_matters: Any) -> Attempt:
    """One line of the ledger; by default the first attempt of a request that is planned and not sent."""
    params, rest = _split(only_what_matters)
    request = make_request(params=params, **{name: rest[name] for name in ("take", "gateway") if name in rest})
    fields: dict[str, Any] = {
        "request_id": request.request_id,
        "attempt": 1,
        "gateway": request.gateway,
        "run_id": "run-1",
        "row_id": request.row_id,
        "tags": (),
        "axes": (),
        "params": params,
        "motion": request.motion,
        "take": request.take,
        "price_microusd": request.price_microusd,
        "state": State.PLANNED,
    }
    return Attempt(**fields | rest)
