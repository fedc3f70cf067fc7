"""Errors of a database become words of ours; nothing that a server, libpq or a driver wrote is repeated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger.database_words import database_words

psycopg = pytest.importorskip("psycopg")

SECRET = "c4n4ryPASS"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('connection to server at "127.0.0.1", port 1 failed: Connection refused', "Connection refused"),
        (f'FATAL: password authentication failed for user "{SECRET}"', "the role or its password is wrong"),
        (f'FATAL: database "{SECRET}" does not exist', "there is no such database"),
        (f'could not translate host name "{SECRET}" to address', "its name was not found"),
        (f'invalid percent-encoded token: "{SECRET}%zz"', "its address can't be read"),
        (f'missing "=" after "POSTGRESQL://dop:{SECRET}@h/d" in connection info string', "its address can't be read"),
        ("server closed the connection unexpectedly", "the connection broke"),
        (f"something new about {SECRET}", "OperationalError"),
    ],
)
def test_a_failed_connection_is_reported_in_our_words(text: str, words: str) -> None:
    assert database_words(psycopg.OperationalError(text)) == words


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("InsufficientPrivilege", "the role lacks a permission (SQLSTATE 42501)"),
        ("DiskFull", "its disk is full (SQLSTATE 53100)"),
        ("UniqueViolation", "a rule of its tables forbids it (SQLSTATE 23505)"),
        ("AdminShutdown", "it is shutting down (SQLSTATE 57P01)"),
    ],
)
def test_a_servers_error_is_recognized_by_its_sqlstate(kind: str, words: str) -> None:
    assert database_words(getattr(psycopg.errors, kind)(f"Key (token)=({SECRET})")) == words


@given(st.text(max_size=60))
def test_no_text_is_repeated(text: str) -> None:
    said = database_words(psycopg.OperationalError(f"{text}{SECRET}{text}"))
    assert SECRET not in said
