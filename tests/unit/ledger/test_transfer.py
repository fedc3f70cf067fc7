"""`dop ledger copy --to`: everything arrives, is compared, and only one of the two ledgers spends afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli.main import main
from pipeline.errors import LedgerError, LedgerUnavailableError
from pipeline.ledger import transfer
from pipeline.ledger.file_lock import locked
from pipeline.ledger.postgres_ledger import PostgresLedger
from pipeline.ledger.recovery import rebuild_on_server
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied
from pipeline.records import State
from tests.support.ledgers import AT, RUN, accept, change, money, opened, read, requests, reserve, start

Say = pytest.CaptureFixture[str]
TABLES = ("runs", "run_rows", "attempts", "history", "spend", "reviews")
LINES = {table: f"select * from {table} order by 1, 2, 3" for table in TABLES}


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """A ledger with a request in most states."""
    with opened(tmp_path / "ledger.db") as (ledger, queries):
        rows = requests(6)
        start(queries, rows)
        for number, row in enumerate(rows[:5]):
            ledger.apply_now(reserve(row))
            if number:
                ledger.apply_now(accept(row, f"job-{number}"))
        ledger.apply_now(change(rows[1], Event.COMPLETE))
        ledger.apply_now(change(rows[2], Event.FAIL))
        ledger.apply_now(change(rows[0], Event.LOSE))
        queries.new_attempts([rows[2].request_id])
        ledger.saved_states.save("learned sandbox", {"rate": 2.5})
    return tmp_path


def dop(outputs: Path, *words: str) -> int:
    return main([*words, "--outputs", str(outputs)])


def test_everything_arrives_and_the_file_spends_no_more(outputs: Path, postgres: str, capsys: Say) -> None:
    path = outputs / "ledger.db"
    before = {table: read(path, LINES[table]) for table in TABLES}
    secret = postgres.replace("postgres@", "postgres:canary-password@")
    assert dop(outputs, "ledger", "copy", "--to", secret) == 0
    printed = capsys.readouterr()
    assert f"{postgres} holds what {path} held: 7 requests, 1 run, 12 events, $0.675" in printed.out
    assert "canary" not in printed.out + printed.err
    assert {table: read(postgres, LINES[table]) for table in TABLES} == before
    with pytest.raises(LedgerError, match=r"was moved to postgresql://.* DOP_LEDGER__URL"), opened(path):
        pass
    assert b"canary" not in path.read_bytes()
    with opened(postgres) as (ledger, queries):
        assert ledger.problems() == []
        assert ledger.saved_states.load("learned sandbox") == {"rate": 2.5}
        assert isinstance(ledger.apply_now(reserve(requests(6)[5])), Applied)
        assert queries.last_event() == 13
    assert dop(outputs, "ledger", "check", "--set", f"ledger.url={postgres}") == 0


@pytest.mark.long
def test_what_was_moved_can_be_rebuilt_from_the_journal_that_came_along(outputs: Path, postgres: str) -> None:
    assert dop(outputs, "ledger", "copy", postgres) == 0
    with opened(postgres) as (_, queries):
        before = money(queries)
    rebuild_on_server(postgres, now=AT)
    with opened(postgres) as (ledger, queries):
        assert ledger.problems() == []
        assert money(queries) == before
        assert queries.totals(RUN).count(State.UNKNOWN, State.DONE, State.ACCEPTED) == 4


@pytest.mark.long
def test_a_ledger_that_is_used_or_a_target_that_is_not_empty_is_refused(
    outputs: Path, postgres: str, capsys: Say
) -> None:
    with locked(outputs / "ledger.db", wait_s=0, now=AT):
        assert dop(outputs, "ledger", "copy", "--to", postgres) == 11
    with opened(postgres) as (_, queries):
        start(queries, requests(1))
    assert dop(outputs, "ledger", "copy", "--to", postgres) == 7
    assert "already; nothing was copied" in capsys.readouterr().err
    with opened(outputs / "ledger.db"):
        pass


@pytest.mark.long
def test_a_move_that_fails_leaves_both_as_they_were(
    outputs: Path, postgres: str, monkeypatch: pytest.MonkeyPatch, capsys: Say
) -> None:
    monkeypatch.setattr(
        transfer, "_lines", lambda connection, entries: connection.exec_driver_sql("update spend set reserved = 1")
    )
    assert dop(outputs, "ledger", "copy", "--to", postgres) == 7
    assert "differs" in capsys.readouterr().err
    assert read(postgres, "select count(*) from attempts") == [(0,)]
    with opened(outputs / "ledger.db"):
        pass


@pytest.mark.long
def test_a_connection_that_is_lost_at_the_end_leaves_no_two_ledgers_that_spend(
    outputs: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = SqliteLedger(outputs / "ledger.db", inline=True), PostgresLedger(postgres, inline=True)
    real = target.transact

    def cut(work: object, **printed: object) -> object:
        real(work)  # type: ignore[arg-type]
        raise LedgerUnavailableError("the server went away")

    monkeypatch.setattr(target, "transact", cut)
    source.ready_to_spend()
    with pytest.raises(LedgerUnavailableError, match="if it is whole, use it"):
        transfer.move(source, target)
    for ledger in (source, target):
        ledger.close(clean=False)
    with pytest.raises(LedgerError, match="was moved to"), opened(outputs / "ledger.db"):
        pass
    assert dop(outputs, "ledger", "adopt") == 0
    with opened(outputs / "ledger.db"):
        pass


@pytest.mark.parametrize("url", ["sqlite:///x", "postgresql://dop@db", "postgresql://dop:p/w@db/dop"])
def test_what_is_no_database_is_refused(outputs: Path, url: str, capsys: Say) -> None:
    assert dop(outputs, "ledger", "copy", "--to", url) == 2
    assert "p/w" not in capsys.readouterr().err
