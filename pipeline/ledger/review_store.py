"""Where reviews are kept: the append-only table of the ledger, and beside a file a second copy of it, line by line.

Reviews have no number in the chain of events: a reviewer may write while a run of another process records purchases,
and two writers of one chained journal would look like lost events. So the copy is a file with numbers of its own.
It is written inside the database's write transaction, which keeps two reviewers' lines apart, and every write
first makes the two equal: whichever lost its end takes it from the other. On a server the table is the only copy.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy import Connection, func, insert, select

from pipeline.errors import LedgerError
from pipeline.files import LEDGER_MODE, whole_text
from pipeline.ledger.journal import Journal, entry_of, last_seq, line_of
from pipeline.ledger.journal_check import lines_of
from pipeline.ledger.schema import reviews

COLUMNS = tuple(column.name for column in reviews.columns)
CHUNK = 500
"""Rows of one statement: SQLite takes 32,766 variables, and a row has a dozen."""

Row = Mapping[str, object]


def add_reviews(connection: Connection, rows: Iterable[Row], copy: Path | None) -> int:
    """Adds rows that are not there yet, to the table and its copy; returns how many. For a write transaction.

    Args:
        rows: every column but `number`.
        copy: the second copy of a ledger in a file; None on a server.
    Raises:
        LedgerError: the copy can't be written; nothing was added.
    """
    journal = None if copy is None else Journal(copy)
    try:
        if journal is not None:
            _make_equal(connection, journal)
        added = list(_unknown(connection, rows))
        if added and journal is None:
            connection.execute(insert(reviews), added)  # the server numbers them, whatever another host adds meanwhile
        elif added and journal is not None:
            first = _newest(connection) + 1
            added = [{**row, "number": first + at} for at, row in enumerate(added)]
            connection.execute(insert(reviews), added)
            journal.append(map(_entry, added), sync=True)
    except OSError as error:
        raise LedgerError(f"{copy} can't be written ({error.strerror}); the review was not saved") from None
    finally:
        if journal is not None:
            journal.close()
    return len(added)


def _newest(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.max(reviews.c.number), 0))).scalar_one())


def _unknown(connection: Connection, rows: Iterable[Row]) -> Iterator[Row]:
    """Those that no row of the table equals: a file that is imported twice, or sent twice, adds nothing."""
    given = list(rows)
    for start in range(0, len(given), CHUNK):
        part = given[start : start + CHUNK]
        found = connection.execute(
            select(reviews).where(reviews.c.request_id.in_({str(row["request_id"]) for row in part}))
        )
        known = {_key(dict(row._mapping)) for row in found}
        for row in part:
            # Also against the rows before it in the same call.
            if _key(row) not in known:
                known.add(_key(row))
                yield row


def _key(row: Row) -> tuple[object, ...]:
    return tuple(row[name] for name in COLUMNS if name != "number")


def _make_equal(connection: Connection, journal: Journal) -> None:
    """The numbers of both have no gaps, so the last one tells which of the two lacks its end."""
    # Within the database's write transaction, so that no other reviewer adds a row between the two questions.
    copied, newest = last_seq(journal.path), _newest(connection)
    if copied > newest:
        _insert(connection, (row for row in copied_rows(journal.path) if int(str(row["number"])) > newest))
    elif copied < newest:
        missing = select(reviews).where(reviews.c.number > copied).order_by(reviews.c.number)
        journal.append((_entry(dict(row._mapping)) for row in connection.execute(missing)), sync=True)


def _insert(connection: Connection, rows: Iterable[Row]) -> None:
    found = [dict(row) for row in rows]
    if found:
        connection.execute(insert(reviews).prefix_with("OR IGNORE"), found)


def _entry(row: Row) -> dict[str, object]:
    return {"seq": row["number"], **{name: row[name] for name in COLUMNS if name != "number" and row[name] is not None}}


def copied_rows(path: Path) -> Iterator[Row]:
    """Every whole line of the copy, as a row of the table; a torn or damaged one is passed over."""
    for line in lines_of(path):
        entry = entry_of(line)
        if entry is not None and {"seq", "request_id", "at", "who"} <= entry.keys():
            yield {"number": entry["seq"], **{name: entry.get(name) for name in COLUMNS if name != "number"}}


def restore_reviews(connection: Connection, copy: Path, old: Path | None = None) -> int:
    """Fills the table from its copy, and from what can be read of an old ledger's file; returns how many it holds.

    The copy's lines come first: each of them has a checksum.
    """
    _insert(connection, copied_rows(copy))
    if old is not None:
        _insert(connection, _rows_of_file(old))
    return int(connection.execute(select(func.count()).select_from(reviews)).scalar_one())


def _rows_of_file(old: Path) -> Iterator[Row]:
    with suppress(sqlite3.Error, UnicodeError), closing(sqlite3.connect(f"file:{old}?mode=ro", uri=True)) as source:
        for values in source.execute(f"SELECT {', '.join(COLUMNS)} FROM reviews"):  # noqa: S608 - our own names
            row = dict(zip(COLUMNS, values, strict=True))
            if all(isinstance(row[name], str) for name in ("request_id", "at", "who")):
                yield row


def write_copy(connection: Connection, copy: Path) -> None:
    """Writes the copy again from the table, whole or not at all; a ledger without reviews has none.

    Raises:
        OSError: it can't be written.
    """
    rows = connection.execute(select(reviews).order_by(reviews.c.number)).all()
    if rows or copy.exists():
        with whole_text(copy, mode=LEDGER_MODE) as file:
            file.writelines(line_of(_entry(dict(row._mapping))) for row in rows)


def copy_problems(connection: Connection, copy: Path) -> list[str]:
    """What is wrong with the copy beside a file, in words; empty when it holds what the table holds."""
    held = {row.number: _key(dict(row._mapping)) for row in connection.execute(select(reviews))}
    copied = {row["number"]: _key(row) for row in copied_rows(copy)}
    if held == copied:
        return []
    lacking, more = len(held.items() - copied.items()), len(copied.items() - held.items())
    return [f"the reviews' copy {copy} lacks {lacking} of the ledger's reviews, and holds {more} that the ledger lacks"]
