"""One rate for all: a configured rate is met to the slot, a rejection holds all, and a limit is found and followed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import chain, pairwise

import psycopg
import pytest

from pipeline.ledger.postgres_session import client
from pipeline.runner.cluster.shared_rate import CATCH_UP_S, HASTE, SESSION, SharedRateLimiter, grown_rate, rejected_row
from pipeline.runner.cluster.tables import prepare

GATEWAY = "https://gateway.test:443"


@pytest.fixture
def database(postgres: str) -> str:
    prepare(postgres)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE TABLE attempts (gateway text, state text)")
    return postgres


Limiters = Callable[..., Awaitable[SharedRateLimiter]]


@pytest.fixture
async def limiters(database: str) -> AsyncIterator[Limiters]:
    """Opens the pace as one more worker, telling it a rate or a cap."""
    rows: list[SharedRateLimiter] = []

    async def one(*, per_s: float | None = None, cap: int | None = None) -> SharedRateLimiter:
        rows.append(SharedRateLimiter(database, GATEWAY))
        await rows[-1].configure(per_s=per_s, burst=1, cap=cap)
        return rows[-1]

    yield one
    for row in rows:
        await row.close()


async def take_many(row: SharedRateLimiter, count: int) -> list[float]:
    """The moments of the next slots, on the database's clock, each waited for."""
    found: list[float] = []
    while len(found) < count:
        slot = await row.take()
        if slot.in_s is None:
            await asyncio.sleep(slot.ask_again_s)
        else:
            found.append(slot.db_now + slot.in_s)
    return found


async def test_three_workers_share_a_configured_rate_to_the_slot(limiters: Limiters) -> None:
    rows = [await limiters(per_s=200.0) for _ in range(3)]
    moments = sorted(chain.from_iterable(await asyncio.gather(*(take_many(row, 40) for row in rows))))
    gaps = [after - before for before, after in pairwise(moments)]
    assert min(gaps) >= 0.0024  # a late one is made up for, by half a gap at most
    assert (len(moments) - 1) / (moments[-1] - moments[0]) <= 200.5


async def test_a_changed_rate_reaches_all_workers_at_once(limiters: Limiters) -> None:
    one, other = await limiters(per_s=500.0), await limiters(per_s=500.0)
    await take_many(one, 3)
    await other.configure(per_s=4.0, burst=1, cap=None)
    moments = await take_many(one, 2)
    assert moments[1] - moments[0] >= 0.25 - CATCH_UP_S - 0.001


async def test_a_hint_seen_by_one_voids_the_slots_of_all_and_gives_none_before_it_has_passed(
    limiters: Limiters,
) -> None:
    one, other = await limiters(per_s=100.0), await limiters(per_s=100.0)
    ours, theirs = await one.take(), await other.take()
    assert await other.leave(theirs.db_now) == 0.0
    await one.on_rejected(ours.db_now, 1.0)
    held_since = time.monotonic()
    assert await other.leave(theirs.db_now) is None
    found = await take_many(other, 1)
    assert found[0] >= ours.db_now + 1.0
    assert time.monotonic() - held_since < 3.0


async def test_after_a_refusal_one_submit_at_a_time_asks_until_one_is_let_in(limiters: Limiters) -> None:
    row = await limiters()
    first = await row.take()
    await row.on_rejected(first.db_now, None)
    probe = (await take_many(row, 1))[0]
    assert (await row.take()).in_s is None
    await row.on_admitted(probe)
    again = await take_many(row, 2)
    assert again[1] - probe < 5.0


async def test_submits_that_were_held_up_leave_one_after_the_other(limiters: Limiters) -> None:
    row = await limiters(per_s=2.0)
    slot = await row.take()
    first, second, third, fourth = [await row.leave(slot.db_now) for _ in range(4)]
    assert first == 0.0
    assert second is not None
    assert third is not None
    assert 0.0 < second <= 0.5 / HASTE < third <= 1.0 / HASTE
    assert fourth is None


async def test_a_cap_on_jobs_in_flight_counts_all_workers(limiters: Limiters, database: str) -> None:
    row = await limiters(cap=2)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO attempts VALUES (%s, 'accepted')", (GATEWAY,))
        slot = await row.take()
        assert slot.in_s is not None
        connection.execute("INSERT INTO attempts VALUES (%s, 'submitting')", (GATEWAY,))
        assert (await row.take()).in_s is None
        assert await row.leave(slot.db_now) == 0.0
        connection.execute("INSERT INTO attempts VALUES (%s, 'submitting')", (GATEWAY,))
        assert await row.leave(slot.db_now) is None


async def test_a_worker_that_freezes_over_the_row_does_not_hold_up_the_others(
    limiters: Limiters, database: str
) -> None:
    row = await limiters(per_s=100.0)
    frozen = psycopg.connect(database, **client(database, **SESSION | {"idle_in_transaction_session_timeout": "200ms"}))
    frozen.execute("SELECT * FROM dop_pace FOR UPDATE")
    assert (await asyncio.wait_for(row.take(), 1.0)).in_s is not None
    with pytest.raises(psycopg.Error):
        frozen.execute("SELECT 1")
    frozen.close()


class Bucket:
    """An exact limiter: `per_s` calls flow in, `size` are kept."""

    def __init__(self, per_s: float, size: float) -> None:
        self.per_s, self.size, self.level, self.at = per_s, size, size, 0.0

    def lets_in(self, now: float) -> bool:
        self.level, self.at = min(self.size, self.level + (now - self.at) * self.per_s), now
        if self.level < 1:
            return False
        self.level -= 1
        return True


def submitted(bucket: Bucket, seconds: float, *, hint_s: float | None) -> tuple[int, int]:
    """(let in, refused) of a law that is judged alone: slots and answers in virtual time, an answer takes 20 ms."""
    row: dict[str, float | bool | None] = {
        "held_until": 0.0,
        "rate": None,
        "quiet": 0.0,
        "patience": 60.0,
        "blocked_at": -1.0,
    }
    row |= {"fails": 0, "origin": 1.0, "let_in": 0.0, "probing": False, "patience": 60.0}
    now, taken, refused = 1.0, 0, 0
    while now < seconds:
        now = max(now, float(row["held_until"] or 0.0))
        if bucket.lets_in(now):
            taken += 1
            row |= {"let_in": float(row["let_in"] or 0.0) + 1, "quiet": float(row["quiet"] or 0.0) + 1}
            row |= {"fails": 0, "probing": False}
        else:
            refused += 1
            row |= rejected_row(row, sent_at=now, now=now + 0.02, hint_s=hint_s)
        now += 0.005 if row["rate"] is None else 1 / grown_rate(row)
    return taken, refused


@pytest.mark.parametrize(("size", "hint_s", "least"), [(40, None, 0.95), (5, None, 0.95), (40, 1.0, 0.85)])
def test_an_unknown_limit_is_found_and_used(size: float, hint_s: float | None, least: float) -> None:
    taken, refused = submitted(Bucket(40.0, size), 60.0, hint_s=hint_s)
    assert taken >= least * (40.0 * 59 + size)
    assert refused <= 30


def test_a_refusal_of_a_submit_sent_before_the_limit_was_known_only_holds() -> None:
    row = {"held_until": 5.0, "rate": 10.0, "quiet": 0.0, "blocked_at": 4.0, "fails": 1, "origin": 0.0, "let_in": 9.0}
    assert rejected_row(row, sent_at=3.9, now=4.1, hint_s=2.0) == {"held_until": 6.1, "hinted_at": 4.1}
