"""The ledger on PostgreSQL: who may work on it, what happens while its server is away, and what is never lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.errors import ConnectionTimeout, OperationalError, ProgrammingError, RaiseException
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from pipeline.errors import LedgerError, LedgerUnavailableError, LockedError
from pipeline.ledger import postgres_session as sessions
from pipeline.ledger.postgres_commits import PostgresCommits
from pipeline.ledger.postgres_ledger import PostgresLedger
from pipeline.ledger.postgres_session import LockMode
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.recovery import rebuild_on_server
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied, Conflict
from pipeline.records import CostState, Request, State
from tests.support.factories import LITE_MICROUSD
from tests.support.ledgers import AT, accept, change, money, read, requests, reserve, start, tamper
from tests.support.postgres import PostgresServer

CUT = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'dop %'"


@contextmanager
def spent_with(url: str, **value: object) -> Iterator[tuple[PostgresLedger, LedgerQueries]]:
    """The ledger as a run has it, alone."""
    ledger = PostgresLedger(url, **{"inline": True, "hold": LockMode.EXCLUSIVE, **value})  # type: ignore[arg-type]
    try:
        ledger.ready_to_spend()
        yield ledger, LedgerQueries(ledger)
    finally:
        ledger.close()


def state_of(url: str, request: Request) -> str:
    return str(read(url, f"select state from attempts where request_id = '{request.request_id}'")[0][0])


# --- who may work on it


def test_a_plain_run_keeps_every_other_away_and_is_named(postgres: str) -> None:
    with spent_with(postgres):
        for hold in LockMode:
            with pytest.raises(LockedError, match=r"another run holds postgresql://.* process \d+, since 20"):
                PostgresLedger(postgres, hold=hold)
        with pytest.raises(LockedError), sessions.locked(postgres, wait_s=0):
            pass
        PostgresLedger(postgres).close(clean=False)  # questions are always free
    with spent_with(postgres):
        pass


@pytest.mark.long
def test_workers_share_a_ledger_and_keep_plain_runs_away(postgres: str) -> None:
    with (
        spent_with(postgres, hold=LockMode.SHARED) as (one, queries),
        spent_with(postgres, hold=LockMode.SHARED) as (two, _),
    ):
        lake, sea = requests(2)
        start(queries, [lake, sea])
        assert isinstance(one.apply_now(reserve(lake, "one")), Applied)
        assert two.apply_now(reserve(lake, "two")) == Conflict(state=State.SUBMITTING)
        assert isinstance(two.apply_now(reserve(sea, "two")), Applied)
        with pytest.raises(LockedError):
            PostgresLedger(postgres, hold=LockMode.EXCLUSIVE)
    assert read(postgres, "select value from meta where name = 'clean'") == [("yes",)], "the last one out closed it"
    with spent_with(postgres) as (ledger, _):
        assert ledger.problems() == []


@pytest.mark.long
def test_a_worker_that_leaves_beside_others_does_not_call_the_ledger_closed(postgres: str) -> None:
    with spent_with(postgres, hold=LockMode.SHARED):
        with spent_with(postgres, hold=LockMode.SHARED):
            pass
        assert read(postgres, "select value from meta where name = 'clean'") == [("no",)]


@pytest.mark.long
def test_a_process_that_waits_for_the_lock_gets_it_when_its_holder_dies(postgres: str) -> None:
    holder = PostgresLedger(postgres, inline=True, hold=LockMode.EXCLUSIVE)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(PostgresLedger, postgres, inline=True, hold=LockMode.EXCLUSIVE, wait_s=20)
        holder.engine.dispose()  # a process that is gone: its session ends with its socket
        waiting.result(20).close(clean=False)


# --- while the server is away


def test_a_session_that_was_cut_is_reopened_with_its_lock(postgres: str) -> None:
    with spent_with(postgres) as (ledger, queries):
        lake, sea = requests(2)
        start(queries, [lake, sea])
        ledger.apply_now(reserve(lake))
        tamper(postgres, CUT)
        assert isinstance(ledger.apply_now(accept(lake, "job")), Applied)
        assert isinstance(ledger.apply_now(reserve(sea)), Applied)
        with pytest.raises(LockedError):
            PostgresLedger(postgres, hold=LockMode.EXCLUSIVE)
        assert queries.states([lake.request_id]) == {lake.request_id: State.ACCEPTED}


@pytest.mark.long
def test_a_run_whose_ledger_was_taken_over_books_what_it_sent_and_buys_nothing_more(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with spent_with(postgres) as (ledger, queries):
        lake, sea = requests(2)
        start(queries, [lake, sea])
        ledger.apply_now(reserve(lake))
        tamper(postgres, CUT)
        with spent_with(postgres):
            assert isinstance(ledger.apply_now(accept(lake, "job")), Applied), "paid is paid"
            with pytest.raises(LedgerError, match=r"another run works on .* nothing more is bought"):
                ledger.apply_now(reserve(sea))
            assert state_of(postgres, sea) == "planned"
        assert isinstance(ledger.apply_now(reserve(sea)), Applied), "the other one has left"


class LosesTheAnswer:
    """Lets commits through and loses what the server said, so many times."""

    def __init__(
        self, ledger: PostgresLedger, times: int, *, before: bool, then: Callable[[], object] = lambda: None
    ) -> None:
        self.times, self.before, self.then, self.begin = times, before, then, ledger._transactions.begin
        ledger._transactions.begin = self.losing  # type: ignore[method-assign]

    @contextmanager
    def losing(self) -> Iterator[Connection]:
        lose, self.times = self.times > 0, self.times - 1
        try:
            with self.begin() as connection:
                yield connection
                if lose and self.before:
                    raise LedgerUnavailableError("the server went away before the commit")
            if lose:
                raise LedgerUnavailableError("the server went away after the commit")
        finally:
            if lose:
                self.then()


@pytest.mark.parametrize("before", [True, False])
def test_a_commit_whose_answer_was_lost_is_neither_lost_nor_done_twice(postgres: str, before: bool) -> None:
    with spent_with(postgres) as (ledger, queries):
        lake, *_ = requests(1)
        start(queries, [lake])
        LosesTheAnswer(ledger, 1, before=before)
        assert isinstance(ledger.apply_now(reserve(lake)), Applied), "not a conflict with itself"
        assert read(postgres, "select event from history") == [("reserve",)]
        assert money(queries)[CostState.RESERVED] == LITE_MICROUSD
        assert isinstance(ledger.apply_now(accept(lake, "job")), Applied)


@pytest.mark.long
def test_the_broken_twin_that_forgets_its_doubt_conflicts_with_itself(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PostgresCommits, "_resolve_in_doubt", lambda *_: None)
    with spent_with(postgres) as (ledger, queries):
        lake, *_ = requests(1)
        start(queries, [lake])
        LosesTheAnswer(ledger, 1, before=False)
        assert ledger.apply_now(reserve(lake)) == Conflict(state=State.SUBMITTING)


class CrashesTheServer:
    """The server crashes right before it commits the next recording, and is back at once, with other customers."""

    def __init__(self, ledger: PostgresLedger, server: PostgresServer, others: Callable[[], object]) -> None:
        self.begin, self.server, self.others = ledger._transactions.begin, server, others
        self.times = 1
        ledger._transactions.begin = self.crashing  # type: ignore[method-assign]

    @contextmanager
    def crashing(self) -> Iterator[Connection]:
        crash, self.times = self.times > 0, self.times - 1
        with self.begin() as connection:
            yield connection
            if crash:
                self.server.crash()
                self.server.start()
                self.others()


@pytest.fixture
def lazy_server(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """What is not committed is not on the server's disk by chance either."""
    postgres_server.sql("ALTER SYSTEM SET wal_writer_delay = '10s'")
    postgres_server.sql("SELECT pg_reload_conf()")
    yield postgres_server
    postgres_server.sql("ALTER SYSTEM RESET wal_writer_delay")
    postgres_server.sql("SELECT pg_reload_conf()")


@pytest.mark.long
@pytest.mark.parametrize("others", [0, 20])
def test_an_intent_that_a_crash_of_the_server_undid_is_written_again(
    postgres: str, lazy_server: PostgresServer, others: int
) -> None:
    with spent_with(postgres) as (ledger, queries):
        lake, *_ = requests(1)
        start(queries, [lake])

        def work_of_others() -> None:
            for number in range(others):
                tamper(postgres, f"create table other_{number} (it text)")

        CrashesTheServer(ledger, lazy_server, work_of_others)
        assert isinstance(ledger.apply_now(reserve(lake)), Applied)
        assert state_of(postgres, lake) == "submitting", "its POST goes now: the intent must stand"
        assert read(postgres, "select event from history") == [("reserve",)]
        assert money(queries)[CostState.RESERVED] == LITE_MICROUSD
        assert ledger.problems() == []


def _booked_beside(postgres: str) -> list[str]:
    """The rows after a host's commit is undone, and another host's gets its number."""
    with (
        spent_with(postgres, hold=LockMode.SHARED) as (one, queries),
        spent_with(postgres, hold=LockMode.SHARED) as (two, _),
    ):
        lake, sea = requests(2)
        start(queries, [lake, sea])
        LosesTheAnswer(one, 1, before=True, then=lambda: two.apply_now(reserve(sea, "two")))
        assert isinstance(one.apply_now(reserve(lake, "one")), Applied)
        return [state_of(postgres, row) for row in (lake, sea)]


def test_a_booking_of_another_host_is_not_taken_for_the_one_whose_answer_was_lost(postgres: str) -> None:
    assert _booked_beside(postgres) == ["submitting", "submitting"]


@pytest.mark.long
def test_the_broken_twin_that_looks_at_numbers_alone_is_caught(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def by_number(connection: Connection, seq: int, _line: str) -> bool:
        found = connection.exec_driver_sql("SELECT count(*) FROM journal WHERE seq = %s", (seq,)).scalar_one()
        return bool(found)

    monkeypatch.setattr(sessions, "is_in_journal", by_number)
    assert _booked_beside(postgres) == ["planned", "submitting"], "reported as recorded, and sent without an intent"


def test_outcomes_survive_an_outage_that_outlasts_the_run(postgres: str, tmp_path: Path) -> None:
    lake, sea, hill = requests(3)
    with spent_with(postgres, spool=tmp_path, patience_s=0.3) as (ledger, queries):
        start(queries, [lake, sea, hill])
        ledger.apply_now(reserve(lake, "lake"))
        ledger.apply_now(reserve(sea, "sea"))
        heard: list[str] = []
        ledger.report_to(heard.append)
        LosesTheAnswer(ledger, 99, before=True)
        for value in (accept(lake, "job-1", "lake"), change(sea, Event.RELEASE, token="sea"), reserve(hill, "hill")):
            with pytest.raises(LedgerUnavailableError, match="run again later"):
                ledger.apply_now(value)
        assert "nothing is bought meanwhile" in heard[0]
        assert len(list(tmp_path.iterdir())) == 1
    assert state_of(postgres, lake) == "submitting"
    with spent_with(postgres, spool=tmp_path) as (ledger, _):
        assert [state_of(postgres, row) for row in (lake, sea, hill)] == ["accepted", "planned", "planned"]
        assert list(tmp_path.iterdir()) == []
        assert ledger.problems() == []


@pytest.mark.long
def test_a_reservation_that_was_refused_but_took_place_is_taken_back(postgres: str, tmp_path: Path) -> None:
    lake, *_ = requests(1)
    with spent_with(postgres, spool=tmp_path, patience_s=0.3) as (ledger, queries):
        start(queries, [lake])
        LosesTheAnswer(ledger, 1, before=False)
        commits = ledger._commits
        commits._resolve_in_doubt = lambda _: _undecided() if commits._doubt else None  # type: ignore[method-assign, assignment]
        with pytest.raises(LedgerUnavailableError):
            ledger.apply_now(reserve(lake, "lost"))
        assert state_of(postgres, lake) == "submitting"
    with spent_with(postgres, spool=tmp_path) as (ledger, queries):
        assert state_of(postgres, lake) == "planned"
        assert sum(money(queries).values()) == 0
        assert isinstance(ledger.apply_now(reserve(lake, "again")), Applied)


def _undecided() -> None:
    raise LedgerUnavailableError("the server has not decided")


@pytest.mark.long
def test_the_spool_of_a_living_process_is_left_to_it(postgres: str, tmp_path: Path) -> None:
    lake, *_ = requests(1)
    with spent_with(postgres, spool=tmp_path, patience_s=0.3) as (ledger, queries):
        start(queries, [lake])
        ledger.apply_now(reserve(lake))
        LosesTheAnswer(ledger, 99, before=True)
        with pytest.raises(LedgerUnavailableError):
            ledger.apply_now(accept(lake, "job"))
        other = PostgresLedger(postgres, inline=True, spool=tmp_path)
        other.ready_to_spend()
        assert state_of(postgres, lake) == "submitting"
        other.close(clean=False)
        assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.long
def test_a_run_waits_for_a_server_that_restarts(postgres: str, postgres_server: PostgresServer, tmp_path: Path) -> None:
    rows = requests(30)
    with spent_with(postgres, inline=False, spool=tmp_path) as (ledger, queries):
        start(queries, rows)
        half = threading.Event()

        def buy() -> list[object]:
            done: list[object] = []
            for number, row in enumerate(rows):
                done.append(ledger.apply_now(reserve(row, row.request_id)))
                done.append(ledger.apply_now(accept(row, f"job-{number}", row.request_id)))
                if number == 10:
                    half.set()
            return done

        with ThreadPoolExecutor(1) as pool:
            buying = pool.submit(buy)
            half.wait(20)
            postgres_server.crash()
            postgres_server.start()
            done = buying.result(60)
        assert {type(outcome) for outcome in done} == {Applied}
        assert read(postgres, "select count(*) from history") == [(60,)]
        assert ledger.problems() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_server_that_is_down_at_the_start_is_reported_at_once(postgres: str, postgres_server: PostgresServer) -> None:
    postgres_server.stop()
    try:
        secret = postgres.replace("postgres@", "postgres:canary-password@")
        with pytest.raises(LedgerUnavailableError, match="Connection refused") as found:
            PostgresLedger(secret)
        assert "canary" not in f"{found.value!r} {found.value.__cause__!r}"
    finally:
        postgres_server.start()


# --- what a server refuses


def test_a_text_that_the_server_refuses_keeps_nothing_paid_from_being_recorded(postgres: str) -> None:
    with spent_with(postgres) as (ledger, queries):
        lake, *_ = requests(1)
        start(queries, [lake])
        ledger.apply_now(reserve(lake))
        values = {"job_set_id": "job", "accepted_at": AT, "reason": "odd\0\ud800"}
        value = change(lake, Event.ACCEPT, token="token", values=values, detail="200 \0")
        assert isinstance(ledger.apply_now(value), Applied)
        assert ledger.problems() == []


@pytest.mark.long
def test_one_damaged_row_does_not_keep_the_others_from_being_recorded(postgres: str, tmp_path: Path) -> None:
    with spent_with(postgres, inline=False, spool=tmp_path) as (ledger, queries):
        lake, sea = requests(2)
        start(queries, [lake, sea])
        for row in (lake, sea):
            ledger.apply_now(reserve(row))
        tamper(postgres, f"update attempts set polls = 7 where request_id = '{lake.request_id}'")
        jobs = [accept(lake, "job-1"), accept(sea, "job-2")]
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(lambda one: _outcome(ledger, one), jobs)
        assert isinstance(first, LedgerError)
        assert isinstance(second, Applied)


def _outcome(ledger: PostgresLedger, value: object) -> object:
    try:
        return ledger.apply_now(value)  # type: ignore[arg-type]
    except LedgerError as error:
        return error


@pytest.mark.long
@pytest.mark.parametrize("statement", ["update journal set line = 'x'", "delete from journal", "truncate journal"])
def test_the_journal_is_append_only(postgres: str, statement: str) -> None:
    with spent_with(postgres), pytest.raises(RaiseException, match="append-only"):
        tamper(postgres, statement)


@pytest.mark.long
def test_a_server_that_is_not_durable_is_refused(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tamper(postgres, f"alter database {postgres.rpartition('/')[2]} set synchronous_commit = off")
    with spent_with(postgres) as (ledger, _), ledger.engine.connect() as connection:
        assert connection.exec_driver_sql("show synchronous_commit").scalar() == "on"
    monkeypatch.setattr(sessions, "MIN_SERVER_VERSION", 990_000)
    with pytest.raises(LedgerError, match="is older than PostgreSQL 13"):
        PostgresLedger(postgres)


@pytest.mark.long
def test_tables_of_another_program_may_stand_beside_the_ledger(postgres: str) -> None:
    tamper(postgres, "create table songs (title text)")
    with spent_with(postgres):
        pass
    assert read(postgres, "select count(*) from songs") == [(0,)]


# --- copies and damage


@pytest.mark.long
def test_a_restored_copy_does_not_spend(postgres: str, postgres_server: PostgresServer) -> None:
    with spent_with(postgres):
        pass
    copy = f"{postgres}_copy"
    postgres_server.sql(f"CREATE DATABASE {copy.rpartition('/')[2]} TEMPLATE {postgres.rpartition('/')[2]}")
    try:
        ledger = PostgresLedger(copy, inline=True)
        with pytest.raises(LedgerError, match="dop ledger adopt"):
            ledger.ready_to_spend()
        ledger.adopt(AT)
        ledger.close(clean=False)
        with spent_with(copy):
            pass
    finally:
        postgres_server.drop(copy)


@pytest.mark.long
def test_a_damaged_ledger_is_rebuilt_from_its_journal(postgres: str) -> None:
    one, two, three = requests(3)
    with spent_with(postgres) as (ledger, queries):
        start(queries, [one, two, three])
        for number, row in enumerate((one, two)):
            ledger.apply_now(reserve(row))
            ledger.apply_now(accept(row, f"job-{number}"))
        ledger.apply_now(change(one, Event.COMPLETE))
        before = money(queries)
    tamper(postgres, "update attempts set price_microusd = 1")
    ledger = PostgresLedger(postgres, inline=True)
    assert len(ledger.problems()) >= 3
    ledger.close(clean=False)
    found = rebuild_on_server(postgres, now=AT)
    assert (found.events, found.requests, found.runs) == (5, 2, 1)
    assert read(postgres, "select count(*) from attempts_damaged_20260921t141320z where price_microusd = 1") == [(3,)]
    with spent_with(postgres) as (ledger, queries):
        assert ledger.problems() == []
        assert money(queries) == before
        assert [state_of(postgres, row) for row in (one, two)] == ["done", "accepted"]
        queries.sync_rows("2026-09-21_1413-shots-0001", [one, two, three], rows_digest="again")
        assert isinstance(ledger.apply_now(reserve(three)), Applied)


@pytest.mark.parametrize("cause", [OperationalError("connection refused"), ConnectionTimeout("connection timeout")])
def test_a_server_that_gives_no_answer_in_time_is_away_and_not_wrong(cause: Exception) -> None:
    assert sessions.is_away(DBAPIError.instance("SELECT 1", {}, cause, psycopg.Error))
    assert not sessions.is_away(DBAPIError.instance("SELECT 1", {}, ProgrammingError("no such table"), psycopg.Error))
