"""Another gateway that speaks the vendor's API, written from its facts alone and sharing no code with the sandbox.

It takes the other choice wherever the facts leave one: which check comes first, how errors and refusals look, what a
replay says, whether a job waits at all, how uploads are signed, where results are.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import random
import socket
import struct
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientSession, web

ACCOUNT_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KEY = "other-id-0123456789abcdef:other-secret-0123456789abcdef"
USD = {"lite": 0.125, "turbo": 0.40625, "standard": 0.5625}
PREFIX = "higgsfield-ai/dop/"


@dataclass(kw_only=True)
class Choices:
    """What the facts leave open, and what goes wrong.

    Attributes:
        body_first: bodies are validated before keys are checked.
        plain_errors: validation errors are a text instead of a list.
        waits_s, runs_s: how long a job is queued, and how long it runs then.
        lost, lost_before: share of submits whose answer is lost after, or before, they are taken.
        busy_s: how long a repeated key is answered 409.
        replay_then: a replay says what the first answer said, not how the job is now.
        keys_end_after: keys are ignored once so many requests were taken; None: never.
        cap: jobs that run or wait at once; more are refused as `account_queue_full`.
        nested_limit: that refusal is under `detail`.
        usd_factor: the account's prices beside the list's.
        estimate: "plain", "typed", "numbers" or "description".
        upload_headers: whether an upload address names its headers.
        link_s: how long the address of a result works.
        other_host: results are on another port, behind a redirect.
        trouble: share of free calls that fail.
        unlisted: the list of models lacks those of this file, which are sold all the same.
        old_callbacks: the body of a callback is that of the status call, and it is not signed.
    """

    body_first: bool = False
    plain_errors: bool = False
    waits_s: float = 0.0
    runs_s: float = 0.3
    lost: float = 0.0
    lost_before: float = 0.0
    busy_s: float = 0.0
    replay_then: bool = False
    keys_end_after: int | None = None
    cap: int | None = None
    nested_limit: bool = False
    usd_factor: float = 1.0
    estimate: str = "typed"
    upload_headers: bool = True
    link_s: float = 3600.0
    other_host: bool = False
    trouble: float = 0.0
    unlisted: bool = False
    old_callbacks: bool = False
    seed: str = "1"


@dataclass(kw_only=True)
class Job:
    """One request that was taken."""

    id: str
    model: str
    body: dict[str, Any]
    key: str | None
    taken_at: float
    waits_s: float
    runs_s: float
    first_answer: dict[str, Any] = field(default_factory=dict)
    canceled: bool = False
    webhook: str | None = None

    def state(self, now: float) -> str:
        if self.canceled:
            return "canceled"
        if now < self.taken_at + self.waits_s:
            return "queued"
        if now < self.taken_at + self.waits_s + self.runs_s:
            return "in_progress"
        prompt = str(self.body.get("prompt"))
        return "failed" if "FAIL" in prompt else "nsfw" if "NSFW" in prompt else "completed"


class OtherVendor:
    """One account at this gateway."""

    def __init__(self, choices: Choices, *, now: Callable[[], float] = time.time) -> None:
        self.choices, self._now = choices, now
        self.jobs: dict[str, Job] = {}
        self.keys: dict[str, tuple[str, str]] = {}
        self.bytes_of: dict[str, set[bytes]] = {}
        self.after_mismatch: list[str] = []
        self.mismatched: Counter[str] = Counter()
        self.files: dict[str, tuple[str, bytes | None]] = {}
        self.counts: Counter[str] = Counter()
        self.base_url = ""
        self._draw = random.Random(choices.seed)
        self._callbacks: set[asyncio.Future[None]] = set()

    # --- money

    @property
    def environment(self) -> dict[str, str]:
        """What points the command at this gateway."""
        identifier, _, secret = KEY.partition(":")
        return {
            "DOP_GATEWAY__KIND": "higgsfield",
            "DOP_GATEWAY__BASE_URL": self.base_url,
            "HF_API_KEY_ID": identifier,
            "HF_API_KEY_SECRET": secret,
        }

    def charged(self) -> Counter[str]:
        """Charges by what was bought: model and body."""
        now = self._now()
        free = ("failed", "nsfw", "canceled")
        return Counter(self._mark(job) for job in self.jobs.values() if job.state(now) not in free)

    @staticmethod
    def _mark(job: Job) -> str:
        return f"{job.model} {json.dumps(job.body, sort_keys=True)}"

    def paid_twice(self) -> list[str]:
        return [mark for mark, times in self.charged().items() if times > 1]

    # --- the application

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._front])
        app.router.add_post("/files/generate-upload-url", self._new_upload)
        app.router.add_put("/store/{name}", self._put)
        app.router.add_get("/cdn/{name}", self._file)
        app.router.add_get("/clips/{name}", self._clip)
        app.router.add_get("/models", self._models)
        app.router.add_get("/models/usage", self._usage)
        app.router.add_get("/requests/{id}/status", self._status)
        app.router.add_post("/requests/{id}/cancel", self._cancel)
        app.router.add_post("/estimate/{model:.+}", self._estimate)
        app.router.add_post("/{model:.+}", self._submit)
        return app

    @web.middleware
    async def _front(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.counts[f"{request.method} {request.path.split('/')[1]}"] += 1
        open_to_all = request.path.startswith(("/store", "/cdn", "/clips"))
        if "aiohttp" in request.headers.get("User-Agent", "").lower() and not open_to_all:
            page = "<html><title>Access denied | error code: 1010</title></html>"
            return web.Response(status=403, text=page, content_type="text/html")
        if open_to_all:
            if "Authorization" in request.headers:
                self.counts["key leaked"] += 1
            answered: web.StreamResponse = await handler(request)
            return answered
        if request.headers.get("Authorization") != f"Key {KEY}":
            return web.json_response({"detail": "Invalid credentials"}, status=401)
        is_free = request.method == "GET" or request.path.startswith(("/estimate", "/files", "/requests"))
        if is_free and self._draw.random() < self.choices.trouble:
            kind = self._draw.randrange(4)
            if kind == 0:
                return web.json_response({"detail": "Too many requests"}, status=429, headers={"Retry-After": "1"})
            if kind == 1:
                return web.Response(status=502, text="<html><title>502</title></html>", content_type="text/html")
            if kind == 2:
                return web.json_response({"detail": "Service unavailable"}, status=503)
            return self._reset(request)
        response: web.StreamResponse = await handler(request)
        if not response.prepared:
            response.headers["X-Correlation-ID"] = str(uuid.uuid4())
        return response

    def _reset(self, request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            sock = request.transport.get_extra_info("socket")
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.transport.abort()
        return web.Response(status=500)

    # --- submit

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        raw, model = await request.read(), request.match_info["model"]
        key = request.headers.get("Idempotency-Key")
        if key is not None:
            if key in self.mismatched:
                self.after_mismatch.append(key)
            self.bytes_of.setdefault(key, set()).add(raw)
        if self._draw.random() < self.choices.lost_before:
            return self._lose(request)
        body = json.loads(raw)
        parts = [model, body, request.query_string, request.headers.get("Hf-Expires-After")]
        mark = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        if not model.startswith(PREFIX) or model.removeprefix(PREFIX) not in USD:
            return web.json_response({"detail": "Not Found"}, status=404)
        wrong = self._wrong(body)
        if self.choices.body_first and wrong:
            return self._invalid(*wrong)
        honours = self.choices.keys_end_after is None or len(self.jobs) < self.choices.keys_end_after
        if key is not None and honours and key in self.keys:
            return self._again(request, key, mark)
        if wrong:
            return self._invalid(*wrong)
        now = self._now()
        busy = sum(job.state(now) in ("queued", "in_progress") for job in self.jobs.values())
        if self.choices.cap is not None and busy >= self.choices.cap:
            full = {"code": "account_queue_full", "limit": self.choices.cap}
            value = {"detail": full} if self.choices.nested_limit else full
            return web.json_response(value, status=429, headers={"Retry-After": "1"})
        job = self._taken(model, body, key, request.query.get("hf_webhook"))
        if key is not None and honours:
            self.keys[key] = (mark, job.id)
        if self._draw.random() < self.choices.lost:
            return self._lose(request)
        return web.json_response(job.first_answer)

    def _again(self, request: web.Request, key: str, mark: str) -> web.StreamResponse:
        """A key that is known."""
        known, job_id = self.keys[key]
        if known != mark:
            self.mismatched[key] += 1
            words = f"idempotency conflict: {key[:8]} was used for another payload"
            return web.json_response({"detail": words}, status=422)
        job = self.jobs[job_id]
        if self._now() < job.taken_at + self.choices.busy_s:
            return web.json_response({"detail": "conflict"}, status=409)
        if self._draw.random() < self.choices.lost:
            return self._lose(request)
        said = job.first_answer if self.choices.replay_then else self._view(job)
        return web.json_response(said, headers={"Idempotent-Replayed": "true"})

    def _taken(self, model: str, body: dict[str, Any], key: str | None, webhook: str | None) -> Job:
        """One more request."""
        job = Job(
            id=str(uuid.UUID(int=self._draw.getrandbits(128), version=4)),
            model=model,
            body=body,
            key=key,
            taken_at=self._now(),
            waits_s=self.choices.waits_s,
            runs_s=self.choices.runs_s,
            webhook=webhook,
        )
        self.jobs[job.id] = job
        job.first_answer = self._view(job)
        if webhook is not None:
            task = asyncio.ensure_future(self._call_back(job, webhook))
            self._callbacks.add(task)
            task.add_done_callback(self._callbacks.discard)
        return job

    async def _call_back(self, job: Job, url: str) -> None:
        """Two deliveries of the end, the first one signed for the account."""
        await asyncio.sleep(job.waits_s + job.runs_s)
        view = self._view(job)
        payload = {"video": view["video"]} if view["video"] else None
        newer = {"request_id": job.id, "status": view["status"], "error": view["error"], "payload": payload}
        body = json.dumps(view if self.choices.old_callbacks else newer).encode()
        headers = {"Content-Type": "application/json"}
        if not self.choices.old_callbacks:
            signed = f"msg_{job.id}.{int(time.time())}.".encode() + body
            proof = base64.b64encode(hmac.new(base64.b64decode(ACCOUNT_SECRET[6:]), signed, "sha256").digest()).decode()
            headers |= {"webhook-id": f"msg_{job.id}", "webhook-timestamp": str(int(time.time()))}
            headers["webhook-signature"] = f"v1,{proof}"
        async with ClientSession() as session:
            for _ in range(2):
                with suppress(ClientError, OSError):
                    async with session.post(url, data=body, headers=headers) as answer:
                        self.counts[f"callback {answer.status}"] += 1

    def _lose(self, request: web.Request) -> web.StreamResponse:
        kind = self._draw.randrange(4)
        if kind == 0:
            return web.json_response({"detail": "Internal server error"}, status=500)
        if kind == 1:
            return web.Response(status=524, text="<title>A timeout occurred</title>", content_type="text/html")
        if kind == 2:
            return web.Response(status=200, text='{"status": "queued", "reque', content_type="application/json")
        return self._reset(request)

    @staticmethod
    def _wrong(body: dict[str, Any]) -> tuple[str, str] | None:
        known = {"prompt", "image_url", "end_image_url", "motions", "seed", "enhance_prompt"}
        for name in ("prompt", "image_url"):
            if not isinstance(body.get(name), str) or not body[name]:
                return name, "Input should be a valid string"
        if extra := set(body) - known:
            return extra.pop(), "Extra inputs are not permitted"
        seed = body.get("seed")
        if seed is not None and not 1 <= seed <= 1_000_000:
            return "seed", "Input should be less than or equal to 1000000"
        if urlsplit(body["image_url"]).scheme not in ("http", "https"):
            return "image_url", "URL scheme should be 'http' or 'https'"
        return None

    def _invalid(self, name: str, words: str) -> web.Response:
        listed = [{"type": "value_error", "loc": ["body", name], "msg": words, "input": None}]
        return web.json_response({"detail": f"{name}: {words}" if self.choices.plain_errors else listed}, status=422)

    # --- a job

    def _view(self, job: Job) -> dict[str, Any]:
        now = self._now()
        state = job.state(now)
        value: dict[str, Any] = {
            "request_id": job.id,
            "status": state,
            "model": job.model,
            "queue_position": 0 if state == "queued" else None,
            "input": {"image_url": job.body.get("image_url"), "prompt": job.body.get("prompt")},
            "images": None,
            "video": None,
            "error": None,
        }
        if state == "completed":
            until = now + self.choices.link_s
            url = f"{self.base_url}/clips/{job.id}?until={until}"
            value["video"] = {"url": url, "content_type": "video/mp4", "duration": 5}
            value["expires_at"] = datetime.fromtimestamp(now + 7 * 86400, UTC).isoformat()
        if state == "failed":
            value["error"] = {"code": "generation_failed", "message": "The model could not render this"}
        return value

    async def _status(self, request: web.Request) -> web.StreamResponse:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return web.json_response({"detail": "Request not found"}, status=404)
        return web.json_response(self._view(job))

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return web.json_response({"detail": "Request not found"}, status=404)
        if job.state(self._now()) != "queued":
            return web.json_response({"detail": "Only queued requests can be canceled"}, status=400)
        job.canceled = True
        return web.Response(status=202)

    async def _clip(self, request: web.Request) -> web.StreamResponse:
        if "until" in request.query and self._now() > float(request.query["until"]):
            return web.Response(status=403, text="<Error><Code>ExpiredToken</Code></Error>")
        if self.choices.other_host and "moved" not in request.query:
            return web.Response(status=302, headers={"Location": f"{request.path_qs}&moved=1"})
        name = request.match_info["name"].encode()
        clip = _box(b"ftyp", b"isom\0\0\2\0isomiso2") + _box(b"moov", b"m" * 40) + _box(b"mdat", name * 40)
        return web.Response(body=clip, content_type="binary/octet-stream")

    # --- free calls

    async def _estimate(self, request: web.Request) -> web.StreamResponse:
        model = request.match_info["model"].removeprefix(PREFIX)
        if model not in USD:
            return web.json_response({"detail": "Not Found"}, status=404)
        wrong = self._wrong(json.loads(await request.read()))
        if wrong:
            return self._invalid(*wrong)
        usd = USD[model] * self.choices.usd_factor
        discount = {"percentage": "45.00", "credits": "1.000", "usd": "0.063"}
        shapes: dict[str, dict[str, object]] = {
            "plain": {"credits": f"{usd * 16:.3f}", "usd": f"{usd:.3f}"},
            "typed": {"type": "estimate", "credits": f"{usd * 16:.3f}", "usd": f"{usd:.3f}", "discount": discount},
            "numbers": {"credits": usd * 16, "usd": usd},
            "description": {"type": "description", "pricing_description": "2 credits per second"},
        }
        return web.json_response(shapes[self.choices.estimate])

    async def _models(self, request: web.Request) -> web.StreamResponse:
        names = [] if self.choices.unlisted else list(USD)
        items = [{"slug": PREFIX + name, "title": name, "operation_type": ["x"], "input_schema": {}} for name in names]
        return web.json_response({"items": [*items, {"slug": "kling-video/v2.1/pro", "title": None}], "total": 85})

    async def _usage(self, request: web.Request) -> web.StreamResponse:
        now = self._now()
        done = Counter(job.model for job in self.jobs.values() if job.state(now) == "completed")
        day = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT00:00:00+00:00")
        results = [
            {"model": model, "unit": "generation", "quantity": number, "unit_price": None, "cost": None}
            for model, number in done.items()
        ]
        series = [{"bucket": day, "results": results}, {"bucket": "2026-01-01T00:00:00Z", "results": []}]
        return web.json_response({"time_series": series, "has_more": False})

    async def _new_upload(self, request: web.Request) -> web.StreamResponse:
        wanted = json.loads(await request.read())["content_type"]
        name = uuid.uuid4().hex
        self.files[name] = (wanted, None)
        value: dict[str, object] = {
            "public_url": f"{self.base_url}/cdn/{name}",
            "upload_url": f"{self.base_url}/store/{name}?X-Goog-Signature={name}",
            "content_type": wanted,
        }
        if self.choices.upload_headers:
            value["upload_headers"] = {"content-type": wanted, "x-goog-content-length-range": "0,104857600"}
        return web.json_response(value)

    async def _put(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        wanted, _ = self.files[name]
        signed = not self.choices.upload_headers or "x-goog-content-length-range" in request.headers
        if request.headers.get("Content-Type") != wanted or not signed:
            return web.Response(status=403, text="<Error><Code>SignatureDoesNotMatch</Code></Error>")
        self.files[name] = (wanted, await request.read())
        return web.Response(status=201)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        wanted, content = self.files.get(request.match_info["name"], ("", None))
        return web.Response(status=404) if content is None else web.Response(body=content, content_type=wanted)


def _box(kind: bytes, payload: bytes) -> bytes:
    return (8 + len(payload)).to_bytes(4, "big") + kind + payload


@contextmanager
def other_vendor(**choices: Any) -> Iterator[OtherVendor]:
    """Serves one in a thread of its own until the end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    vendor = OtherVendor(Choices(**choices))
    runner = web.AppRunner(vendor.application(), access_log=None, shutdown_timeout=1.0)

    async def begin() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        vendor.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"

    asyncio.run_coroutine_threadsafe(begin(), loop).result()
    try:
        yield vendor
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
