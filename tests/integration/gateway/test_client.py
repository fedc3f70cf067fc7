"""The client of the gateway: what it sends, to whom, and what it never does."""

from __future__ import annotations

import json

import aiohttp
import pytest

from pipeline.errors import UsageError
from pipeline.gateway.classification import PollOutcomeKind, SubmitOutcomeKind
from pipeline.gateway.client import GatewayClient
from pipeline.gateway.kinds.pixazo import Pixazo, PollStyle, classify_poll, classify_submit, submit_body, submit_call
from pipeline.gateway.responses import NoResponse, Response
from tests.support.factories import make_params
from tests.support.raw_server import Caller, Script, ScriptedGateway, http

KEY = "canary-key-0123456789/abcdef"
BODY = submit_body(make_params())
NOW = 1_790_000_000.0


def make_client(url: str) -> GatewayClient:
    return GatewayClient(kind=Pixazo(), base_url=url, key=KEY)


def saying(body: bytes, *, status: str = "200 OK", headers: bytes = b"") -> Script:
    """A gateway that gives every request on a connection the same answer."""

    async def script(caller: Caller) -> None:
        while True:
            await caller.read_request()
            await caller.say(http(body, status=status, headers=headers))

    return script


# --- what is sent ---


async def test_a_submit_is_the_documents_call_to_the_byte() -> None:
    async with ScriptedGateway(saying(b"{}")) as gateway, make_client(gateway.url) as client:
        await client.submit(submit_call(BODY, idempotency_key="attempt-1"))
    head, _, body = gateway.heard.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /ai-model-api/v1/generateImageToVideoRequest HTTP/1.1"
    assert {
        "Content-Type: application/json",
        "Cache-Control: no-cache",
        f"Ocp-Apim-Subscription-Key: {KEY}",
        "Idempotency-Key: attempt-1",
        "Connection: close",
    } <= set(lines)
    assert "X-Webhook-URL" not in head.decode()
    assert body == BODY


async def test_another_path_and_a_webhook_header_serve_the_queue_dialect() -> None:
    async with ScriptedGateway(saying(b"{}")) as gateway, make_client(gateway.url) as client:
        path, url = "/ai-model-api/v1/image-to-video", "https://me.example/cb"
        await client.submit(submit_call(BODY, idempotency_key="k", path=path, webhook_url=url))
    assert gateway.heard.startswith(b"POST /ai-model-api/v1/image-to-video HTTP/1.1\r\n")
    assert b"X-Webhook-URL: https://me.example/cb\r\n" in gateway.heard


async def test_each_submit_has_a_connection_of_its_own_and_polls_share_theirs() -> None:
    async with ScriptedGateway(saying(b"{}")) as gateway, make_client(gateway.url) as client:
        for _ in range(3):
            await client.submit(submit_call(BODY, idempotency_key="k"))
        assert len(gateway.callers) == 3
        for _ in range(3):
            await client.poll("a1")
        assert len(gateway.callers) == 4


async def test_a_base_url_may_hold_a_path() -> None:
    async with ScriptedGateway(saying(b"{}")) as gateway, make_client(gateway.url + "/proxy/") as client:
        await client.poll("a1")
    assert gateway.heard.startswith(b"POST /proxy/ai-model-api-polling/getGenerationResults ")


# --- polls: two styles ---

OWN = "{url}/v2/requests/status/r1"
DOCUMENT_POST = "POST /ai-model-api-polling/getGenerationResults"


@pytest.mark.parametrize(
    ("style", "polling_url", "expected"),
    [
        (PollStyle.AUTO, None, DOCUMENT_POST),
        (PollStyle.AUTO, OWN, "GET /v2/requests/status/r1"),
        (PollStyle.AUTO, "/v2/requests/status/r1", "GET /v2/requests/status/r1"),
        (PollStyle.AUTO, OWN + "?a=b#c", "GET /v2/requests/status/r1?a=b"),
        (PollStyle.AUTO, "https://evil.example/v2/requests/status/r1", DOCUMENT_POST),
        (PollStyle.AUTO, "//evil.example/v2", DOCUMENT_POST),
        (PollStyle.AUTO, "{url}@evil.example/v2", DOCUMENT_POST),
        (PollStyle.AUTO, "{url}1/v2", DOCUMENT_POST),
        (PollStyle.AUTO, "https://127.0.0.1/v2", DOCUMENT_POST),
        (PollStyle.AUTO, "http://localhost:1/v2", DOCUMENT_POST),
        (PollStyle.AUTO, "\\\\evil.example\\v2", DOCUMENT_POST),
        (PollStyle.AUTO, "{url}/v2\r\nX-Evil: 1", DOCUMENT_POST),
        (PollStyle.AUTO, "javascript:alert(1)", DOCUMENT_POST),
        (PollStyle.AUTO, "http://[", DOCUMENT_POST),
        (PollStyle.JOB_SET, OWN, DOCUMENT_POST),
        (PollStyle.QUEUE, None, "GET /v2/requests/status/r1"),
        (PollStyle.QUEUE, "https://evil.example/x", "GET /v2/requests/status/r1"),
        ("queue", OWN, "GET /v2/requests/status/r1"),
    ],
)
async def test_a_poll_goes_to_the_gateway_in_its_style_and_nowhere_else(
    style: PollStyle | str, polling_url: str | None, expected: str
) -> None:
    async with ScriptedGateway(saying(b"{}")) as gateway, make_client(gateway.url) as client:
        given = polling_url.replace("{url}", gateway.url) if polling_url else None
        outcome = await client.poll("r1", given, style)
    assert isinstance(outcome, Response)
    assert gateway.heard.decode().startswith(expected + " HTTP/1.1\r\n")
    assert KEY.encode() in gateway.heard
    assert gateway.heard.endswith(b'{"job_set_id": "r1"}') is expected.startswith("POST")


async def test_an_odd_id_cannot_leave_its_place_in_the_path() -> None:
    async with ScriptedGateway(saying(b"{}")) as gateway, make_client(gateway.url) as client:
        await client.poll("../../pay?x=1 2", None, PollStyle.QUEUE)
    assert gateway.heard.startswith(b"GET /v2/requests/status/..%2F..%2Fpay%3Fx=1%202 HTTP/1.1\r\n")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_motions_are_asked_for_at_the_inferred_address(method: str) -> None:
    async with ScriptedGateway(saying(b"[]")) as gateway, make_client(gateway.url) as client:
        outcome = await client.get_motions(method=method)
    assert isinstance(outcome, Response)
    assert outcome.body == b"[]"
    assert gateway.heard.startswith(method.encode() + b" /ai-model-api-polling/motions HTTP/1.1\r\n")


# --- the key ---


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_an_answer_and_takes_neither_key_nor_money_along(status: str) -> None:
    async with ScriptedGateway(saying(b'{"job_set_id":"stolen"}')) as thief:
        moved = saying(b"", status=status, headers=b"Location: " + thief.url.encode() + b"/x\r\n")
        async with ScriptedGateway(moved) as gateway, make_client(gateway.url) as client:
            paid = await client.submit(submit_call(BODY, idempotency_key="k"))
            free = await client.poll("a1")
        assert thief.callers == []
    assert classify_submit(paid, now_unix=NOW).kind is SubmitOutcomeKind.UNKNOWN
    assert classify_poll(free, now_unix=NOW).kind is PollOutcomeKind.UNCLEAR


async def test_the_twin_that_follows_redirects_gives_the_key_and_the_order_away() -> None:
    async with ScriptedGateway(saying(b'{"job_set_id":"stolen"}')) as thief:
        moved = saying(b"", status="307 Temporary", headers=b"Location: " + thief.url.encode() + b"/x\r\n")
        async with ScriptedGateway(moved) as gateway, aiohttp.ClientSession() as twin:
            await twin.post(gateway.url, data=BODY, headers={"Ocp-Apim-Subscription-Key": KEY})
        assert KEY.encode() in thief.heard
        assert BODY in thief.heard


@pytest.mark.parametrize("key", ["", "a\nb", "a\r\nX: y", "a b", "a\tb", "schlüssel", "k\x00", "鍵", "k" * 5000])
def test_a_key_that_cannot_be_a_header_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(UsageError) as refusal:
        GatewayClient(kind=Pixazo(), base_url="https://gateway.pixazo.ai", key=key)
    assert len(key) < 2 or key not in repr(refusal.value)


async def test_a_gateway_that_quotes_the_key_back_does_not_get_it_into_our_records() -> None:
    body = json.dumps({"error": f"invalid key {KEY}", "again": KEY}).replace("9/a", "9\\/a").encode()
    script = saying(body + KEY.encode(), status="401 Unauthorized", headers=f"X-Request-Id: {KEY}\r\n".encode())
    async with ScriptedGateway(script) as gateway, make_client(gateway.url) as client:
        for outcome in (await client.submit(submit_call(BODY, idempotency_key="k")), await client.poll("a1")):
            assert isinstance(outcome, Response)
            assert KEY not in repr(outcome)
            assert KEY.replace("/", "\\/").encode() not in outcome.body
            assert b"***" in outcome.body
        assert KEY not in repr(client)


async def test_an_answer_in_words_the_library_cannot_read_is_a_record_without_the_key() -> None:
    async def script(caller: Caller) -> None:
        await caller.read_request()
        await caller.say(f"HTTP/1.1 2x0 {KEY}\r\n\r\n".encode())

    async with ScriptedGateway(script) as gateway, make_client(gateway.url) as client:
        outcome = await client.submit(submit_call(BODY, idempotency_key="k"))
    assert isinstance(outcome, NoResponse)
    assert outcome.sent
    assert KEY not in repr(outcome)


async def test_a_cookie_is_never_given_back() -> None:
    script = saying(b"{}", headers=b"Set-Cookie: session=abc; Path=/\r\n")
    async with ScriptedGateway(script) as gateway, make_client(gateway.url) as client:
        await client.poll("a1")
        await client.poll("a1")
    assert b"cookie" not in gateway.heard.lower()


async def test_a_proxy_of_the_environment_is_not_used_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    async with ScriptedGateway(saying(b"{}")) as gateway, make_client(gateway.url) as client:
        assert isinstance(await client.poll("a1"), Response)


# --- addresses ---


@pytest.mark.parametrize(
    "url", ["https://gateway.pixazo.ai", "http://127.0.0.1:8080", "http://localhost", "http://[::1]:1"]
)
def test_https_and_loopback_are_addresses_for_a_key(url: str) -> None:
    assert GatewayClient(kind=Pixazo(), base_url=url, key=KEY)


@pytest.mark.parametrize(
    "url",
    [
        "http://gateway.pixazo.ai",
        "http://127.0.0.1.evil.example",
        "http://10.0.0.1",
        "ftp://gateway.pixazo.ai",
        "gateway.pixazo.ai",
        "",
        "sandbox",
        "https://",
        "https://user:pw@gateway.pixazo.ai",
        "https://gateway.pixazo.ai?x=1",
        "https://gateway.pixazo.ai#x",
    ],
)
def test_other_addresses_are_refused_before_a_key_can_travel(url: str) -> None:
    with pytest.raises(UsageError):
        GatewayClient(kind=Pixazo(), base_url=url, key=KEY)


@pytest.mark.parametrize("path", ["", "x", "https://evil.example/x", "/a b", "/a\r\nb", "/a\\b", "/a#b"])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(UsageError):
        Pixazo(submit_path=path)


@pytest.mark.parametrize("value", ["", "a\nb", "ü"])
async def test_a_header_that_cannot_be_sent_is_refused_before_anything_is(value: str) -> None:
    async with ScriptedGateway(saying(b"{}")) as gateway, make_client(gateway.url) as client:
        with pytest.raises(UsageError):
            await client.submit(submit_call(BODY, idempotency_key=value))
        assert gateway.callers == []


async def test_a_client_that_is_not_open_sends_nothing() -> None:
    client = GatewayClient(kind=Pixazo(), base_url="http://127.0.0.1:9", key=KEY)
    with pytest.raises(RuntimeError, match="async with"):
        await client.submit(submit_call(BODY, idempotency_key="k"))


# --- what is kept of an answer ---


async def test_only_headers_that_a_judge_may_read_are_kept() -> None:
    script = saying(b"{}", headers=b"RETRY-AFTER: 7\r\nX-RateLimit-Remaining: 3\r\nX-Secret: s\r\nSet-Cookie: a=b\r\n")
    async with ScriptedGateway(script) as gateway, make_client(gateway.url) as client:
        outcome = await client.poll("a1")
    assert isinstance(outcome, Response)
    assert outcome.headers == {"retry-after": "7", "x-ratelimit-remaining": "3"}


# --- answers out of step ---


async def one_too_many(caller: Caller) -> None:
    """Answers every request, and once more a moment later on the connection that lies idle."""
    while True:
        await caller.read_request()
        mine = b'{"job_set_id": "job-%d-%d"}' % (caller.number, caller.whole_requests)
        await caller.say(http(mine))
        await caller.say(http(b'{"job_set_id": "stray"}'))


async def test_a_stray_answer_never_becomes_the_next_submits_job() -> None:
    async with ScriptedGateway(one_too_many) as gateway, make_client(gateway.url) as client:
        verdicts = [
            classify_submit(await client.submit(submit_call(BODY, idempotency_key=str(n))), now_unix=NOW)
            for n in range(20)
        ]
    assert [verdict.ticket.job_set_id if verdict.ticket else None for verdict in verdicts] == [
        f"job-{n}-1" for n in range(20)
    ]


async def stray_later(caller: Caller) -> None:
    """The stray answer comes just before the next request on a kept-alive connection is read."""
    await caller.read_request()
    await caller.say(http(b'{"job_set_id": "job-1"}'))
    await caller.read_head()
    await caller.say(http(b'{"job_set_id": "job-1", "status": "completed", "video_url": "https://x/1.mp4"}'))
    await caller.stall()


async def test_the_keep_alive_twin_takes_anothers_answer_for_its_own() -> None:
    async with ScriptedGateway(stray_later) as gateway, aiohttp.ClientSession() as twin:
        ids = []
        for _ in range(2):
            async with twin.post(gateway.url, data=BODY) as response:
                ids.append((await response.json(content_type=None))["job_set_id"])
    assert ids == ["job-1", "job-1"]


async def test_a_poll_that_hears_about_another_job_learns_nothing() -> None:
    async with ScriptedGateway(stray_later) as gateway, make_client(gateway.url) as client:
        await client.poll("job-1")
        verdict = classify_poll(await client.poll("job-2"), now_unix=NOW, job_set_id="job-2")
    assert (verdict.kind, verdict.report) == (PollOutcomeKind.UNCLEAR, None)
