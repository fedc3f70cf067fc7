"""Asking a gateway for its motions over real HTTP: which calls are made, what is kept, and what stays when it fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.config.loader import load
from pipeline.config.settings import Settings
from pipeline.errors import FatalError
from pipeline.gateway.client import GatewayClient
from pipeline.gateway.kinds.pixazo import Pixazo
from pipeline.gateway.motion_catalog import kept_path, load_catalog, refresh
from tests.support.raw_server import Caller, Script, ScriptedGateway, http
from tests.support.sandboxes import open_sandbox

KEY = "canary-key-0123456789/abcdef"
NOW = 1_790_000_000.0
ONE = "11111111-aaaa-4bbb-8ccc-000000000001"
LIST = json.dumps({"motions": [{"id": ONE, "name": "Push", "preview_url": "https://cdn.example.com/p.mp4"}]}).encode()


def settings_for(folder: Path, url: str) -> Settings:
    empty = folder / "empty.yaml"
    empty.touch()
    return load(empty, overrides={"gateway.base_url": url, "outputs.dir": str(folder)}, environ={})


def answers(*replies: tuple[str, bytes]) -> Script:
    """Gives the answers in turn, one a request."""
    left = list(replies)

    async def script(caller: Caller) -> None:
        while left:
            await caller.read_request()
            status, body = left.pop(0)
            await caller.say(http(body, status=status))

    return script


@pytest.mark.parametrize("refused", ["404 Not Found", "405 Method Not Allowed"])
async def test_post_is_tried_where_get_is_not_served_and_the_list_is_kept(tmp_path: Path, refused: str) -> None:
    script = answers((refused, b'{"error": "no"}'), ("200 OK", LIST))
    async with (
        ScriptedGateway(script) as gateway,
        GatewayClient(kind=Pixazo(), base_url=gateway.url, key=KEY) as client,
    ):
        settings = settings_for(tmp_path, gateway.url)
        done = await refresh(settings, client, now=NOW)
    heard = gateway.heard.decode()
    assert [line.split(" ")[0] for line in heard.split("\r\n") if line.endswith("HTTP/1.1")] == ["GET", "POST"]
    assert heard.count(KEY) == 2
    assert (done.new, done.gone, done.renamed) == (1, 120, 0)
    kept = load_catalog(settings)
    assert [(one.name, one.motions_id, one.preview_url) for one in kept.presets] == [
        ("Push", ONE, "https://cdn.example.com/p.mp4")
    ]
    assert kept.source == f"{gateway.url}, 2026-09-21T14:13:20Z"
    assert KEY not in kept_path(settings).read_text()


@pytest.mark.parametrize(
    ("replies", "words"),
    [
        ([("401 Unauthorized", b'{"error": "Invalid or missing authentication"}')], "401: Invalid or missing"),
        ([("404 Not Found", b""), ("404 Not Found", b"")], r"\(404\)"),
        ([("200 OK", b"<html>")], "200"),
        ([("200 OK", b'{"error": "soon"}')], "200: soon"),
        ([("302 Found", b"")], "302"),
    ],
)
async def test_a_gateway_without_a_list_leaves_the_old_one(
    tmp_path: Path, replies: list[tuple[str, bytes]], words: str
) -> None:
    async with (
        ScriptedGateway(answers(*replies)) as gateway,
        GatewayClient(kind=Pixazo(), base_url=gateway.url, key=KEY) as client,
    ):
        settings = settings_for(tmp_path, gateway.url)
        with pytest.raises(FatalError, match=words):
            await refresh(settings, client, now=NOW)
    assert not kept_path(settings).exists()
    assert len(load_catalog(settings).presets) == 120


async def test_the_sandboxes_list_is_the_shipped_one(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path / "sandbox") as sandbox:
        settings = settings_for(tmp_path, sandbox.url)
        async with GatewayClient(kind=Pixazo(), base_url=sandbox.url, key=sandbox.sandbox.settings.key or "") as client:
            done = await refresh(settings, client, now=NOW)
    assert (done.new, done.gone, done.renamed, done.left_out) == (0, 0, 0, 0)


async def test_two_gateways_keep_a_list_each(tmp_path: Path) -> None:
    first, second = (settings_for(tmp_path, f"http://127.0.0.1:{port}") for port in (8001, 8002))
    assert kept_path(first) != kept_path(second)
