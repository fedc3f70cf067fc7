"""A job that the gateway says is not charged gives its price back, in every book; nothing else changes a price."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import InvariantError
from pipeline.ledger.budget import CapReached, Caps
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied, ChangeResult, LedgerChange
from pipeline.records import State
from tests.support.factories import LITE_MICROUSD
from tests.support.ledgers import AT, RUN, money, requests, start

ENDINGS = {Event.FAIL: State.FAILED, Event.REFUSE: State.REFUSED, Event.CANCEL: State.CANCELED}
CAPS = Caps(run_microusd=LITE_MICROUSD)


def applied(ledger: SqliteLedger, request_id: str, event: Event, **values: object) -> ChangeResult:
    change = LedgerChange(
        request_id=request_id,
        event=event,
        at=AT,
        token="t" if event in (Event.RESERVE, Event.ACCEPT) else None,
        values=values,
        run_id=RUN if event is Event.RESERVE else None,
        caps=CAPS,
    )
    return ledger.apply_now(change)


def accepted(folder: Path) -> tuple[SqliteLedger, LedgerQueries, list[str]]:
    """A ledger with two requests, of which the first is accepted and uses the whole cap."""
    ledger = SqliteLedger(folder / "ledger.db", inline=True)
    queries = LedgerQueries(ledger)
    start(queries, requests(2))
    ids = [one.request_id for one in queries.attempts_in(RUN, (State.PLANNED,))]
    applied(ledger, ids[0], Event.RESERVE, price_microusd=LITE_MICROUSD)
    applied(ledger, ids[0], Event.ACCEPT, job_set_id="job-1")
    assert isinstance(applied(ledger, ids[1], Event.RESERVE, price_microusd=LITE_MICROUSD), CapReached)
    return ledger, queries, ids


@pytest.mark.parametrize("event", list(ENDINGS))
def test_a_job_that_is_not_charged_frees_its_money(tmp_path: Path, event: Event) -> None:
    ledger, queries, ids = accepted(tmp_path)
    found = applied(ledger, ids[0], event, price_microusd=0)
    assert isinstance(found, Applied)
    assert (found.state, found.price_before_microusd) == (ENDINGS[event], LITE_MICROUSD)
    assert sum(money(queries).values()) == 0
    assert ledger.problems() == []
    assert isinstance(applied(ledger, ids[1], Event.RESERVE, price_microusd=LITE_MICROUSD), Applied)
    ledger.close()


@pytest.mark.parametrize("event", list(ENDINGS))
def test_without_that_word_it_is_disputed(tmp_path: Path, event: Event) -> None:
    ledger, queries, ids = accepted(tmp_path)
    applied(ledger, ids[0], event)
    assert sum(money(queries).values()) == LITE_MICROUSD
    assert isinstance(applied(ledger, ids[1], Event.RESERVE, price_microusd=LITE_MICROUSD), CapReached)
    assert ledger.problems() == []
    ledger.close()


@pytest.mark.parametrize(
    ("event", "price"), [(Event.COMPLETE, 0), (Event.NOTE, 0), (Event.STALL, 1), (Event.FAIL, 1), (Event.CANCEL, -1)]
)
def test_nothing_else_changes_a_price(tmp_path: Path, event: Event, price: int) -> None:
    ledger, queries, ids = accepted(tmp_path)
    with pytest.raises(InvariantError, match="can't change the price"):
        applied(ledger, ids[0], event, price_microusd=price)
    assert sum(money(queries).values()) == LITE_MICROUSD
    assert queries.states(ids[:1]) == {ids[0]: State.ACCEPTED}
    assert ledger.problems() == []
    ledger.close()
