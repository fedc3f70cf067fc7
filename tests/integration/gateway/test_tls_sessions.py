"""A connection of its own for each paid call resumes the TLS session that the host gave before."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from pipeline.config.network import network_environment
from pipeline.gateway.client import GatewayClient
from pipeline.gateway.kinds.pixazo import Pixazo, submit_body, submit_call
from pipeline.gateway.responses import NoResponse, Response
from pipeline.gateway.tls_sessions import MAX_HOSTS, ResumingContext
from tests.support.certificates import self_signed
from tests.support.factories import make_params
from tests.support.raw_server import Caller, ScriptedGateway, http

CALL = submit_call(submit_body(make_params()), idempotency_key="k1")
OLD, NEW = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("tls") / "both.pem")


def server_of(pem: Path, version: ssl.TLSVersion = NEW) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.minimum_version = context.maximum_version = version
    return context


class Resumed:
    """A gateway's script that answers, and notes of each connection whether it was resumed."""

    def __init__(self) -> None:
        self.seen: list[bool] = []

    async def __call__(self, caller: Caller) -> None:
        await caller.read_request()
        connection: ssl.SSLObject = caller.writer.get_extra_info("ssl_object")
        self.seen.append(bool(connection.session_reused))
        await caller.say(http())


def client_of(url: str, pem: Path, context: ssl.SSLContext | None = None) -> GatewayClient:
    network = network_environment({"REQUESTS_CA_BUNDLE": str(pem)})
    return GatewayClient(kind=Pixazo(), base_url=url, key="canary-key-0123456789", ssl_context=context, network=network)


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_every_paid_call_has_a_connection_of_its_own_that_resumes(pem: Path, version: ssl.TLSVersion) -> None:
    script = Resumed()
    async with ScriptedGateway(script, tls=server_of(pem, version)) as gateway, client_of(gateway.url, pem) as client:
        for _ in range(4):
            assert isinstance(await client.submit(CALL), Response)
        assert [caller.whole_requests for caller in gateway.callers] == [1, 1, 1, 1]
    assert script.seen == [False, True, True, True]


async def test_calls_at_the_same_time_resume_too(pem: Path) -> None:
    script = Resumed()
    async with ScriptedGateway(script, tls=server_of(pem)) as gateway, client_of(gateway.url, pem) as client:
        await client.submit(CALL)
        answers = await asyncio.gather(*(client.submit(CALL) for _ in range(8)))
        assert all(isinstance(answer, Response) for answer in answers)
        assert len(gateway.callers) == 9
    assert script.seen == [False] + 8 * [True]


async def test_the_library_s_own_context_does_not_resume(pem: Path) -> None:
    """The twin: what the test above would show without the sessions."""
    script, context = Resumed(), ssl.create_default_context(cafile=str(pem))
    async with ScriptedGateway(script, tls=server_of(pem)) as gateway, client_of(gateway.url, pem, context) as client:
        for _ in range(3):
            await client.submit(CALL)
    assert script.seen == [False, False, False]


async def test_a_host_that_forgot_the_session_makes_a_full_handshake(pem: Path) -> None:
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pem)
    for expected in ([False, True], [False, True]):
        script = Resumed()
        async with (
            ScriptedGateway(script, tls=server_of(pem)) as gateway,  # another server, with keys of its own for tickets
            client_of(gateway.url, pem, context) as client,
        ):
            for _ in range(2):
                assert isinstance(await client.submit(CALL), Response)
        assert script.seen == expected


async def test_a_certificate_that_is_not_trusted_is_refused_also_beside_a_session(pem: Path, tmp_path: Path) -> None:
    """MONEY and secrets: a session is no reason to believe a stranger; nothing is sent."""
    context, stranger = ResumingContext(ssl.PROTOCOL_TLS_CLIENT), self_signed(tmp_path / "stranger.pem")
    context.load_verify_locations(pem)
    async with (
        ScriptedGateway(Resumed(), tls=server_of(pem)) as gateway,
        client_of(gateway.url, pem, context) as client,
    ):
        await client.submit(CALL)
    async with (
        ScriptedGateway(Resumed(), tls=server_of(stranger)) as other,
        client_of(other.url, pem, context) as client,
    ):
        answer = await client.submit(CALL)
        assert isinstance(answer, NoResponse)
        assert not answer.sent
        assert other.whole_requests == 0


def test_certificates_and_names_are_verified_and_few_hosts_are_remembered() -> None:
    context, usual = ResumingContext(ssl.PROTOCOL_TLS_CLIENT), ssl.create_default_context()
    for name in ("verify_mode", "check_hostname", "minimum_version", "verify_flags"):
        assert getattr(context, name) == getattr(usual, name)
    for number in range(3 * MAX_HOSTS):
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=f"host-{number}.example.com")
    assert len(context._latest) <= MAX_HOSTS
