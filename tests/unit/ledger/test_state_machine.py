"""The ledger against a model of it: random events, restarts, lost journals and rebuilds, in any order.

After each step: the spend book is the sum of the rows, no cap is passed, no job has two owners, a forbidden pair or a
swap that failed changed nothing, and what the journal alone would make is what the ledger is.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pipeline.errors import InvariantError
from pipeline.ledger.budget import CapReached, Caps
from pipeline.ledger.integrity import audit
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.recovery import rebuild, rebuild_on_server
from pipeline.ledger.side_files import journal_path
from pipeline.ledger.states import TRANSITIONS, Event
from pipeline.ledger.transitions import Applied, ChangeResult, Conflict, JobTaken
from pipeline.records import COST_STATE, FAILED_FOR_GOOD, CostState, State
from tests.support.ledgers import AT, RUN, Place, change, ledger_at, read, requests, reserve, start, tamper
from tests.support.postgres import PostgresServer

ROWS = requests(4) + requests(2, model="dop-turbo", price_microusd=416_000)
NUMBERS = st.integers(0, len(ROWS) - 1)
TOKENS = st.sampled_from(("mine", "other", None))
JOBS = st.sampled_from([f"job-{number}" for number in range(4)])
CAP = 3 * 135_000 + 416_000
OUTCOMES = (Event.ACCEPT, Event.RELEASE, Event.REJECT, Event.LOSE)
KINDS = (CostState.CONFIRMED, CostState.DISPUTED, CostState.RESERVED)
MEMORY = Path("/dev/shm")


@dataclass
class Model:
    """One attempt as it should be."""

    request: int
    price: int
    state: State = State.PLANNED
    token: str | None = None
    job: str | None = None
    sent: bool = False
    last: bool = True


class LedgerMachine(RuleBasedStateMachine):
    """Events, restarts and rebuilds of one ledger of six requests."""

    @initialize()
    def begin(self) -> None:
        self.place = self.make()
        self.model = [Model(request=number, price=row.price_microusd) for number, row in enumerate(ROWS)]
        self.tokens = 0
        self._open()
        start(self.queries, ROWS)

    def make(self) -> Place:
        """Where the ledger of one example is."""
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.path = self.folder / "ledger.db"
        return self.path

    def remove(self) -> None:
        """Takes it away again."""
        shutil.rmtree(self.folder)

    def read(self, statement: str) -> list[tuple[Any, ...]]:
        """What the ledger says to a question in SQL, asked apart from the program."""
        return read(self.place, statement)

    def _open(self) -> None:
        self.ledger = ledger_at(self.place)
        self.ledger.ready_to_spend()
        self.queries = LedgerQueries(self.ledger)

    def teardown(self) -> None:
        if hasattr(self, "place"):
            self.ledger.close()
            self.remove()

    def latest(self, number: int) -> Model:
        return next(one for one in self.model if one.request == number and one.last)

    def spent(self) -> int:
        return sum(one.price for one in self.model if COST_STATE[one.state] is not CostState.NONE)

    def snapshot(self) -> list[list[tuple[object, ...]]]:
        tables = ("attempts", "history", "spend", "meta")
        return [self.read(f"select * from {table}") for table in tables]

    # --- events

    @rule(number=NUMBERS)
    def reserve(self, number: int) -> None:
        self.tokens += 1
        one, token = self.latest(number), f"token-{self.tokens}"
        expected: type[ChangeResult] = Applied
        if one.state is not State.PLANNED:
            expected = Conflict
        elif self.spent() + one.price > CAP:
            expected = CapReached
        before = self.snapshot()
        outcome = self.ledger.apply_now(reserve(ROWS[number], token, caps=Caps(run_microusd=CAP, day_microusd=CAP)))
        assert type(outcome) is expected
        if expected is Applied:
            one.state, one.token, one.sent = State.SUBMITTING, token, True
        else:
            assert self.snapshot() == before

    @rule(number=NUMBERS, event=st.sampled_from([event for event in Event if event is not Event.RESERVE]), whose=TOKENS)
    def happen(self, number: int, event: Event, whose: str | None) -> None:
        one = self.latest(number)
        token = {"mine": one.token, "other": "not-this-one", None: None}[whose]
        before = self.snapshot()

        def act() -> ChangeResult:
            return self.ledger.apply_now(change(ROWS[number], event, token=token, values={"reason": f"{event}"}))

        if token is not None and token != one.token:
            assert act() == Conflict(state=one.state)
            assert self.snapshot() == before
        elif event in OUTCOMES and token is not None and event not in TRANSITIONS[one.state]:
            assert act() == Conflict(state=one.state), "what was resolved stays"
            assert self.snapshot() == before
        elif event not in TRANSITIONS[one.state] or (
            event in OUTCOMES and token is None and one.state in (State.UNKNOWN, State.PLANNED)
        ):
            with pytest.raises(InvariantError):
                act()
            assert self.snapshot() == before
        elif event is Event.ADOPT and one.state is State.PLANNED and not self.was_submitted(number):
            assert act() == Conflict(state=one.state), "what was never sent has no job"
            assert self.snapshot() == before
        else:
            assert isinstance(act(), Applied)
            one.state = TRANSITIONS[one.state][event]

    def was_submitted(self, number: int) -> bool:
        """Whether the request's latest attempt was ever reserved."""
        return self.queries.attempts_of(ROWS[number].request_id)[-1].submit_attempts > 0

    @precondition(lambda self: any(one.state is State.SUBMITTING for one in self.model))
    @rule(data=st.data(), job=JOBS, event=st.sampled_from((Event.ACCEPT, Event.ACCEPT, Event.NOTE)))
    def accept(self, data: st.DataObject, job: str, event: Event) -> None:
        flying = [one for one in self.model if one.state is State.SUBMITTING and one.last]
        one = data.draw(st.sampled_from(flying))
        owner = next((other for other in self.model if other.job == job), None)
        before = self.snapshot()
        values = {"job_set_id": job, "accepted_at": AT}
        outcome = self.ledger.apply_now(change(ROWS[one.request], event, token=one.token, values=values))
        if owner is not None and owner is not one:
            assert outcome == JobTaken(owner_request_id=ROWS[owner.request].request_id)
            assert self.snapshot() == before
        else:
            assert isinstance(outcome, Applied)
            one.state, one.job = TRANSITIONS[one.state][event], job

    @rule(number=NUMBERS)
    def retry(self, number: int) -> None:
        one = self.latest(number)
        if one.state in FAILED_FOR_GOOD:
            assert self.queries.new_attempts([ROWS[number].request_id]) == 1
            one.last = False
            self.model.append(Model(request=number, price=one.price))

    # --- the world

    @rule(clean=st.booleans())
    def restart(self, clean: bool) -> None:
        self.ledger.close(clean=clean)
        self._open()

    @rule(share=st.floats(0, 1))
    def restart_with_a_cut_journal(self, share: float) -> None:
        """Power was cut: the journal is not synced, so its end may be missing; the database is."""
        self.ledger.close(clean=False)
        journal = journal_path(self.path)
        if journal.exists():
            os.truncate(journal, int(share * journal.stat().st_size))
        self._open()

    @rule()
    def restart_without_a_journal(self) -> None:
        self.ledger.close(clean=False)
        journal_path(self.path).unlink(missing_ok=True)
        self._open()

    @precondition(lambda self: any(one.sent for one in self.model))
    @rule(ruin=st.sampled_from(("whole", "zeros", "gone")))
    def rebuild(self, ruin: str) -> None:
        self.ledger.close()
        self.ruin_and_rebuild(ruin)
        self._open()
        self._forget_what_was_never_sent()
        if self.queries.run(RUN) is None:
            start(self.queries, ROWS)
        else:
            self.queries.sync_rows(RUN, ROWS, rows_digest="digest")

    def ruin_and_rebuild(self, ruin: str) -> None:
        """The ledger as it is, or what is left of it, rebuilt from its journal."""
        if ruin == "zeros":
            self.path.write_bytes(b"\0" * 4096)
        if ruin == "gone":
            self.path.unlink()
        rebuild(self.path, now=AT)

    def _forget_what_was_never_sent(self) -> None:
        for one in [one for one in self.model if not one.sent]:
            older = [other for other in self.model if other.request == one.request and other is not one]
            if older:
                self.model.remove(one)
                older[-1].last = True

    # --- what always holds

    @invariant()
    def rows_and_model_agree(self) -> None:
        rows = self.read("select request_id, attempt, state, job_set_id from attempts")
        found = {(str(row[0]), int(row[1])): (State(row[2]), row[3]) for row in rows}
        expected = {}
        counts: dict[int, int] = {}
        for one in self.model:
            counts[one.request] = counts.get(one.request, 0) + 1
            expected[ROWS[one.request].request_id, counts[one.request]] = (one.state, one.job)
        assert found == expected

    @invariant()
    def sums_are_the_rows_and_no_cap_is_passed(self) -> None:
        (found,) = self.read("select sum(confirmed), sum(disputed), sum(reserved) from spend")
        sums = dict(zip(KINDS, found, strict=True))
        for kind in KINDS:
            assert (sums[kind] or 0) == sum(one.price for one in self.model if COST_STATE[one.state] is kind)
        assert self.spent() <= CAP

    @invariant()
    def nothing_is_wrong_with_it(self) -> None:
        with self.ledger.reader.connect() as connection:
            assert audit(connection) == []

    @invariant()
    def no_job_has_two_owners(self) -> None:
        assert self.read("select job_set_id from attempts group by 1 having count(job_set_id) > 1") == []


class EventMachine(LedgerMachine):
    """Events alone: what is wrong with them is found without restarts and rebuilds, which take most of the time."""

    restart = restart_with_a_cut_journal = restart_without_a_journal = rebuild = None  # type: ignore[assignment]


class ServerMachine(LedgerMachine):
    """The same on PostgreSQL, where sessions are cut instead of files."""

    server: PostgresServer

    def make(self) -> Place:
        url = self.server.new_database()
        self.eye = psycopg.connect(url, autocommit=True)
        return url

    def read(self, statement: str) -> list[tuple[Any, ...]]:
        return self.eye.execute(statement.encode()).fetchall()

    def remove(self) -> None:
        self.eye.close()
        self.server.drop(str(self.place))

    @rule(share=st.floats(0, 1))
    def restart_with_a_cut_journal(self, share: float) -> None:
        """The server ends our sessions: the next recording makes a new one."""
        tamper(self.place, "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'dop %'")

    @rule()
    def restart_without_a_journal(self) -> None:
        """The process is gone, and its sessions with it."""
        self.ledger.engine.dispose()
        self.ledger.close(clean=False)
        self._open()

    def ruin_and_rebuild(self, ruin: str) -> None:
        if ruin == "zeros":
            tamper(self.place, "update attempts set price_microusd = 0, state = 'planned'")
        if ruin == "gone":
            tamper(self.place, "delete from attempts")
        self.rebuilt = getattr(self, "rebuilt", 0) + 1
        rebuild_on_server(str(self.place), now=AT + self.rebuilt)


def _run(examples: int, steps: int, *, machine: type[LedgerMachine] = LedgerMachine, shrink: bool = True) -> None:
    limits = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        report_multiple_bugs=shrink,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=limits)


def test_the_ledger_does_what_its_model_does() -> None:
    _run(examples=8, steps=30)


def test_events_alone_pass() -> None:
    _run(examples=4, steps=30, machine=EventMachine)


@pytest.mark.long
def test_the_ledger_does_what_its_model_does_for_long() -> None:
    _run(examples=50, steps=50)


@pytest.fixture
def server_machine(postgres_server: PostgresServer) -> type[LedgerMachine]:
    """The machine on the session's server."""
    ServerMachine.server = postgres_server
    return ServerMachine


@pytest.mark.long
def test_the_ledger_on_a_server_does_what_its_model_does(server_machine: type[LedgerMachine]) -> None:
    _run(examples=6, steps=30, machine=server_machine)


def _unsafe_reserve(machine: type[LedgerMachine], monkeypatch: pytest.MonkeyPatch) -> None:
    """A cap that counts only what is done."""
    from pipeline.ledger import statements

    real = statements.Statements.__init__

    def init(self: statements.Statements, dialect: str) -> None:
        real(self, dialect)
        done = {span: text.replace(" + disputed + reserved", "") for span, text in self._spent.items()}
        self._spent = done

    monkeypatch.setattr(statements.Statements, "__init__", init)


def _late_money(machine: type[LedgerMachine], monkeypatch: pytest.MonkeyPatch) -> None:
    """Money that is recorded when the video is there, not when the intent is."""
    from pipeline.ledger import transitions

    monkeypatch.setattr(transitions, "COST_STATE", {**COST_STATE, State.SUBMITTING: CostState.NONE})


def _no_swap(machine: type[LedgerMachine], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process may move any row."""
    from pipeline.ledger import transitions

    monkeypatch.setattr(transitions, "_is_mine", lambda *_: True)


def _late_word_wins(machine: type[LedgerMachine], monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome of a submit is believed whenever it comes, also for a resolved request."""
    from pipeline.ledger import states, transitions

    real = states.next_state
    monkeypatch.setattr(transitions, "_is_too_late", lambda *_: False)
    late = TRANSITIONS[State.SUBMITTING]
    monkeypatch.setattr(
        transitions, "next_state", lambda state, event: late[event] if event in OUTCOMES else real(state, event)
    )


def _any_word_is_proof(machine: type[LedgerMachine], monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown outcome is settled by words that do not say which submit they are of."""
    from pipeline.ledger import transitions

    monkeypatch.setattr(transitions, "_is_too_late", lambda state, change: change.event not in TRANSITIONS[state])


Twin = Callable[[type[LedgerMachine], pytest.MonkeyPatch], None]
TWINS = [_unsafe_reserve, _late_money, _no_swap, _late_word_wins]
ALL_TWINS = [*TWINS, _any_word_is_proof]


@pytest.mark.parametrize("twin", TWINS)
def test_the_machine_notices_a_broken_ledger(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    twin(EventMachine, monkeypatch)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - whichever invariant speaks first, or a group of them
        _run(examples=40, steps=30, machine=EventMachine, shrink=False)


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("twin", ALL_TWINS)
def test_the_machine_notices_a_broken_ledger_on_a_server(
    twin: Twin, server_machine: type[LedgerMachine], monkeypatch: pytest.MonkeyPatch
) -> None:
    twin(server_machine, monkeypatch)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - whichever invariant speaks first, or a group of them
        _run(examples=40, steps=30, machine=server_machine, shrink=False)
