"""A ledger after a crash: what the last run wrote is checked, and what is not checked then is never bought twice."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest

from pipeline.errors import LedgerError
from pipeline.ledger import listing, spending_checks
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied
from pipeline.records import Request, State
from tests.support.ledgers import AT, RUN, accept, change, ledger_at, make_run, opened, requests, reserve, start
from tests.support.scale import scaled
from tests.unit.ledger.test_crash import flips

BOUGHT_BEFORE, BOUGHT_IN_CRASH = range(6), range(6, 9)
ROWS = 12


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger with six purchases of a run that ended well, three of one that crashed, and three rows to come."""
    path = tmp_path / "ledger.db"
    rows = requests(ROWS)
    with opened(path) as (ledger, queries):
        start(queries, rows)
        for number in BOUGHT_BEFORE:
            ledger.apply_now(reserve(rows[number]))
            ledger.apply_now(accept(rows[number], f"job-{number}"))
            ledger.apply_now(change(rows[number], Event.COMPLETE, values={"video_url": "https://cdn.example/a.mp4"}))
    crashed = ledger_at(path)
    crashed.ready_to_spend()
    for number in BOUGHT_IN_CRASH:
        crashed.apply_now(reserve(rows[number]))
        crashed.apply_now(accept(rows[number], f"job-{number}"))
    crashed.close(clean=False)
    return path


def tamper(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def notice_of(path: Path) -> str:
    """What the next start says; it raises where it refuses."""
    ledger = SqliteLedger(path, inline=True)
    try:
        (notice,) = ledger.ready_to_spend()
        return notice
    finally:
        ledger.close(clean=False)


def one(number: int) -> str:
    return f"where request_id = '{requests(ROWS)[number].request_id}'"


def test_only_what_the_last_run_wrote_is_read_row_by_row(path: Path) -> None:
    assert notice_of(path) == "the last run did not end cleanly; what it wrote was checked and is whole"
    tamper(path, f"update attempts set polls = 77 {one(2)}")  # known to be whole before
    assert "what it wrote was checked" in notice_of(path)
    ledger = SqliteLedger(path, inline=True)
    assert ledger.problems(), "the full check finds it"
    with pytest.raises(LedgerError, match="does not match its checksum"):
        ledger.apply_now(change(requests(ROWS)[2], Event.NOTE, values={"polls": 1}))
    ledger.close(clean=False)


@pytest.mark.parametrize(
    "statement",
    [
        f"update attempts set polls = 77 {one(7)}",
        f"update attempts set params = replace(params, 'lake', 'cake') {one(7)}",
        f"update attempts set price_microusd = 1 {one(2)}",
        f"update attempts set state = 'failed' {one(2)}",
        f"update attempts set state = 'dome' {one(2)}",
        f"update attempts set spend_day = '2026-01-01' {one(2)}",
        "update spend set reserved = reserved - 135000",
        "delete from spend",
    ],
)
def test_what_a_crash_could_leave_half_done_is_refused(path: Path, statement: str) -> None:
    tamper(path, statement)
    with pytest.raises(LedgerError, match="is damaged"):
        notice_of(path)


def test_two_live_attempts_are_found_without_reading_all_rows(path: Path) -> None:
    with opened(path) as (ledger, queries):
        ledger.apply_now(change(requests(ROWS)[8], Event.FAIL, values={"reason": "out of memory"}))
        queries.new_attempts([requests(ROWS)[8].request_id])
    ledger = ledger_at(path)
    ledger.ready_to_spend()
    ledger.close(clean=False)
    tamper(path, f"update attempts set superseded = 0 {one(8)}")
    with pytest.raises(LedgerError, match="two live attempts"):
        notice_of(path)


@pytest.mark.parametrize("mark", ["", "x", "-1", "9" * 30, "100000"])
def test_a_ledger_that_does_not_know_what_was_checked_is_checked_in_full(path: Path, mark: str) -> None:
    tamper(path, f"update meta set value = '{mark}' where name = '{spending_checks.AUDITED}'")
    assert notice_of(path)
    tamper(path, f"update meta set value = '{mark}' where name = '{spending_checks.AUDITED}'")
    tamper(path, f"update attempts set polls = 77 {one(2)}")
    with pytest.raises(LedgerError, match="does not match its checksum"):
        notice_of(path)


def bought_again(path: Path) -> list[Request]:
    """The requests that were bought before, and are bought again by a run that follows the crash."""
    rows, again = requests(ROWS), []
    ledger = None
    with suppress(LedgerError):
        ledger = SqliteLedger(path, inline=True)
        ledger.ready_to_spend()
        queries = LedgerQueries(ledger)
        queries.sync_rows(RUN, rows, rows_digest="the next reading")
        planned = {one.request_id for one in queries.attempts_in(RUN, (State.PLANNED,))}
        for number, row in enumerate(rows):
            if row.request_id in planned and isinstance(ledger.apply_now(reserve(row, "again", at=AT + 9)), Applied):
                again += [row] if number in (*BOUGHT_BEFORE, *BOUGHT_IN_CRASH) else []
    if ledger is not None:
        ledger.close(clean=False)
    return again


def flip_and_buy(path: Path, count: int, seed: int) -> None:
    for flipped in flips(path, count, seed):
        path.write_bytes(flipped)
        for side in ("ledger.db-wal", "ledger.db-shm"):
            path.with_name(side).unlink(missing_ok=True)
        assert bought_again(path) == []


def test_no_flipped_bit_buys_anything_again(path: Path) -> None:
    flip_and_buy(path, 15, seed=4)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5, 5 + scaled(16, quick=4)))
def test_many_flipped_bits_buy_nothing_again(path: Path, seed: int) -> None:
    """With DOP_TEST_SIZE=full two thousand."""
    flip_and_buy(path, 125, seed)


def hide_from_the_index(path: Path, number: int) -> None:
    """Flip a bit of the request's id where an index of the rows holds it, and nowhere else."""
    wanted = requests(ROWS)[number].request_id.encode()
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_attempts_1'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    place = content.index(wanted, (root - 1) * size, root * size)
    content[place + 31] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("number", [2, 7])
def test_a_row_that_a_damaged_index_hides_is_not_bought_again(path: Path, number: int) -> None:
    hide_from_the_index(path, number)
    assert bought_again(path) == []


def test_without_the_look_at_the_history_it_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide_from_the_index(path, 2)
    monkeypatch.setattr(listing, "_check_unknown", lambda *_: None)
    assert bought_again(path) == [requests(ROWS)[2]]


def test_a_new_ledger_s_run_is_no_reason_for_a_full_check(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path / "new.db")
    ledger.ready_to_spend()
    start(LedgerQueries(ledger), requests(3), make_run())
    ledger.close(clean=False)
    assert "what it wrote was checked" in notice_of(tmp_path / "new.db")
