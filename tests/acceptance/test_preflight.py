"""Images are checked before money is spent; an image that cannot become a video is refused with its rows."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from PIL import Image

from tests.support.cli_driver import Dop, Ended, table
from tests.support.http_server import http_server

pytestmark = pytest.mark.long  # whole runs over HTTP; the money's own tests stay in the fast set

LOOKING = ("--set", "images.preflight=always", "--set", "sandbox.size=180p")


def jpeg(colour: str = "navy") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(file, "JPEG")
    return file.getvalue()


@dataclass
class Host:
    """A host of pictures: what each path answers, and what was asked."""

    pictures: dict[str, bytes]
    url: str = ""
    asked: list[str] = field(default_factory=list)

    async def serve(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.path} {request.headers.get('If-None-Match', '')}".strip())
        content = self.pictures.get(request.path)
        if content is None:
            return web.Response(status=404)
        etag = f'"{len(content)}-{content[-40:].hex()}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304)
        return web.Response(body=content, headers={"ETag": etag})


@asynccontextmanager
async def hosting(**pictures: bytes) -> AsyncIterator[Host]:
    host = Host({f"/{name}": content for name, content in pictures.items()})
    async with http_server(web.get("/{name}", host.serve)) as host.url:
        yield host


async def run(dop: Dop, *words: object) -> Ended:
    return await asyncio.to_thread(dop.call, *words)  # type: ignore[arg-type]


def rows(host: Host, *names: str) -> str:
    return table(
        {"id": f"r{n}", "image": f"{host.url}/{name}", "prompt": "p", "seed": n} for n, name in enumerate(names, 1)
    )


async def test_a_bad_image_is_reported_with_its_rows_and_nothing_is_sent(rehearsal: Dop) -> None:
    async with hosting(good=jpeg(), page=b"<html>") as host:
        manifest = rehearsal.csv(rows(host, "good", "gone", "page", "gone"))
        end = await run(rehearsal, "run", manifest, *LOOKING)
        assert end.code == 2
        assert f"shots.csv: rows r2, r4: {host.url}/gone answers 404" in end.err
        assert f"row r3: {host.url}/page is not a JPEG, PNG or WebP" in end.err
        assert "2 mistakes; nothing was sent" in end.err
        assert rehearsal.ledger_mills() == 0
        assert sorted(host.asked) == ["/gone", "/good", "/page"]


@pytest.mark.parametrize("words", [("--no-preflight",), ("--set", "images.preflight=auto")])
async def test_the_look_can_be_left_out_and_a_rehearsal_leaves_it_out(rehearsal: Dop, words: tuple[str, ...]) -> None:
    async with hosting(page=b"<html>") as host:
        end = await run(rehearsal, "run", rehearsal.csv(rows(host, "gone")), "--no-download", *LOOKING, *words)
        assert "mistake" not in end.err
        assert rehearsal.ledger_mills() == 135


async def test_a_second_run_asks_nothing_and_a_changed_picture_is_noticed(rehearsal: Dop) -> None:
    async with hosting(one=jpeg(), two=jpeg("red")) as host:
        manifest = rehearsal.csv(rows(host, "one", "two"))
        end = await run(rehearsal, "run", manifest, *LOOKING)
        assert end.code == 0, end.err
        host.asked.clear()
        wider = rehearsal.csv(rows(host, "one", "two", "one"))
        assert (await run(rehearsal, "run", wider, *LOOKING)).code == 0
        assert [asked for asked in host.asked if '"' in asked] == []
        memory = rehearsal.outputs / "images.json"
        known = json.loads(memory.read_text())
        memory.write_text(json.dumps({url: seen | {"probed_at": 1.0} for url, seen in known.items()}))
        host.pictures["/one"] = jpeg("green")
        host.asked.clear()
        widest = rehearsal.csv(rows(host, "one", "two", "one", "one", "two"))
        end = await run(rehearsal, "run", widest, *LOOKING)
        assert end.code == 0, end.err
        assert f"{host.url}/one is another picture than on 1970-01-01" in end.err
        assert "/two is another" not in end.err
        plan = (await run(rehearsal, "plan", widest)).out
        assert f"{host.url}/one: JPEG 64x48" in plan
        assert plan.count("CHANGED") == 1


async def test_an_image_that_cannot_be_seen_from_here_is_a_warning(rehearsal: Dop) -> None:
    manifest = rehearsal.csv(table([{"id": "a", "image": "http://127.0.0.1:9/a.jpg", "prompt": "p", "seed": 1}]))
    end = await run(rehearsal, "run", manifest, *LOOKING)
    assert end.code == 0, end.err
    text = "http://127.0.0.1:9/a.jpg can't be reached from here; the gateway may still be able to read it"
    assert f"warning: row a: {text}" in end.err
