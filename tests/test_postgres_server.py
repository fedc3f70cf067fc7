"""The server that tests use: durable, empty for each of them, and back with its data after a crash."""

from __future__ import annotations

import psycopg
import pytest

from tests.support.postgres import PostgresServer


def test_a_database_is_empty_and_durable(postgres: str) -> None:
    with psycopg.connect(postgres) as connection:
        for setting in (b"fsync", b"synchronous_commit", b"full_page_writes"):
            assert connection.execute(b"SHOW " + setting).fetchone() == ("on",)
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        assert tables == (0,)


@pytest.mark.long
def test_what_is_committed_is_there_after_a_crash(postgres: str, postgres_server: PostgresServer) -> None:
    with psycopg.connect(postgres) as connection:
        connection.execute("CREATE TABLE kept (word text)")
        connection.execute("INSERT INTO kept VALUES ('paid')")
    postgres_server.crash()
    postgres_server.start()
    with psycopg.connect(postgres) as connection:
        assert connection.execute("SELECT word FROM kept").fetchone() == ("paid",)
