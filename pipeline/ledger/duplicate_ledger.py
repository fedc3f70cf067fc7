"""Whether the same ledger also lies elsewhere on this machine and could spend there, beside the one that is opened.

The user's state folder knows where an account's ledger was used last. A copy that is adopted while that one still buys
would pay for everything twice, whatever the operator believes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import DatabaseError

from pipeline.errors import LedgerError
from pipeline.ledger.file_lock import locked
from pipeline.ledger.identity import MOVED
from pipeline.ledger.sqlite_ledger import SqliteLedger


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateLedger:
    """A file that holds the same ledger and could spend: its path, and the number of its newest event."""

    path: Path
    seq: int


def duplicate_at(place: str, ledger: SqliteLedger) -> DuplicateLedger | None:
    """The duplicate of a ledger at a place where it was used; None if nothing there could spend, or it is this file."""
    path = Path(place)
    with suppress(OSError, LedgerError, DatabaseError, UnicodeError):
        # A second descriptor of the same file must never be opened: closing it would drop the locks on it.
        if not path.is_absolute() or not path.is_file() or os.path.samefile(path, ledger.path):
            return None
        other = SqliteLedger(path)
        try:
            if other.ledger_id == ledger.ledger_id and not other.is_copy and MOVED not in other.facts:
                return DuplicateLedger(path=other.path, seq=other.head[0])
        finally:
            other.close(clean=False)  # another process may be writing there
    return None


def duplicate_among(places: Iterable[str], ledger: SqliteLedger) -> DuplicateLedger | None:
    """The first duplicate of a ledger at one of these places, None where there is none."""
    return next((found for place in sorted(set(places)) if (found := duplicate_at(place, ledger)) is not None), None)


@contextmanager
def held_duplicate(
    ledger: SqliteLedger, places: Iterable[str], *, wait_s: float, now: float
) -> Iterator[DuplicateLedger | None]:
    """Keeps the duplicate of a ledger from spending while the ledger takes its place; None where there is no duplicate.

    MONEY: what a duplicate has bought meanwhile is not in this ledger, and would be bought again.

    Args:
        places: where the ledger was used last, by the state folder; one for each account, and mostly the same.
        wait_s: how long to wait for a run that works on the duplicate.

    Raises:
        LockedError: a run works on the duplicate.
        LedgerError: the duplicate has events that this ledger lacks.
    """
    duplicate = duplicate_among(places, ledger)
    if duplicate is None:
        yield None
        return
    with locked(duplicate.path, wait_s=wait_s, now=now):
        found = duplicate_at(str(duplicate.path), ledger)  # once more: a run may have ended since
        if found is not None and found.seq > ledger.head[0]:
            raise LedgerError(
                f"{ledger.name} is a copy of {found.path}, which is still there and has {found.seq - ledger.head[0]} "
                "more events: what they bought would be bought again. Use that one (--outputs DIR or --set "
                "ledger.path=FILE), or copy it again; if it was given up, move it away first"
            )
        yield found
