"""A gateway that refuses every submit for its limit is named once: else a run would look as if it hung."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.gateway.kinds.pixazo import classify_submit
from pipeline.gateway.responses import Response
from pipeline.runner.context import RunContext
from pipeline.runner.submit_decisions import decide
from pipeline.runner.submit_outcomes import OutcomeRecorder, ReservedAttempt
from tests.support.virtual_time import in_virtual_time


def notices(monkeypatch: pytest.MonkeyPatch, refusals: int, every_s: float) -> list[str]:
    """What the operator reads while so many submits are answered with 429."""
    found: list[str] = []

    async def record(*_args: object, **_values: object) -> None:
        return None

    async def story() -> None:
        context = cast(RunContext, SimpleNamespace(recorder=SimpleNamespace(record=record), notify=found.append))
        outcomes = OutcomeRecorder(context, cast(Any, None), any_accepted=True)
        attempt = cast(Any, SimpleNamespace(request_id="a", row_id="cat"))
        reserved = ReservedAttempt(attempt, "token", "/submit", {"throttled": 0})
        answer = Response(status=429, body=b'{"error": "Rate limit exceeded, please retry later"}')
        outcome = classify_submit(answer, now_unix=0.0)
        decision = decide(outcome, has_other_path=False, any_accepted=True)
        for _ in range(refusals):
            await outcomes.act(reserved, decision, outcome, answer)
            await asyncio.sleep(every_s)

    in_virtual_time(monkeypatch, story)
    return found


def test_refusals_of_half_a_minute_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    (notice,) = notices(monkeypatch, refusals=30, every_s=3.0)
    assert notice.startswith("the gateway has taken no submit for 30 s (429 Rate limit exceeded, please retry later)")


def test_a_short_limit_is_not_worth_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    assert notices(monkeypatch, refusals=9, every_s=3.0) == []
