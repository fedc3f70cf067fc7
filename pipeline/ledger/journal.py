"""The ledger's second book: an append-only text file beside it, one line an event, from which it can be rebuilt.

A line is `crc32 json`; the json holds a sequence number, the event and the whole row after it. The journal follows the
database (which is what counts); it goes ahead of it only when the database could not be written, e.g. on a full disk
after a paid answer, and then its lines hold the change itself. It never holds a key or a secret.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from sqlalchemy import Connection, select

from pipeline.errors import LedgerError
from pipeline.ledger.schema import IMMUTABLE, MUTABLE, journal
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import LedgerChange

_compact = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def line_of(entry: Mapping[str, object]) -> str:
    """One journal line, newline included."""
    text = _compact(entry)
    return f"{zlib.crc32(text.encode('ascii')):08x} {text}\n"


def entry_of(line: str) -> dict[str, object] | None:
    """The entry of a line, or None when the line is torn or damaged."""
    crc, _, text = line.rstrip("\n").partition(" ")
    try:
        if not line.endswith("\n") or int(crc, 16) != zlib.crc32(text.encode("ascii")):
            return None
        entry = json.loads(text)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def row_entry(row: Mapping[str, object], change: LedgerChange, seq: int) -> dict[str, object]:
    """The line of a change that the database took: the row after it, without the columns that hold nothing."""
    return {
        "seq": seq,
        "event": change.event.value,
        "at": change.at,
        "request_id": change.request_id,
        "row": {name: value for name, value in row.items() if value is not None},
        "detail": change.detail,
    }


def snapshot_entry(row: Mapping[str, object], seq: int) -> dict[str, object]:
    """The line of a row as it stands, written when the journal has to be made anew."""
    return {
        "seq": seq,
        "event": "snapshot",
        "at": row["submitted_at"],
        "request_id": row["request_id"],
        "row": {name: row[name] for name in MUTABLE},
        "cold": {name: row[name] for name in IMMUTABLE},
        "detail": "",
    }


def snapshot_end(seq: int) -> dict[str, object]:
    """The line after the last snapshot: from here on the journal knows everything up to `seq` again."""
    return {"seq": seq, "event": "snapshot end"}


def change_entry(change: LedgerChange, seq: int) -> dict[str, object]:
    """The line of a change that the database could not take; it is judged when the journal is replayed."""
    return {
        "seq": seq,
        "event": change.event.value,
        "at": change.at,
        "request_id": change.request_id,
        "change": {"token": change.token, "values": dict(change.values)},
        "detail": change.detail,
    }


def changes_of(lines: Iterable[Mapping[str, object]]) -> Iterator[LedgerChange]:
    """The changes that `change_entry` wrote down."""
    for entry in lines:
        wanted = entry["change"]
        if not isinstance(wanted, dict):
            raise LedgerError("the journal holds a line of another program")
        yield LedgerChange(
            request_id=str(entry["request_id"]),
            event=Event(str(entry["event"])),
            at=float(str(entry["at"])),
            token=None if wanted["token"] is None else str(wanted["token"]),
            values=wanted["values"],
            detail=str(entry["detail"]),
        )


def entries(path: Path, after: int = -1) -> Iterator[dict[str, object]]:
    """Every entry with a number above `after`, in order; a last line torn by a crash is passed over.

    Raises:
        LedgerError: a line before the last one is damaged.
    """
    if not path.exists():
        return
    torn: int | None = None
    with path.open(encoding="ascii", errors="replace", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            if torn is not None:
                raise LedgerError(f"{path}: line {torn} is damaged; `dop ledger check` says what can be done")
            entry = entry_of(line)
            if entry is None:
                torn = number
            elif int(str(entry["seq"])) > after:
                yield entry


def table_entries(connection: Connection, name: str) -> Iterator[dict[str, object]]:
    """Every entry of the journal that stands in a database, in order.

    Raises:
        LedgerError: a line is damaged.
    """
    lines = select(journal.c.number, journal.c.line).order_by(journal.c.number)
    for number, line in connection.execution_options(yield_per=2_000).execute(lines):
        entry = entry_of(f"{line}\n")
        if entry is None:
            raise LedgerError(f"{name}: line {number} of the journal is damaged; a backup may have it whole")
        yield entry


def last_seq(path: Path) -> int:
    """The sequence number of the last whole line; 0 for an empty or missing journal. Reads the end of the file only."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        span = 1 << 16
        while True:
            start = max(0, size - span)
            file.seek(start)
            lines = file.read().decode("ascii", "replace").splitlines(keepends=True)
            for line in reversed(lines if start == 0 else lines[1:]):
                entry = entry_of(line)
                if entry is not None:
                    return int(str(entry["seq"]))
            if start == 0:
                return 0
            span *= 4


class Journal:
    """The open journal file. One writer; every call appends and flushes to the operating system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def append(self, entries: Iterable[Mapping[str, object]], *, sync: bool = False) -> None:
        """Appends entries; with `sync` they are on the disk when it returns.

        Raises:
            OSError: the file can't be written.
        """
        if self._file is None:
            self._file = self._opened()
        self._file.write("".join(line_of(entry) for entry in entries))
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())

    def _opened(self) -> IO[str]:
        self._mend_tail()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return os.fdopen(descriptor, "a", encoding="ascii", newline="\n")

    def _mend_tail(self) -> None:
        """A line torn by a crash is cut off, so that the next one starts on its own."""
        if not self.path.exists():
            return
        with self.path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            if size == 0:
                return
            file.seek(max(0, size - (1 << 20)))
            tail = file.read()
            if not tail.endswith(b"\n"):
                file.truncate(size - (len(tail) - (tail.rfind(b"\n") + 1)))

    def close(self) -> None:
        """Puts everything on the disk and closes the file."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
