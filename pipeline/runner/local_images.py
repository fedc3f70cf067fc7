"""Planned requests of a local run, each with its images where the gateway can read them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass

from pipeline.assets.image_checks import cache_path, load_cache
from pipeline.assets.image_hosting import ImageHost, open_hosting
from pipeline.assets.image_urls import ImageUrlResolver, InputImages
from pipeline.assets.object_store import StoreError
from pipeline.config.settings import Settings
from pipeline.errors import ExitCode
from pipeline.gateway.client import GatewayClient
from pipeline.gateway.kinds import kind_of
from pipeline.ledger.agreement import Agreement
from pipeline.ledger.queries import LedgerQueries
from pipeline.records import Attempt, State
from pipeline.runner.context import RunContext
from pipeline.runner.embedded_sandbox import SandboxImageUploader
from pipeline.runner.events import RequestSetAside
from pipeline.runner.firewall import NOT_SENT, is_cancellation
from pipeline.runner.gateway_uploads import GatewayUploads
from pipeline.runner.refused_rows import REFUSED
from pipeline.runner.stop import StopScope

STEP = "making its images available"
"""Names this step in the firewall."""

ImageUploader = ImageHost | SandboxImageUploader


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalImages:
    """How images of this machine reach the gateway: uploaded first, then submitted by their URLs."""

    urls: ImageUrlResolver
    uploader: ImageUploader


def open_local_images(
    settings: Settings,
    base_url: str,
    sha256_of: Mapping[str, str],
    *,
    wall: Callable[[], float],
    client: GatewayClient,
) -> LocalImages:
    """The uploader of this run; `wall` gives Unix seconds, for the expiry of signed addresses."""
    inputs = InputImages(sha256_of)
    if settings.gateway.is_embedded:
        urls = ImageUrlResolver(inputs, embedded=True, base_url=base_url)
        return LocalImages(urls=urls, uploader=SandboxImageUploader(base_url, inputs))
    kind = kind_of(settings)
    seen = load_cache(cache_path(settings))
    hosting = open_hosting(
        settings,
        base_url,
        inputs,
        etag_of=lambda address: seen[address].etag if address in seen else "",
        wall=wall,
        upload=GatewayUploads(client, kind).upload if kind.abilities.upload else None,
    )
    urls = ImageUrlResolver(inputs, embedded=False, base_url=base_url, hosted=hosting.url_for_submit)
    return LocalImages(urls=urls, uploader=hosting)


def in_order(queries: LedgerQueries, run_id: str) -> Iterator[Attempt]:
    """The planned attempts in their order; those that were refused or could not be sent in an earlier run go last."""
    last: list[Attempt] = []
    for page in queries.iter_attempts(run_id, (State.PLANNED,)):
        for attempt in page:
            if (attempt.reason or "").startswith((REFUSED, NOT_SENT)):
                last.append(attempt)
            else:
                yield attempt
    yield from last


async def planned(queries: LedgerQueries, run_id: str) -> AsyncIterator[Attempt]:
    """The planned attempts of a run without shots."""
    for attempt in in_order(queries, run_id):
        yield attempt


async def planned_requests(
    context: RunContext,
    attempts: AsyncIterator[Attempt],
    *,
    uploader: ImageUploader,
    agreement: Agreement,
) -> AsyncIterator[Attempt]:
    """Those of the planned attempts that were agreed to, in their order, with their images uploaded."""
    count = 0
    async for attempt in attempts:
        if attempt.request_id not in agreement:
            continue  # planned, but not part of what this command was asked to buy
        if agreement.max_purchases is not None and count >= agreement.max_purchases:
            return
        count += 1
        try:
            await uploader.ensure_available(attempt.params)
        # A store that is away is away for every row: the buying stops instead of parking them one by one.
        except StoreError as error:
            context.stop.request(str(error), exit_code=ExitCode.UNFINISHED, reach=StopScope.SUBMITS)
            return
        except BaseException as error:
            if is_cancellation(error):
                raise
            await context.firewall.park(STEP, attempt.request_id, attempt.row_id, error, reason=NOT_SENT)
            context.events.emit(RequestSetAside(request_id=attempt.request_id))
            if context.stop.submits:
                return
            continue
        context.firewall.passed(STEP)
        yield attempt
