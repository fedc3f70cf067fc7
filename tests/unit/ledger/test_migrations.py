"""A ledger of an earlier version: copied first, brought up to date a step at a time, whole whatever fails."""

from __future__ import annotations

import stat
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine

from pipeline.errors import LedgerError
from pipeline.files import LEDGER_MODE
from pipeline.ledger.database import LedgerOutdatedError, create_or_check, sqlite_engine
from pipeline.ledger.journal import MARK, change_entry, entry_of, line_of
from pipeline.ledger.journal_audit import JournalFindings, examine
from pipeline.ledger.journal_check import JournalWalk, lines_of
from pipeline.ledger.migrations import STEPS, copy_file, migrate
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.recovery import rebuild_on_server
from pipeline.ledger.schema import SCHEMA_VERSION
from pipeline.ledger.side_files import journal_path
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.ledger.writer import LedgerWriter
from pipeline.records import CostState, State
from tests.support.factories import LITE_MICROUSD, make_request
from tests.support.ledgers import (
    AT,
    Place,
    accept,
    ledger_at,
    make_run,
    money,
    opened,
    read,
    requests,
    reserve,
    start,
    tamper,
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A ledger with two requests, of a version that never was: without the caps of its runs."""
    path = tmp_path / "ledger.db"
    with opened(path) as (ledger, queries):
        start(queries, requests(2))
        ledger.transact(lambda connection: connection.exec_driver_sql("ALTER TABLE runs DROP COLUMN caps") and None)
        ledger.transact(
            lambda connection: (
                connection.exec_driver_sql("UPDATE meta SET value = '0' WHERE name = 'schema_version'") and None
            )
        )
    return path


def add_caps(connection: Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE runs ADD COLUMN caps TEXT")


def fail_half_way(connection: Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE runs ADD COLUMN half TEXT")
    connection.exec_driver_sql("INSERT INTO nowhere VALUES (1)")


def engine_of(path: Path) -> Engine:
    return sqlite_engine(path, write=True)


def columns(path: Path) -> list[str]:
    return [str(row[1]) for row in read(path, "PRAGMA table_info(runs)")]


def test_a_ledger_of_today_needs_no_step(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path) as (ledger, _):
        assert migrate(ledger.engine, path) is None
    assert [file.name for file in tmp_path.iterdir() if "backup" in file.name] == []


def test_steps_lead_up_to_the_version_of_today() -> None:
    assert sorted(STEPS) == list(range(1, SCHEMA_VERSION))


def test_an_old_ledger_is_copied_and_brought_up_to_date(old: Path) -> None:
    engine = engine_of(old)
    with pytest.raises(LedgerOutdatedError, match="earlier version"):
        create_or_check(engine, str(old))
    assert migrate(engine, old, steps={0: add_caps, **STEPS}) == (0, old.with_name("ledger.db.v0-backup"))
    engine.dispose()
    backup = old.with_name("ledger.db.v0-backup")
    assert stat.S_IMODE(backup.stat().st_mode) == LEDGER_MODE
    assert ("caps" in columns(backup), "caps" in columns(old)) == (False, True)
    assert read(backup, "select count(*) from attempts") == [(2,)]
    with opened(old) as (ledger, _):
        assert ledger.problems() == []


def test_a_step_that_fails_changes_nothing(old: Path) -> None:
    engine = engine_of(old)
    with pytest.raises(LedgerError, match=r"it is as it was, and ledger\.db\.v0-backup is a copy"):
        migrate(engine, old, to=1, steps={0: fail_half_way})
    engine.dispose()
    assert "half" not in columns(old)
    assert read(old, "select value from meta where name = 'schema_version'") == [("0",)]


def test_several_steps_are_taken_in_order_and_a_cut_between_them_is_resumed(old: Path) -> None:
    engine = engine_of(old)
    with pytest.raises(LedgerError, match="from version 1 to 2"):
        migrate(engine, old, to=2, steps={0: add_caps, 1: fail_half_way})
    assert read(old, "select value from meta where name = 'schema_version'") == [("1",)]
    taken: list[str] = []
    assert (
        migrate(engine, old, to=3, steps={1: lambda _: taken.append("1"), 2: lambda _: taken.append("2")}) is not None
    )
    engine.dispose()
    assert taken == ["1", "2"]


def test_a_version_without_a_step_is_refused_before_anything_is_done(old: Path) -> None:
    engine = engine_of(old)
    with pytest.raises(LedgerError, match="too old"):
        migrate(engine, old, to=2, steps={1: add_caps})
    engine.dispose()
    assert not old.with_name("ledger.db.v0-backup").exists()


@pytest.fixture
def first_version(tmp_path: Path) -> Path:
    """A ledger as version 1 left it: no id, no chain, and side files named by its stem."""
    path = tmp_path / "ledger.db"
    with opened(path) as (ledger, queries):
        rows = requests(3)
        start(queries, rows)
        for row in rows[:2]:
            ledger.apply_now(reserve(row))
            ledger.apply_now(accept(row, f"job-{row.params.seed}"))
    journal = journal_path(path)
    lines = [entry for line in lines_of(journal) if (entry := entry_of(line)) is not None]
    events = [entry for entry in lines if entry["event"] != MARK]
    for number, entry in enumerate(events, start=1):
        entry["seq"] = number
        del entry["ledger"], entry["chain"]
    path.with_suffix(".journal").write_text("".join(line_of(entry) for entry in events))
    path.with_suffix(".spare").write_bytes(b"spare")
    journal.unlink()
    own = "'ledger id', 'chain', 'machine', 'journal place'"
    tamper(path, f"delete from meta where name in ({own})")
    tamper(path, f"update meta set value = '{len(events)}' where name = 'seq'")
    tamper(path, "update meta set value = '1' where name = 'schema_version'")
    return path


def test_the_first_version_gets_an_identity_and_keeps_its_journal(first_version: Path) -> None:
    before = read(first_version, "select request_id, state, job_set_id from attempts order by 1")
    ledger = SqliteLedger(first_version, inline=True, may_migrate=True)
    ledger.ready_to_spend()
    third = requests(3)[2]
    ledger.apply_now(reserve(third))
    ledger.apply_now(accept(third, "job-3"))
    ledger.close()
    assert not first_version.with_suffix(".journal").exists()
    assert not first_version.with_suffix(".spare").exists()
    assert read(first_version, "select request_id from attempts where state = 'accepted' order by 1") == [
        (request_id,) for request_id, *_ in before
    ]
    walk = JournalWalk("journal", ledger_id=ledger.ledger_id, at=ledger.head)
    assert len(list(walk.entries(lines_of(journal_path(first_version))))) == 7, "four, the place, two more"
    assert walk.lacks(0) == []
    first_version.unlink()  # the old lines and the new ones make the same ledger
    with opened(first_version) as (again, _):
        assert again.ledger_id == ledger.ledger_id
        assert again.problems() == []
    assert read(first_version, "select count(*) from attempts where state = 'accepted'") == [(3,)]


OLD, NEW = "http://localhost:8080", "http://127.0.0.1:8080"


def buy_under_the_old_name(place: Place) -> None:
    """A ledger with three requests of a gateway under an old spelling, two of them bought."""
    rows = [make_request(gateway=OLD, seed=seed) for seed in (1, 2, 3)]
    with opened(place) as (ledger, queries):
        start(queries, rows, make_run(gateway=OLD))
        for row in rows[:2]:
            ledger.apply_now(reserve(row))
            ledger.apply_now(accept(row, f"job-{row.params.seed}"))


def assert_bought_under_the_new_name(ledger: LedgerWriter, queries: LedgerQueries) -> None:
    same = [make_request(gateway=NEW, seed=seed) for seed in (1, 2, 3)]
    states = queries.states([row.request_id for row in same])
    assert {states[row.request_id] for row in same[:2]} == {State.ACCEPTED}
    assert states.get(same[2].request_id, State.PLANNED) is State.PLANNED
    assert ledger.problems() == []
    found = examine(ledger.journal_lines(), name="journal", ledger=ledger)
    assert found == JournalFindings()
    assert money(queries)[CostState.RESERVED] == 2 * LITE_MICROUSD
    assert queries.spent(OLD, "2026").worst_microusd == 0
    assert queries.spent(NEW, "2026").worst_microusd == 2 * LITE_MICROUSD


def test_a_gateway_of_an_old_spelling_gets_its_name_and_its_rows_are_not_bought_again(place: Place) -> None:
    buy_under_the_old_name(place)
    ledger = ledger_at(place)
    (notice,) = ledger.ready_to_spend()
    assert f"{OLD} and {NEW} are one gateway: 3 requests" in notice
    assert_bought_under_the_new_name(ledger, LedgerQueries(ledger))
    ledger.close()
    if isinstance(place, Path):
        place.unlink()  # the journal knows the requests under their new ids only
    else:
        rebuild_on_server(place, now=AT)
    with opened(place) as (again, queries):
        assert_bought_under_the_new_name(again, queries)


def test_a_paid_answer_that_only_the_journal_has_is_booked_before_its_request_gets_another_id(tmp_path: Path) -> None:
    path, third = tmp_path / "ledger.db", make_request(gateway=OLD, seed=3)
    with opened(path) as (ledger, queries):
        start(queries, [third], make_run(gateway=OLD))
        ledger.apply_now(reserve(third))
        seq = ledger.head[0]
    with journal_path(path).open("a") as journal:
        journal.write(line_of(change_entry(accept(third, "job-3"), seq + 1)))
    with opened(path) as (ledger, queries):
        (attempt,) = queries.latest_attempts([make_request(gateway=NEW, seed=3).request_id])
        assert (attempt.state, attempt.job_set_id) == (State.ACCEPTED, "job-3")
        assert ledger.problems() == []


def test_a_picture_that_is_gone_leaves_its_request_a_name_that_is_said(tmp_path: Path) -> None:
    path, picture = tmp_path / "ledger.db", tmp_path / "a.jpg"
    row = make_request(gateway=OLD, input_images=(str(picture),), request_id="0" * 32)
    with opened(path) as (ledger, queries):
        start(queries, [row], make_run(gateway=OLD))
        ledger.apply_now(reserve(row))
        ledger.apply_now(accept(row, "job-1"))
    with closing(ledger_at(path)) as again:
        (notice,) = again.ready_to_spend()
    assert "the pictures of 1 that were sent are gone" in notice


def test_the_first_version_is_made_from_its_old_journal_only_when_it_is_adopted(first_version: Path) -> None:
    first_version.unlink()
    ledger = SqliteLedger(first_version, inline=True)
    with pytest.raises(LedgerError, match="dop ledger adopt"):
        ledger.ready_to_spend()
    ledger.adopt(AT)
    ledger.ready_to_spend()
    ledger.close()
    assert read(first_version, "select count(*) from attempts where state = 'accepted'") == [(2,)]


def test_a_copy_is_whole_private_and_never_over_another_file(tmp_path: Path) -> None:
    path, target = tmp_path / "ledger.db", tmp_path / "copy.db"
    with opened(path) as (_, queries):
        start(queries, requests(3))
        copy_file(path, target)
    assert read(target, "select count(*) from attempts") == [(3,)]
    assert stat.S_IMODE(target.stat().st_mode) == LEDGER_MODE
    with pytest.raises(LedgerError, match="exists already"):
        copy_file(path, target)
    with pytest.raises(LedgerError, match="could not be copied"):
        copy_file(path, tmp_path / "nowhere" / "copy.db")


def test_a_ledger_without_shots_gets_them_and_wants_every_row(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path) as (_, queries):
        start(queries, requests(3))
    for statement in (
        "drop index run_rows_by_shot",
        *(f"alter table run_rows drop column {n}" for n in ("shot", "wanted")),
    ):
        tamper(path, statement)
    tamper(path, "drop table clip_checks")
    tamper(path, "update meta set value = '3' where name = 'schema_version'")
    ledger = SqliteLedger(path, inline=True, may_migrate=True)
    ledger.ready_to_spend()
    ledger.close()
    assert read(path, "select shot, wanted from run_rows") == [(None, 1)] * 3
    assert read(path, "select count(*) from clip_checks") == [(0,)]
