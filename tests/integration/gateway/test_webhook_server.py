"""The callback receiver over real HTTP: whom it believes, how much it reads, how long it waits."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import aiohttp
import pytest
from standardwebhooks.webhooks import Webhook

from pipeline.gateway.webhook_tokens import CallbackDelivery, WebhookTokens, callback_url
from pipeline.runner.webhook_server import BODY_CAP_BYTES, UNVERIFIED, WebhookServer
from pipeline.sandbox.webhooks import Delivery as SandboxDelivery
from pipeline.sandbox.webhooks import headers_of

ONE = "0123456789abcdef0123456789abcdef"
KEYS = WebhookTokens(b"s" * 32, "sandbox")
TOKEN, SECRET = KEYS.token(ONE, 1), KEYS.secret(ONE, 1)
ACCOUNT_SECRET = "whsec_" + base64.b64encode(b"a secret of the account").decode()
HEAD = b"POST /dop/%b HTTP/1.1\r\nHost: x\r\nContent-Length: %%d\r\n\r\n" % TOKEN.encode()
BODY = json.dumps({"job_set_id": "job-1", "status": "completed"}).encode()


@dataclass
class Post:
    """The gateway's side of one receiver."""

    url: str
    port: int
    session: aiohttp.ClientSession
    got: list[CallbackDelivery] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    async def __call__(self, *, token: str = TOKEN, body: bytes = BODY, headers: dict[str, str] | None = None) -> int:
        async with self.session.post(callback_url(self.url, token), data=body, headers=headers or {}) as answer:
            return answer.status


@asynccontextmanager
async def receiving(
    deadline_s: float = 10.0,
    *,
    signing_secret: str | None = None,
    taken: Callable[[CallbackDelivery], None] | None = None,
) -> AsyncIterator[Post]:
    got: list[CallbackDelivery] = []
    warnings: list[str] = []
    receiver = WebhookServer(
        KEYS, taken or got.append, warn=warnings.append, signing_secret=signing_secret, deadline_s=deadline_s
    )
    port = await receiver.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession() as session:
            yield Post(f"http://127.0.0.1:{port}", port, session, got, warnings)
    finally:
        await receiver.close()


def signed(body: bytes = BODY, *, secret: str = SECRET, at: float | None = None, before: str = "") -> dict[str, str]:
    """The headers of Standard Webhooks; made when they are sent, for they are good for five minutes."""
    when = datetime.fromtimestamp(time.time() if at is None else at, UTC)
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(when.timestamp())),
        "webhook-signature": before + Webhook(secret).sign("msg_1", when, body.decode()),
    }


TAKEN = [CallbackDelivery(request_id=ONE, attempt=1, job_set_ids=("job-1",))]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="the token alone (queue dialect)"),
        pytest.param({"X-Webhook-Secret-Key": SECRET}, id="the secret in clear"),
        pytest.param(signed(), id="a signature"),
        pytest.param(
            signed() | {"webhook-signature": f"v2,x {signed()['webhook-signature']}"}, id="several signatures"
        ),
        pytest.param({"X-Webhook-Secret-Key": SECRET} | signed(at=1.0), id="the secret beside an old signature"),
    ],
)
async def test_what_proves_itself_is_taken(headers: dict[str, str]) -> None:
    async with receiving() as post:
        assert await post(headers=headers) == 204
        assert post.got == TAKEN


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(lambda: {"X-Webhook-Secret-Key": "guessed"}, id="a guessed secret"),
        pytest.param(lambda: {"X-Webhook-Secret-Key": ""}, id="an empty secret"),
        pytest.param(lambda: {"X-Webhook-Secret-Key": KEYS.secret(ONE, 2)}, id="another attempt's secret"),
        pytest.param(lambda: {"X-Webhook-Secret-Key": "guessed"} | signed(), id="a wrong secret, a good signature"),
    ],
)
async def test_a_wrong_proof_is_refused(headers: Callable[[], dict[str, str]]) -> None:
    async with receiving() as post:
        assert await post(headers=headers()) == 401
        assert post.got == []


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(lambda: signed(secret=KEYS.secret(ONE, 2)), id="signed with another secret"),
        pytest.param(lambda: signed(BODY + b" "), id="a signature of another body"),
        pytest.param(lambda: signed(at=time.time() - 3600), id="replayed after an hour"),
        pytest.param(lambda: signed() | {"webhook-signature": "v1"}, id="a signature that is none"),
        pytest.param(lambda: signed() | {"webhook-signature": "v1,é"}, id="a signature that is no base64"),
        pytest.param(lambda: {"webhook-signature": "v1,AAAA"}, id="a signature without a time"),
    ],
)
async def test_a_signature_that_cannot_be_verified_is_a_warning_and_no_refusal(
    headers: Callable[[], dict[str, str]],
) -> None:
    async with receiving() as post:
        assert [await post(headers=headers()) for _ in range(2)] == [204, 204]
        assert post.got == 2 * TAKEN
        assert post.warnings == [UNVERIFIED], "once a process"


async def test_a_signature_of_the_account_is_verified_with_its_secret() -> None:
    async with receiving(signing_secret=ACCOUNT_SECRET) as post:
        assert await post(headers=signed(secret=ACCOUNT_SECRET)) == 204
        assert post.warnings == []
        assert await post(headers=signed(secret=KEYS.secret(ONE, 2))) == 204
        assert post.warnings == [UNVERIFIED]


async def test_what_cannot_be_kept_is_answered_503_and_nothing_of_it_is_delivered() -> None:
    def full(delivery: CallbackDelivery) -> None:
        raise OSError(28, "no space left on device", "/secret/place")

    async with receiving(taken=full) as post:
        assert await post() == 503
        assert post.warnings == ["a callback could not be kept (OSError): answered 503"]


async def test_the_sandboxes_own_signature_is_understood() -> None:
    delivery = SandboxDelivery(url="", secret=SECRET, message_id="msg_2", value=None)
    headers = headers_of(delivery, BODY, int(time.time()))
    del headers["X-Webhook-Secret-Key"]
    async with receiving() as post:
        assert await post(headers=headers) == 204


@pytest.mark.parametrize(
    "token", [KEYS.token(ONE, 1)[:-1] + "x", "0", WebhookTokens(b"x" * 32, "sandbox").token(ONE, 1)]
)
async def test_a_made_up_token_is_nobodys(token: str) -> None:
    async with receiving() as post:
        assert await post(token=token, headers={"X-Webhook-Secret-Key": SECRET}) == 404
        assert post.got == []


async def test_a_proxys_prefix_may_stay_and_other_paths_and_methods_are_refused() -> None:
    async with receiving() as post:
        async with post.session.post(f"{post.url}/base/of/proxy/dop/{TOKEN}", data=BODY) as answer:
            assert answer.status == 204
        async with post.session.get(f"{post.url}/dop/{TOKEN}") as answer:
            assert answer.status == 405
        async with post.session.post(f"{post.url}/", data=BODY) as answer:
            assert answer.status == 404
        assert post.got == TAKEN


async def test_a_body_that_is_no_json_is_a_hint_without_ids() -> None:
    async with receiving() as post:
        assert await post(body=b"\xff\x00") == 204
        assert post.got == [CallbackDelivery(request_id=ONE, attempt=1)]


@pytest.mark.parametrize("extra", [{}, {"Transfer-Encoding": "chunked"}])
async def test_a_body_above_the_cap_is_refused(extra: dict[str, str]) -> None:
    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(BODY_CAP_BYTES // 1024 + 1):
            yield b" " * 1024

    async with receiving() as post:
        body = blocks() if extra else b" " * (BODY_CAP_BYTES + 1)
        async with post.session.post(callback_url(post.url, TOKEN), data=body) as answer:
            assert answer.status == 413
        assert await post(body=b" " * BODY_CAP_BYTES) == 204
        assert len(post.got) == 1


@pytest.mark.parametrize(
    "beginning",
    [
        pytest.param(b"", id="nothing at all"),
        pytest.param(b"POST /dop/", id="half a head"),
        pytest.param(
            f"POST /dop/{TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode(), id="half a body"
        ),
    ],
)
async def test_a_connection_that_dawdles_is_cut(beginning: bytes) -> None:
    async with receiving(deadline_s=0.2) as post:
        reader, writer = await asyncio.open_connection("127.0.0.1", post.port)
        writer.write(beginning)
        async with asyncio.timeout(10):
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
        assert post.got == []


async def test_each_connection_is_for_one_delivery() -> None:
    async with receiving() as post:
        reader, writer = await asyncio.open_connection("127.0.0.1", post.port)
        writer.write(2 * (HEAD % 2 + b"{}"))
        async with asyncio.timeout(10):
            said = await reader.read()
        writer.close()
        assert said.count(b"HTTP/1.1 ") == 1
        assert b"aiohttp" not in said
