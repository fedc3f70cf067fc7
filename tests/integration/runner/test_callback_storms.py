"""`dop run --webhook` through the sandbox's callback storms, one fault at a time, in virtual time.

The real client, receiver, sandbox and ledger; only the clock jumps. Whatever comes to the receiver, nothing is bought
twice, every video comes, and a job costs the polls that its calls are worth.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pipeline.gateway.webhook_tokens import CallbackDelivery
from pipeline.records import State
from pipeline.runner.callbacks import CallbackHandler
from pipeline.runner.webhook_server import WebhookServer
from pipeline.sandbox import Sandbox, SandboxSettings
from pipeline.sandbox.faults import CallbackFault, FaultPlan, SubmitFault
from tests.support.virtual_time import KEY, Story, carried, in_virtual_time, ledger_for, wall, wanted

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore::async_solipsism.SolipsismWarning")]

ROWS = 12
GENERATION_S = 40.0


@dataclass(slots=True)
class Witness:
    """What came to the receiver and what it answered."""

    statuses: Counter[int]
    early: int = 0

    @classmethod
    def of(cls, monkeypatch: pytest.MonkeyPatch) -> Witness:
        witness = cls(Counter())
        take, delivered = WebhookServer._take, CallbackHandler.delivered

        async def taken(self: WebhookServer, request: web.Request) -> web.Response:
            answer = await take(self, request)
            witness.statuses[answer.status] += 1
            return answer

        def seen(self: CallbackHandler, delivery: CallbackDelivery) -> bool:
            state = self._state_of(delivery.request_id)
            witness.early += state in (State.PLANNED, State.SUBMITTING)
            return delivered(self, delivery)

        monkeypatch.setattr(WebhookServer, "_take", taken)
        monkeypatch.setattr(CallbackHandler, "delivered", seen)
        return witness


@dataclass(frozen=True, slots=True)
class StormResult:
    """What is left of a story."""

    counts: dict[State, int]
    polls: int
    charged: int
    kept: str
    elapsed_s: float


async def story(folder: Path, rows: int, dialect: Any = "job-set", **options: str) -> StormResult:
    settings = SandboxSettings(
        data_dir=folder / "sandbox",
        key=KEY,
        inline=True,
        one_clip=True,
        size="180p",
        generation_s=GENERATION_S,
        chaos="1",
        chaos_intensity=0.0,
        dialect=dialect,
    )
    sandbox = Sandbox(settings, now=wall)
    base_url = await sandbox.start()
    try:
        with ledger_for(folder, base_url, **options) as workspace:
            ran = await carried(workspace, wanted(workspace, rows), webhook=True)
            await asyncio.sleep(60)  # whatever the storm still sends meets a closed port
            return _result(ran, len(sandbox._books.jobs))
    finally:
        await sandbox.close()


def _result(ran: Story, charged: int) -> StormResult:
    with ran.queries.ledger.reader.connect() as connection:
        kept = connection.exec_driver_sql("select group_concat(detail || ' ') from history").scalar()
    assert ran.queries.ledger.problems() == []
    counts = {state: count for state, count in ran.result.totals.counts.items() if count}
    return StormResult(counts, ran.result.polls, charged, str(kept), ran.elapsed_s)


def through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: CallbackFault, *, rows: int = ROWS, **options: Any
) -> StormResult:
    """A run through one fault of every callback: everything is done, and bought once."""
    monkeypatch.setattr(FaultPlan, "callback_fault", lambda *_: fault)
    found = in_virtual_time(monkeypatch, partial(story, tmp_path, rows, **options))
    assert found.counts == {State.DONE: rows}
    assert found.charged == rows
    return found


@pytest.fixture
def witness(monkeypatch: pytest.MonkeyPatch) -> Witness:
    return Witness.of(monkeypatch)


@pytest.mark.parametrize("dialect", ["job-set", "queue"])
def test_with_callbacks_on_a_job_costs_less_than_1_1_polls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, witness: Witness, dialect: str
) -> None:
    found = through(tmp_path, monkeypatch, CallbackFault.NONE, rows=40, dialect=dialect)
    assert found.polls / 40 < 1.1
    assert witness.statuses == {204: 40}


def test_a_wrong_secret_is_refused_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, witness: Witness
) -> None:
    found = through(tmp_path, monkeypatch, CallbackFault.FORGED)
    assert witness.statuses == {401: ROWS, 204: ROWS}
    assert found.polls == ROWS


def test_a_call_without_a_secret_is_a_hint_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, witness: Witness
) -> None:
    found = through(tmp_path, monkeypatch, CallbackFault.UNPROVEN)
    assert witness.statuses == {204: 2 * ROWS}
    assert found.polls == ROWS, "the two calls of a job come together: one look"


def test_a_replayed_call_is_a_hint_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, witness: Witness
) -> None:
    found = through(tmp_path, monkeypatch, CallbackFault.REPLAYED)
    assert set(witness.statuses) <= {204, 401}
    assert witness.statuses[204] >= ROWS
    assert found.polls <= 2 * ROWS


def test_a_call_about_a_job_that_does_not_exist_costs_at_most_a_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, witness: Witness
) -> None:
    found = through(tmp_path, monkeypatch, CallbackFault.UNKNOWN_JOB)
    assert found.polls <= 2 * ROWS
    assert "00000000-0000-4000-8000-000000000000" not in found.kept


def test_doubled_calls_are_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, witness: Witness) -> None:
    found = through(tmp_path, monkeypatch, CallbackFault.TWICE)
    assert witness.statuses[204] >= 2 * ROWS - 1
    assert found.polls == ROWS


def test_a_call_that_comes_too_early_costs_one_look_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, witness: Witness
) -> None:
    found = through(tmp_path, monkeypatch, CallbackFault.EARLY)
    assert witness.statuses == {204: 2 * ROWS}
    assert found.polls <= 2 * ROWS


def test_a_call_before_the_submits_answer_is_kept_and_then_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, witness: Witness
) -> None:
    found = through(tmp_path, monkeypatch, CallbackFault.HASTY)
    assert witness.early == ROWS
    assert ROWS < found.polls <= 2 * ROWS, "each early call is used for a look once its job is known"


def test_a_call_before_the_answer_proves_a_submit_whose_answer_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, witness: Witness
) -> None:
    def broken(_: FaultPlan, mark: str, visit: int) -> SubmitFault:
        return SubmitFault.BAD_GATEWAY_AFTER if int(mark, 16) % 4 == 0 else SubmitFault.NONE

    monkeypatch.setattr(FaultPlan, "submit_fault", broken)
    found = through(tmp_path, monkeypatch, CallbackFault.HASTY)
    assert witness.early == ROWS
    assert "a callback to the attempt's own address named the job" in found.kept


def test_calls_that_never_come_cost_patience_and_then_polls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, witness: Witness
) -> None:
    found = through(tmp_path, monkeypatch, CallbackFault.LOST)
    assert not witness.statuses
    assert found.elapsed_s < 600


def test_no_storm_leaves_a_token_or_a_secret_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, witness: Witness
) -> None:
    through(tmp_path, monkeypatch, CallbackFault.FORGED)
    ours = [path for path in (tmp_path / "outputs").rglob("*") if path.is_file() and path.name != "callback-seed"]
    left = b"".join(path.read_bytes() for path in ours)
    assert left
    assert b"whsec_" not in left.replace(b"whsec_***", b"")
    assert b"not-the-secret" not in left
