"""Every way a paid call can break, played by a raw server byte by byte, plain and TLS: is "not sent" ever wrong?"""

from __future__ import annotations

import asyncio
import gzip
import random
import socket
import ssl
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
import pytest

from pipeline.gateway.classification import SubmitOutcomeKind
from pipeline.gateway.client import GatewayClient
from pipeline.gateway.kinds.pixazo import Pixazo, classify_submit, submit_body, submit_call
from pipeline.gateway.responses import NoResponse, Response, SendProof
from pipeline.gateway.tls_sessions import ResumingContext
from tests.support.certificates import quick
from tests.support.factories import make_params
from tests.support.raw_server import ANSWER_BODY, Caller, Script, ScriptedGateway, http

KEY = "canary-key-0123456789/abcdef"
BODY = submit_body(make_params())
NOW = 1_790_000_000.0


@dataclass(frozen=True)
class Tls:
    """A certificate of our own for 127.0.0.1, and a client that trusts it."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    pem = quick(tmp_path_factory.mktemp("tls") / "both.pem", "127.0.0.1")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    client = ResumingContext(
        ssl.PROTOCOL_TLS_CLIENT
    )  # as the program has it: from the second test on, sessions are resumed
    client.load_verify_locations(pem)
    return Tls(server=server, client=client)


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest, certificate: Tls) -> Tls | None:
    return certificate if request.param == "tls" else None


def make_client(url: str, tls: Tls | None = None, **settings: float) -> GatewayClient:
    """A client whose patience fits a test."""
    return GatewayClient(
        kind=Pixazo(),
        base_url=url,
        key=KEY,
        ssl_context=tls.client if tls else None,
        connect_timeout_s=settings.get("connect_timeout_s", 5.0),
        read_timeout_s=settings.get("read_timeout_s", 5.0),
        answer_timeout_s=settings.get("answer_timeout_s"),
    )


async def submit_once(
    script: Script, tls: Tls | None = None, **settings: float
) -> tuple[Response | NoResponse, ScriptedGateway]:
    """One paid call against one script; whatever comes back never holds the key."""
    async with (
        ScriptedGateway(script, tls=tls.server if tls else None) as gateway,
        make_client(gateway.url, tls, **settings) as client,
    ):
        outcome = await client.submit(submit_call(BODY, idempotency_key="k1"))
    assert KEY not in repr(outcome)
    return outcome, gateway


# --- the phase table ---


async def close_at_once(caller: Caller) -> None:
    """Before a byte was read."""


async def reset_at_once(caller: Caller) -> None:
    caller.reset()


async def close_after_head(caller: Caller) -> None:
    await caller.read_head()


async def reset_in_body(caller: Caller) -> None:
    await caller.read_head()
    await caller.read_some(20)
    caller.reset()


async def close_after_request(caller: Caller) -> None:
    await caller.read_request()


async def reset_after_request(caller: Caller) -> None:
    await caller.read_request()
    caller.reset()


async def stall_after_request(caller: Caller) -> None:
    await caller.read_request()
    await caller.stall()


async def garbage(caller: Caller) -> None:
    await caller.read_request()
    await caller.say(b"\x00\x01\x02 400 nonsense\r\n\r\n")


async def bad_status(caller: Caller) -> None:
    await caller.read_request()
    await caller.say(b"HTTP/1.1 abc Bad\r\n\r\n")


async def half_a_head(caller: Caller) -> None:
    await caller.read_request()
    await caller.say(b"HTTP/1.1 200 OK\r\nContent-Le")


async def only_continues(caller: Caller) -> None:
    await caller.read_request()
    await caller.say(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n")


NO_STATUS_LINE: list[Script] = [
    close_at_once, reset_at_once, close_after_head, reset_in_body, close_after_request, reset_after_request,
    stall_after_request, garbage, bad_status, half_a_head, only_continues,
]  # fmt: skip


@pytest.mark.parametrize("script", NO_STATUS_LINE)
async def test_a_call_that_broke_after_the_connection_stood_is_perhaps_sent(script: Script, tls: Tls | None) -> None:
    outcome, _ = await submit_once(script, tls, read_timeout_s=0.3)
    assert isinstance(outcome, NoResponse)
    assert outcome.sent
    assert outcome.what
    assert classify_submit(outcome, now_unix=NOW).kind is SubmitOutcomeKind.UNKNOWN


async def cut_with_length(caller: Caller) -> None:
    await caller.read_request()
    await caller.say(http(length=5000))


async def cut_chunked(caller: Caller) -> None:
    await caller.read_request()
    size = b"%x" % len(ANSWER_BODY)
    await caller.say(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\n" + ANSWER_BODY + b"\r\n5\r\nab"
    )


async def nonsense_in_chunks(caller: Caller) -> None:
    await caller.read_request()
    await caller.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(50):  # lets the other side take the head before the rest
        await asyncio.sleep(0)
    await caller.say(b"%x\r\n%b\r\nnonsense\r\n" % (len(ANSWER_BODY), ANSWER_BODY))


async def reset_in_answer(caller: Caller) -> None:
    await caller.read_request()
    await caller.say(http(length=5000))
    await asyncio.sleep(0)
    caller.reset()


async def stall_in_answer(caller: Caller) -> None:
    await caller.read_request()
    await caller.say(http(length=5000))
    await caller.stall()


@pytest.mark.parametrize("script", [cut_with_length, cut_chunked, nonsense_in_chunks, stall_in_answer])
async def test_a_cut_answer_keeps_its_status_and_the_id_that_came(script: Script, tls: Tls | None) -> None:
    outcome, _ = await submit_once(script, tls, read_timeout_s=0.3)
    assert isinstance(outcome, Response)
    assert (outcome.status, outcome.complete) == (200, False)
    verdict = classify_submit(outcome, now_unix=NOW)
    assert (verdict.kind, verdict.salvaged) == (SubmitOutcomeKind.UNKNOWN, ("a1",))


async def test_an_answer_that_is_reset_is_never_taken_for_not_sent(tls: Tls | None) -> None:
    # The reset may overtake what was said before it, so an answer or none are both right.
    outcome, _ = await submit_once(reset_in_answer, tls)
    assert classify_submit(outcome, now_unix=NOW).kind is SubmitOutcomeKind.UNKNOWN


async def noisy(caller: Caller) -> None:
    await caller.read_request()
    await caller.say(b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + http())


async def answer_before_the_body(caller: Caller) -> None:
    await caller.read_head()
    await caller.say(http(b'{"error":"slow"}', status="429 Too Many Requests", headers=b"Retry-After: 7\r\n"))


async def answer_twice(caller: Caller) -> None:
    await caller.read_request()
    await caller.say(http() + http(b'{"job_set_id": "stray"}'))


async def answer(caller: Caller) -> None:
    await caller.read_request()
    await caller.say(http())


@pytest.mark.parametrize("script", [answer, noisy, answer_twice])
async def test_a_whole_answer_is_accepted_whatever_noise_is_round_it(script: Script, tls: Tls | None) -> None:
    outcome, gateway = await submit_once(script, tls)
    verdict = classify_submit(outcome, now_unix=NOW)
    assert verdict.kind is SubmitOutcomeKind.ACCEPTED
    assert verdict.ticket is not None
    assert verdict.ticket.job_set_id == "a1"
    assert gateway.whole_requests == 1


async def test_a_refusal_before_the_body_was_read_is_a_refusal(tls: Tls | None) -> None:
    outcome, _ = await submit_once(answer_before_the_body, tls)
    verdict = classify_submit(outcome, now_unix=NOW)
    assert (verdict.kind, verdict.wait_s) == (SubmitOutcomeKind.THROTTLED, 7.0)


async def test_a_refusal_whose_body_is_cut_is_still_a_refusal(tls: Tls | None) -> None:
    async def script(caller: Caller) -> None:
        await caller.read_request()
        await caller.say(http(b'{"err', status="429 Too Many Requests", length=900))

    outcome, _ = await submit_once(script, tls)
    assert isinstance(outcome, Response)
    assert not outcome.complete
    assert classify_submit(outcome, now_unix=NOW).kind is SubmitOutcomeKind.THROTTLED


async def test_an_answer_that_drips_for_ever_ends_as_unknown() -> None:
    async def drip(caller: Caller) -> None:
        await caller.read_request()
        await caller.say(http(length=5000))
        while True:
            await caller.say(b" ")
            await asyncio.sleep(0.02)

    outcome, _ = await submit_once(drip, answer_timeout_s=0.3)
    assert isinstance(outcome, Response)
    assert classify_submit(outcome, now_unix=NOW).salvaged == ("a1",)


# --- provably not sent ---


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def submit_to(url: str, **settings: float) -> NoResponse:
    async with make_client(url, None, **settings) as client:
        outcome = await client.submit(submit_call(BODY, idempotency_key="k1"))
    assert isinstance(outcome, NoResponse)
    assert KEY not in repr(outcome)
    return outcome


async def test_a_refused_connection_is_not_sent() -> None:
    outcome = await submit_to(f"http://127.0.0.1:{unused_port()}")
    assert not outcome.sent
    assert classify_submit(outcome, now_unix=NOW).kind is SubmitOutcomeKind.NOT_SENT


async def test_a_name_that_is_not_found_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nowhere(*_: object, **__: object) -> list[object]:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(aiohttp.DefaultResolver, "resolve", nowhere)
    outcome = await submit_to("https://gateway.invalid")
    assert not outcome.sent
    assert "name" in outcome.what


async def test_a_foreign_certificate_is_not_sent(certificate: Tls) -> None:
    async with ScriptedGateway(answer, tls=certificate.server) as gateway:
        outcome = await submit_to(gateway.url)
        assert gateway.heard == b""
    assert not outcome.sent


async def test_a_server_that_speaks_no_tls_is_not_sent() -> None:
    async def plain_words(caller: Caller) -> None:
        await caller.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with ScriptedGateway(plain_words) as gateway:
        outcome = await submit_to(gateway.url.replace("http:", "https:"))
    assert not outcome.sent


async def test_a_handshake_that_stalls_is_not_sent() -> None:
    async def silent(caller: Caller) -> None:
        await caller.stall()

    async with ScriptedGateway(silent) as gateway:
        outcome = await submit_to(gateway.url.replace("http:", "https:"), connect_timeout_s=0.2)
    assert not outcome.sent
    assert outcome.what.endswith(" in 0.2 s")


# --- cancelled ---


async def test_a_cancelled_call_leaves_its_proof_behind() -> None:
    read = asyncio.Event()

    async def script(caller: Caller) -> None:
        await caller.read_request()
        read.set()
        await caller.stall()

    proof = SendProof()
    async with ScriptedGateway(script) as gateway, make_client(gateway.url) as client:
        call = asyncio.create_task(client.submit(submit_call(BODY, idempotency_key="k1"), proof=proof))
        await read.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert proof.sent


async def test_a_call_cancelled_while_it_connects_is_provably_not_sent() -> None:
    connected = asyncio.Event()

    async def silent(caller: Caller) -> None:
        connected.set()
        await caller.stall()

    proof = SendProof()
    async with ScriptedGateway(silent) as gateway, make_client(gateway.url.replace("http:", "https:")) as client:
        call = asyncio.create_task(client.submit(submit_call(BODY, idempotency_key="k1"), proof=proof))
        await connected.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert not proof.sent


# --- too much ---


async def test_an_answer_over_the_cap_is_cut_and_its_id_salvaged() -> None:
    async def flood(caller: Caller) -> None:
        await caller.read_request()
        await caller.say(http(b'{"job_set_id": "a1", "pad": "' + b"x" * (3 << 20) + b'"}'))

    outcome, _ = await submit_once(flood)
    assert isinstance(outcome, Response)
    assert (len(outcome.body), outcome.complete) == (1 << 20, False)
    assert classify_submit(outcome, now_unix=NOW).salvaged == ("a1",)


async def test_a_gzip_bomb_is_cut_at_the_cap_without_being_blown_up() -> None:
    packed = gzip.compress(b'{"job_set_id": "a1", "pad": "' + b"x" * (64 << 20))

    async def bomb(caller: Caller) -> None:
        await caller.read_request()
        await caller.say(http(packed, headers=b"Content-Encoding: gzip\r\n"))

    tracemalloc.start()
    try:
        outcome, _ = await submit_once(bomb)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(outcome, Response)
    assert (len(outcome.body), outcome.complete) == (1 << 20, False)
    assert peak < 16 << 20


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("gzip", bytes), ("br", bytes), ("", gzip.compress)],
)
@pytest.mark.parametrize("status", ["200 OK", "429 Too Many Requests"])
async def test_the_claimed_encoding_costs_neither_the_status_line_nor_the_id(
    encoding: str, pack: Callable[[bytes], bytes], status: str
) -> None:
    """A front that names an encoding and sends plain text, or the other way round."""
    body = pack(b'{"job_set_id": "a1"}' if status.startswith("200") else b'{"error": "too fast"}')
    claimed = f"Content-Encoding: {encoding}\r\n".encode() if encoding else b""

    async def answer(caller: Caller) -> None:
        await caller.read_request()
        await caller.say(http(body, status=status, headers=claimed))

    outcome, _ = await submit_once(answer)
    found = classify_submit(outcome, now_unix=NOW)
    assert found.kind is (SubmitOutcomeKind.ACCEPTED if status.startswith("200") else SubmitOutcomeKind.THROTTLED)


async def test_an_answer_in_an_unknown_encoding_is_unknown_and_a_refusal_stays_one() -> None:
    async def brotli(caller: Caller) -> None:
        await caller.read_request()
        await caller.say(http(b"\x8b\x05\x80abc\x03", headers=b"Content-Encoding: br\r\n"))

    async def cut(caller: Caller) -> None:
        await caller.read_request()
        whole = gzip.compress(b'{"job_set_id": "a1", "pad": "xyz"}')
        await caller.say(http(whole[:-9], headers=b"Content-Encoding: gzip\r\n"))

    for script in (brotli, cut):
        outcome, _ = await submit_once(script)
        assert isinstance(outcome, Response)
        assert outcome.status == 200
        assert classify_submit(outcome, now_unix=NOW).kind is SubmitOutcomeKind.UNKNOWN


# --- fuzz, and the twins that must not pass it ---


def dying_at_random(seed: int) -> Script:
    """A server that reads a random number of bytes, says a random part of an answer, and dies in a random way."""
    dice = random.Random(seed)

    async def script(caller: Caller) -> None:
        if dice.random() < 0.5:
            await caller.read_request()
        else:
            await caller.read_some(dice.choice([1, 40, 300, 500, 5000]))
        whole = http()
        await caller.say(whole[: dice.choice([0, 0, 0, 5, 20, 60, len(whole)])])
        if dice.random() < 0.5:
            caller.reset()

    return script


def says_not_sent_by_class(error: Exception) -> bool:
    """The broken twin: trusts the class of the exception, as retry libraries do."""
    return isinstance(error, aiohttp.ClientConnectionError)


async def fuzz(posts: int, seed: int, tls: Tls | None) -> tuple[int, int]:
    """Counts unsound "not sent"s of ours and of the twin over `posts` paid calls, each on its own connection."""
    ours = twins = 0
    async with (
        ScriptedGateway(dying_at_random(seed), tls=tls.server if tls else None) as gateway,
        make_client(gateway.url, tls) as client,
        aiohttp.ClientSession() as naive,
    ):
        for _ in range(posts):
            before = len(gateway.callers)
            outcome = await client.submit(submit_call(BODY, idempotency_key="k1"))
            assert len(gateway.callers) == before + 1, "a silent second send"
            read = bool(gateway.callers[-1].heard)
            ours += read and isinstance(outcome, NoResponse) and not outcome.sent
        for _ in range(posts // 10):
            try:
                async with naive.post(gateway.url, data=BODY, ssl=tls.client if tls else True) as response:
                    await response.read()
            except Exception as error:  # noqa: BLE001 - the twin judges whatever comes
                twins += bool(gateway.callers[-1].heard) and says_not_sent_by_class(error)
    return ours, twins


async def test_no_not_sent_is_unsound_when_the_server_dies_anywhere(tls: Tls | None) -> None:
    ours, twins = await fuzz(250, seed=20261122, tls=tls)
    assert ours == 0
    assert twins > 0


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
async def test_no_not_sent_is_unsound_in_two_thousand_calls(seed: int, tls: Tls | None) -> None:
    ours, twins = await fuzz(500, seed=seed, tls=tls)
    assert ours == 0
    assert twins > 0


async def test_no_byte_of_a_call_leaves_after_its_reservation_has_expired(tls: Tls | None) -> None:
    """50 calls of a process that stood still between the reservation and the first byte."""
    seen: list[bytes] = []

    async def listen(caller: Caller) -> None:
        seen.append(await caller.reader.read())

    async with (
        ScriptedGateway(listen, tls=tls.server if tls else None) as gateway,
        make_client(gateway.url, tls) as client,
    ):
        asked = [0]

        def expired() -> bool:
            asked[0] += 1
            return False

        for _ in range(50):
            proof = SendProof(may_send=expired)
            outcome = await client.submit(submit_call(BODY, idempotency_key="k1"), proof=proof)
            assert isinstance(outcome, NoResponse)
            assert (outcome.sent, proof.sent) == (False, False)
            assert "frozen" in outcome.what
    assert asked == [50]
    assert b"".join(seen) == b""


async def test_a_call_whose_reservation_is_young_leaves(tls: Tls | None) -> None:
    async with (
        ScriptedGateway(answer, tls=tls.server if tls else None) as gateway,
        make_client(gateway.url, tls) as client,
    ):
        proof = SendProof(may_send=lambda: True)
        outcome = await client.submit(submit_call(BODY, idempotency_key="k1"), proof=proof)
    assert isinstance(outcome, Response)
    assert proof.sent
