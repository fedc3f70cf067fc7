"""Whether a ledger is fit for spending: its rows, its sums, and that it was not moved elsewhere. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from pipeline.errors import LedgerError
from pipeline.ledger.clock import last_history_number
from pipeline.ledger.database import integrity_problems, structure_problems
from pipeline.ledger.identity import MOVED
from pipeline.ledger.integrity import audit, audit_since, sums_digest

_MAX_DIGITS = 18
"""So many digits of a damaged mark can't be a number of SQLite's any more."""


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


AUDITED = "audited up to"
"""What the ledger knows of itself: the last line of its history up to which its rows were known to be whole."""


def audited_now(connection: Connection) -> dict[str, str | None]:
    """The mark that every row is known to be whole as it is now."""
    return {AUDITED: str(last_history_number(connection))}


def clean_end(connection: Connection) -> dict[str, str | None]:
    """What is written down at a clean end, and compared at the next start."""
    return {"clean": "yes", "sums": sums_digest(connection), **audited_now(connection)}


def check_sums(reader: ReadConnections, facts: Mapping[str, str], name: str) -> list[str]:
    """Check a ledger that was closed by its sums, and one that was not by all that its last run wrote, too.

    One that does not know what its last run wrote is checked in full. Returns notices.

    Raises:
        LedgerError: it is damaged.
    """
    if facts.get("clean", "yes") != "yes":
        mark = facts.get(AUDITED, "")
        # `isdecimal` alone takes digits of other scripts, which `int` reads, too: the mark is damaged then.
        if not (mark.isascii() and mark.isdecimal() and len(mark) < _MAX_DIGITS):
            _check_in_full(reader, name)
            return ["the last run did not end cleanly; the ledger was checked in full and is whole"]
        _refuse_damaged(_problems_since(reader, int(mark)), name)
        return ["the last run did not end cleanly; what it wrote was checked and is whole"]
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
    _refuse_damaged(problems_of(reader), name)


def _problems_since(reader: ReadConnections, number: int) -> list[str]:
    try:
        with reader.connect() as connection:
            # The mark is ahead of the history, so lines of the history are lost: nothing short of a full check will do.
            if number > last_history_number(connection):
                return integrity_problems(connection) + audit(connection)
            problems = structure_problems(connection) + integrity_problems(connection, "spend")
            return problems or audit_since(connection, number)
    except (DatabaseError, ValueError, ArithmeticError) as error:
        return [str(getattr(error, "orig", "a value of the ledger can't be read"))]


def _refuse_damaged(problems: Sequence[str], name: str) -> None:
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
