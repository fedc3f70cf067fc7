"""The durable ledger: swaps that fail change nothing, a reported result is on the disk, files are private."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.exc import DatabaseError

from pipeline.errors import InvariantError, LedgerError
from pipeline.files import UMASK
from pipeline.ledger.budget import CapReached, Caps
from pipeline.ledger.database import assert_durable
from pipeline.ledger.journal import MARK
from pipeline.ledger.journal_check import JournalWalk
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied, Conflict, JobTaken
from pipeline.records import CostState, State
from tests.support.factories import LITE_MICROUSD
from tests.support.ledgers import (
    Place,
    accept,
    change,
    ledger_at,
    money,
    opened,
    read,
    requests,
    reserve,
    start,
    tamper,
)


def test_an_event_is_on_the_disk_when_it_is_reported(place: Place) -> None:
    with opened(place) as (ledger, queries):
        lake, *_ = requests(1)
        start(queries, [lake])
        ledger.apply_now(reserve(lake))
        assert read(place, "select state, token from attempts") == [("submitting", "token")]
        assert read(place, "select event, state from history") == [("reserve", "submitting")]
        assert read(place, "select reserved from spend") == [(LITE_MICROUSD,)]
        statement = [entry["event"] for entry in JournalWalk("journal").entries(ledger.journal_lines())]
        assert [event for event in statement if event != MARK] == ["reserve"]


def test_a_note_without_values_changes_no_column_and_is_in_the_history(place: Place) -> None:
    with opened(place) as (ledger, queries):
        lake, *_ = requests(1)
        start(queries, [lake])
        ledger.apply_now(reserve(lake))
        before = read(place, "select * from attempts")
        assert isinstance(ledger.apply_now(change(lake, Event.NOTE, detail="seen")), Applied)
        assert read(place, "select * from attempts") == before
        assert read(place, "select event, detail from history order by seq") == [("reserve", ""), ("note", "seen")]


def test_a_swap_that_fails_leaves_no_trace(place: Place) -> None:
    with opened(place) as (ledger, queries):
        lake, *_ = requests(1)
        start(queries, [lake])
        ledger.apply_now(reserve(lake, "first"))
        before = read(place, "select * from attempts"), read(place, "select * from history"), money(queries)
        assert ledger.apply_now(reserve(lake, "second")) == Conflict(state=State.SUBMITTING)
        assert ledger.apply_now(accept(lake, "job", "second")) == Conflict(state=State.SUBMITTING)
        with pytest.raises(InvariantError):
            ledger.apply_now(change(lake, Event.SAVE))
        assert (read(place, "select * from attempts"), read(place, "select * from history"), money(queries)) == before
        assert ledger.problems() == []


def test_a_job_has_one_owner_also_within_a_batch_and_over_attempts(place: Place) -> None:
    with opened(place) as (ledger, queries):
        one, two = requests(2)
        start(queries, [one, two])
        ledger.apply_now(reserve(one))
        ledger.apply_now(reserve(two))

        async def both() -> list[object]:
            return list(await asyncio.gather(ledger.apply(accept(one, "job")), ledger.apply(accept(two, "job"))))

        first, second = asyncio.run(both())
        assert isinstance(first, Applied)
        assert second == JobTaken(owner_request_id=one.request_id)
        ledger.apply_now(change(one, Event.FAIL))
        queries.new_attempts([one.request_id])
        ledger.apply_now(reserve(one, "again"))
        assert ledger.apply_now(accept(one, "job", "again")) == JobTaken(owner_request_id=one.request_id)
        assert isinstance(ledger.apply_now(accept(one, "job-2", "again")), Applied)
        assert not isinstance(ledger, SqliteLedger) or ledger.spare.exists(), (
            "no swap that fails may look like a full disk"
        )


def test_a_cancelled_caller_is_booked_all_the_same(place: Place) -> None:
    with opened(place, inline=False) as (ledger, queries):
        lake, *_ = requests(1)
        start(queries, [lake])
        entered, go_on = threading.Event(), threading.Event()

        def hold(_: object) -> None:
            entered.set()
            go_on.wait(10)

        async def leave() -> None:
            holding = asyncio.get_running_loop().run_in_executor(None, ledger.transact, hold)
            await asyncio.to_thread(entered.wait, 10)
            waiting = asyncio.create_task(ledger.apply(reserve(lake)))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            go_on.set()
            await holding

        asyncio.run(leave())
    assert read(place, "select state from attempts") == [("submitting",)]


def test_a_loop_that_ended_does_not_stop_the_writer(place: Place) -> None:
    with opened(place, inline=False) as (ledger, queries):
        one, two = requests(2)
        start(queries, [one, two])

        async def abandon() -> None:
            task = asyncio.create_task(ledger.apply(reserve(one)))
            await asyncio.sleep(0)
            task.cancel()

        asyncio.run(abandon())
        assert isinstance(ledger.apply_now(reserve(two)), Applied)
        assert ledger.apply_now(reserve(one)) == Conflict(state=State.SUBMITTING)


@pytest.mark.parametrize("inline", [True, False])
def test_many_callers_share_commits_and_each_gets_its_own_result(place: Place, inline: bool) -> None:
    with opened(place, inline=inline) as (ledger, queries):
        rows = requests(60)
        start(queries, rows)
        commits = []
        real = ledger._commit
        ledger._commit = lambda batch: commits.append(len(batch)) or real(batch)  # type: ignore[method-assign, func-returns-value]

        async def all_at_once() -> list[object]:
            return list(await asyncio.gather(*(ledger.apply(reserve(row, row.request_id)) for row in rows)))

        outcomes = asyncio.run(all_at_once())
        assert [str(outcome.row["request_id"]) for outcome in outcomes if isinstance(outcome, Applied)] == [
            row.request_id for row in rows
        ]
        assert sum(commits) == 60
        assert len(commits) < 30 if inline else len(commits) <= 60
    assert read(place, "select count(*) from history") == [(60,)]


def test_texts_and_times_are_read_back_exactly(place: Place) -> None:
    texts = [
        "",
        "quo\"te' \\ {a,b}",
        "line\nbreak\ttab",
        "été 日本 😀",
        "null",
        "%s ? $1 ::text",
        "\u2028",
        "x" * 70_000,
    ]
    times = [5, 0.1, 1_764_500_000.123456, 1e-9, 1.7976931348623157e308, 2**31, 0.30000000000000004, 7.5]
    with opened(place) as (ledger, queries):
        (row,) = requests(1)
        start(queries, [row])
        lines = [(row.request_id, 1, at, "note", "planned", text) for at, text in zip(times, texts, strict=True)]
        ledger.transact(lambda connection: ledger._sql.save(connection, [], lines))
    found = read(place, "select at, detail from history order by seq")
    assert found == list(zip(map(float, times), texts, strict=True))


def test_a_batch_stops_at_the_cap_to_the_cent(place: Place) -> None:
    with opened(place) as (ledger, queries):
        rows = requests(10)
        start(queries, rows)
        caps = Caps(run_microusd=7 * LITE_MICROUSD + LITE_MICROUSD - 1)

        async def all_at_once() -> list[object]:
            return list(await asyncio.gather(*(ledger.apply(reserve(row, caps=caps)) for row in rows)))

        outcomes = asyncio.run(all_at_once())
        assert [type(outcome) for outcome in outcomes] == [Applied] * 7 + [CapReached] * 3
        assert money(queries)[CostState.RESERVED] == 7 * LITE_MICROUSD


def test_the_writer_is_durable_or_refuses(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path) as (ledger, _), ledger.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


@pytest.mark.parametrize("statement", ["PRAGMA journal_mode=DELETE", "PRAGMA synchronous=NORMAL"])
def test_a_disk_that_cannot_be_made_durable_is_refused(tmp_path: Path, statement: str) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        assert_durable(connection, tmp_path / "a.db")
        connection.execute(statement)
        with pytest.raises(LedgerError, match="can't be made durable here"):
            assert_durable(connection, tmp_path / "a.db")


def test_files_follow_the_mask_for_the_group_and_are_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "outputs" / "ledger.db"
    with opened(path) as (ledger, queries):
        lake, *_ = requests(1)
        start(queries, [lake])
        ledger.apply_now(reserve(lake))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o777 & ~UMASK
    assert set(modes) >= {"ledger.db", "ledger.db-wal", "ledger.db.journal", "ledger.db.spare"}
    assert set(modes.values()) == {0o660 & ~UMASK}


def test_readers_cannot_write(place: Place) -> None:
    with (
        opened(place) as (ledger, _),
        ledger.reader.connect() as connection,
        pytest.raises(DatabaseError, match=r"read-?only"),
    ):
        connection.exec_driver_sql("DELETE FROM spend")


def test_a_reader_sees_one_moment_while_the_writer_writes(place: Place) -> None:
    with opened(place, inline=False) as (ledger, queries):
        rows = requests(40)
        run = start(queries, rows)
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(lambda: [ledger.apply_now(reserve(row)) for row in rows])
            while not writing.done():
                totals = queries.totals(run.run_id)
                assert totals.count(State.PLANNED, State.SUBMITTING) == 40
                assert totals.reserved_microusd == totals.count(State.SUBMITTING) * LITE_MICROUSD


def test_a_callers_mistake_does_not_stop_the_writer(place: Place) -> None:
    with opened(place, inline=False) as (ledger, queries):
        lake, *_ = requests(1)
        start(queries, [lake])
        with pytest.raises(ZeroDivisionError):
            ledger.transact(lambda connection: 1 // 0)
        assert isinstance(ledger.apply_now(reserve(lake)), Applied)


def test_what_was_learned_is_remembered(place: Place) -> None:
    with opened(place) as (ledger, _):
        assert ledger.saved_states.load("learned sandbox") == {}
        ledger.saved_states.save("learned sandbox", {"rate": 2.5})
    with opened(place) as (ledger, _):
        assert ledger.saved_states.load("learned sandbox") == {"rate": 2.5}


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="can't be written"):
        SqliteLedger(tmp_path / "file" / "ledger.db")


def test_a_clean_end_and_an_unclean_one_are_distinguished(place: Place) -> None:
    ledger = ledger_at(place)
    assert ledger.ready_to_spend() == []
    ledger.close(clean=False)
    again = ledger_at(place)
    assert [notice[:33] for notice in again.ready_to_spend()] == ["the last run did not end cleanly;"]
    again.close()
    third = ledger_at(place)
    assert third.ready_to_spend() == []
    third.close()


def test_a_copied_ledger_does_not_spend(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path):
        pass
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())
    ledger = SqliteLedger(copy, inline=True)
    with pytest.raises(LedgerError, match="dop ledger adopt"):
        ledger.ready_to_spend()
    assert LedgerQueries(ledger).runs() == [], "it can still be read"
    ledger.close(clean=False)


def test_a_newer_ledger_is_refused(place: Place) -> None:
    with opened(place):
        pass
    tamper(place, "update meta set value = '99' where name = 'schema_version'")
    with pytest.raises(LedgerError, match=r"newer dop \(ledger version 99"):
        ledger_at(place)


@pytest.mark.parametrize(("name", "value"), [("seq", "1O"), ("seq", ""), ("schema_version", "-1"), ("seq", None)])
def test_a_damaged_fact_is_reported_and_not_crashed_on(place: Place, name: str, value: str | None) -> None:
    with opened(place):
        pass
    if value is None:
        tamper(place, f"delete from meta where name = '{name}'")
    else:
        tamper(place, f"update meta set value = '{value}' where name = '{name}'")
    with pytest.raises(LedgerError, match=f"its {name} is"):
        ledger_at(place)


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be read as one" * 20, b"SQLite format 3\x00abc"]
)
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(content)
    with pytest.raises(LedgerError):
        SqliteLedger(path, inline=True)
    assert path.read_bytes() == content


def test_another_programs_database_is_refused(place: Place) -> None:
    tamper(place, "create table meta (title text)")
    with pytest.raises(LedgerError, match="no ledger of dop"):
        ledger_at(place)


def test_an_untouched_row_that_was_changed_by_hand_is_not_bought(place: Place) -> None:
    with opened(place) as (ledger, queries):
        one, two = requests(2)
        start(queries, [one, two])
        tamper(place, f"update attempts set price_microusd = 1 where request_id = '{one.request_id}'")
        with pytest.raises(LedgerError, match="does not match its checksum"):
            ledger.apply_now(reserve(one))
        assert read(place, "select count(*) from attempts where state = 'planned'") == [(2,)]


SHARED_INDEX_LOCK = 128
"""Byte of the file `-shm` that each SQLite connection locks; who finds it free cuts the file to 3 bytes."""


def is_index_locked(database: Path) -> bool:
    """Whether another process finds the shared index in use, as any program that opens the ledger asks."""
    code = (
        "import fcntl, os, sys; file = os.open(sys.argv[1], os.O_RDWR); "
        f"fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, {SHARED_INDEX_LOCK})"
    )
    asked = [sys.executable, "-S", "-c", code, f"{database}-shm"]
    return subprocess.run(asked, stderr=subprocess.PIPE, check=False).returncode != 0


def test_another_program_that_reads_the_ledger_does_not_take_its_index_away(tmp_path: Path) -> None:
    """A run died of SIGBUS when a program opened its ledger: the run had closed a second descriptor of the index."""
    database = tmp_path / "ledger.db"
    with opened(database) as (_, queries):
        start(queries, requests(1))
        assert is_index_locked(database)
        with (tmp_path / "ledger.db-shm").open("rb"):
            pass
        assert not is_index_locked(database), "the test sees what a closed descriptor does"
