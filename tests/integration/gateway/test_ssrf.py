"""Where a download may go: every hop and every connect is judged, whatever name, number or redirect led there."""

# ruff: noqa: ASYNC240  # what lies on the disk is the thing under test

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from pipeline.gateway.download import VideoFetcher
from pipeline.gateway.download_outcomes import DownloadOutcome, LinkExpired, Saved, TransientFailure, Unacceptable
from pipeline.gateway.ssrf_rules import refusal
from tests.support.certificates import quick
from tests.support.clip_files import clip_bytes
from tests.support.video_host import VideoHost, head, video_host, whole

CLIP = clip_bytes()
GONE = head("404 Not Found", content_length=0)


def moved(location: str, status: str = "302 Found") -> bytes:
    return head(status, location=location, content_length=0)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "lake-7-1.mp4"


@pytest.fixture
async def inner_host() -> AsyncIterator[VideoHost]:
    """A server inside the machine that no client outside may reach through us."""
    async with video_host(whole(CLIP)) as host:
        yield host


@pytest.fixture
async def sandbox_fetcher() -> AsyncIterator[VideoFetcher]:
    async with VideoFetcher(gateway_is_loopback=True) as fetcher:
        yield fetcher


@pytest.fixture
async def live_fetcher() -> AsyncIterator[VideoFetcher]:
    async with VideoFetcher(gateway_is_loopback=False) as fetcher:
        yield fetcher


def resolving_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Every name leads to `addresses` from now on."""

    def lookup(_host: Any, port: Any, *_args: Any, **_options: Any) -> list[Any]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (each, port, 0, 0))
            if ":" in each
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


# --- the connect -----------------------------------------------------------------------------------------------------

WAYS_TO_LOOPBACK = [
    *("127.0.0.1", "127.0.0.2", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001"),
    *("localhost", "LOCALHOST", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]"),
    *("0.0.0.0", "0", "[::]", "１２７.0.0.1", "①②⑦.0.0.1", "127。0。0。1"),
]
"""As an attacker would write it."""


@pytest.mark.parametrize("name", WAYS_TO_LOOPBACK)
async def test_no_way_of_writing_it_leads_a_live_run_into_the_machine(
    target: Path, inner_host: VideoHost, live_fetcher: VideoFetcher, name: str
) -> None:
    assert isinstance(await live_fetcher.fetch(f"https://{name}:{inner_host.port}/clip.mp4", target), Unacceptable)
    assert inner_host.connections == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "fd00:ec2::254", "::ffff:10.0.0.1"])
async def test_a_name_that_resolves_to_an_inner_address_is_not_connected_to(
    target: Path, inner_host: VideoHost, live_fetcher: VideoFetcher, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    resolving_to(monkeypatch, address)
    for name in ("cdn.example", "localhost.", "xn--bcher-kva.example"):
        outcome = await live_fetcher.fetch(f"https://{name}:{inner_host.port}/clip.mp4", target)
        assert isinstance(outcome, Unacceptable)
        assert address in outcome.reason
    assert inner_host.connections == 0


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "0.0.0.0", "[fe80::1]", "[64:ff9b::a00:1]"])
async def test_a_loopback_gateway_opens_loopback_only(
    target: Path, sandbox_fetcher: VideoFetcher, address: str
) -> None:
    assert isinstance(await sandbox_fetcher.fetch(f"http://{address}/clip.mp4", target), Unacceptable)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_a_loopback_gateway_gives_its_videos(
    target: Path, inner_host: VideoHost, sandbox_fetcher: VideoFetcher, name: str
) -> None:
    assert isinstance(await sandbox_fetcher.fetch(f"http://{name}:{inner_host.port}/clip.mp4", target), Saved)


async def test_of_several_addresses_the_allowed_one_serves(
    target: Path, inner_host: VideoHost, sandbox_fetcher: VideoFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving_to(monkeypatch, "10.0.0.1", "127.0.0.1", "fe80::1")
    assert isinstance(await sandbox_fetcher.fetch(f"http://cdn.example:{inner_host.port}/clip.mp4", target), Saved)


async def test_an_allowed_address_that_does_not_answer_is_trouble_even_beside_a_forbidden_one(
    target: Path, sandbox_fetcher: VideoFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving_to(monkeypatch, "127.0.0.1", "10.0.0.1")
    assert isinstance(await sandbox_fetcher.fetch("http://cdn.example:1/clip.mp4", target), TransientFailure)


@pytest.mark.parametrize("name", ["a" * 64 + ".example", "a..example", "nowhere.invalid"])
async def test_a_name_that_cannot_be_looked_up_is_an_outcome_not_an_error(
    target: Path, live_fetcher: VideoFetcher, name: str
) -> None:
    assert isinstance(await live_fetcher.fetch(f"https://{name}/clip.mp4", target), TransientFailure | Unacceptable)


async def test_a_proxy_of_the_environment_is_not_used(
    target: Path, inner_host: VideoHost, sandbox_fetcher: VideoFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with video_host(GONE) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert isinstance(await sandbox_fetcher.fetch(inner_host.url, target), Saved)
    assert proxy.connections == 0


class _PublicNamesOnly(AbstractResolver):
    """What a guard in the resolver would be: it refuses names that lead inside."""

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> Any:
        found: list[ResolveResult] = await ThreadedResolver().resolve(host, port, family)
        if any(refusal(each["host"]) for each in found):
            raise OSError(None, "refused")
        return found

    async def close(self) -> None:
        return None


class GuardsNamesOnly(VideoFetcher):
    """Broken twin: its guard sits in the resolver."""

    def _connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(force_close=True, resolver=_PublicNamesOnly())


async def test_the_broken_twin_that_guards_names_only_is_caught(target: Path, inner_host: VideoHost) -> None:
    async with GuardsNamesOnly(gateway_is_loopback=False, connect_timeout_s=0.2) as twin:
        await twin.fetch(f"https://localhost:{inner_host.port}/clip.mp4", target)
        assert inner_host.connections == 0, "names it does guard"
        await twin.fetch(f"https://127.0.0.1:{inner_host.port}/clip.mp4", target)
    assert inner_host.connections == 1, "the twin no longer does what the first test forbids"


# --- redirects -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_followed(target: Path, sandbox_fetcher: VideoFetcher, status: str) -> None:
    async with video_host(moved("/other%2Fname.mp4?sig=a%2Bb", status), whole(CLIP)) as host:
        assert isinstance(await sandbox_fetcher.fetch(host.url, target), Saved)
    assert host.heads[1].startswith("GET /other%2Fname.mp4?sig=a%2Bb HTTP/1.1\r\n")


@pytest.mark.parametrize(("redirects", "kind"), [(3, Saved), (4, TransientFailure)])
async def test_three_redirects_are_followed_and_no_fourth(
    target: Path, sandbox_fetcher: VideoFetcher, redirects: int, kind: type[DownloadOutcome]
) -> None:
    async with video_host(*[moved("next")] * redirects, whole(CLIP)) as host:
        assert isinstance(await sandbox_fetcher.fetch(host.url, target), kind)
    assert host.connections == 4


@pytest.mark.parametrize(
    "location",
    [
        "http://10.0.0.1/clip.mp4",
        "http://[fe80::1]/clip.mp4",
        "//169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "ftp://cdn.example/clip.mp4",
        "http://user:word@127.0.0.1/clip.mp4",
        "http://[::1/clip.mp4",
        "http://",
        "",
    ],
)
async def test_a_redirect_is_judged_like_the_first_url(
    target: Path, sandbox_fetcher: VideoFetcher, location: str
) -> None:
    async with video_host(moved(location), moved("file:///etc/passwd")) as host:
        assert isinstance(await sandbox_fetcher.fetch(host.url, target), Unacceptable)
    assert not target.exists()


async def test_a_redirect_without_a_place_is_trouble(target: Path, sandbox_fetcher: VideoFetcher) -> None:
    async with video_host(head("302 Found", content_length=0)) as host:
        assert await sandbox_fetcher.fetch(host.url, target) == TransientFailure(reason="answered 302")


async def test_a_redirect_to_a_dead_link_is_gone(target: Path, sandbox_fetcher: VideoFetcher) -> None:
    async with video_host(moved("/late.mp4"), GONE) as host:
        assert await sandbox_fetcher.fetch(host.url, target) == LinkExpired(status=404)


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context for 127.0.0.1, and a client's that trusts it."""
    pem = quick(tmp_path_factory.mktemp("tls") / "host.pem", "127.0.0.1", is_ca=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))


Tls = tuple[ssl.SSLContext, ssl.SSLContext]


async def test_a_video_comes_over_tls(target: Path, tls: Tls) -> None:
    async with (
        video_host(whole(CLIP), tls=tls[0]) as host,
        VideoFetcher(gateway_is_loopback=True, ssl_context=tls[1]) as fetcher,
    ):
        assert isinstance(await fetcher.fetch(host.url, target), Saved)


async def test_a_certificate_that_is_not_trusted_is_trouble(
    target: Path, tls: Tls, sandbox_fetcher: VideoFetcher
) -> None:
    async with video_host(whole(CLIP), tls=tls[0]) as host:
        assert isinstance(await sandbox_fetcher.fetch(host.url, target), TransientFailure)
    assert not target.exists()


async def test_a_redirect_from_https_to_http_is_refused_even_beside_a_loopback_gateway(
    target: Path, tls: Tls, inner_host: VideoHost
) -> None:
    async with (
        video_host(moved(inner_host.url), tls=tls[0]) as host,
        VideoFetcher(gateway_is_loopback=True, ssl_context=tls[1]) as fetcher,
    ):
        assert await fetcher.fetch(host.url, target) == Unacceptable(reason="only https is allowed, not http")
    assert inner_host.connections == 0


async def test_a_body_cut_over_tls_without_a_length_is_trouble(target: Path, tls: Tls) -> None:
    async def cut(writer: asyncio.StreamWriter) -> None:
        writer.write(head() + CLIP[:-1])
        await writer.drain()
        writer.transport.abort()

    async with (
        video_host(cut, tls=tls[0]) as host,
        VideoFetcher(gateway_is_loopback=True, ssl_context=tls[1]) as fetcher,
    ):
        assert isinstance(await fetcher.fetch(host.url, target), TransientFailure)
    assert not target.exists()


# --- http for a live gateway -----------------------------------------------------------------------------------------


async def test_a_live_gateway_gives_no_http_url(
    target: Path, inner_host: VideoHost, live_fetcher: VideoFetcher
) -> None:
    assert await live_fetcher.fetch(inner_host.url, target) == Unacceptable(reason="only https is allowed, not http")
    assert inner_host.connections == 0
