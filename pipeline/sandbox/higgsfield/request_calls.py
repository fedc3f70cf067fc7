"""Calls about one request of the vendor's sandbox: its status, its cancellation, its clip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from pipeline.sandbox.fault_injection import FaultInjector, as_json
from pipeline.sandbox.faults import PollFault, ResultFault
from pipeline.sandbox.higgsfield import responses
from pipeline.sandbox.higgsfield.books import VendorBooks, VendorRequest
from pipeline.sandbox.higgsfield.responses import refused
from pipeline.sandbox.higgsfield.states import RequestStates
from pipeline.sandbox.jobs import SandboxJobState
from pipeline.sandbox.responses import SandboxResponse


class RequestHandlers:
    """What is asked about requests.

    Args:
        file_of: the clip of a request.
        refusal_of: what is wrong with a call's key; `throttle`: the refusal of a status call that comes too soon.
    """

    def __init__(
        self,
        books: VendorBooks,
        states: RequestStates,
        faults: FaultInjector,
        *,
        file_of: Callable[[VendorRequest], Path],
        address: Callable[[], str],
        now: Callable[[], float],
        refusal_of: Callable[[web.Request], SandboxResponse | None],
        throttle: Callable[[], SandboxResponse | None],
    ) -> None:
        self._books, self._states, self._faults, self._file_of = books, states, faults, file_of
        self._address, self._now, self._refusal_of, self._throttle = address, now, refusal_of, throttle

    def add_routes(self, app: web.Application) -> None:
        """Everything that is served."""
        app.router.add_get("/requests/{id}/status", self.status)
        app.router.add_post("/requests/{id}/cancel", self.cancel)
        app.router.add_get("/results/{name}", self.result)

    def said(self, request: VendorRequest) -> SandboxResponse:
        """What a submit and a status call say of a request."""
        value = responses.status(self._states.view(request), self._address(), self._states.ends_at(request))
        return SandboxResponse(status=200, value=value)

    def other(self, request: VendorRequest) -> VendorRequest:
        """Another request where there is one: whose answer a desynchronised connection would give."""
        others = (one for key, one in self._books.requests.items() if key != request.request_id)
        return next(others, request)

    async def status(self, request: web.Request) -> web.StreamResponse:
        """GET of a request's state."""
        found = self._refusal_of(request) or self._throttle()
        if found is not None:
            return as_json(found)
        known = self._books.requests.get(request.match_info["id"])
        if known is None:
            return as_json(refused(404, "Request not found"))
        visit, fault = 0, PollFault.NONE
        if self._faults.storm is not None:
            visit = self._books.count("poll", known.request_id)
            fault = self._faults.storm.poll_fault(known.request_id, visit)
        place = ("poll", known.request_id, visit)
        return await self._faults.poll(fault, request, place, self.said(known), self.said(self.other(known)))

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """POST: 202 and an empty body while the request waits, else 400."""
        refusal = self._refusal_of(request)
        if refusal is not None:
            return as_json(refusal)
        known = self._books.requests.get(request.match_info["id"])
        if known is None:
            return as_json(refused(404, "Request not found"))
        self._states.advance()
        if self._states.state(known) is SandboxJobState.QUEUED:
            known.canceled_at = self._now()
            self._books.save(known)
        if known.canceled_at is None:
            return as_json(refused(400, "Request has already started"))
        return web.Response(status=202)

    async def result(self, request: web.Request) -> web.StreamResponse:
        """GET of a clip; needs no key."""
        known = self._books.requests.get(request.match_info["name"].removesuffix(".mp4"))
        if known is None or self._states.view(known).url is None:
            return as_json(refused(404, "File not found"))
        visit, fault = 0, ResultFault.NONE
        if self._faults.storm is not None:
            visit = self._books.count("result", known.request_id)
            fault = self._faults.storm.result_fault(known.request_id, visit)
        place = ("result", known.request_id, visit)
        return await self._faults.result(fault, request, place, self._file_of(known))
