"""Before money moves: does the gateway charge this account more than the configured prices say?

MONEY: an agreement names a sum, and budgets count with the configured prices. Where the gateway's own price is higher,
both would be wrong, so nothing is bought until the configuration has that price. A lower one is no reason to stop.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from pipeline.config.settings import Settings
from pipeline.errors import UsageError
from pipeline.gateway.kinds import kind_of
from pipeline.records import MICROUSD, usd
from pipeline.runner.engine import gateway_client
from pipeline.runner.model_offers import ModelOffer, price_offers

ROUNDING_MICROUSD = 1_000
"""The gateway names dollars with three decimals: smaller differences are none."""


async def check_prices(settings: Settings, key: str, models: Iterable[str]) -> list[str]:
    """Ask the gateway what one video of each model costs; returns warnings. Pays: no.

    Raises:
        UsageError: it is more than the configured price of a model; nothing was sent.
    """
    if settings.gateway.is_embedded or not kind_of(settings).abilities.estimate:
        return []
    async with gateway_client(settings, settings.gateway.base_url, key) as client:
        offers = await price_offers(settings, client, sorted(models))
    dearer = [text for offer in offers if (text := dearer_words(offer, settings))]
    if dearer:
        raise UsageError(f"{'; '.join(dearer)}; nothing was sent")
    silent = [
        f"the gateway gave no price of {offer.model} ({offer.text}): it is bought at the configured one"
        for offer in offers
        if offer.is_sold is None
    ]
    return silent + [
        f"the gateway does not sell {offer.model} now ({offer.text}): its rows will be refused, which costs nothing"
        for offer in offers
        if offer.is_sold is False
    ]


def dearer_words(offer: ModelOffer, settings: Settings) -> str:
    """What the user has to do where the gateway's price is higher than the configured one; else nothing."""
    ours = settings.prices_microusd.get(offer.model)
    if offer.price_microusd is None or ours is None or offer.price_microusd - ours <= ROUNDING_MICROUSD:
        return ""
    exact = f"{(Decimal(offer.price_microusd) / MICROUSD).normalize():f}"
    return (
        f"the gateway charges ${usd(offer.price_microusd)} for a video of {offer.model}, and prices.{offer.model} says "
        f"${usd(ours)}: to buy at that price, give --set prices.{offer.model}={exact} or change the configuration"
    )
