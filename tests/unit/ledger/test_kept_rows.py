"""The writer's connection keeps the rows that it wrote, and forgets them as soon as anything else has written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from pipeline.ledger import kept_rows
from pipeline.ledger.batch_statements import Executor
from pipeline.ledger.batch_writer import BatchWriter
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.ledger.statements import Statements
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied, ChangeResult, Conflict, LedgerChange, Row
from pipeline.records import Request, State
from tests.support.ledgers import AT, RUN, change, opened, requests, start

Patch = pytest.MonkeyPatch


def reserve(request: Request, token: str = "t") -> LedgerChange:
    return change(request, Event.RESERVE, run_id=RUN, token=token)


def accepted(request: Request) -> LedgerChange:
    return change(request, Event.ACCEPT, token="t", values={"job_set_id": "job-1", "accepted_at": AT})


def read_by(monkeypatch: Patch) -> list[set[str]]:
    """The ids of each question for rows, from now on."""
    asked: list[set[str]] = []
    rows = Statements.rows

    def counted(self: Statements, hand: Executor, request_ids: Iterable[str]) -> dict[str, Row]:
        asked.append(set(request_ids))
        return rows(self, hand, asked[-1])

    monkeypatch.setattr(Statements, "rows", counted)
    return asked


def test_what_was_just_written_is_not_read_again(tmp_path: Path, monkeypatch: Patch) -> None:
    with opened(tmp_path / "ledger.db") as (ledger, queries):
        (request,) = start_with(queries, 1)
        asked = read_by(monkeypatch)
        for one in (reserve(request), accepted(request), change(request, Event.COMPLETE, values={"finished_at": AT})):
            assert isinstance(ledger.apply_now(one), Applied)
        assert asked == [{request.request_id}], "the intent alone read its row"
        assert ledger.problems() == []


def start_with(queries: LedgerQueries, count: int) -> list[Request]:
    rows = requests(count)
    start(queries, rows)
    return rows


def after_another_wrote(folder: Path) -> ChangeResult:
    """What becomes of an acceptance when another connection released its request after the intent."""
    with opened(folder / "ledger.db") as (ledger, queries):
        (request,) = start_with(queries, 1)
        ledger.apply_now(reserve(request))
        other = SqliteLedger(folder / "ledger.db", inline=True)
        other.apply_now(change(request, Event.RELEASE, token="t"))
        other.apply_now(reserve(request, "of the other"))
        other.close(clean=False)
        return ledger.apply_now(accepted(request))


def test_a_row_that_another_connection_wrote_is_read_again(tmp_path: Path) -> None:
    assert after_another_wrote(tmp_path) == Conflict(state=State.SUBMITTING)


def test_a_twin_that_does_not_ask_who_wrote_overwrites_another_submit(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Statements, "data_version", lambda self, hand: "always the same")
    assert isinstance(after_another_wrote(tmp_path), Applied)


def after_an_own_transaction(folder: Path) -> ChangeResult:
    """What becomes of an acceptance when a transaction of the same connection settled its request."""
    with opened(folder / "ledger.db") as (ledger, queries):
        (request,) = start_with(queries, 1)
        ledger.apply_now(reserve(request))
        ledger.transact(lambda connection: connection.exec_driver_sql("DELETE FROM attempts"))
        return ledger.apply_now(accepted(request))


def test_a_transaction_of_its_own_makes_rows_be_read_again(tmp_path: Path) -> None:
    assert after_an_own_transaction(tmp_path) == Conflict(state=None)


def test_a_twin_that_keeps_rows_over_such_a_transaction_is_noticed(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(BatchWriter, "forget_rows", lambda self: None)
    assert isinstance(after_an_own_transaction(tmp_path), Applied)


def test_only_so_many_rows_are_kept(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(kept_rows, "MAX_KEPT", 2)
    with opened(tmp_path / "ledger.db") as (ledger, queries):
        rows = start_with(queries, 3)
        for request in rows:
            ledger.apply_now(reserve(request))
        asked = read_by(monkeypatch)
        ledger.apply_all([change(request, Event.LOSE, token="t") for request in rows])
        assert asked == [{rows[0].request_id}]
