"""The vendor's side: submits under keys, status, cancel, uploads, estimates, usage, callbacks, and its own books.

A request is in the books before its answer leaves. Where keys are honoured, the same call under the same key gives the
request it gave first, and is charged once; another call under that key is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from collections.abc import Callable

from aiohttp import web

from pipeline.sandbox.fault_injection import FaultInjector, as_json
from pipeline.sandbox.faults import BEFORE, FaultPlan, SubmitFault
from pipeline.sandbox.gateway_base import SandboxGatewayBase
from pipeline.sandbox.higgsfield import responses, rules
from pipeline.sandbox.higgsfield.books import VendorBooks, VendorRequest
from pipeline.sandbox.higgsfield.callbacks import VendorCallbacks
from pipeline.sandbox.higgsfield.free_calls import FreeCallHandlers
from pipeline.sandbox.higgsfield.request_calls import RequestHandlers
from pipeline.sandbox.higgsfield.responses import refused
from pipeline.sandbox.higgsfield.rules import CREDIT_MICROUSD, CREDITS, MODELS, InvalidCallError
from pipeline.sandbox.higgsfield.states import RequestStates
from pipeline.sandbox.higgsfield.uploads import UploadHandlers
from pipeline.sandbox.image_store import ImageStore
from pipeline.sandbox.jobs import (
    Job,
    clip_key,
    generation_time,
    marked_fate,
)
from pipeline.sandbox.rendering.renderer import ClipRenderer
from pipeline.sandbox.responses import SandboxResponse
from pipeline.sandbox.settings import SandboxSettings


class VendorHandlers(SandboxGatewayBase):
    """The paid side of the vendor's API, on the event loop's thread."""

    def __init__(
        self,
        settings: SandboxSettings,
        *,
        books: VendorBooks,
        images: ImageStore,
        renderer: ClipRenderer,
        now: Callable[[], float],
        address: Callable[[], str],
        clip_made: Callable[[], None],
    ) -> None:
        super().__init__(settings, renderer=renderer, now=now, address=address, clip_made=clip_made)
        self._books = books
        self._states = RequestStates(books, renderer, cap=settings.max_concurrent, now=now, address=address)
        self._callbacks = VendorCallbacks(self._states, self._webhooks, now)
        self._free = FreeCallHandlers(books, self._states, refusal_of=self._refusal_of)
        self._uploads = UploadHandlers(books, images, address=address, refusal_of=self._refusal_of)
        self._faults = FaultInjector(
            self._storm,
            settings.generation_s,
            inline=settings.inline,
            refused=refused,
            too_many=lambda wait_s, _number: responses.queue_full(None, wait_s, "yes"),
        )
        self._requests = RequestHandlers(
            books,
            self._states,
            self._faults,
            file_of=lambda one: renderer.file(one.job),
            address=address,
            now=now,
            refusal_of=self._refusal_of,
            throttle=lambda: self._throttle() if settings.shared_limit else None,
        )
        self.mismatches = 0
        """calls that were refused because their key belongs to another one"""
        self.honours_keys = settings.honours_keys
        """whether a repeated key gives the first request; a vendor may switch that off at any time"""
        self.checks_body_first = False
        """whether a body is checked before its key: the vendor's order is not stated"""

    def add_routes(self, app: web.Application) -> None:
        """Everything that is served."""
        self._requests.add_routes(app)
        self._uploads.add_routes(app)
        self._free.add_routes(app)
        app.router.add_post("/_sandbox/keys/{word:on|off}", self.switch_keys)
        app.router.add_post("/{model:.+}", self.submit)

    def script(self, plan: FaultPlan) -> None:
        """Let go wrong what `plan` says, from now on."""
        self._storm = plan
        self._faults.script(plan)

    def resume(self) -> None:
        """Go on with every request of the books."""
        for request in self._books.requests.values():
            self._begin(request)

    # --- submit

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """POST on a model's path."""
        refusal = self._refusal_of(request) or self._throttle()
        if refusal is not None:
            return as_json(refusal)
        model, key = request.match_info["model"], request.headers.get("Idempotency-Key")
        webhook, expiry = request.query.get("hf_webhook"), request.headers.get("Hf-Expires-After")
        try:
            rules.check_key(key)
            body = rules.read_body(await request.read())
            mark = rules.fingerprint(model, body, webhook, expiry)
            if self.checks_body_first:
                rules.check_body(body)
            # Before the body is judged: by default a repeated key is answered from the books, whatever else the call
            # has.
            if (known := self._known(key)) is not None:
                return await self._repeated(request, known, str(key), mark)
            if model not in MODELS:
                return as_json(refused(404, "Model not found"))
            rules.check_body(body)
            rules.check_webhook(webhook)
            rules.check_expiry(expiry)
        except InvalidCallError as error:
            return as_json(refused(422, error.detail))
        visit, fault = self._books.count("submit", mark), SubmitFault.NONE
        if self._storm is not None:
            fault = self._storm.submit_fault(mark, visit)
        # MONEY: faults of this kind come instead of acceptance, so nothing is in the books yet.
        if fault in BEFORE:
            return await self._faults.instead_of_accepting(fault, request, ("submit", mark, visit))
        if self._states.is_full():
            cap = self._settings.max_concurrent
            return as_json(responses.queue_full(cap, 1.0, self._settings.retry_after))
        new = VendorRequest(job=self._new_job(model, body, mark, webhook), model=model, key=key)
        self._books.accept(new, keep_key=self.honours_keys)
        self._begin(new)
        return await self._answered(request, new, visit)

    def _known(self, key: str | None) -> tuple[str, str] | None:
        return self._books.keys.get(key) if key is not None and self.honours_keys else None

    async def _repeated(self, request: web.Request, known: tuple[str, str], key: str, mark: str) -> web.StreamResponse:
        """The same key again: the original request, or a refusal where anything differs."""
        if known[0] != mark:
            self.mismatches += 1
            return as_json(refused(422, responses.MISMATCH))
        # A repeated call meets the storm as well: its answer can be lost as often as the first one's.
        visit = self._books.count("submit", mark)
        if self._storm is not None and self._storm.in_flight(key, visit):
            return as_json(refused(409, responses.IN_FLIGHT))
        return await self._answered(request, self._books.requests[known[1]], visit)

    async def _answered(self, request: web.Request, found: VendorRequest, visit: int) -> web.StreamResponse:
        mark = found.job.fingerprint
        fault = SubmitFault.NONE if self._storm is None else self._storm.submit_fault(mark, visit)
        if fault in BEFORE:
            return await self._faults.instead_of_accepting(fault, request, ("submit", mark, visit))
        first, other = self._requests.said(found), self._requests.said(self._requests.other(found))
        return await self._faults.after_accepting(fault, request, ("submit", mark, visit), first, other)

    def _new_job(self, model: str, body: dict[str, object], mark: str, webhook: str | None) -> Job:
        visit, settings = self._books.next_visit(mark), self._settings
        drawn = rules.drawn_from(model, self._with_own_pictures(body))
        name = str(drawn["model"])
        job = Job(
            job_set_id=_uuid(self._books.token, mark, visit),
            job_id=_uuid(self._books.token, mark, visit, "job"),
            fingerprint=mark,
            visit=visit,
            body=drawn,
            price_microusd=int(CREDITS[name] * CREDIT_MICROUSD),
            accepted_at=self._now(),
            generation_s=generation_time(name, mark, visit, settings),
            fate=marked_fate(str(body["prompt"])),
            clip_key=clip_key(drawn, mark, settings),
            callback_url=webhook,
        )
        return job if self._storm is None else self._storm.struck(job)

    def _with_own_pictures(self, body: dict[str, object]) -> dict[str, object]:
        """Addresses of pictures that were uploaded here, as the renderer finds them."""
        return {
            name: self._uploads.own_picture(value) if name.endswith("image_url") else value
            for name, value in body.items()
        }

    def _begin(self, request: VendorRequest) -> None:
        self._renderer.begin(request.job, self._address(), done=self._clip_made)
        self._callbacks.begin(request, self._storm)

    # --- for tests and benchmarks

    async def switch_keys(self, request: web.Request) -> web.StreamResponse:
        """Honour idempotency keys from now on, or ignore them."""
        self.honours_keys = request.match_info["word"] == "on"
        return web.Response(status=204)

    # --- key, pace

    def _refusal_of(self, request: web.Request) -> SandboxResponse | None:
        given, known = request.headers.get("Authorization", ""), self._settings.key
        if given.startswith("Key ") and (known is None or hmac.compare_digest(given.encode(), f"Key {known}".encode())):
            return None
        return refused(401, "Invalid credentials")

    def _too_many(self, wait_s: float) -> SandboxResponse:
        return responses.queue_full(None, wait_s, self._settings.retry_after)


def _uuid(*parts: object) -> str:
    digest = hashlib.sha256(json.dumps([str(part) for part in parts]).encode("ascii")).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))
