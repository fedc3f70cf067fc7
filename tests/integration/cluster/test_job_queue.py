"""The queue: what dead workers held is taken back once, and it never holds more than its window."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection

from pipeline.ledger.budget import NO_CAPS
from pipeline.runner.cluster.job_queue import JobQueue, put_order
from pipeline.runner.cluster.shared_limit import SharedPace
from pipeline.runner.cluster.shared_rate_row import PostgresRateRow
from pipeline.runner.cluster.tables import prepare
from tests.support.cli_driver import ended, shots
from tests.support.fake_gateway import GatewayDouble, Script
from tests.support.ledgers import make_run, opened, requests, start, tamper
from tests.support.worker_processes import several

GATEWAY = "https://gateway.test:443"

HELD = """
INSERT INTO dop_jobs (request_id, run_id, gateway, collects, worker)
SELECT 'request-' || n, 'run', %s, true, 'gone' FROM generate_series(1, 3) AS n RETURNING request_id
"""
"""Jobs of a worker without a sign of life."""

TAKEN = "UPDATE dop_jobs SET worker = NULL WHERE request_id = %s"

WITNESS = """
CREATE TABLE seen (todo bigint, doing bigint);
CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO seen SELECT count(*) FILTER (WHERE worker IS NULL), count(*) FILTER (WHERE worker IS NOT NULL)
    FROM dop_jobs;
    RETURN NULL;
END $$;
CREATE TRIGGER witness AFTER INSERT OR UPDATE ON dop_jobs EXECUTE FUNCTION witness()
"""
"""Looks at the queue after each statement that changed it."""

WINDOW, BUYERS = 20, 4


@pytest.fixture
async def queue(postgres: str) -> AsyncIterator[JobQueue]:
    prepare(postgres)
    queue = JobQueue(postgres, GATEWAY)
    yield queue
    await queue.close()


async def test_a_job_that_another_host_takes_back_at_this_moment_is_left_to_it(postgres: str, queue: JobQueue) -> None:
    with psycopg.connect(postgres, autocommit=True) as other:
        held = other.execute(HELD, (GATEWAY,)).fetchall()
        with other.transaction():
            other.execute(TAKEN, held[0])
            assert await asyncio.wait_for(queue.take_back(5.0), 10.0) == 2
        assert await queue.take_back(5.0) == 0
        found = other.execute("SELECT worker, count(*) FROM dop_jobs GROUP BY 1").fetchall()
    assert found == [(None, 3)]


def test_an_order_and_a_worker_that_tops_up_at_the_same_moment_share_one_window(postgres: str) -> None:
    rows = requests(60)

    async def topped_up() -> int:
        queue = JobQueue(postgres, "sandbox")
        try:
            return await queue.top_up(WINDOW)
        finally:
            await queue.close()

    with opened(postgres) as (ledger, queries):
        prepare(postgres)
        for number, name in enumerate(("first", "second")):
            start(queries, rows[30 * number : 30 * number + 30], make_run(name))

        def order(connection: Connection, name: str) -> None:
            same = {"gateway": "sandbox", "buy": True, "collect": True, "caps": NO_CAPS, "files": True}
            put_order(connection, run_id=name, window=WINDOW, **same)  # type: ignore[arg-type]

        def meanwhile(connection: Connection) -> int:
            order(connection, "second")
            return asyncio.run(topped_up())

        ledger.transact(lambda connection: order(connection, "first"))
        tamper(postgres, "DELETE FROM dop_jobs")
        assert ledger.transact(meanwhile) == 0
        assert tamper(postgres, "SELECT worker, count(*) FROM dop_jobs GROUP BY 1") == [(None, 20)]


@pytest.mark.long
def test_a_manifest_larger_than_the_window_is_queued_piece_by_piece(tmp_path: Path, postgres: str) -> None:
    prepare(postgres)
    with psycopg.connect(postgres, autocommit=True) as eye:
        eye.execute(WITNESS.encode())
    with GatewayDouble(Script(generation_s=0.3)) as double, several(tmp_path, postgres, double) as machines:
        machines.environ |= {"DOP_CLUSTER__WINDOW": str(WINDOW), "DOP_PACE__SUBMIT_CONCURRENCY": str(BUYERS)}
        machines.environ["DOP_PACE__RATE"] = "40/1s"
        machines.call("status")
        manifests = [machines.csv(shots(60, prompt=name), f"{name}.csv") for name in ("first", "second")]
        commands = [machines.start("run", manifest, "--yes", "--cluster") for manifest in manifests]
        machines.hire(2)
        for command in commands:
            done = ended(command, timeout_s=120)
            assert (done.code, done.counts) == (0, {"done": 60}), done.err + machines.all_said()
        assert double.charged == 120
        ((queued, held),) = machines.asked("SELECT max(todo), max(doing) FROM seen")
        assert (queued, machines.asked("SELECT count(*) FROM dop_jobs")) == (WINDOW, [(0,)])
        assert int(str(held)) < 60, "what waits is in the ledger, not with the workers"


async def test_a_schema_that_the_url_names_is_used_by_all(postgres: str) -> None:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA shop")
    url = f"{postgres}?options=-csearch_path%3Dshop"
    prepare(url)
    queue, row = JobQueue(url, GATEWAY), PostgresRateRow(url, GATEWAY)
    assert await queue.workers(60.0) == 0
    await queue.close()
    await row.configure(SharedPace())
    await row.close()
