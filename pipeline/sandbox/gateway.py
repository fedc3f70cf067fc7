"""The request handlers: submits, polls, result files, the job list, callbacks.

The decisions are in request_validation, rate_limiters, jobs, job_views, responses, response_variants and faults; this
module calls them, writes the job store, and lets the fault injector send the response. No submit is answered before it
is stored.
"""

from __future__ import annotations

import hmac
import json
import sqlite3
from collections.abc import Callable

from aiohttp import web

from pipeline.sandbox import responses
from pipeline.sandbox.fault_injection import FaultInjector, as_json
from pipeline.sandbox.faults import BEFORE, PollFault, ResultFault, SubmitFault
from pipeline.sandbox.gateway_base import SandboxGatewayBase
from pipeline.sandbox.image_store import ImageStore
from pipeline.sandbox.job_callbacks import JobCallbacks
from pipeline.sandbox.job_store import JobStore
from pipeline.sandbox.job_views import Form, JobViews
from pipeline.sandbox.jobs import TERMINAL, Job, SandboxJobState, new_job
from pipeline.sandbox.rendering.motion import presets
from pipeline.sandbox.rendering.renderer import ClipRenderer
from pipeline.sandbox.request_validation import RefusalError, check_submit, fingerprint, read_body
from pipeline.sandbox.responses import JobView, SandboxResponse
from pipeline.sandbox.settings import SandboxSettings

SUBMIT_PATHS = ("/ai-model-api/v1/generateImageToVideoRequest", "/ai-model-api/v1/image-to-video")
POLL_PATH = "/ai-model-api-polling/getGenerationResults"
QUEUE_POLL_PATH = "/v2/requests/status/{job_set_id}"
MOTIONS_PATH = "/ai-model-api-polling/motions"
"""Inferred from the document's hint at an operation `motions` of the api `ai-model-api-polling`."""
BOOKS_PATH = "/_sandbox/books"
KEY_HEADER = "Ocp-Apim-Subscription-Key"
CALLBACK_HEADER = "X-Webhook-URL"
"""Where the unified queue takes the callback's address from. Source: official."""


class SandboxHandlers(SandboxGatewayBase):
    """The paid side of the gateway, on the event loop's thread."""

    def __init__(
        self,
        settings: SandboxSettings,
        *,
        books: JobStore,
        images: ImageStore,
        renderer: ClipRenderer,
        now: Callable[[], float],
        address: Callable[[], str],
        clip_made: Callable[[], None],
    ) -> None:
        super().__init__(settings, renderer=renderer, now=now, address=address, clip_made=clip_made)
        self._books = books
        self._images = images
        storm = self._storm
        self._views = JobViews(settings, books=books, renderer=renderer, storm=storm, now=now, address=address)
        self._callbacks = JobCallbacks(
            settings, books=books, views=self._views, sender=self._webhooks, storm=storm, now=now
        )
        self._faults = FaultInjector(storm, settings.generation_s, inline=settings.inline)
        self._throttled = 0
        self._open: set[str] = set()

    def add_routes(self, app: web.Application) -> None:
        """Everything that is served of the API, and the books."""
        for path in SUBMIT_PATHS:
            app.router.add_post(path, self.submit)
        app.router.add_post(POLL_PATH, self.poll)
        app.router.add_get(QUEUE_POLL_PATH, self.queue_poll)
        app.router.add_get(MOTIONS_PATH, self.motions)
        app.router.add_post(MOTIONS_PATH, self.motions)
        app.router.add_get("/results/{name}", self.result)
        app.router.add_get(BOOKS_PATH, self.show_books)

    def resume(self) -> None:
        """Go on with every job of the books."""
        for job in self._books.jobs.values():
            self._begin(job)

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """POST on either submit path."""
        refusal = self._refusal_of(request) or self._throttle()
        if refusal is not None:
            return as_json(refusal)
        if request.content_type != "application/json":
            return as_json(responses.refused(400, "Content-Type must be application/json"))
        raw = await request.read()
        try:
            check_submit(read_body(raw), known_images=self._images.known())
        except RefusalError as error:
            return as_json(responses.refused(400, str(error)))
        return await self._submit_valid(request, raw, fingerprint(raw))

    async def _submit_valid(self, request: web.Request, raw: bytes, mark: str) -> web.StreamResponse:
        fault, visit = SubmitFault.NONE, 0
        if self._storm is not None:
            visit = self._books.count("submit", mark)
            fault = self._storm.submit_fault(mark, visit)
        if fault in BEFORE:
            return await self._faults.instead_of_accepting(fault, request, ("submit", mark, visit))
        # Behind the faults: a storm is drawn for every valid submit, whether there is room or not.
        crowded = self._crowded()
        if crowded is not None:
            return as_json(crowded)
        job = self._new_job(raw, mark, request.headers.get(CALLBACK_HEADER))
        try:
            # MONEY: charged first, answered second. A crash in between leaves a job that was paid for and never
            # answered, which is the case that a client has to get right.
            await self._books.accept(job)
        except sqlite3.Error:
            self._open.discard(job.job_set_id)
            return as_json(responses.refused(500, responses.SERVER_ERROR))
        self._begin(job)
        await self._callbacks.call_hastily(job)
        first, other = self._views.accepted(job), self._views.accepted(self._views.other(job))
        return await self._faults.after_accepting(fault, request, ("submit", mark, visit), first, other)

    def _new_job(self, raw: bytes, mark: str, callback_url: str | None) -> Job:
        job = new_job(
            json.loads(raw),
            fingerprint=mark,
            visit=self._books.next_visit(mark),
            books_token=self._books.token,
            now=self._now(),
            settings=self._settings,
            callback_url=callback_url if self._settings.dialect == "queue" else None,
        )
        # Now and not when it is in the books: those that come during the write must count this one.
        self._open.add(job.job_set_id)
        return job if self._storm is None else self._storm.struck(job)

    def _begin(self, job: Job) -> None:
        self._open.add(job.job_set_id)
        self._renderer.begin(job, self._address(), done=self._clip_made)
        self._callbacks.begin(job)

    async def poll(self, request: web.Request) -> web.StreamResponse:
        """POST with a `job_set_id`: the document's way to ask for results."""
        refusal = self._poll_refusal_of(request)
        if refusal is not None:
            return as_json(refusal)
        try:
            job_set_id = read_body(await request.read()).get("job_set_id")
        except RefusalError as error:
            return as_json(responses.refused(400, str(error)))
        if not isinstance(job_set_id, str):
            return as_json(responses.refused(400, "job_set_id is required"))
        return await self._tell(request, job_set_id, responses.job_set)

    async def queue_poll(self, request: web.Request) -> web.StreamResponse:
        """GET of a polling address: the unified queue's way."""
        refusal = self._poll_refusal_of(request)
        if refusal is not None:
            return as_json(refusal)
        return await self._tell(request, request.match_info["job_set_id"], responses.queue_status)

    async def _tell(self, request: web.Request, job_set_id: str, form: Form) -> web.StreamResponse:
        job = self._books.jobs.get(job_set_id)
        if job is None:
            return as_json(responses.refused(404, "Job set not found"))
        fault, visit = PollFault.NONE, 0
        if self._storm is not None:
            visit = self._books.count("poll", job_set_id)
            fault = self._storm.poll_fault(job_set_id, visit)
        first = self._views.shaped(self._views.ailing(self._views.view(job)), form)
        other = self._views.shaped(self._views.view(self._views.other(job)), form)
        return await self._faults.poll(fault, request, ("poll", job_set_id, visit), first, other)

    async def motions(self, request: web.Request) -> web.StreamResponse:
        """The motion list, to GET and POST."""
        refusal = self._refusal_of(request)
        return as_json(refusal or SandboxResponse(status=200, value=responses.motions(presets().values())))

    async def result(self, request: web.Request) -> web.StreamResponse:
        """GET of a clip; needs no key, as a file store would not."""
        job = self._books.jobs.get(request.match_info["name"].removesuffix(".mp4").removesuffix(".min"))
        if job is None or self._views.state(job) is not SandboxJobState.COMPLETED:
            return as_json(responses.refused(404, "File not found"))
        if self._views.is_expired(job, request.query.get("u", "")):
            # Stores answer an expired link either way, and a client must take both for the same.
            return web.Response(status=403 if job.visit % 2 else 404, text="<Error><Code>AccessDenied</Code></Error>")
        fault, visit = ResultFault.NONE, 0
        if self._storm is not None:
            visit = self._books.count("result", job.job_set_id)
            fault = self._storm.result_fault(job.job_set_id, visit)
        return await self._faults.result(fault, request, ("result", job.job_set_id, visit), self._renderer.file(job))

    async def show_books(self, _request: web.Request) -> web.StreamResponse:
        """What was charged; needs no key."""
        outcomes = [JobView(job=job, state=self._views.state(job)) for job in self._books.jobs.values()]
        return as_json(SandboxResponse(status=200, value=responses.books(outcomes, self._books.charged_microusd)))

    def _refusal_of(self, request: web.Request) -> SandboxResponse | None:
        given = request.headers.get(KEY_HEADER)
        known = self._settings.key
        if given and (known is None or hmac.compare_digest(given.encode(), known.encode())):
            return None
        return responses.no_key(given)

    def _poll_refusal_of(self, request: web.Request) -> SandboxResponse | None:
        return self._refusal_of(request) or (self._throttle() if self._settings.shared_limit else None)

    def _too_many(self, wait_s: float) -> SandboxResponse:
        self._throttled += 1
        return responses.too_many(wait_s, number=self._throttled - 1, mode=self._settings.retry_after)

    def _crowded(self) -> SandboxResponse | None:
        cap = self._settings.max_concurrent
        if cap is None:
            return None
        self._open = {key for key in self._open if self._views.state(self._books.jobs[key]) not in TERMINAL}
        if len(self._open) < cap:
            return None
        if self._settings.concurrent_style == "429":
            return self._too_many(1.0)
        return responses.refused(400, f"Maximum number of concurrent requests ({cap}) has been reached")
