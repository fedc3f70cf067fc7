"""The Pixazo kind's requests, to the byte: every call of a small run, as the gateway's socket receives it.

A deliberate change: run with UPDATE_GOLDEN=1, look at the difference, commit the new file.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support.factories import make_request
from tests.support.virtual_time import carried, in_virtual_time, ledger_for

pytestmark = pytest.mark.filterwarnings("ignore::async_solipsism.SolipsismWarning")

GOLDEN = Path(__file__).resolve().parents[2] / "fixtures" / "golden_requests"
PORT = 7003
BASE_URL = f"http://127.0.0.1:{PORT}"
SEED = "5" * 64
"""The seed of the callback tokens, which is random elsewhere."""

ROWS = (
    {"seed": 1, "prompt": "A serene lake with gentle ripples"},
    {"seed": 2, "prompt": "Straße im Nebel, 霧 \U0001f32b", "model": "dop-turbo", "enhance_prompt": True},
    {"seed": 1_000_000, "strength_hundredths": 0, "check_nsfw": False, "model": "dop-preview"},
    {"seed": 4, "strength_hundredths": 100, "check_nsfw": True, "input_images_end": ("https://example.com/end.jpg",)},
    {"seed": 5, "input_images_end": ("https://example.com/a.jpg", "https://example.com/b.jpg?x=1&y=%20")},
)


class RecordingGateway:
    """Records each request whole and answers in one of the gateway's two dialects."""

    def __init__(self, *, queue: bool) -> None:
        self.queue = queue
        self.requests: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                sizes = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
                body = await reader.readexactly(int(sizes[0].split(b":")[1])) if sizes else b""
                self.requests.append(head + body)
                answer = json.dumps(self._answer(head, body)).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _answer(self, head: bytes, body: bytes) -> dict[str, object]:
        path = head.split(b" ")[1].decode()
        asked = json.loads(body) if body else {}
        if "seed" in asked and self.queue:
            job = f"job-{asked['seed']}"
            polling_url = f"{BASE_URL}/v2/requests/status/{job}"
            return {"request_id": job, "status": "QUEUED", "polling_url": polling_url}
        if "seed" in asked:
            return {"job_set_id": f"job-{asked['seed']}", "type": "image2video"}
        job = asked.get("job_set_id") or path.rpartition("/")[2]
        return {"job_set_id": job, "status": "completed", "video": {"url": f"https://cdn.example.com/{job}.mp4"}}

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", PORT)
        try:
            yield
        finally:
            server.close()


async def requests_of_a_run(folder: Path, *, queue: bool, webhook: bool) -> bytes:
    gateway = RecordingGateway(queue=queue)
    options = {"download.enabled": "false", "pace.submit_concurrency": "1"}
    if webhook:
        options |= {"webhook.listen": "127.0.0.1:7004", "webhook.public_url": "https://hooks.example.com/in"}
        (folder / "outputs").mkdir()
        (folder / "outputs" / "callback-seed").write_text(SEED + "\n", encoding="ascii")
    async with gateway.listening():
        with ledger_for(folder, BASE_URL, **options) as workspace:
            prices = workspace.settings.prices_microusd
            rows = [
                make_request(gateway=workspace.gateway, price_microusd=prices[str(row.get("model", "dop-lite"))], **row)
                for row in ROWS
            ]
            await carried(workspace, rows, webhook=webhook)
    return b"\n==== request ====\n".join(sorted(gateway.requests)) + b"\n"


@pytest.mark.parametrize(
    ("name", "queue", "webhook"),
    [
        ("job-set", False, False),
        ("queue", True, False),
        ("job-set-webhook", False, True),
        ("queue-webhook", True, True),
    ],
)
def test_the_requests_are_the_same_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, queue: bool, webhook: bool
) -> None:
    story = partial(requests_of_a_run, tmp_path, queue=queue, webhook=webhook)
    sent = in_virtual_time(monkeypatch, story)
    assert sent.count(b"==== request ====") + 1 == 2 * len(ROWS)
    file = GOLDEN / f"{name}.http"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_bytes(sent)
    assert sent == file.read_bytes()
