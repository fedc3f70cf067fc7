"""When each request of the vendor sandbox waits, runs and ends, and what a look at it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipeline.sandbox.higgsfield.books import VendorBooks, VendorRequest
from pipeline.sandbox.jobs import TERMINAL, JobOutcome, SandboxJobState
from pipeline.sandbox.rendering.renderer import ClipRenderer
from pipeline.sandbox.responses import JobView

QUEUED_SHARE = 0.3
"""Part of its generation time that a request waits in the queue and can be canceled."""

QUEUE_FACTOR = 4
"""How many requests may wait for each that may run. The vendor's own number is not stated."""


class RequestStates:
    """The states of all requests, by the clock `now`.

    Args:
        cap: requests that run at once; None: each starts on its own.
    """

    def __init__(
        self,
        books: VendorBooks,
        renderer: ClipRenderer,
        *,
        cap: int | None,
        now: Callable[[], float],
        address: Callable[[], str],
    ) -> None:
        self._books, self._renderer, self._cap, self._now, self._address = books, renderer, cap, now, address

    def is_full(self) -> bool:
        """Whether no further request may wait."""
        if self._cap is None:
            return False
        self.advance()
        return sum(1 for one in self.open() if one.started_at is None) >= QUEUE_FACTOR * self._cap

    def advance(self) -> None:
        """Let waiting requests start as far as the account's concurrency allows."""
        cap, now = self._cap, self._now()
        if cap is None:
            return
        # No task of its own does this: each call that reads a state starts what there is room for by then.
        running = sum(1 for one in self.open() if one.started_at is not None)
        for request in list(self.open()):
            if running >= cap:
                return
            if request.started_at is None:
                request.started_at = now
                self._books.save(request)
                running += 1

    def open(self) -> Iterator[VendorRequest]:
        """The requests that have not ended."""
        return (one for one in self._books.requests.values() if self.state(one) not in TERMINAL)

    def _starts_at(self, request: VendorRequest) -> float | None:
        if request.started_at is not None or self._cap is not None:
            return request.started_at
        return request.job.accepted_at + QUEUED_SHARE * request.job.generation_s

    def ends_at(self, request: VendorRequest) -> float:
        """Unix seconds of its end, as far as it is known."""
        start = self._starts_at(request)
        return (request.job.accepted_at if start is None else start) + (1 - QUEUED_SHARE) * request.job.generation_s

    def state(self, request: VendorRequest) -> SandboxJobState:
        """Its state now."""
        start, job, now = self._starts_at(request), request.job, self._now()
        if request.canceled_at is not None:
            return SandboxJobState.CANCELED
        if start is None or now < start:
            return SandboxJobState.QUEUED
        if now < self.ends_at(request) or job.fate is JobOutcome.ENDLESS:
            return SandboxJobState.IN_PROGRESS
        if job.fate is not JobOutcome.COMPLETED:
            return SandboxJobState(job.fate.value)
        if self._renderer.spoiled(job):
            return SandboxJobState.FAILED
        return SandboxJobState.COMPLETED if self._renderer.ready(job) else SandboxJobState.IN_PROGRESS

    def view(self, request: VendorRequest) -> JobView:
        """What a look at it shows now."""
        self.advance()
        state, job = self.state(request), request.job
        if state is not SandboxJobState.COMPLETED:
            reason = "The input image cannot be read" if self._renderer.spoiled(job) else None
            return JobView(job=job, state=state, reason=reason)
        return JobView(job=job, state=state, url=f"{self._address()}/results/{job.job_set_id}.mp4")
