"""The queue: what dead workers held is taken back once, and it never holds more than its window."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from pipeline.cluster.jobqueue import LOOKING, TASK, JobQueue
from pipeline.cluster.tables import prepare

GATEWAY = "https://gateway.test:443"

HELD = """
INSERT INTO procrastinate_jobs (queue_name, task_name, status, lock, queueing_lock, args)
SELECT %s, %s, 'doing', 'request-' || n, 'request-' || n, '{}' FROM generate_series(1, 3) AS n RETURNING id
"""
"""Jobs in the hands of a worker that nobody hears of."""

TAKEN = "SELECT procrastinate_retry_job_v2(id, now(), 0, queue_name, lock) FROM procrastinate_jobs WHERE id = %s"


@pytest.fixture
async def queue(postgres: str) -> AsyncIterator[JobQueue]:
    prepare(postgres)
    queue = JobQueue(postgres, GATEWAY)
    yield queue
    await queue.close()


async def test_a_job_that_another_host_takes_back_at_this_moment_is_left_to_it(postgres: str, queue: JobQueue) -> None:
    with psycopg.connect(postgres, autocommit=True) as other:
        held = other.execute(HELD, (GATEWAY + LOOKING, TASK)).fetchall()
        with other.transaction():
            other.execute(TAKEN, held[0])
            assert await asyncio.wait_for(queue.take_back(5.0), 10.0) == 2
        assert await queue.take_back(5.0) == 0
        found = other.execute("SELECT status::text, count(*) FROM procrastinate_jobs GROUP BY 1").fetchall()
    assert found == [("todo", 3)]
