"""What was agreed is what can be reserved: exact ids, one sum, and nothing beside them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InvariantError
from pipeline.ledger.agreement import NOTHING, Agreement, RequestIds
from pipeline.ledger.budget import NO_CAPS
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied, LedgerChange
from pipeline.ledger.writer import LedgerWriter
from pipeline.records import Request
from pipeline.runner.events import EventSink
from pipeline.runner.recorder import EventRecorder
from tests.support.ledgers import AT, RUN, opened, requests, start

IDS = st.lists(st.binary(min_size=16, max_size=16).map(bytes.hex), max_size=40)
PRICE = 135_000


@given(members=IDS, others=IDS)
def test_a_set_of_ids_holds_its_members_and_nothing_else(members: list[str], others: list[str]) -> None:
    found = RequestIds(members)
    assert len(found) == len(set(members))
    assert all(one in found for one in members)
    assert [one for one in others if one in found] == [one for one in others if one in set(members)]


def test_what_is_no_id_is_no_member() -> None:
    assert 7 not in RequestIds(["00" * 16])


@pytest.fixture
def rows() -> list[Request]:
    return requests(3, model="dop-lite", price_microusd=PRICE)


def recorder_of(ledger: LedgerWriter, queries: LedgerQueries, agreement: Agreement | None) -> EventRecorder:
    """The recorder of a run, by a clock that does not move."""
    return EventRecorder(
        ledger,
        run_id=RUN,
        caps=NO_CAPS,
        totals=queries.totals(RUN),
        wall=lambda: AT,
        reach=lambda name: None,
        events=EventSink(),
        agreement=agreement,
    )


async def reserved(folder: Path, rows: list[Request], agreement: Agreement | None) -> list[str]:
    """The row ids that a step could reserve, when it asks for every row."""
    found = []
    with opened(folder / "ledger.db") as (ledger, queries):
        start(queries, rows)
        recorder = recorder_of(ledger, queries, agreement)
        for number, row in enumerate(rows):
            values = {"price_microusd": row.price_microusd}
            try:
                recorded = await recorder.record(row.request_id, Event.RESERVE, values, token=str(number))
            except InvariantError:
                continue
            assert isinstance(recorded, Applied)
            found.append(row.row_id)
    return found


async def test_a_row_outside_the_agreement_is_never_reserved(tmp_path: Path, rows: list[Request]) -> None:
    agreement = Agreement(new=RequestIds([rows[1].request_id]), price_microusd=PRICE)
    assert await reserved(tmp_path, rows, agreement) == [rows[1].row_id]


async def test_an_intent_whose_caller_was_cancelled_gives_back_no_more_than_it_took(
    tmp_path: Path, rows: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    agreement = Agreement(new=RequestIds(row.request_id for row in rows), price_microusd=PRICE, max_purchases=1)
    with opened(tmp_path / "ledger.db") as (ledger, queries):
        start(queries, rows)
        recorder, apply = recorder_of(ledger, queries, agreement), ledger.apply

        async def cancelled(change: LedgerChange) -> None:
            await apply(change)
            raise asyncio.CancelledError

        monkeypatch.setattr(ledger, "apply", cancelled)
        price = {"price_microusd": PRICE}
        with pytest.raises(asyncio.CancelledError):
            await recorder.record(rows[0].request_id, Event.RESERVE, price, token="cut")
        monkeypatch.undo()
        await recorder.record(rows[0].request_id, Event.RELEASE, token="cut")
        await recorder.record(rows[1].request_id, Event.RESERVE, price, token="one")
        with pytest.raises(InvariantError, match="agreed"):
            await recorder.record(rows[2].request_id, Event.RESERVE, price, token="two")
        assert recorder.totals == queries.totals(RUN)


async def test_no_more_than_the_agreed_sum_is_reserved(tmp_path: Path, rows: list[Request]) -> None:
    agreement = Agreement(new=RequestIds(row.request_id for row in rows), price_microusd=2 * PRICE + 1)
    assert await reserved(tmp_path, rows, agreement) == [rows[0].row_id, rows[1].row_id]


async def test_a_command_that_agreed_to_nothing_buys_nothing(tmp_path: Path, rows: list[Request]) -> None:
    assert await reserved(tmp_path, rows, NOTHING) == []


async def test_the_broken_twin_without_an_agreement_reserves_everything(tmp_path: Path, rows: list[Request]) -> None:
    assert await reserved(tmp_path, rows, None) == [row.row_id for row in rows]
