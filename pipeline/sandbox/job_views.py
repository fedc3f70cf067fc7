"""What a caller is shown of a job: its state, the links of its clip, and the shape of the answer that holds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pipeline.sandbox import responses
from pipeline.sandbox.faults import FaultPlan, ResultDefect
from pipeline.sandbox.job_store import JobStore
from pipeline.sandbox.jobs import Job, SandboxJobState, state_of
from pipeline.sandbox.rendering.renderer import ClipRenderer
from pipeline.sandbox.response_variants import SHAPES, accepted_as
from pipeline.sandbox.responses import JobView, SandboxResponse
from pipeline.sandbox.settings import SandboxSettings

NO_URL_VISITS = 2
"""Polls of a finished job whose link comes late that are answered without it."""

Form = Callable[[JobView], dict[str, object]]
"""The body of an answer to a poll."""


class JobViews:
    """The views of the jobs in the store. `now` gives Unix seconds, `address` where this gateway listens."""

    def __init__(
        self,
        settings: SandboxSettings,
        *,
        books: JobStore,
        renderer: ClipRenderer,
        storm: FaultPlan | None,
        now: Callable[[], float],
        address: Callable[[], str],
    ) -> None:
        self._settings, self._books, self._renderer = settings, books, renderer
        self._storm, self._now, self._address = storm, now, address

    def accepted(self, job: Job) -> SandboxResponse:
        """The answer to a submit that was accepted."""
        shape = None if self._storm is None else self._storm.shape(job.fingerprint, job.visit, len(SHAPES))
        if shape is None:
            return responses.accepted(job, self._settings.dialect, self._address())
        return accepted_as(job, shape, self._address())

    def other(self, job: Job) -> Job:
        """Another job where there is one: whose answer a desynchronised connection would give."""
        return next((other for key, other in self._books.jobs.items() if key != job.job_set_id), job)

    def shaped(self, view: JobView, form: Form) -> SandboxResponse:
        """The answer to a poll: in `form`, or in the shape that the settings or the storm want."""
        shape = self._settings.shape
        if shape is None and self._storm is not None:
            shape = self._storm.shape(view.job.fingerprint, view.job.visit, len(SHAPES))
        chosen = form if shape is None else SHAPES[shape % len(SHAPES)]
        return SandboxResponse(status=200, value=chosen(view))

    def ailing(self, view: JobView) -> JobView:
        """What of a view its ailment lets be seen; counts how often a finished job was asked for."""
        ailment = self._ailment(view.job)
        if view.url is None or ailment is ResultDefect.NONE:
            return view
        asked = self._books.count("url", view.job.job_set_id)
        if ailment is ResultDefect.NO_URL or (ailment is ResultDefect.NO_URL_YET and asked <= NO_URL_VISITS):
            return replace(view, url=None, preview_url=None)
        return replace(view, url=f"{view.url}?u={asked}", preview_url=f"{view.preview_url}?u={asked}")

    def _ailment(self, job: Job) -> ResultDefect:
        return ResultDefect.NONE if self._storm is None else self._storm.ailment(job.fingerprint, job.visit)

    def is_expired(self, job: Job, number: str) -> bool:
        """Whether the link with this number, the poll that gave it, is dead."""
        ailment = self._ailment(job)
        return ailment is ResultDefect.EXPIRED or (ailment is ResultDefect.EXPIRED_ONCE and number in ("", "1"))

    def state(self, job: Job) -> SandboxJobState:
        """Where the job is now."""
        renderer = self._renderer
        return state_of(job, self._now(), clip_ready=renderer.ready(job), spoiled=renderer.spoiled(job))

    def view(self, job: Job) -> JobView:
        """Its state, and the links of its clip once it is completed."""
        state = self.state(job)
        if state is not SandboxJobState.COMPLETED:
            reason = "the input image cannot be read" if self._renderer.spoiled(job) else None
            return JobView(job=job, state=state, reason=reason)
        url = f"{self._address()}/results/{job.job_set_id}"
        return JobView(job=job, state=state, url=f"{url}.mp4", preview_url=f"{url}.min.mp4")
