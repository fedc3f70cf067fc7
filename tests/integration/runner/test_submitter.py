"""Submits in flight are recorded: through cancellations in a row, and printed when neither store can be written."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import LedgerError
from pipeline.gateway.kinds.interface import Call
from pipeline.gateway.ratelimit.limiter import Slot
from pipeline.gateway.responses import NoResponse, Response, SendProof
from pipeline.ledger.batch_writer import BatchWriter
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied, ChangeResult, LedgerChange
from pipeline.ledger.write_queue import QueuedWrite
from pipeline.ledger.writer import LedgerWriter
from pipeline.records import Attempt, State
from pipeline.runner.open_acceptance import OpenAcceptance
from pipeline.runner.paid_submit import RELEASE_TIMEOUT_S
from pipeline.runner.rate_gate import RateGate
from pipeline.runner.recorder import EventRecorder
from pipeline.runner.submit_outcomes import finish
from pipeline.runner.submitter import Submitter
from tests.support.crash_experiment import FATES, Experiment, MemoryGateway, Protocol, Values
from tests.support.ledgers import read
from tests.support.virtual_time import in_virtual_time


def test_three_cancellations_in_a_row_let_the_booking_end(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[str] = []

    async def recording() -> str:
        await asyncio.sleep(5)
        recorded.append("done")
        return "done"

    async def story() -> None:
        task = asyncio.create_task(finish(recording()))
        for _ in range(3):
            await asyncio.sleep(1)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    in_virtual_time(monkeypatch, story)
    assert recorded == ["done"]


def test_a_booking_that_fails_reaches_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    async def recording() -> None:
        await asyncio.sleep(1)
        raise LedgerError("full")

    async def story() -> None:
        with pytest.raises(LedgerError):
            await finish(recording())

    in_virtual_time(monkeypatch, story)


class NoRoom(EventRecorder):
    """A disk that takes intents and nothing else."""

    async def record(self, request_id: str, event: Event, values: Values = None, **more: Any) -> ChangeResult:
        if event is Event.ACCEPT:
            raise LedgerError("no room")
        return await super().record(request_id, event, values, **more)


def test_a_paid_id_that_no_store_took_is_printed(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    notices: list[str] = []
    gateway = MemoryGateway("1", {"accepted": 1})
    experiment = Experiment(
        folder=tmp_path,  # type: ignore[arg-type]
        gateway=gateway,
        protocol=Protocol(recorder=NoRoom),
        rows=1,
        workers=1,
        say=notices.append,
    )
    assert in_virtual_time(monkeypatch, experiment.violations) == ["more unknown than submits were in flight"]
    assert notices == ["lake-1: paid as job job-1-1, and the ledger could not be written"]


class LateNoRoom(NoRoom):
    """Says late that there is no room: the next intent is written meanwhile."""

    async def record(self, request_id: str, event: Event, values: Values = None, **more: Any) -> ChangeResult:
        if event is Event.ACCEPT:
            await asyncio.sleep(1)
        return await super().record(request_id, event, values, **more)


class Impatient(OpenAcceptance):
    """Does not ask what became of the acceptance before."""

    async def is_recorded(self) -> bool:
        await super().is_recorded()
        return True


class ImpatientSubmitter(Submitter):
    """Buys with the twin above."""

    open_acceptance = Impatient


@pytest.mark.parametrize(("submitter", "sent"), [(Submitter, 1), (ImpatientSubmitter, 2)])
def test_a_worker_whose_acceptance_no_store_took_sends_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, submitter: type[Submitter], sent: int
) -> None:
    gateway = MemoryGateway("1", {"accepted": 1})
    protocol = Protocol(recorder=LateNoRoom, submitter=submitter)
    experiment = Experiment(folder=tmp_path, gateway=gateway, protocol=protocol, rows=9, workers=1)
    ledger = tmp_path / "0" / "ledger.db"
    in_virtual_time(monkeypatch, lambda: experiment._run(ledger))
    assert sum(gateway.visits.values()) == sent
    states = read(ledger, "select state, count(*) from attempts group by state order by state")
    assert states == [("planned", 9 - sent), ("submitting", sent)]


class Waiting(OpenAcceptance):
    """Lets the worker take its next request when the acceptance is durable."""

    async def begin(self, attempt: Attempt, record: Coroutine[Any, Any, bool]) -> None:
        await super().begin(attempt, record)
        await self.is_recorded()


class WaitingSubmitter(Submitter):
    """Buys with the twin above."""

    open_acceptance = Waiting


@pytest.mark.parametrize(("submitter", "commits"), [(Submitter, 11), (WaitingSubmitter, 20)])
def test_an_acceptance_and_the_next_intent_of_a_worker_share_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, submitter: type[Submitter], commits: int
) -> None:
    batches: list[list[Event]] = []
    write = BatchWriter.write

    def counted(self: BatchWriter, hand: Any, batch: Sequence[QueuedWrite], entries: Any) -> Any:
        batches.append([job.change.event for job in batch if job.change is not None])
        return write(self, hand, batch, entries)

    monkeypatch.setattr(BatchWriter, "write", counted)
    gateway = MemoryGateway("1", {"accepted": 1})
    protocol = Protocol(submitter=submitter)
    experiment = Experiment(folder=tmp_path, gateway=gateway, protocol=protocol, rows=10, workers=1)
    in_virtual_time(monkeypatch, lambda: experiment._run(tmp_path / "0" / "ledger.db"))
    assert len(batches) == commits
    assert [event for batch in batches for event in batch] == [Event.RESERVE, Event.ACCEPT] * 10


def stopped_after_a_second(
    folder: Path, monkeypatch: pytest.MonkeyPatch, protocol: Protocol | None = None
) -> list[tuple[object, ...]]:
    """What the ledger says of three requests, none of which was sent when the run was stopped."""
    gateway = MemoryGateway("1", {"accepted": 1})
    experiment = Experiment(folder=folder, gateway=gateway, protocol=protocol or Protocol(), rows=3, workers=3)
    ledger = folder / "0" / "ledger.db"

    async def story() -> None:
        run = asyncio.create_task(experiment._run(ledger))
        await asyncio.sleep(1)
        run.cancel()
        stopped_at = asyncio.get_running_loop().time()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert asyncio.get_running_loop().time() - stopped_at <= 1.1 * RELEASE_TIMEOUT_S

    in_virtual_time(monkeypatch, story)
    assert not gateway.visits
    return read(ledger, "select state, count(*), sum(throttled + submit_attempts) from attempts group by state")


def test_a_run_stopped_before_its_calls_leave_takes_their_intents_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[str] = []

    async def not_yet(_gate: RateGate, _slot: Slot) -> bool:
        waiting.append("here")
        await asyncio.sleep(60)
        return False

    monkeypatch.setattr(RateGate, "slot_is_void", not_yet)
    assert stopped_after_a_second(tmp_path, monkeypatch) == [("planned", 3, 3)]
    assert len(waiting) == 3


class SlowLedger:
    """Is away for a while, then writes, and tells it late."""

    away_s, tells_s = 0.0, 1.5

    def __init__(self, ledger: LedgerWriter) -> None:
        self._ledger = ledger

    async def apply(self, change: LedgerChange) -> ChangeResult:
        await asyncio.sleep(self.away_s)
        outcome = await self._ledger.apply(change)
        await asyncio.sleep(self.tells_s)
        return outcome


class WithSlowLedger(EventRecorder):
    """A run's recorder, whose ledger takes its time."""

    last: WithSlowLedger

    def __init__(self, ledger: LedgerWriter, **notices: Any) -> None:
        super().__init__(SlowLedger(ledger), **notices)  # type: ignore[arg-type]
        WithSlowLedger.last = self


def test_a_run_stopped_while_intents_are_written_takes_them_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stopped_after_a_second(tmp_path, monkeypatch, Protocol(recorder=WithSlowLedger)) == [("planned", 3, 3)]
    totals = WithSlowLedger.last.totals
    assert (totals.count(State.PLANNED), totals.count(State.SUBMITTING), totals.reserved_microusd) == (3, 0, 0)


def test_a_run_that_is_stopped_does_not_wait_for_a_ledger_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SlowLedger, "away_s", 300.0)
    assert stopped_after_a_second(tmp_path, monkeypatch, Protocol(recorder=WithSlowLedger)) == [("planned", 3, 0)]


class GivenUp(EventRecorder):
    """Another process takes each submit for lost before its answer is there; `decision` is then the operator's."""

    decision: Event | None = None

    async def record(self, request_id: str, event: Event, values: Values = None, **more: Any) -> ChangeResult:
        outcome = await super().record(request_id, event, values, **more)
        if event is Event.RESERVE and isinstance(outcome, Applied):
            await super().record(request_id, Event.LOSE, {"reason": "given up"}, token=more.get("token"))
            if self.decision is not None:
                await super().record(request_id, self.decision)
        return outcome


def test_submits_that_others_gave_up_are_settled_by_their_late_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = MemoryGateway("1", FATES | {"rejected": 25, "lost": 15, "throttled": 15})
    experiment = Experiment(folder=tmp_path, gateway=gateway, protocol=Protocol(recorder=GivenUp), rows=30)
    assert in_virtual_time(monkeypatch, experiment.violations) == []
    assert experiment._runs == 2, "the first run bought all there was, the second found nothing to do"


def test_an_operator_who_resolved_a_submit_is_not_overruled_by_its_late_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Settled(GivenUp):
        decision = Event.CHARGE

    notices: list[str] = []
    gateway = MemoryGateway("1", {"accepted": 1})
    experiment = Experiment(
        folder=tmp_path, gateway=gateway, protocol=Protocol(recorder=Settled), rows=1, workers=1, say=notices.append
    )
    assert in_virtual_time(monkeypatch, experiment.violations) == []
    assert notices == ["lake-1: paid as job job-1-1, but the request was settled meanwhile; `dop show` tells"]
    ledger = tmp_path / "0" / "ledger.db"
    assert read(ledger, "select state, job_set_id from attempts") == [("written_off", None)]
    ((detail,),) = read(ledger, "select detail from history where event = 'note'")
    assert detail.startswith("paid as job job-1-1")


class FrozenGateway(MemoryGateway):
    """The process is frozen for half a minute before the first byte of its first call."""

    async def submit(self, call: Call, *, proof: SendProof) -> Response | NoResponse:
        number = int(call.body or b"")
        if not self.visits[number]:
            await asyncio.sleep(30.0)
        if not proof.may_send():
            self.visits[number] += 1
            return NoResponse(sent=False, what="the process was frozen")
        return await super().submit(call, proof=proof)


def test_a_reservation_that_is_too_old_is_released_and_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = FrozenGateway("1", {"accepted": 1})
    experiment = Experiment(folder=tmp_path, gateway=gateway, protocol=Protocol(), rows=1, workers=1)
    ledger = tmp_path / "0" / "ledger.db"
    in_virtual_time(monkeypatch, lambda: experiment._run(ledger))
    events = "select event from history where event in ('reserve', 'release', 'accept') order by seq"
    assert read(ledger, events) == [("reserve",), ("release",), ("reserve",), ("accept",)]
    assert gateway.charged == {1: 1}
