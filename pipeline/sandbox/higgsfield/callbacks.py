"""The callbacks of the vendor's sandbox: one for each request that asks for it and ends, signed for the account."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pipeline.sandbox.faults import CallbackFault, FaultPlan
from pipeline.sandbox.higgsfield import responses
from pipeline.sandbox.higgsfield.books import VendorRequest
from pipeline.sandbox.higgsfield.states import RequestStates
from pipeline.sandbox.jobs import TERMINAL, SandboxJobState
from pipeline.sandbox.webhooks import Delivery, WebhookSender

ACCOUNT_SECRET = "whsec_c2FuZGJveC1hY2NvdW50LXNlY3JldA=="  # noqa: S105 - opens nothing but the sandbox
LOOK_S = (0.02, 0.25)
"""Shortest and longest time between two looks at a request whose callback waits."""


class VendorCallbacks:
    """Waits for the ends of requests and sends what is due. `now` gives Unix seconds."""

    def __init__(self, states: RequestStates, sender: WebhookSender, now: Callable[[], float]) -> None:
        self._states, self._sender, self._now = states, sender, now

    def begin(self, request: VendorRequest, storm: FaultPlan | None) -> None:
        """Call back about a request when it has ended, if it asks for that and has not ended yet."""
        url = request.job.callback_url
        if url is not None and self._states.state(request) not in TERMINAL:
            self._sender.begin(self._call_back(request, url, storm))

    async def _call_back(self, request: VendorRequest, url: str, storm: FaultPlan | None) -> None:
        fault = CallbackFault.NONE if storm is None else storm.callback_fault(request.request_id)
        shortest, longest = LOOK_S
        while (state := self._states.view(request).state) not in TERMINAL:  # noqa: ASYNC110 - its clock is the caller's
            await asyncio.sleep(min(max(self._states.ends_at(request) - self._now(), shortest), longest))
        if state is SandboxJobState.CANCELED:
            return
        value = responses.callback(self._states.view(request))
        message_id = f"msg_{request.request_id}"
        delivery = Delivery(url=url, secret=ACCOUNT_SECRET, message_id=message_id, value=value, in_clear=False)
        await self._sender.deliver_through(fault, delivery)
