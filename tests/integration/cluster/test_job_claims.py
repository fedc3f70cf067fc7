"""A worker's hold on jobs: each job has one worker, a silent worker's jobs go to others, and the row comes with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection

from pipeline.errors import LedgerError
from pipeline.ledger.budget import NO_CAPS
from pipeline.ledger.queries import LedgerQueries
from pipeline.runner.cluster import job_claims
from pipeline.runner.cluster.job_claims import JobClaims, notifications
from pipeline.runner.cluster.job_queue import JobQueue, put_order
from pipeline.runner.cluster.tables import prepare
from tests.support.ledgers import RUN, accept, opened, requests, reserve, start, tamper

pytestmark = pytest.mark.long  # a database server

GATEWAY = "sandbox"
COUNT, SILENT_S = 8, 5.0
WAITS = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
LOCKED = "FOR UPDATE SKIP LOCKED"
Hire = Callable[[str], JobClaims]


@pytest.fixture
def queries(postgres: str) -> Iterator[LedgerQueries]:
    """A ledger with one ordered run, all of it queued; the first of its requests is bought."""
    prepare(postgres)
    with opened(postgres) as (ledger, found):
        rows = requests(COUNT)
        start(found, rows)
        ledger.apply_now(reserve(rows[0]))
        ledger.apply_now(accept(rows[0], "job"))

        def order(connection: Connection) -> None:
            same: dict[str, Any] = {"gateway": GATEWAY, "buy": True, "collect": True, "caps": NO_CAPS, "files": True}
            put_order(connection, run_id=RUN, window=100, **same)

        ledger.transact(order)
        yield found


@pytest.fixture
async def hire(postgres: str) -> AsyncIterator[Hire]:
    """Another worker of that name."""
    hired: list[JobClaims] = []

    def one(name: str) -> JobClaims:
        hired.append(JobClaims(postgres, GATEWAY, name, silent_s=SILENT_S))
        return hired[-1]

    yield one
    for claims in hired:
        await claims.close()


async def taken_twice(postgres: str, hire: Hire) -> set[str]:
    """Jobs that a second worker gets as well, which asks while the first one's statement is not committed yet."""
    second = hire("second")
    values = {"gateway": GATEWAY, "worker": "first", "ended": [], "silent_s": SILENT_S}
    values |= {"to_buy": 3, "to_collect": 0, "room": 3}
    with psycopg.connect(postgres) as first:
        held = {str(row[0]) for row in first.execute(job_claims.TURN.encode(), values)}
        asked = asyncio.create_task(second.turn([], to_buy=3, to_collect=0))
        while not asked.done() and not tamper(postgres, WAITS):
            await asyncio.wait([asked], timeout=0.05)
        first.commit()
    return held & {one.request_id for one in await asked}


async def test_two_workers_that_ask_at_once_get_different_jobs(
    postgres: str, queries: LedgerQueries, hire: Hire
) -> None:
    assert await taken_twice(postgres, hire) == set()


async def test_without_its_lock_the_statement_would_hand_a_job_out_twice(
    postgres: str, queries: LedgerQueries, hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_claims, "TURN", job_claims.TURN.replace(LOCKED, ""))
    assert await taken_twice(postgres, hire)


async def test_where_few_are_left_a_worker_takes_its_share_of_them(queries: LedgerQueries, hire: Hire) -> None:
    workers = [hire(name) for name in ("one", "two", "three")]
    for claims in workers:
        await claims.sign()
    left, found = COUNT - 1, list[int]()
    while left:
        found.append(len(await workers[len(found) % 3].turn([], to_buy=16, to_collect=0)))
        left -= found[-1]
    assert found == [3, 2, 1, 1]


async def test_a_job_comes_with_what_the_ledger_says_of_its_request(queries: LedgerQueries, hire: Hire) -> None:
    taken = await hire("one").turn([], to_buy=COUNT, to_collect=COUNT)
    assert [one.collects for one in taken] == [True] + [False] * (COUNT - 1)
    assert [one.attempt for one in taken] == [queries.listed(RUN, one.request_id) for one in taken]
    assert [one.attempt and one.attempt.params.seed for one in taken] == list(range(1, COUNT + 1))


async def test_with_little_room_those_to_collect_come_first(queries: LedgerQueries, hire: Hire) -> None:
    taken = await hire("one").turn([], to_buy=COUNT, to_collect=COUNT, room=3)
    assert [one.collects for one in taken] == [True, False, False]
    assert await hire("other").turn([], to_buy=COUNT, to_collect=COUNT, room=0) == []


async def test_a_row_that_was_changed_behind_the_ledgers_back_is_not_handed_out(
    postgres: str, queries: LedgerQueries, hire: Hire
) -> None:
    tamper(postgres, "UPDATE attempts SET params = params || ' ' WHERE state = 'planned'")
    with pytest.raises(LedgerError, match="the ledger is damaged"):
        await hire("one").turn([], to_buy=1, to_collect=0)


async def test_ended_jobs_are_gone_and_those_given_back_are_for_others(queries: LedgerQueries, hire: Hire) -> None:
    one, other = hire("one"), hire("other")
    first, second, *rest = [job.request_id for job in await one.turn([], to_buy=4, to_collect=0)]
    assert [len(await one.turn([first], to_buy=0, to_collect=1)), len(rest)] == [1, 2]
    await one.give_back([second])
    assert [job.request_id for job in await other.turn([], to_buy=1, to_collect=1)] == [second]
    await one.close()
    left = await other.turn([], to_buy=COUNT, to_collect=COUNT)
    assert len(left) == COUNT - 2
    assert first not in {job.request_id for job in left}


async def test_a_silent_workers_jobs_go_to_others_and_its_late_word_ends_none_of_them(
    postgres: str, queries: LedgerQueries, hire: Hire
) -> None:
    frozen, living, queue = hire("frozen"), hire("living"), JobQueue(postgres, GATEWAY)
    await frozen.sign()
    held = [job.request_id for job in await frozen.turn([], to_buy=2, to_collect=0)]
    await living.sign()
    assert await queue.take_back(SILENT_S) == 0
    tamper(postgres, "UPDATE dop_workers SET seen_at = now() - interval '6 s' WHERE id = 'frozen'")
    assert await queue.workers(SILENT_S) == 1
    assert await queue.take_back(SILENT_S) == 2
    assert [job.request_id for job in await living.turn([], to_buy=2, to_collect=0)] == held
    await frozen.turn(held, to_buy=0, to_collect=0)
    await frozen.give_back(held)
    mine = tamper(postgres, "SELECT request_id FROM dop_jobs WHERE worker = 'living' ORDER BY number")
    assert [name for (name,) in mine] == held
    assert await queue.rebuild(100, SILENT_S) == (COUNT - 2, COUNT - 2)
    await queue.close()


async def test_a_scheduled_run_is_started_once_for_each_time_and_not_beside_the_last_one(
    postgres: str, queries: LedgerQueries, hire: Hire
) -> None:
    one, other = hire("one"), hire("other")
    await one.sign()
    await other.sign()
    assert [await claims.claim_time(60.0) for claims in (one, other, one)] == [True, False, False]
    assert not await other.claim_time(120.0), "the run of the time before is still going"
    await one.end_scheduled()
    assert [await claims.claim_time(180.0) for claims in (other, one)] == [True, False]
    tamper(postgres, "UPDATE dop_workers SET seen_at = now() - interval '6 s' WHERE id = 'other'")
    assert await one.claim_time(240.0), "the worker that started the last run is gone"


async def test_workers_are_notified_of_jobs_that_come(postgres: str, queries: LedgerQueries, hire: Hire) -> None:
    came = asyncio.Event()
    listening = asyncio.create_task(notifications(postgres, GATEWAY, came.set))
    one = hire("one")
    for _ in range(200):  # until it listens
        await one.close()
        one = hire("one")
        await one.sign()
        await asyncio.wait([asyncio.create_task(came.wait())], timeout=0.05)
        if came.is_set():
            break
    listening.cancel()
    assert came.is_set()
