"""One rate for all: a configured rate is met to the slot, a rejection holds all, and a broken row costs nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise

import psycopg
import pytest

from pipeline.gateway.ratelimit.limiter import CallKind, LimitFeedback
from pipeline.gateway.ratelimit.rates import Rate
from pipeline.ledger.postgres_session import client
from pipeline.runner.cluster.shared_limit import Report, SharedPace, SharedSlot
from pipeline.runner.cluster.shared_rate import DatabaseClock, SharedRateLimiter
from pipeline.runner.cluster.shared_rate_row import SESSION, PostgresRateRow
from pipeline.runner.cluster.tables import prepare

GATEWAY = "https://gateway.test:443"
SUBMIT = CallKind.SUBMIT


@pytest.fixture
def database(postgres: str) -> str:
    prepare(postgres)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE TABLE attempts (gateway text, state text)")
    return postgres


Workers = Callable[..., Awaitable[SharedRateLimiter]]


@pytest.fixture
async def workers(database: str) -> AsyncIterator[Workers]:
    """Opens the shared rate as one more worker, with a rate or a cap in its configuration."""
    opened: list[SharedRateLimiter] = []

    async def one(*, rate: Rate | None = None, cap: int | None = None) -> SharedRateLimiter:
        row = PostgresRateRow(database, GATEWAY)
        await row.configure(SharedPace(rate=rate, burst=1, job_cap=cap))
        opened.append(SharedRateLimiter(row))
        return opened[-1]

    yield one
    for worker in opened:
        await worker.close()


async def take(worker: SharedRateLimiter) -> SharedSlot:
    slot = await asyncio.wait_for(worker.slot(SUBMIT), 60.0)
    assert slot is not None
    return slot


def answer(worker: SharedRateLimiter, slot: SharedSlot, *, wait_s: float | None = None, rejected: bool = False) -> None:
    """The slot's call was sent when it was due, and answered at once."""
    feedback = LimitFeedback.THROTTLED if rejected else LimitFeedback.ACCEPTED
    now = max(asyncio.get_running_loop().time(), slot.due_at)
    worker.answered(Report(slot=slot.slot, sent_at=slot.due_at, answered_at=now, feedback=feedback, wait_s=wait_s))


async def take_many(worker: SharedRateLimiter, count: int) -> list[float]:
    """When the next slots are due; each is used."""
    found = []
    for _ in range(count):
        slot = await take(worker)
        found.append(slot.due_at)
        answer(worker, slot)
    return found


async def test_three_workers_share_a_configured_rate_to_the_slot(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted: list[float] = []  # in the database's time: how well each worker knows it is `DatabaseClock`'s own test
    our_slot = DatabaseClock.our_slot

    def recorded(clock: DatabaseClock, slot: SharedSlot) -> SharedSlot:
        granted.append(slot.due_at)
        return our_slot(clock, slot)

    monkeypatch.setattr(DatabaseClock, "our_slot", recorded)
    opened = [await workers(rate=Rate(200, 1)) for _ in range(3)]
    await asyncio.gather(*(take_many(worker, 40) for worker in opened))
    moments = sorted(granted)
    gaps = [after - before for before, after in pairwise(moments)]
    assert len(moments) == 120
    assert min(gaps) >= 0.0024  # what is late is made up for by half a gap
    assert (len(moments) - 1) / (moments[-1] - moments[0]) <= 202


async def test_a_changed_rate_reaches_all_workers_at_once(workers: Workers) -> None:
    one, _ = await workers(rate=Rate(500, 1)), await workers(rate=Rate(4, 1))
    moments = await take_many(one, 2)
    assert moments[1] - moments[0] >= 0.22


async def test_a_hint_seen_by_one_voids_the_slots_of_all_and_gives_none_before_it_has_passed(workers: Workers) -> None:
    one, other = await workers(rate=Rate(100, 1)), await workers(rate=Rate(100, 1))
    ours, theirs = await take(one), await take(other)
    assert not await other.is_void(theirs)
    answer(one, ours, wait_s=1.0, rejected=True)
    held_at = asyncio.get_running_loop().time()
    while not await other.is_void(theirs):
        assert asyncio.get_running_loop().time() < held_at + 60
        await asyncio.sleep(0.02)
    other.release(theirs)
    assert (await take(other)).due_at >= held_at + 0.99


async def test_a_cap_on_jobs_in_flight_counts_all_workers(workers: Workers, database: str) -> None:
    worker = await workers(cap=2)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO attempts VALUES (%s, 'accepted')", (GATEWAY,))
        slot = await take(worker)
        answer(worker, slot)
        connection.execute("INSERT INTO attempts VALUES (%s, 'submitting')", (GATEWAY,))
        waiting = asyncio.create_task(worker.slot(SUBMIT))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        assert not await worker.is_void(slot)
        connection.execute("INSERT INTO attempts VALUES (%s, 'submitting')", (GATEWAY,))
        assert await worker.is_void(slot)
        connection.execute("DELETE FROM attempts")
        assert await asyncio.wait_for(waiting, 60.0) is not None


async def test_a_cap_that_the_gateway_states_is_the_cap_of_all(workers: Workers, database: str) -> None:
    one, other = await workers(), await workers()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO attempts VALUES (%s, 'submitting'), (%s, 'accepted')", (GATEWAY, GATEWAY))
        slot, now = await take(one), asyncio.get_running_loop().time()
        one.answered(
            Report(slot=slot.slot, sent_at=now, answered_at=now, feedback=LimitFeedback.CONCURRENCY, job_cap=1)
        )
        deadline = time.monotonic() + 60
        while connection.execute("SELECT cap FROM dop_rates").fetchall() != [(1,)]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        connection.execute("DELETE FROM attempts WHERE state = 'submitting'")
        waiting = asyncio.create_task(other.slot(SUBMIT))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        connection.execute("DELETE FROM attempts")
        assert await asyncio.wait_for(waiting, 60.0) is not None


async def test_a_worker_that_freezes_over_the_row_does_not_hold_up_the_others(workers: Workers, database: str) -> None:
    worker = await workers(rate=Rate(100, 1))
    frozen = psycopg.connect(database, **client(database, **SESSION | {"idle_in_transaction_session_timeout": "200ms"}))
    frozen.execute("SELECT * FROM dop_rates FOR UPDATE")
    assert await take(worker)
    with pytest.raises(psycopg.Error):
        frozen.execute("SELECT 1")
    frozen.close()


async def test_a_state_of_other_code_is_ignored_and_its_hold_is_kept(workers: Workers, database: str) -> None:
    worker = await workers()
    with psycopg.connect(database, autocommit=True) as connection:
        held_at = asyncio.get_running_loop().time()
        connection.execute(
            "UPDATE dop_rates SET state = %s, held_until = extract(epoch FROM clock_timestamp()) + 0.5", (b"older",)
        )
        assert (await take(worker)).due_at >= held_at + 0.49


async def test_a_database_that_is_away_for_a_moment_loses_no_report(workers: Workers, database: str) -> None:
    worker = await workers()
    slot = await take(worker)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    answer(worker, slot, wait_s=2.0, rejected=True)
    held_at = asyncio.get_running_loop().time()
    assert (await take(worker)).due_at >= held_at + 1.9


def test_a_database_of_an_earlier_version_gets_the_table(postgres: str) -> None:
    prepare(postgres)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DROP TABLE dop_rates, dop_jobs, dop_workers, dop_schedules")
        connection.execute("CREATE TABLE dop_pace (gateway text PRIMARY KEY, rate float8)")
        prepare(postgres)
        assert connection.execute("SELECT count(*) FROM dop_rates, dop_jobs").fetchall() == [(0,)]
        connection.execute("DROP TABLE dop_rates")
        prepare(postgres)
        assert connection.execute("SELECT count(*) FROM dop_rates").fetchall() == [(0,)]
