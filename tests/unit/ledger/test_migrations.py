"""A ledger of an earlier version: copied first, brought up to date a step at a time, whole whatever fails."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine

from pipeline.errors import LedgerError
from pipeline.ledger.database import LedgerOutdatedError, create_or_check, sqlite_engine
from pipeline.ledger.migrations import STEPS, copy_file, migrate
from pipeline.ledger.schema import SCHEMA_VERSION
from tests.support.ledgers import opened, read, requests, start


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A ledger with two requests, of a version that never was: without the caps of its runs."""
    path = tmp_path / "ledger.db"
    with opened(path) as (ledger, book):
        start(book, requests(2))
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
    assert migrate(engine, old, steps={0: add_caps}) == (0, old.with_name("ledger.db.v0-backup"))
    engine.dispose()
    backup = old.with_name("ledger.db.v0-backup")
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert ("caps" in columns(backup), "caps" in columns(old)) == (False, True)
    assert read(backup, "select count(*) from attempts") == [(2,)]
    with opened(old) as (ledger, _):
        assert ledger.problems() == []


def test_a_step_that_fails_changes_nothing(old: Path) -> None:
    engine = engine_of(old)
    with pytest.raises(LedgerError, match=r"it is as it was, and ledger\.db\.v0-backup is a copy"):
        migrate(engine, old, steps={0: fail_half_way})
    engine.dispose()
    assert "half" not in columns(old)
    assert read(old, "select value from meta where name = 'schema_version'") == [("0",)]


def test_several_steps_are_taken_in_order_and_a_cut_between_them_goes_on(old: Path) -> None:
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


def test_a_copy_is_whole_private_and_never_over_another_file(tmp_path: Path) -> None:
    path, target = tmp_path / "ledger.db", tmp_path / "copy.db"
    with opened(path) as (_, book):
        start(book, requests(3))
        copy_file(path, target)
    assert read(target, "select count(*) from attempts") == [(3,)]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with pytest.raises(LedgerError, match="exists already"):
        copy_file(path, target)
    with pytest.raises(LedgerError, match="could not be copied"):
        copy_file(path, tmp_path / "nowhere" / "copy.db")
