"""The gateway's own prices beside ours, in `plan`: free calls, where the gateway has them and the key may be sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from pipeline.config.settings import Settings
from pipeline.errors import DopError
from pipeline.gateway.kinds import kind_of
from pipeline.records import usd
from pipeline.runner.credentials import resolve_api_key
from pipeline.runner.engine import gateway_client
from pipeline.runner.model_offers import ModelOffer, model_offers
from pipeline.runner.price_check import ROUNDING_MICROUSD, dearer_words


def gateway_prices(settings: Settings, models: Iterable[str]) -> tuple[list[str], list[str]]:
    """Lines for the plan, and warnings where the gateway's price is not the configured one. Pays: no."""
    if settings.gateway.is_embedded or not kind_of(settings).abilities.estimate:
        return [], []
    try:
        key = resolve_api_key(settings)
        offers = asyncio.run(_asked(settings, key, models))
    except DopError as error:
        return [f"the gateway's own prices were not asked for: {error}"], []
    return [_line(offer) for offer in offers], [text for offer in offers if (text := _warning(offer, settings))]


async def _asked(settings: Settings, key: str, models: Iterable[str]) -> list[ModelOffer]:
    async with gateway_client(settings, settings.gateway.base_url, key) as client:
        return await model_offers(settings, client, sorted(models))


def _line(offer: ModelOffer) -> str:
    if offer.price_microusd is None:
        return f"  {offer.model:<14} the gateway names no price: {offer.text}"
    return f"  {offer.model:<14} the gateway's own price: ${usd(offer.price_microusd)} a video"


def _warning(offer: ModelOffer, settings: Settings) -> str:
    ours = settings.prices_microusd.get(offer.model)
    if offer.is_sold is False:
        return f"the gateway does not sell {offer.model} now ({offer.text}): its rows would not be bought"
    if offer.price_microusd is None or ours is None or abs(offer.price_microusd - ours) <= ROUNDING_MICROUSD:
        return ""
    words = (
        f"the gateway prices {offer.model} at ${usd(offer.price_microusd)}, and prices.{offer.model} says "
        f"${usd(ours)}: budgets count with the configured one"
    )
    return f"{words}, and `dop run` buys nothing until it is set" if dearer_words(offer, settings) else words
