"""Whether a ledger is fit for spending: its rows, its sums, and that it was not moved elsewhere. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from typing import Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from pipeline.errors import LedgerError
from pipeline.ledger.database import integrity_problems
from pipeline.ledger.identity import MOVED
from pipeline.ledger.integrity import audit, sums_digest


class ReadConnections(Protocol):
    """Where questions are asked."""

    def connect(self) -> AbstractContextManager[Connection]:
        """A connection that reads."""

    def dispose(self) -> None:
        """Closes what is open."""


def problems_of(reader: ReadConnections, *, full: bool = True) -> list[str]:
    """Everything that is wrong with the ledger, in words; empty when it is whole."""
    try:
        with reader.connect() as connection:
            return integrity_problems(connection) + (audit(connection) if full else [])
    except (DatabaseError, UnicodeError) as error:
        return [str(getattr(error, "orig", "a text of the file can't be read"))]


def check_sums(reader: ReadConnections, facts: Mapping[str, str], name: str) -> list[str]:
    """A ledger that was not closed is checked in full; one that was, by its sums. Returns notices.

    Raises:
        LedgerError: it is damaged.
    """
    if facts.get("clean", "yes") != "yes":
        _check_in_full(reader, name)
        return ["the last run did not end cleanly; the ledger was checked in full and is whole"]
    if "sums" in facts and not _sums_agree(reader, facts["sums"]):
        # Two programs that wrote at once leave sums that only a look at every row can confirm.
        _check_in_full(reader, name)
    return []


def check_not_moved(facts: Mapping[str, str], name: str) -> None:
    """MONEY: a ledger that was copied to a database spends there.

    Raises:
        LedgerError: it was moved.
    """
    if MOVED in facts:
        raise LedgerError(
            f"{name} was moved to {facts[MOVED]}, and spending with both pays twice. Use that one with --set "
            "ledger.url=URL (or DOP_LEDGER__URL), or say `dop ledger adopt` if it was given up"
        )


def _check_in_full(reader: ReadConnections, name: str) -> None:
    problems = problems_of(reader)
    if problems:
        raise LedgerError(
            f"{name} is damaged: {problems[0]}; nothing is bought with it. `dop ledger check` lists everything, "
            "`dop ledger rebuild` makes it from its journal"
        )


def _sums_agree(reader: ReadConnections, digest: str) -> bool:
    """MONEY: caps are judged by the spend book, which no run reads row by row."""
    with suppress(DatabaseError, UnicodeError), reader.connect() as connection:
        # A sum is found through the book's index: a flipped bit there hides a row that the table still has.
        return not integrity_problems(connection, "spend") and sums_digest(connection) == digest
    return False
