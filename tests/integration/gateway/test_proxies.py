"""Calls through a proxy of the environment: the key stays inside TLS, and what the proxy stopped was not sent."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from pipeline.config.network import network_environment
from pipeline.gateway.client import GatewayClient
from pipeline.gateway.connection_probe import connection_problem
from pipeline.gateway.kinds.pixazo import Pixazo, submit_body, submit_call
from pipeline.gateway.responses import NoResponse, Response
from tests.support.certificates import quick
from tests.support.factories import make_params
from tests.support.raw_server import Caller, ScriptedGateway, http

KEY = "canary-key-0123456789/abcdef"
HOST = "gateway.example.com"
CALL = submit_call(submit_body(make_params()), idempotency_key="k1")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate and key of a gateway of that name, in one file."""
    return quick(tmp_path_factory.mktemp("tls") / "both.pem", HOST)


def client(environ: dict[str, str]) -> GatewayClient:
    return GatewayClient(kind=Pixazo(), base_url=f"https://{HOST}", key=KEY, network=network_environment(environ))


async def test_a_call_goes_through_the_proxy_and_the_proxy_never_sees_the_key(certificate: Path) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)

    async def answer(caller: Caller) -> None:
        await caller.read_request()
        await caller.say(http())

    async with ScriptedGateway(answer, tls=server) as gateway:

        async def pass_on(caller: Caller) -> None:
            await caller.read_head()
            reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
            await caller.say(b"HTTP/1.1 200 Connection established\r\n\r\n")

            async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
                while data := await source.read(65536):
                    if source is caller.reader:
                        caller.heard.extend(data)
                    target.write(data)
                    await target.drain()
                target.close()

            await asyncio.gather(copy(caller.reader, writer), copy(reader, caller.writer))

        async with ScriptedGateway(pass_on) as proxy:
            environ = {"HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": ""} | {"REQUESTS_CA_BUNDLE": str(certificate)}
            async with client(environ) as gateway_client:
                outcome = await gateway_client.submit(CALL)
            problem = await connection_problem(f"https://{HOST}", network_environment(environ))
    assert isinstance(outcome, Response), outcome
    assert outcome.status == 200
    assert KEY.encode() in gateway.heard
    assert KEY.encode() not in proxy.heard
    assert proxy.heard.startswith(f"CONNECT {HOST}:443".encode())
    assert problem == ""


@pytest.mark.parametrize(("status", "permanent"), [("407 Proxy Authentication Required", True), ("503 Busy", False)])
async def test_a_call_that_the_proxy_refuses_was_not_sent(status: str, permanent: bool) -> None:
    async def refuse(caller: Caller) -> None:
        await caller.read_head()
        await caller.say(http(b"", status=status))

    async with ScriptedGateway(refuse) as proxy, client({"HTTPS_PROXY": proxy.url}) as gateway_client:
        outcome = await gateway_client.submit(CALL)
    assert isinstance(outcome, NoResponse)
    assert (outcome.sent, outcome.is_permanent) == (False, permanent)
    assert f"the proxy answers {status[:3]}" in outcome.what
    assert KEY.encode() not in proxy.heard


async def test_a_proxy_that_is_not_there_is_named() -> None:
    async with client({"HTTPS_PROXY": "http://127.0.0.1:9"}) as gateway_client:
        outcome = await gateway_client.submit(CALL)
    assert isinstance(outcome, NoResponse)
    assert not outcome.sent
    assert outcome.what == "no connection to the proxy 127.0.0.1:9: Connection refused"


async def test_a_certificate_that_is_not_trusted_is_permanent_and_named(certificate: Path) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)

    async def answer(caller: Caller) -> None:
        await caller.read_request()

    async with ScriptedGateway(answer, tls=server) as gateway:
        async with GatewayClient(kind=Pixazo(), base_url=gateway.url, key=KEY) as gateway_client:
            outcome = await gateway_client.submit(CALL)
        problem = await connection_problem(gateway.url, network_environment({}))
    assert isinstance(outcome, NoResponse)
    assert (outcome.sent, outcome.is_permanent) == (False, True)
    assert outcome.what.endswith("is not valid: self-signed certificate")
    assert problem == outcome.what
