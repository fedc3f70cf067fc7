"""The callbacks of the sandbox: one for each job that asks for it and ends, and those that a storm adds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pipeline.sandbox import responses
from pipeline.sandbox.faults import CallbackFault, FaultPlan
from pipeline.sandbox.image_store import is_loopback
from pipeline.sandbox.job_store import JobStore
from pipeline.sandbox.job_views import JobViews
from pipeline.sandbox.jobs import TERMINAL, Job
from pipeline.sandbox.settings import SandboxSettings
from pipeline.sandbox.webhooks import Delivery, WebhookSender

LOOK_S = (0.02, 0.25)
"""Shortest and longest time in seconds between two looks at a job whose callback waits."""


class JobCallbacks:
    """Waits for the ends of jobs and sends what is due. `now` gives Unix seconds."""

    def __init__(
        self,
        settings: SandboxSettings,
        *,
        books: JobStore,
        views: JobViews,
        sender: WebhookSender,
        storm: FaultPlan | None,
        now: Callable[[], float],
    ) -> None:
        self._settings, self._books, self._views = settings, books, views
        self._sender, self._storm, self._now = sender, storm, now

    def begin(self, job: Job) -> None:
        """Call back about a job when it has ended, if it asks for that and was not called back about before."""
        url = job.callback_url
        if url is not None and is_loopback(url) and not self._books.counted("callback", job.job_set_id):
            self._sender.begin(self._call_back(job, url))

    async def call_hastily(self, job: Job) -> None:
        """The storm's callback that comes before the answer to the submit."""
        url = job.callback_url
        if self._callback_fault(job) is CallbackFault.HASTY and url is not None and is_loopback(url):
            await self._sender.send(self._delivery(job, url, "hasty"))

    def _callback_fault(self, job: Job) -> CallbackFault:
        return CallbackFault.NONE if self._storm is None else self._storm.callback_fault(job.job_set_id)

    async def _call_back(self, job: Job, url: str) -> None:
        fault = self._callback_fault(job)
        if fault is CallbackFault.EARLY:
            await self._sender.send(self._delivery(job, url, "early"))
        shortest, longest = LOOK_S
        while self._views.state(job) not in TERMINAL:
            left_s = job.accepted_at + job.generation_s - self._now()
            await asyncio.sleep(min(max(left_s, shortest), longest))
        if await self._sender.deliver_through(fault, self._delivery(job, url, "ended")):
            self._books.count("callback", job.job_set_id)

    def _delivery(self, job: Job, url: str, occasion: str) -> Delivery:
        queue = self._settings.dialect == "queue"
        answer = self._views.shaped(self._views.view(job), responses.queue_status if queue else responses.job_set)
        message_id = f"msg_{occasion}_{job.job_set_id}"
        return Delivery(url=url, secret=job.callback_secret, message_id=message_id, value=answer.value)
