"""`doctor --live`: what calls that cost nothing can tell of key, paths, callbacks and the picture store.

It never submits: whether the submit path is right and the account has credit shows at the first purchase only, and it
says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

from pipeline.assets.image_hosting import open_hosting
from pipeline.assets.image_urls import InputImages
from pipeline.assets.object_store import open_store
from pipeline.assets.publishing import open_publisher
from pipeline.cli.check_result import CheckResult
from pipeline.config.settings import Settings
from pipeline.errors import DopError
from pipeline.gateway.client import GatewayClient
from pipeline.gateway.json_fields import read_json
from pipeline.gateway.kinds import kind_of
from pipeline.gateway.motion_catalog import OTHER_METHOD, describe_response, load_catalog
from pipeline.gateway.motion_response import parse_motions
from pipeline.gateway.responses import NoResponse, Response
from pipeline.records import usd
from pipeline.runner.callback_inbox import answers_as_ours, open_callback_endpoint
from pipeline.runner.embedded_sandbox import gateway_for
from pipeline.runner.engine import gateway_client
from pipeline.runner.model_offers import ModelOffer, model_offers

NOBODYS_JOB = "00000000-0000-4000-8000-000000000000"
"""An id of the right form that no gateway gives out."""

NOWHERE = "/dop-doctor/no-such-path"
"""Its 404 is the gateway's word for a wrong path, to compare others with."""

REFUSALS = frozenset({401, 402, 403})


def live_checks(settings: Settings, key: str) -> list[CheckResult]:
    """Everything that can be tried for free. Pays: no."""
    return asyncio.run(_all(settings, key))


async def _all(settings: Settings, key: str) -> list[CheckResult]:
    async with gateway_for(settings) as base_url:
        found = [check async for check in _gateway(settings, base_url, key)]
        found.append(await _callbacks(settings, base_url))
        found.append(await _store(settings, base_url))
        found.append(await _outputs(settings))
    for path in kind_of(settings).submit_paths[:1]:
        untried = f"{path}: only a purchase would tell; not tried"
        found.append(CheckResult(name="submit path", ok=None, text=untried))
    found.append(CheckResult(name="credit", ok=None, text="the API has no call for it"))
    return found


async def _gateway(settings: Settings, base_url: str, key: str) -> AsyncIterator[CheckResult]:
    kind = kind_of(settings)
    async with gateway_client(settings, base_url, key) as client:
        for number, (name, style) in enumerate(kind.poll_probes):
            call = kind.poll_call(NOBODYS_JOB, None, style)
            answer = await client.ask(call)
            nowhere = await client.ask(replace(call, target=NOWHERE))
            if number == 0:
                yield _key(answer, nowhere)
            yield _path(name, call.target.replace(NOBODYS_JOB, ".."), answer, nowhere)
        if kind.abilities.motions:
            yield await _motions(settings, client)
        if kind.abilities.models or kind.abilities.estimate:
            for offer in await model_offers(settings, client, settings.models):
                yield _model(offer)


def _key(answer: Response | NoResponse, nowhere: Response | NoResponse) -> CheckResult:
    """Whether the key is taken, judged by a poll of a job that does not exist."""
    if isinstance(answer, NoResponse):
        return CheckResult(name="live key", ok=None, text=f"the gateway does not answer: {answer.what}")
    if answer.status in REFUSALS:
        return CheckResult(name="live key", ok=False, text=f"the gateway refuses it ({describe_response(answer)})")
    if answer.status == 404 and _same(answer, nowhere):
        # API: a gateway may look for the path first, and for the key only where there is one.
        return CheckResult(
            name="live key", ok=None, text=f"unknown: the path may be wrong ({describe_response(answer)})"
        )
    if answer.status < 500:
        return CheckResult(
            name="live key", ok=True, text=f"a poll of a made-up job was answered ({describe_response(answer)})"
        )
    return CheckResult(name="live key", ok=None, text=f"the gateway is in trouble ({describe_response(answer)})")


def _path(name: str, path: str, answer: Response | NoResponse, nowhere: Response | NoResponse) -> CheckResult:
    """Whether anything lives at a path. A 404 may mean the path or the job: another body than nowhere's tells."""
    said = f"{path} ({describe_response(answer)})"
    if isinstance(answer, NoResponse) or answer.status >= 500 or answer.status in REFUSALS:
        return CheckResult(name=name, ok=None, text=f"unknown: {said}")
    if answer.status not in (404, 405):
        return CheckResult(name=name, ok=True, text=said)
    if _same(answer, nowhere):
        return CheckResult(name=name, ok=None, text=f"answers like a path that does not exist: {said}")
    return CheckResult(name=name, ok=answer.status == 404, text=said)


def _same(answer: Response, nowhere: Response | NoResponse) -> bool:
    return isinstance(nowhere, Response) and (nowhere.status, nowhere.body) == (answer.status, answer.body)


def _model(offer: ModelOffer) -> CheckResult:
    """Whether the account can buy a model. A list that lacks it proves nothing where the gateway still prices it."""
    name = f"model {offer.model}"
    price = "" if offer.price_microusd is None else f", ${usd(offer.price_microusd)} a video"
    if offer.is_sold is False:
        return CheckResult(name=name, ok=False, text=f"can't be bought now: {offer.text}")
    if offer.is_sold is None:
        return CheckResult(name=name, ok=None, text=f"can't be determined: {offer.text}")
    unlisted = ", though its list lacks it" if offer.is_listed is False else ""
    return CheckResult(name=name, ok=True, text=f"sold{unlisted}: {offer.text}{price}")


async def _motions(settings: Settings, client: GatewayClient) -> CheckResult:
    answer = await client.get_motions()
    if isinstance(answer, Response) and answer.status in OTHER_METHOD:
        answer = await client.get_motions(method="POST")
    path = settings.gateway.motions_path
    if isinstance(answer, Response) and 200 <= answer.status < 300:
        found = parse_motions(read_json(answer.body), load_catalog(settings))
        if found is not None:
            return CheckResult(name="motions path", ok=True, text=f"{path} lists {len(found.presets)} presets")
    text = f"{path} gives no list ({describe_response(answer)}); the address is inferred, and nothing needs it"
    return CheckResult(name="motions path", ok=None, text=text)


async def _callbacks(settings: Settings, base_url: str) -> CheckResult:
    """Whether the public address leads back here; a network may forbid that round trip and still let callers in."""
    if settings.webhook.public_url is None:
        return CheckResult(name="callbacks", ok=None, text="webhook.public_url is not set: polling only")
    try:
        async with open_callback_endpoint(settings, base_url) as endpoint:
            if await answers_as_ours(endpoint.public_url, endpoint.keys):
                return CheckResult(name="callbacks", ok=True, text=f"{endpoint.public_url} leads to webhook.listen")
            return CheckResult(
                name="callbacks", ok=None, text=f"{endpoint.public_url} does not lead back here from this machine"
            )
    except DopError as error:
        return CheckResult(name="callbacks", ok=False, text=str(error))


async def _store(settings: Settings, base_url: str) -> CheckResult:
    if settings.uploads.url is None:
        text = "uploads.url is not set: local pictures work in the sandbox only"
        if kind_of(settings).abilities.upload:
            text = "uploads.url is not set: local pictures go through the gateway's own uploads"
        return CheckResult(name="uploads", ok=None, text=text)
    try:
        open_hosting(settings, base_url, InputImages({}), etag_of=lambda _: "", wall=time.time)
        uploads = settings.uploads
        problem = await open_store(settings.uploads.url, endpoint=uploads.endpoint, region=uploads.region).problem()
    except DopError as error:
        return CheckResult(name="uploads", ok=False, text=str(error))
    if problem:
        return CheckResult(name="uploads", ok=False, text=problem)
    return CheckResult(name="uploads", ok=True, text=f"{settings.uploads.url} answers; writing was not tried")


async def _outputs(settings: Settings) -> CheckResult:
    try:
        landing = open_publisher(settings)
    except DopError as error:
        return CheckResult(name="outputs", ok=False, text=str(error))
    if landing is None:
        return CheckResult(name="outputs", ok=None, text="outputs.dir is a folder of this machine: nothing to ask")
    problem = await landing.problem()
    if problem:
        return CheckResult(name="outputs", ok=False, text=problem)
    return CheckResult(name="outputs", ok=True, text=f"{settings.outputs.url} answers; writing was not tried")
