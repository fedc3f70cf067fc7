"""A third kind of gateway, shaped like fal's queue API, and a server that speaks it: only for the tests of the seam."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

from aiohttp import web

from pipeline.config.api_key import Credential
from pipeline.gateway.classification import (
    ClassificationRule,
    PollOutcome,
    PollOutcomeKind,
    SubmitOutcome,
    SubmitOutcomeKind,
    judge_poll,
    judge_submit,
)
from pipeline.gateway.job_status import JobStatus, JobStatusReport
from pipeline.gateway.kinds.interface import (
    Abilities,
    Call,
    Callback,
    CancelOutcome,
    GatewayKind,
    Recovery,
    ReplayKind,
    ReplayOutcome,
)
from pipeline.gateway.responses import NoResponse, Response
from pipeline.records import STRENGTH_STEPS, Params
from pipeline.sandbox.fault_injection import FaultInjector, as_json
from pipeline.sandbox.faults import BEFORE, FaultPlan, PollFault
from pipeline.sandbox.responses import SandboxResponse

REFUSALS = frozenset({400, 401, 403, 404, 422, 429})
RULES = (
    ClassificationRule(frozenset({401, 403}), None, SubmitOutcomeKind.FATAL, stop=True),
    ClassificationRule(frozenset({429}), None, SubmitOutcomeKind.THROTTLED),
    ClassificationRule(frozenset({404}), None, SubmitOutcomeKind.MODEL_GONE),
    ClassificationRule(frozenset({400, 422}), None, SubmitOutcomeKind.REJECTED),
)
POLLS = {401: PollOutcomeKind.KEY_REFUSED, 404: PollOutcomeKind.NOT_FOUND, 429: PollOutcomeKind.THROTTLED}


class Fal(GatewayKind):
    """Submit to the model's path; the result's address answers 400 until the clip is there."""

    name = "fal"
    abilities = Abilities(recovery=Recovery.LOOKUP, cancel=True)
    headers: ClassVar[Mapping[str, str]] = {"Content-Type": "application/json", "Accept": "application/json"}
    credential = Credential(
        variables=(("FAL_KEY",),), file=Path(".fal") / "key", origins=("https://queue.fal.run:443",)
    )
    poll_styles = ("result",)
    poll_probes = (("poll path", "result"),)

    def __init__(self, model_ids: Mapping[str, str]) -> None:
        self._model_ids = model_ids

    def auth_headers(self, key: str) -> Mapping[str, str]:
        return {"Authorization": f"Key {key}"}

    def submit_call(
        self,
        params: Params,
        *,
        idempotency_key: str,
        images: Mapping[str, str],
        callback: Callback | None = None,
        path: str = "",
    ) -> Call:
        image = params.input_images[0]
        body = {
            "prompt": params.prompt,
            "image_url": images.get(image, image),
            "seed": params.seed,
            "strength": params.strength_hundredths / STRENGTH_STEPS,
            "own_id": idempotency_key,
        }
        query = "" if callback is None else f"?fal_webhook={callback.url}"
        return Call(method="POST", target=f"/{self._model_ids[params.model]}{query}", body=json.dumps(body).encode())

    def poll_call(self, job_set_id: str, own_url: str | None, style: str) -> Call:
        return Call(method="GET", target=f"/requests/{job_set_id}")

    def lookup_call(self, own_id: str) -> Call:
        return Call(method="GET", target=f"/lookup/{own_id}")

    def classify_lookup(self, outcome: Response | NoResponse, *, now_unix: float) -> ReplayOutcome:
        found = self.classify_submit(outcome, now_unix=now_unix)
        is_found = found.kind is SubmitOutcomeKind.ACCEPTED
        return ReplayOutcome(
            kind=ReplayKind.JOB if is_found else ReplayKind.UNCLEAR, job=found.ticket, reason=found.reason
        )

    def cancel_call(self, job_set_id: str) -> Call:
        return Call(method="PUT", target=f"/requests/{job_set_id}/cancel")

    def classify_cancel(self, outcome: Response | NoResponse) -> CancelOutcome:
        if isinstance(outcome, NoResponse):
            return CancelOutcome.UNCLEAR
        return {202: CancelOutcome.CANCELED, 400: CancelOutcome.TOO_LATE}.get(outcome.status, CancelOutcome.UNCLEAR)

    def classify_submit(
        self, outcome: Response | NoResponse, *, now_unix: float, params: Params | None = None
    ) -> SubmitOutcome:
        return judge_submit(outcome, refusals=REFUSALS, rules=RULES, now_unix=now_unix, params=params)

    def classify_poll(
        self, outcome: Response | NoResponse, *, now_unix: float, job_set_id: str | None = None
    ) -> PollOutcome:
        if isinstance(outcome, Response) and outcome.status == 400 and b"still in progress" in outcome.body:
            report = JobStatusReport(status=JobStatus.RUNNING, word="in_progress")
            return PollOutcome(kind=PollOutcomeKind.REPORT, report=report, status=400)
        return judge_poll(outcome, kinds=POLLS, now_unix=now_unix, job_set_id=job_set_id)


class FalServer:
    """Takes submits at any model's path, through a storm."""

    def __init__(self, key: str, chaos: str, now: Callable[[], float], generation_s: float) -> None:
        self._key, self._now, self._generation_s = key, now, generation_s
        self._plan = FaultPlan(seed=chaos)
        self._faults = FaultInjector(
            self._plan,
            generation_s,
            inline=True,
            refused=lambda status, text: SandboxResponse(status=status, value={"detail": text}),
        )
        self._jobs: dict[str, tuple[float, dict[str, Any]]] = {}
        self._visits: Counter[str] = Counter()

    @property
    def charged(self) -> Counter[int]:
        """Charges by the row's seed."""
        return Counter(int(body["seed"]) for _, body in self._jobs.values())

    @asynccontextmanager
    async def listening(self, port: int) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/requests/{id}", self._result)
        app.router.add_get("/lookup/{own_id}", self._lookup)
        app.router.add_post("/{model:.+}", self._submit)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            await runner.cleanup()

    def _may_enter(self, request: web.Request) -> bool:
        return request.headers.get("Authorization") == f"Key {self._key}"

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        if not self._may_enter(request):
            return web.json_response({"detail": "No user found for Key ID and Secret"}, status=401)
        raw = await request.read()
        name = raw.decode()
        self._visits[name] += 1
        visit = self._visits[name]
        fault = self._plan.submit_fault(name, visit)
        if fault in BEFORE:
            return await self._faults.instead_of_accepting(fault, request, ("submit", name, visit))
        job = f"fal-{len(self._jobs) + 1}"
        self._jobs[job] = (self._now(), json.loads(raw))
        answers = [
            SandboxResponse(status=200, value={"request_id": one, "status": "IN_QUEUE"}) for one in (job, "fal-1")
        ]
        return await self._faults.after_accepting(fault, request, ("submit", name, visit), answers[0], answers[1])

    async def _lookup(self, request: web.Request) -> web.StreamResponse:
        wanted = request.match_info["own_id"]
        found = [job for job, (_, body) in self._jobs.items() if body["own_id"] == wanted]
        if not self._may_enter(request) or not found:
            return web.json_response({"detail": "Request not found"}, status=404)
        return web.json_response({"request_id": found[0], "status": "IN_QUEUE"})

    async def _result(self, request: web.Request) -> web.StreamResponse:
        job = request.match_info["id"]
        if not self._may_enter(request) or job not in self._jobs:
            return web.json_response({"detail": "Request not found"}, status=404)
        self._visits[job] += 1
        fault = self._plan.poll_fault(job, self._visits[job])
        if self._now() - self._jobs[job][0] < self._generation_s:
            answer = SandboxResponse(status=400, value={"detail": "Request is still in progress"})
        else:
            answer = SandboxResponse(status=200, value={"video": {"url": f"https://cdn.example.com/{job}.mp4"}})
        if fault is PollFault.NONE:
            return as_json(answer)
        return await self._faults.poll(fault, request, ("poll", job, self._visits[job]), answer, answer)
