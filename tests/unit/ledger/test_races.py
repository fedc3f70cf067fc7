"""Two processes on one ledger without a lock: every request is reserved once, and no cap is passed by a cent."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from pipeline.errors import DopError
from pipeline.ledger import statements
from pipeline.ledger.budget import Caps
from pipeline.ledger.postgres_ledger import PostgresLedger
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied
from pipeline.records import CostState
from tests.support.factories import LITE_MICROUSD
from tests.support.ledgers import RUN, Place, accept, change, ledger_at, money, opened, read, requests, reserve, start

ROWS = 20
PROCESSES = multiprocessing.get_context("fork")


def _buy(place: Place, who: str, caps: Caps, barrier: Barrier, bought: Queue[tuple[str, str]]) -> None:
    """One run that forgot the lock: it reserves everything, and lets go of every third again."""
    ledger = ledger_at(place)
    barrier.wait(30)
    for number, row in enumerate(requests(ROWS)):
        token = f"{who}-{number}"
        try:
            mine = isinstance(ledger.apply_now(reserve(row, token, caps=caps)), Applied)
            if mine and number % 3 == 0:
                ledger.apply_now(change(row, Event.RELEASE, token=token))
                mine = isinstance(ledger.apply_now(reserve(row, token, caps=caps)), Applied)
            if mine:
                bought.put((row.request_id, who))
                ledger.apply_now(accept(row, f"job-{token}", token))
        except DopError as error:
            bought.put((f"broke: {error}", who))
    ledger.close(clean=False)
    bought.put(("end", who))


def race(place: Place, caps: Caps, processes: int = 2) -> Counter[str]:
    """How often each request was reserved for good, over all processes."""
    ledger = ledger_at(place)
    ledger.ready_to_spend()
    start(LedgerQueries(ledger), requests(ROWS))
    ledger.close(clean=False)  # as it is during runs: the sums are not closed yet
    barrier, bought = PROCESSES.Barrier(processes), PROCESSES.Queue()
    runs = [PROCESSES.Process(target=_buy, args=(place, who, caps, barrier, bought)) for who in "abcd"[:processes]]
    for run in runs:
        run.start()
    found: Counter[str] = Counter()
    ended = 0
    while ended < processes:
        request_id, _ = bought.get(timeout=60)
        ended += request_id == "end"
        found[request_id] += request_id != "end"
    for run in runs:
        run.join(10)
    del found["end"]
    return found


@pytest.mark.parametrize("most", [7, ROWS])
def test_two_processes_never_reserve_one_request_twice_nor_pass_the_cap(place: Place, most: int) -> None:
    bought = race(place, Caps(run_microusd=most * LITE_MICROUSD + 1))
    assert [name for name in bought if name.startswith("broke")] == []
    assert set(bought.values()) == {1}
    assert len(bought) == most
    assert read(place, "select sum(reserved) from spend") == [(most * LITE_MICROUSD,)]
    assert read(place, "select count(*) from attempts where state = 'accepted'") == [(most,)]
    with opened(place) as (ledger, queries):
        assert ledger.problems() == []
        assert money(queries)[CostState.RESERVED] == most * LITE_MICROUSD
        assert queries.totals(RUN).reserved_microusd == most * LITE_MICROUSD


def test_numbers_of_events_are_given_once_across_writers(place: Place) -> None:
    race(place, Caps())
    (count,) = read(place, "select count(*) from history")[0]
    marks = isinstance(place, Path)  # a file notes its place once, as an event of no request
    assert read(place, "select value from meta where name = 'seq'") == [(str(count + marks),)]


@pytest.mark.long
def test_the_race_notices_hosts_that_do_not_wait_for_each_other(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = statements.Statements.__init__

    def init(self: statements.Statements, dialect: str) -> None:
        real(self, dialect)
        self._lock = ""
        self._read_seq = self._read_seq.replace(" FOR UPDATE", "")

    monkeypatch.setattr(statements.Statements, "__init__", init)
    bought = race(postgres, Caps(run_microusd=7 * LITE_MICROUSD + 1), processes=4)
    ledger = PostgresLedger(postgres, inline=True)
    problems = ledger.problems()
    ledger.close(clean=False)
    assert problems or max(bought.values()) > 1 or len(bought) > 7
