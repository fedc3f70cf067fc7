"""A database's error in words of ours. Must never: repeat what a server, libpq or a driver wrote.

Their texts quote addresses they could not read, and with them passwords; the values of a statement; a server's own
messages. What an operator needs is which of a few things went wrong, and the SQLSTATE to look it up.
"""

from __future__ import annotations

import re
from typing import Final

SQLSTATES: Final = (
    ("28", "the role or its password is wrong"),
    ("3D000", "there is no such database"),
    ("42501", "the role lacks a permission"),
    ("53100", "its disk is full"),
    ("53200", "it has no memory left"),
    ("53300", "too many connections"),
    ("53", "it has no resources left"),
    ("57014", "the statement was canceled"),
    ("57P01", "it is shutting down"),
    ("57P02", "it crashed"),
    ("57P03", "it is starting up"),
    ("57", "it is going down"),
    ("55P03", "a lock is held by another session"),
    ("25P03", "the session was idle for too long"),
    ("25006", "it takes no writes now (a standby)"),
    ("40", "its transaction gave way to another one"),
    ("08", "the connection broke"),
    ("42P01", "a table is missing"),
    ("42", "it does not understand a statement"),
    ("23", "a rule of its tables forbids it"),
    ("22", "it does not take a value"),
    ("XX", "it is damaged"),
)
"""Beginning of the SQLSTATE -> words; the first that fits. Source: PostgreSQL, appendix "Error Codes"."""

LIBPQ: Final = (
    (r"connection refused", "Connection refused"),
    (r"password authentication failed|no password supplied|authentication failed", "the role or its password is wrong"),
    (r"database \S+ does not exist", "there is no such database"),
    (r"no pg_hba\.conf entry", "it does not let this host in (pg_hba.conf)"),
    (r"translate host name|name or service not known|nodename nor servname|no address", "its name was not found"),
    (r"time(?:d)? ?out", "no answer in time"),
    (r"too many (?:clients|connections)|remaining connection slots", "too many connections"),
    (r"starting up", "it is starting up"),
    (r"shutting down|terminating connection", "it is shutting down"),
    (r"certificate|\bssl\b|\btls\b", "the secure connection could not be made"),
    (r"network is unreachable|no route to host", "there is no way to it in the network"),
    (r"closed|lost|broken pipe|reset by peer|bad connection|\beof\b", "the connection broke"),
    (r"invalid (?:uri|percent|port|connection option|integer)|missing \"=\"|conninfo", "its address can't be read"),
)
"""What libpq and psycopg write about a failed connection, which has no SQLSTATE -> our words."""


def database_words(error: BaseException) -> str:
    """What went wrong, in one line of our own words; the kind of error and its SQLSTATE where nothing else is known."""
    cause = getattr(error, "orig", None) or error
    sqlstate = getattr(cause, "sqlstate", None)
    if isinstance(sqlstate, str) and re.fullmatch(r"[0-9A-Z]{5}", sqlstate):
        words = next((words for start, words in SQLSTATES if sqlstate.startswith(start)), type(cause).__name__)
        return f"{words} (SQLSTATE {sqlstate})"
    text = str(cause).lower()
    return next((words for pattern, words in LIBPQ if re.search(pattern, text)), type(cause).__name__)
