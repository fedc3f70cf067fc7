"""One look at an image over real HTTP: what is good, bad or unsure, and how little is asked of its host."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from pipeline.assets.image_probe import MAX_BYTES, ImageProbe
from pipeline.assets.probe_results import ProbeResult, ProbeStatus
from tests.support.raw_server import Caller, Script, ScriptedGateway, http


def picture(kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "navy").save(file, kind)
    return file.getvalue()


JPEG = picture()


def saying(data: bytes) -> Script:
    async def script(caller: Caller) -> None:
        await caller.read_request()
        await caller.say(data)

    return script


async def looked(
    script: Script, path: str = "/a.jpg", *, etag: str = "", loopback: bool = True
) -> tuple[ProbeResult, bytes]:
    async with ScriptedGateway(script) as host, ImageProbe(gateway_is_loopback=loopback, timeout_s=5.0) as looker:
        return await looker.probe(host.url + path, etag=etag), host.heard


@pytest.mark.parametrize(
    ("kind", "status", "headers"),
    [
        ("JPEG", "200 OK", b'ETag: "e1"\r\n'),
        ("PNG", "200 OK", b'ETag: "e1"\r\nContent-Type: text/html\r\n'),
        ("WEBP", "206 Partial Content", b'ETag: "e1"\r\nContent-Range: bytes 0-99/5000000\r\n'),
    ],
)
async def test_a_picture_is_known_by_its_content(kind: str, status: str, headers: bytes) -> None:
    data = picture(kind)
    look, heard = await looked(saying(http(data, status=status, headers=headers)))
    assert (look.kind, look.picture.upper(), look.width, look.height) == (ProbeStatus.GOOD, kind, 64, 48)
    assert look.size_bytes == (5_000_000 if status.startswith("206") else len(data))
    assert look.etag == '"e1"'
    assert len(look.head_sha256) == 64
    asked = heard.lower()
    assert f"range: bytes=0-{MAX_BYTES - 1}".encode() in asked
    assert not any(word in asked for word in (b"cookie", b"referer", b"subscription", b"authorization"))


async def test_an_unchanged_picture_is_recognized_by_its_etag_alone() -> None:
    look, heard = await looked(saying(b"HTTP/1.1 304 Not Modified\r\n\r\n"), etag='"e1"')
    assert look.unchanged
    assert b'If-None-Match: "e1"' in heard


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (http(b"", status="404 Not Found"), "answers 404: it is not there"),
        (http(b"", status="410 Gone"), "answers 410: it is not there"),
        (http(b"<html>", headers=b"Content-Type: text/html; charset=utf-8\r\n"), "by its content (it says text/html)"),
        (http(b"GIF89a..", headers=b"Content-Type: image/jpeg\r\n"), "is not a JPEG, PNG or WebP"),
        (http(b""), "is empty"),
    ],
)
async def test_what_is_no_picture_at_all_is_bad(answer: bytes, reason: str) -> None:
    look, _ = await looked(saying(answer))
    assert look.kind is ProbeStatus.BAD
    assert reason in look.reason


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (http(b"", status="403 Forbidden"), "answers 403"),
        (http(b"", status="429 Too Many Requests"), "answers 429"),
        (http(b"", status="500 Oops"), "answers 500"),
        (http(JPEG, length=len(JPEG) + 50), "its answer was cut"),
        (b"", "can't be reached from here"),
        (http(b"\x1f\x8b", headers=b"Content-Encoding: gzip\r\n"), "comes compressed"),
        (http(b"", status="302 Found", headers=b"Location: file:///etc/passwd\r\n"), "only https is allowed"),
    ],
)
async def test_what_cannot_be_seen_from_here_is_unsure(answer: bytes, reason: str) -> None:
    look, _ = await looked(saying(answer))
    assert look.kind is ProbeStatus.UNSURE
    assert reason in look.reason


async def test_a_redirect_into_a_private_network_is_not_followed() -> None:
    look, _ = await looked(saying(http(b"", status="302 Found", headers=b"Location: http://169.254.169.254/a\r\n")))
    assert look.kind is ProbeStatus.BAD
    assert "169.254.169.254 is not a public address" in look.reason


async def test_a_circle_of_redirects_ends() -> None:
    look, heard = await looked(saying(http(b"", status="302 Found", headers=b"Location: /a.jpg\r\n")))
    assert look == ProbeResult(kind=ProbeStatus.UNSURE, reason="redirects more than 3 times")
    assert heard.count(b"GET ") == 4


async def test_a_picture_of_this_machine_is_bad_for_a_gateway_elsewhere() -> None:
    look, heard = await looked(saying(http(JPEG)), loopback=False)
    assert look.kind is ProbeStatus.BAD
    assert "the gateway can't see it" in look.reason
    assert heard == b""


async def test_a_host_that_never_ends_is_given_up_with_what_it_sent() -> None:
    async def endless(caller: Caller) -> None:
        await caller.read_request()
        await caller.say(b"HTTP/1.1 200 OK\r\n\r\n" + JPEG)
        while True:
            await caller.say(b"\0" * 65_536)

    look, _ = await looked(endless)
    assert (look.kind, look.width, look.size_bytes) == (ProbeStatus.GOOD, 64, None)


async def test_a_silent_host_is_given_up() -> None:
    async def silent(caller: Caller) -> None:
        await caller.stall()

    async with ScriptedGateway(silent) as host, ImageProbe(gateway_is_loopback=True, timeout_s=0.2) as looker:
        look = await looker.probe(host.url)
    assert look == ProbeResult(kind=ProbeStatus.UNSURE, reason="did not answer within 0.2 s")
