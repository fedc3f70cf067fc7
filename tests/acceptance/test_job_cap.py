"""The number of jobs that the gateway says it allows is kept to: no fewer jobs are in flight, and no more."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from tests.support.cli_driver import shots
from tests.support.hostile_gateway import HostileGateway, Order, against


def _full(limit: int) -> dict[str, Callable[[], web.Response]]:
    older = f"Maximum number of concurrent requests ({limit}) has been reached"
    newest = {"code": "account_queue_full", "limit": limit}
    return {
        "older": lambda: web.json_response({"detail": older}, status=400),
        "newest": lambda: web.json_response(newest, status=429, headers={"Retry-After": "1"}),
    }


@pytest.mark.long
@pytest.mark.parametrize("form", ["older", "newest"])
def test_the_number_of_jobs_that_the_gateway_allows_is_kept_to(tmp_path: Path, form: str) -> None:
    """Another client holds two of the four places at first: the number that was said is right, what was seen is not."""
    limit, generation_s = 4, 0.4
    refused, others = [0], [2]

    def unfinished(gateway: HostileGateway) -> int:
        return others[0] + sum(time.monotonic() - order.at < generation_s for order in gateway.charged)

    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        if unfinished(gateway) >= limit:
            refused[0] += 1
            others[0] = 0
            return _full(limit)[form]()
        return await gateway.accept(order)

    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        if order is not None and time.monotonic() - order.at < generation_s:
            return await gateway.report(order, job, jobs=[{"id": "j", "status": "in_progress"}])
        return await gateway.report(order, job)

    with HostileGateway(submit=submit, poll=poll) as gateway:
        dop = against(tmp_path, gateway)
        pace = ("--set", "pace.rate=100/1s", "--set", "pace.submit_concurrency=1")
        end = dop.buy(dop.csv(shots(12)), "--no-download", *pace)
        assert (end.code, end.counts) == (0, {"done": 12}), end.err
        at_once = max(_at_once(gateway, generation_s))
        assert at_once == limit, f"{at_once} of {limit} places were used, {refused[0]} submits refused"


def _at_once(gateway: HostileGateway, generation_s: float) -> list[int]:
    begun = [order.at for order in gateway.charged]
    return [sum(one <= at < one + generation_s for one in begun) for at in begun]


@pytest.mark.long
@pytest.mark.parametrize("form", ["older", "newest"])
def test_no_more_jobs_than_the_gateway_allows_are_in_flight_once_it_said_so(tmp_path: Path, form: str) -> None:
    """The gateway takes two more jobs than it allows, then says the number once and refuses nothing any more."""
    limit, taken, generation_s = 4, 6, 0.4
    said_at: list[float] = []
    crowds: list[int] = []

    def unfinished(gateway: HostileGateway, now: float) -> int:
        return sum(now - order.at < generation_s for order in gateway.charged)

    async def submit(gateway: HostileGateway, order: Order) -> web.StreamResponse:
        crowd = unfinished(gateway, order.at)
        if not said_at and crowd >= taken:
            said_at.append(time.monotonic())
            return _full(limit)[form]()
        if said_at and order.at > said_at[0] + generation_s / 2:  # what was in flight when it was said does not count
            crowds.append(crowd + 1)
        return await gateway.accept(order)

    async def poll(gateway: HostileGateway, order: Order | None, job: str) -> web.StreamResponse:
        if order is not None and time.monotonic() - order.at < generation_s:
            return await gateway.report(order, job, jobs=[{"id": "j", "status": "in_progress"}])
        return await gateway.report(order, job)

    with HostileGateway(submit=submit, poll=poll) as gateway:
        dop = against(tmp_path, gateway)
        pace = ("--set", "pace.rate=100/1s", "--set", "pace.submit_concurrency=1")
        end = dop.buy(dop.csv(shots(20)), "--no-download", *pace)
        assert (end.code, end.counts) == (0, {"done": 20}), end.err
        assert said_at, "the number was never said"
        assert crowds
        assert max(crowds) <= limit, crowds
