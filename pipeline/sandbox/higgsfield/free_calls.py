"""The free calls of the vendor's sandbox: estimates, what is sold, what was used; and the books for tests."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from pipeline.sandbox.fault_injection import as_json
from pipeline.sandbox.higgsfield import responses, rules
from pipeline.sandbox.higgsfield.books import VendorBooks
from pipeline.sandbox.higgsfield.responses import refused
from pipeline.sandbox.higgsfield.rules import MODELS, InvalidCallError
from pipeline.sandbox.higgsfield.states import RequestStates
from pipeline.sandbox.jobs import SandboxJobState
from pipeline.sandbox.responses import SandboxResponse

NOT_CHARGED = frozenset({SandboxJobState.FAILED, SandboxJobState.NSFW, SandboxJobState.CANCELED})


class FreeCallHandlers:
    """What costs nothing. `refusal_of` says what is wrong with a call's key."""

    def __init__(
        self,
        books: VendorBooks,
        states: RequestStates,
        *,
        refusal_of: Callable[[web.Request], SandboxResponse | None],
    ) -> None:
        self._books, self._states, self._refusal_of = books, states, refusal_of

    def add_routes(self, app: web.Application) -> None:
        """Everything that is served."""
        app.router.add_get("/models", self.list_models)
        app.router.add_get("/models/usage", self.usage)
        app.router.add_get("/_sandbox/books", self.show_books)
        app.router.add_post("/estimate/{model:.+}", self.estimate)

    async def estimate(self, request: web.Request) -> web.StreamResponse:
        """POST of a submit's body: what it would cost."""
        refusal = self._refusal_of(request)
        if refusal is not None:
            return as_json(refusal)
        model = request.match_info["model"]
        if model not in MODELS:
            return as_json(refused(404, "Model not found"))
        try:
            rules.check_body(rules.read_body(await request.read()))
        except InvalidCallError as error:
            return as_json(refused(422, error.detail))
        return as_json(SandboxResponse(status=200, value=responses.estimate(model)))

    async def list_models(self, request: web.Request) -> web.StreamResponse:
        """GET of what is sold."""
        return as_json(self._refusal_of(request) or SandboxResponse(status=200, value=responses.models()))

    async def usage(self, request: web.Request) -> web.StreamResponse:
        """GET of what was completed, by day and model."""
        refusal = self._refusal_of(request)
        if refusal is not None:
            return as_json(refusal)
        done = (one for one in self._books.requests.values() if self._states.state(one) is SandboxJobState.COMPLETED)
        lines = [(self._states.ends_at(one), one.model) for one in done]
        start, end = request.query.get("start", ""), request.query.get("end", "9999")
        return as_json(SandboxResponse(status=200, value=responses.usage(lines, start, end)))

    async def show_books(self, _request: web.Request) -> web.StreamResponse:
        """Everything that was accepted; needs no key."""
        views = [(self._states.view(one), one.model, one.key) for one in self._books.requests.values()]
        charged = sum(view.job.price_microusd for view, _, _ in views if view.state not in NOT_CHARGED)
        return as_json(SandboxResponse(status=200, value=responses.books(views, charged)))
