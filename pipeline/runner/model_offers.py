"""What the gateway itself says about models, for free: whether they are sold, and what one video costs this account."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.config.settings import Settings
from pipeline.gateway.client import GatewayClient
from pipeline.gateway.kinds import kind_of
from pipeline.gateway.kinds.interface import Call, GatewayKind
from pipeline.gateway.responses import NoResponse, Response
from pipeline.records import Params

NOT_SOLD = frozenset({404, 405, 423, 503})
"""Statuses of an estimate by which a model cannot be bought now. Source: official (404, 423, 503)."""

TRIES, PAUSE_S = 3, 0.5
"""Calls for one answer, and seconds before the second one, doubled each time."""

GENERAL = "31177282-bde3-4870-b283-1135ca0a201a"
"""The motion preset "General"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOffer:
    """What the gateway says about one model.

    Attributes:
        is_listed: whether its list of models has it; None without a list.
        price_microusd: its own price of one video; None where it names none.
        is_sold: False where it cannot be bought now; None where that is not known.
        text: its words, for the user.
    """

    model: str
    is_listed: bool | None
    price_microusd: int | None
    is_sold: bool | None
    text: str


async def ask_again(client: GatewayClient, call: Call) -> Response | NoResponse:
    """The answer to a free call, which is repeated where the gateway is in trouble or wants it slower."""
    for tries in range(TRIES - 1):
        answer = await client.ask(call)
        if isinstance(answer, Response) and answer.status != 429 and answer.status < 500:
            return answer
        await asyncio.sleep(PAUSE_S * 2**tries)
    return await client.ask(call)


async def model_offers(settings: Settings, client: GatewayClient, models: Iterable[str]) -> list[ModelOffer]:
    """Ask the gateway about each model. Pays: no."""
    kind = kind_of(settings)
    listed = kind.read_models(await ask_again(client, kind.models_call())) if kind.abilities.models else None
    return [await _offer(kind, client, model, listed) for model in models]


async def price_offers(settings: Settings, client: GatewayClient, models: Iterable[str]) -> list[ModelOffer]:
    """Ask the gateway what a video of each model costs, without its list of models. Pays: no."""
    kind = kind_of(settings)
    return [await _offer(kind, client, model, None) for model in models]


async def _offer(kind: GatewayKind, client: GatewayClient, model: str, listed: frozenset[str] | None) -> ModelOffer:
    vendor_id = kind.vendor_model(model)
    is_listed = None if listed is None else vendor_id in listed
    if not kind.abilities.estimate:
        return ModelOffer(model=model, is_listed=is_listed, price_microusd=None, is_sold=is_listed, text=vendor_id)
    answer = await ask_again(client, kind.estimate_call(_example(model), {}))
    price = kind.read_estimate(answer)
    return ModelOffer(
        model=model,
        is_listed=is_listed,
        price_microusd=price,
        is_sold=_is_sold(answer),
        text=f"{vendor_id} ({_words(answer)})",
    )


def _is_sold(answer: Response | NoResponse) -> bool | None:
    if isinstance(answer, NoResponse):
        return None
    if answer.status in NOT_SOLD:
        return False
    return True if 200 <= answer.status <= 299 else None


def _words(answer: Response | NoResponse) -> str:
    return answer.what if isinstance(answer, NoResponse) else str(answer.status)


def _example(model: str) -> Params:
    """A request like those of a manifest: the price is that of the model."""
    return Params(
        model=model,
        prompt="a calm lake",
        seed=1,
        motions_id=GENERAL,
        strength_hundredths=50,
        input_images=("https://example.com/image.jpg",),
        enhance_prompt=False,
    )
