"""A free poll: the gate learns of its end whatever happens, and another request's answer is not taken for this one."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import cast

import pytest

from benchmarks.million import MOTION, params_of
from pipeline.gateway.classification import PollOutcomeKind
from pipeline.gateway.kinds.pixazo import Pixazo
from pipeline.gateway.ratelimit.limiter import LimitFeedback
from pipeline.gateway.responses import Response
from pipeline.runner import free_poll
from pipeline.runner.context import RunContext
from pipeline.runner.free_poll import own_outcome, poll_in_turn

VIDEO = "https://cdn.example.com/2.mp4"


def context_of(fed_back: list[LimitFeedback]) -> RunContext:
    async def slot(_kind: object) -> object:
        return object()

    def answered(_call: object, feedback: LimitFeedback, _wait_s: float | None) -> None:
        fed_back.append(feedback)

    gate = SimpleNamespace(slot=slot, sent=lambda _kind: object(), answered=answered)
    recorder = SimpleNamespace(ledger=None)
    return cast(RunContext, SimpleNamespace(gate=gate, kind=Pixazo(), unix_time=lambda: 0.0, recorder=recorder))


def test_an_unforeseen_error_ends_the_call_for_the_gate() -> None:
    fed_back: list[LimitFeedback] = []

    async def send() -> Response:
        raise RuntimeError("unforeseen")

    with pytest.raises(RuntimeError):
        asyncio.run(poll_in_turn(context_of(fed_back), "job", send))
    assert fed_back == [LimitFeedback.UNKNOWN]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_finished_job_without_an_id_that_repeats_another_request_is_unclear(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """MONEY: its video would be saved as this row's; an answer that repeats this request is this row's."""
    params = params_of(0)
    assert params.seed == 1
    queries = SimpleNamespace(attempts_of=lambda _request: [SimpleNamespace(params=params)])
    monkeypatch.setattr(free_poll, "LedgerQueries", lambda _ledger: queries)
    echo = {"seed": seed, "prompt": params.prompt, "motions": [{"id": MOTION}]}
    body = json.dumps({"status": "completed", "video_url": VIDEO, "input": echo}).encode()

    async def send() -> Response:
        return Response(status=200, body=body)

    context = context_of([])
    polled = asyncio.run(poll_in_turn(context, "job", send))
    assert polled is not None
    found = own_outcome(context, "a" * 32, polled)
    assert found.kind is (PollOutcomeKind.REPORT if seed == 1 else PollOutcomeKind.UNCLEAR)
