"""`dop doctor --live`: what free calls can tell, and that nothing is ever bought to find out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import KEY, Dop, Ended
from tests.support.http_server import http_server

Checks = dict[str, tuple[bool | None, str]]


def checks(end: Ended) -> Checks:
    return {one["name"]: (one["ok"], one["text"]) for one in json.loads(end.out)["checks"]}


def test_the_sandbox_passes_and_nothing_is_bought(rehearsal: Dop) -> None:
    end = rehearsal.call("doctor", "--live", "--json")
    assert end.code == 0, end.out
    found = checks(end)
    expected = {"live key": True, "poll path": True, "queue's poll path": True, "motions path": True}
    assert {name: found[name][0] for name in expected} == expected
    assert {name: found[name][0] for name in ("submit path", "credit", "callbacks", "uploads")} == {
        "submit path": None,
        "credit": None,
        "callbacks": None,
        "uploads": None,
    }
    assert "lists 120 presets" in found["motions path"][1]


def test_a_live_gateway_is_asked_without_a_submit(against: Callable[..., Opened]) -> None:
    dop, double = against()
    end = dop.call("doctor", "--live", "--json")
    assert checks(end)["live key"][0] is not False, end.out
    assert double.submits == []
    assert KEY not in end.out + end.err


@asynccontextmanager
async def answering(answer: Callable[[web.Request], web.Response]) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.Response:
        return answer(request)

    async with http_server(web.route("*", "/{path:.*}", handle)) as url:
        yield url


def refuses(request: web.Request) -> web.Response:
    return web.json_response({"error": "Invalid or missing authentication"}, status=401)


def knows_no_path(request: web.Request) -> web.Response:
    return web.json_response({"statusCode": 404, "message": "Resource not found"}, status=404)


def is_down(request: web.Request) -> web.Response:
    return web.Response(status=502, text="<html>bad gateway")


@pytest.mark.parametrize(
    ("answer", "code", "key", "path"),
    [(refuses, 7, False, None), (knows_no_path, 0, None, None), (is_down, 0, None, None)],
)
async def test_what_a_gateway_says_is_judged(
    rehearsal: Dop, answer: Callable[[web.Request], web.Response], code: int, key: bool | None, path: bool | None
) -> None:
    async with answering(answer) as url:
        rehearsal.base_url = url
        end = await asyncio.to_thread(rehearsal.call, "doctor", "--live", "--json")
    assert end.code == code
    found = checks(end)
    assert (found["live key"][0], found["poll path"][0]) == (key, path)
    assert found["motions path"][0] is None


def test_callbacks_are_tried_through_the_public_address(rehearsal: Dop) -> None:
    sets = ("--set", "webhook.listen=127.0.0.1:0", "--set", "webhook.public_url=http://127.0.0.1:9")
    found = checks(rehearsal.call("doctor", "--live", "--json", *sets))
    assert found["callbacks"] == (None, "http://127.0.0.1:9 does not lead back here from this machine")
