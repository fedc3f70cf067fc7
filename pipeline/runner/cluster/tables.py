"""The cluster's own tables beside the ledger's; made once, by the first process that needs them.

All of it may be dropped: the queue comes back from the ledger, the rate is learned again, the next run writes its
order (`dop run --cluster`). What was bought is never here.
"""

from __future__ import annotations

import psycopg

from pipeline.ledger.postgres_session import client

ONE_AT_A_TIME = 0x646F7001
"""Advisory lock of the process that makes the tables."""

TABLES = (
    """
    CREATE TABLE IF NOT EXISTS dop_rates (
        gateway text PRIMARY KEY,
        rate_count integer,
        rate_span_s float8,
        rate_burst integer,
        job_cap integer,
        state bytea,
        held_until float8 NOT NULL DEFAULT 0,
        blocked_at float8 NOT NULL DEFAULT 0,
        cap integer
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS dop_orders (
        run_id text PRIMARY KEY,
        gateway text NOT NULL,
        version bigint NOT NULL DEFAULT 1,
        buy boolean NOT NULL,
        collect boolean NOT NULL,
        run_cap bigint,
        day_cap bigint,
        month_cap bigint,
        is_open boolean NOT NULL DEFAULT true
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS dop_halts (
        run_id text NOT NULL REFERENCES dop_orders ON DELETE CASCADE,
        version bigint NOT NULL,
        text text NOT NULL,
        exit_code integer NOT NULL,
        PRIMARY KEY (run_id, version, exit_code)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS dop_probes (
        gateway text PRIMARY KEY,
        holder text NOT NULL,
        until timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS dop_workers (
        id text PRIMARY KEY,
        gateway text NOT NULL,
        seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS dop_jobs (
        number bigint GENERATED ALWAYS AS IDENTITY,
        request_id text PRIMARY KEY,
        run_id text NOT NULL,
        gateway text NOT NULL,
        collects boolean NOT NULL,
        worker text
    )
    """,
    "CREATE INDEX IF NOT EXISTS dop_jobs_waiting ON dop_jobs (gateway, collects, number) WHERE worker IS NULL",
    """
    CREATE TABLE IF NOT EXISTS dop_schedules (
        gateway text PRIMARY KEY,
        at float8 NOT NULL,
        worker text
    )
    """,
)


def prepare(url: str) -> None:
    """Makes what is missing; cheap when nothing is."""
    with psycopg.connect(url, **client(url)) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (ONE_AT_A_TIME,))
        found = connection.execute("SELECT to_regclass('dop_rates'), to_regclass('dop_schedules')").fetchone()
        assert found is not None
        if None in found:  # a new database, or one of an earlier version
            for text in TABLES:
                connection.execute(text.encode())
