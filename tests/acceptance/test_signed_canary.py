"""Signed addresses and callback secrets go to the gateway, which repeats them in many ways; they are left nowhere."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html import escape
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from aiohttp import web
from PIL import Image

from pipeline.gateway.kinds.pixazo import POLL_PATH, SUBMIT_PATH
from tests.support.cli_driver import Dop, Ended, table
from tests.support.fake_gateway import tiny_clip
from tests.support.http_server import http_server
from tests.support.s3_server import BUCKET, CREDENTIALS, S3Server

pytestmark = pytest.mark.long  # whole runs over HTTP; the money's own tests stay in the fast set

SESSION = "FwoGZXIvYXdzECAaDEXAMPLE/SESSION+TOKEN=="
ROWS = 9
JSON = "application/json"


@dataclass
class Parrot:
    """A gateway that repeats what it was sent: in refusals, in unclear answers, in tickets, and in what it polls."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)

    async def submit(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        number = int(body["seed"])
        image, raw = body["input_images"][0], json.dumps(body)
        said = {
            1: (422, JSON, json.dumps({"detail": f"input_images: can't fetch {image} (403)"})),
            2: (400, JSON, json.dumps({"error": {"message": quote(image, safe=""), "body": raw}})),
            3: (500, "text/html", f"<html><body>failed on {escape(image)}</body></html>"),
            4: (200, "text/html", f"<html>{escape(raw)}</html>"),
            5: (502, JSON, raw.replace("/", "\\/").replace("&", "\\u0026")[: 2 * len(raw) // 3]),
        }.get(number)
        if said is not None:
            return web.Response(status=said[0], content_type=said[1], text=said[2])
        headers = {"X-Request-Id": image[-40:], "Location": image}
        return web.json_response({"job_set_id": f"job-{number}", "input_params": body}, headers=headers)

    async def poll(self, request: web.Request) -> web.Response:
        number = int((await request.json())["job_set_id"].rpartition("-")[2])
        body = next(one for one in self.bodies if one["seed"] == number)
        image = body["input_images"][0]
        ends: dict[int, dict[str, Any]] = {
            6: {"status": "failed", "error": f"download of '{image}' failed"},
            7: {"status": "nsfw", "reason": json.dumps({"image": image, "hook": body.get("webhook_url", "")})},
            8: {"status": "failed", "error": {"message": store_error(image)}},
        }
        done = {"status": "completed", "results": {"raw": {"url": f"{self.url}/clip.mp4"}}}
        job = ends.get(number, done)
        return web.json_response({"job_set_id": f"job-{number}", "jobs": [job], "input_params": body})

    async def clip(self, _: web.Request) -> web.Response:
        return web.Response(body=tiny_clip(), content_type="video/mp4")

    def secrets(self) -> set[str]:
        """Everything in what it was sent that opens something."""
        found: set[str] = set()
        for body in self.bodies:
            query = parse_qs(urlsplit(body["input_images"][0]).query)
            assert {"X-Amz-Signature", "X-Amz-Security-Token"} <= query.keys()
            found |= {query["X-Amz-Signature"][0], query["X-Amz-Security-Token"][0], query["X-Amz-Credential"][0]}
            if "webhook_url" in body:
                found |= {body["webhook_url"].rpartition("-")[2], body["webhook_secret"].removeprefix("whsec_")}
        return found


def store_error(image: str) -> str:
    signature = parse_qs(urlsplit(image).query)["X-Amz-Signature"][0]
    return f"<Error><Code>SignatureDoesNotMatch</Code><SignatureProvided>{signature}</SignatureProvided></Error>"


@asynccontextmanager
async def parrot() -> AsyncIterator[Parrot]:
    gateway = Parrot()
    routes = (
        web.post(SUBMIT_PATH, gateway.submit),
        web.post(POLL_PATH, gateway.poll),
        web.get("/clip.mp4", gateway.clip),
    )
    async with http_server(*routes) as gateway.url:
        yield gateway


def pictures(dop: Dop, store: S3Server) -> Any:
    """Half of the rows name files of this machine, half objects of the store."""
    rows = []
    for number in range(1, ROWS + 1):
        file = io.BytesIO()
        Image.new("RGB", (16 + number, 16)).save(file, "PNG")
        (dop.folder / f"p{number}.png").write_bytes(file.getvalue())
        store.put(f"in/p{number}.png", file.getvalue())
        image = f"p{number}.png" if number % 2 else f"s3://{BUCKET}/in/p{number}.png"
        rows.append({"id": f"r{number}", "image": image, "prompt": f"scene {number}", "seed": number})
    return dop.csv(table(rows))


def spellings(secret: str) -> set[bytes]:
    forms = {secret, quote(secret, safe=""), quote(quote(secret, safe=""), safe=""), secret.replace("/", "\\/")}
    return {form.encode() for form in forms} | {secret[:24].encode()}


def leaks(dop: Dop, gateway: Parrot, said: list[str]) -> list[str]:
    forms = {form for secret in gateway.secrets() for form in spellings(secret)}
    files = [path for path in dop.outputs.rglob("*") if path.is_file() and path.name != "callback-seed"]
    content = {str(path.relative_to(dop.outputs)): path.read_bytes() for path in files}
    content |= {f"said {number}": text.encode() for number, text in enumerate(said)}
    return [f"{name}: {form!r}" for name, text in content.items() for form in forms if form in text]


async def test_what_the_gateway_repeats_of_signed_addresses_is_left_nowhere(rehearsal: Dop, store: S3Server) -> None:
    dop, said = rehearsal, list[str]()
    store.empty()
    async with parrot() as gateway:
        dop.base_url = gateway.url
        dop.environ = CREDENTIALS | {"AWS_SESSION_TOKEN": SESSION, "DOP_UPLOADS__ENDPOINT": store.url}
        dop.environ["DOP_UPLOADS__URL"] = f"s3://{BUCKET}/dop"
        manifest = pictures(dop, store)

        async def call(verb: str, *words: object) -> Ended:
            end = await asyncio.to_thread(dop.call, verb, *words)
            said.extend((end.out, end.err))
            return end

        one_by_one = ("--set", "pace.submit_concurrency=1", "-v", "--log-json")
        end = await call("run", manifest, "--yes", "--webhook", *one_by_one)
        assert end.code == 3, end.err
        assert len(gateway.bodies) == ROWS
        assert end.counts == {"done": 1, "failed": 4, "refused": 1, "unknown": 3}
        for row in dop.rows():
            await call("show", row["request_id"], "-v")
            await call("show", row["request_id"], "--json")
        page = dop.folder / "out" / "page.html"
        for words in (("report", "-o", page), ("report", "--json"), ("status", "--json"), ("plan", manifest, "--json")):
            await call(*words)
        await call("doctor", "--live")
        assert "can't fetch" in "".join(said), "the words themselves are kept"
        assert "***" in "".join(said)
    assert len(gateway.secrets()) > 3 * ROWS
    assert leaks(dop, gateway, said) == []


def test_the_look_would_see_them(rehearsal: Dop) -> None:
    gateway = Parrot(bodies=[{"input_images": ["https://x.test/a?X-Amz-Signature=ab%2Fcd&X-Amz-Security-Token=t/u"]}])
    gateway.bodies[0]["input_images"][0] += "&X-Amz-Credential=key"
    rehearsal.outputs.mkdir()
    (rehearsal.outputs / "log").write_text("ab%2Fcd")
    assert len(leaks(rehearsal, gateway, ["t\\/u"])) == 2
