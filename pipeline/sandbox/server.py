"""The gateway's routes on 127.0.0.1: submit, poll, motions, result files, images, books.

Judgement lives in rules, limiter, jobs and answers; this module reads a request, asks them, and answers. Nothing is
sent back for a submit before the books have it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType

from aiohttp import web

from pipeline.sandbox import answers
from pipeline.sandbox.answers import Answer, Outcome
from pipeline.sandbox.books import Books
from pipeline.sandbox.images import PHOTO_ROUTE, UPLOAD_LIMIT_BYTES, UPLOAD_ROUTE, Gallery
from pipeline.sandbox.jobs import TERMINAL, Job, JobState, new_job, state_of
from pipeline.sandbox.limiter import Limiter, make_limiter
from pipeline.sandbox.motion import presets
from pipeline.sandbox.rules import RefusalError, check_submit, fingerprint, read_body
from pipeline.sandbox.settings import SandboxError, SandboxSettings, parse_rate
from pipeline.sandbox.studio import Studio

HOST = "127.0.0.1"
KEY_HEADER = "Ocp-Apim-Subscription-Key"
SUBMIT_PATHS = ("/ai-model-api/v1/generateImageToVideoRequest", "/ai-model-api/v1/image-to-video")
POLL_PATH = "/ai-model-api-polling/getGenerationResults"
QUEUE_POLL_PATH = "/v2/requests/status/{job_set_id}"
MOTIONS_PATH = "/ai-model-api-polling/motions"
"""Inferred from the document's hint at an operation `motions` of the api `ai-model-api-polling`."""
BOOKS_PATH = "/_sandbox/books"
BODY_LIMIT_BYTES = 1024 * 1024

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Sandbox:
    """A local gateway inside the caller's event loop.

    `async with Sandbox(settings) as base_url:` or `start()` and `close()`. The key it accepts is `settings.key`.
    """

    def __init__(self, settings: SandboxSettings, *, now: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.base_url = ""
        self._now = now
        self._limiter: Limiter | None = None
        self.set_rate(settings.rate)
        self._throttled = 0
        self._open: set[str] = set()
        self._made = asyncio.Event()

    async def __aenter__(self) -> str:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def set_rate(self, rate: str | None) -> None:
        """Change the limit of a running sandbox; the new limiter starts empty-handed."""
        chosen = self.settings.limiter
        self._limiter = None if rate is None else make_limiter(chosen, parse_rate(rate), self.settings.burst)

    async def clip_made(self) -> None:
        """Wait until the next clip is made, or cannot be made."""
        self._made.clear()
        await self._made.wait()

    async def start(self) -> str:
        """Open the books, go on with unfinished jobs, listen. Returns the base URL, without a slash at its end.

        Raises:
            SandboxError: the folder is in use by another sandbox, or the port told is taken.
        """
        folder = self.settings.data_dir
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._books = Books(folder / "books.db", inline=self.settings.inline)
        self._gallery = Gallery(folder / "images")
        self._studio = Studio(folder / "clips", self._gallery, self.settings)
        self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            port = await self._listen(folder / "port")
        except OSError as error:
            await self.close()
            raise SandboxError(f"port {self.settings.port} of {HOST} cannot be had: {error.strerror}") from error
        self.base_url = f"http://{HOST}:{port}"
        for job in self._books.jobs.values():
            self._begin(job)
        return self.base_url

    async def close(self) -> None:
        """Stop listening, finish the clips being drawn, close the books. Unfinished jobs go on at the next start."""
        await self._runner.cleanup()
        await asyncio.get_running_loop().run_in_executor(None, self._studio.close)
        self._books.close()

    async def _listen(self, memory: Path) -> int:
        wanted = self.settings.port
        last = _read_port(memory) if wanted == 0 else wanted
        site = web.TCPSite(self._runner, HOST, last)
        try:
            await site.start()
        except OSError:
            if wanted:
                raise
            await web.TCPSite(self._runner, HOST, 0).start()
        port = int(self._runner.addresses[-1][1])
        _write_port(memory, port)
        return port

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=BODY_LIMIT_BYTES, middlewares=[_document_errors])
        for path in SUBMIT_PATHS:
            app.router.add_post(path, self._submit)
        app.router.add_post(POLL_PATH, self._poll)
        app.router.add_get(QUEUE_POLL_PATH, self._queue_poll)
        app.router.add_get(MOTIONS_PATH, self._motions)
        app.router.add_post(MOTIONS_PATH, self._motions)
        app.router.add_get("/results/{name}", self._result)
        app.router.add_get(PHOTO_ROUTE + "{name}", self._photo)
        app.router.add_put(UPLOAD_ROUTE + "{digest}", self._store)
        app.router.add_get(UPLOAD_ROUTE + "{digest}", self._uploaded)
        app.router.add_get(BOOKS_PATH, self._show_books)
        return app

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        refusal = self._door(request) or self._throttle()
        if refusal is not None:
            return _json(refusal)
        if request.content_type != "application/json":
            return _json(answers.refused(400, "Content-Type must be application/json"))
        raw = await request.read()
        try:
            check_submit(read_body(raw), known_images=self._gallery.known())
        except RefusalError as error:
            return _json(answers.refused(400, str(error)))
        return _json(self._crowded() or await self._accept(raw, request.headers.get("X-Webhook-URL")))

    async def _accept(self, raw: bytes, callback_url: str | None) -> Answer:
        print_ = fingerprint(raw)
        job = new_job(
            json.loads(raw),
            fingerprint=print_,
            visit=self._books.next_visit(print_),
            books_token=self._books.token,
            now=self._now(),
            settings=self.settings,
            callback_url=callback_url if self.settings.dialect == "queue" else None,
        )
        try:
            await self._books.accept(job)
        except sqlite3.Error:
            return answers.refused(500, answers.SERVER_ERROR)
        self._begin(job)
        return answers.accepted(job, self.settings.dialect, self.base_url)

    def _begin(self, job: Job) -> None:
        self._open.add(job.job_set_id)
        loop = asyncio.get_running_loop()
        self._studio.begin(job, self.base_url, done=lambda: _call_soon(loop, self._made.set))

    async def _poll(self, request: web.Request) -> web.StreamResponse:
        refusal = self._door(request) or (self._throttle() if self.settings.shared_limit else None)
        if refusal is not None:
            return _json(refusal)
        try:
            job_set_id = read_body(await request.read()).get("job_set_id")
        except RefusalError as error:
            return _json(answers.refused(400, str(error)))
        if not isinstance(job_set_id, str):
            return _json(answers.refused(400, "job_set_id is required"))
        job = self._books.jobs.get(job_set_id)
        if job is None:
            return _json(answers.refused(404, "Job set not found"))
        return _json(Answer(status=200, value=answers.job_set(self._outcome(job))))

    async def _queue_poll(self, request: web.Request) -> web.StreamResponse:
        refusal = self._door(request) or (self._throttle() if self.settings.shared_limit else None)
        if refusal is not None:
            return _json(refusal)
        job = self._books.jobs.get(request.match_info["job_set_id"])
        if job is None:
            return _json(answers.refused(404, "Request not found"))
        return _json(Answer(status=200, value=answers.queue_status(self._outcome(job))))

    async def _motions(self, request: web.Request) -> web.StreamResponse:
        refusal = self._door(request)
        return _json(refusal or Answer(status=200, value=answers.motions(presets().values())))

    async def _result(self, request: web.Request) -> web.StreamResponse:
        job = self._books.jobs.get(request.match_info["name"].removesuffix(".mp4").removesuffix(".min"))
        if job is None or self._state(job) is not JobState.COMPLETED:
            return _json(answers.refused(404, "File not found"))
        return web.FileResponse(self._studio.file(job), headers={"Content-Type": "video/mp4"})

    async def _photo(self, request: web.Request) -> web.StreamResponse:
        photo = self._gallery.photo(request.match_info["name"])
        return _json(answers.refused(404, "Photograph not found")) if photo is None else web.FileResponse(photo)

    async def _store(self, request: web.Request) -> web.StreamResponse:
        digest = request.match_info["digest"]
        if _SHA256.fullmatch(digest) is None:
            return _json(answers.refused(400, "the address must end with the content's sha256 in lower-case hex"))
        content = bytearray()
        async for block in request.content.iter_any():
            content += block
            if len(content) > UPLOAD_LIMIT_BYTES:
                return _json(answers.refused(413, f"an image may have at most {UPLOAD_LIMIT_BYTES} bytes"))
        if not self._gallery.store(digest, bytes(content)):
            return _json(answers.refused(400, "the content's sha256 is not the one in the address"))
        return _json(Answer(status=201, value={"image": f"sandbox:sha256-{digest}", "size_bytes": len(content)}))

    async def _uploaded(self, request: web.Request) -> web.StreamResponse:
        file = self._gallery.upload(request.match_info["digest"])
        return _json(answers.refused(404, "Image not found")) if file is None else web.FileResponse(file)

    async def _show_books(self, _request: web.Request) -> web.StreamResponse:
        outcomes = [Outcome(job=job, state=self._state(job)) for job in self._books.jobs.values()]
        return _json(Answer(status=200, value=answers.books(outcomes, self._books.charged_microusd)))

    def _door(self, request: web.Request) -> Answer | None:
        given = request.headers.get(KEY_HEADER)
        known = self.settings.key
        if given and (known is None or hmac.compare_digest(given.encode(), known.encode())):
            return None
        return answers.no_key(given)

    def _throttle(self) -> Answer | None:
        wait_s = self._limiter.admit(self._now()) if self._limiter is not None else 0.0
        return self._too_many(wait_s) if wait_s > 0 else None

    def _too_many(self, wait_s: float) -> Answer:
        self._throttled += 1
        return answers.too_many(wait_s, number=self._throttled - 1, mode=self.settings.retry_after)

    def _crowded(self) -> Answer | None:
        cap = self.settings.max_concurrent
        if cap is None:
            return None
        self._open = {key for key in self._open if self._state(self._books.jobs[key]) not in TERMINAL}
        if len(self._open) < cap:
            return None
        if self.settings.concurrent_style == "429":
            return self._too_many(1.0)
        return answers.refused(400, f"Maximum number of concurrent requests ({cap}) has been reached")

    def _state(self, job: Job) -> JobState:
        studio = self._studio
        return state_of(job, self._now(), clip_ready=studio.ready(job), spoiled=studio.spoiled(job))

    def _outcome(self, job: Job) -> Outcome:
        state = self._state(job)
        if state is not JobState.COMPLETED:
            reason = "the input image cannot be read" if self._studio.spoiled(job) else None
            return Outcome(job=job, state=state, reason=reason)
        url = f"{self.base_url}/results/{job.job_set_id}"
        return Outcome(job=job, state=state, url=f"{url}.mp4", preview_url=f"{url}.min.mp4")


@web.middleware
async def _document_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Errors of the server library in the document's form."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return _json(answers.refused(404, answers.NOT_FOUND))
    except web.HTTPException as error:
        return _json(answers.refused(error.status, error.reason))


def _call_soon(loop: asyncio.AbstractEventLoop, tell: Callable[[], None]) -> None:
    """From a render thread; the loop may be gone when the last clip is done."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(tell)


def _json(answer: Answer) -> web.Response:
    return web.Response(
        status=answer.status,
        body=json.dumps(answer.value).encode("ascii"),
        headers=answer.headers,
        content_type="application/json",
    )


def _write_port(memory: Path, port: int) -> None:
    memory.write_text(f"{port}\n", encoding="ascii")


def _read_port(memory: Path) -> int:
    try:
        port = int(memory.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
    return port if 1024 <= port <= 65535 else 0
