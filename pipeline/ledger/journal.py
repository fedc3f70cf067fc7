"""The ledger's second book: an append-only text file beside it, one line an event, from which it can be rebuilt.

A line is `crc32 json`; the json holds a sequence number, the ledger's id, the hash chain up to this event, the event
and the whole row after it. The journal follows the database (which is what counts); it goes ahead of it only when the
database could not be written, e.g. on a full disk after a paid answer, and then its lines hold the change itself.
`journal_check` reads it back and finds what is missing. It never holds a key or a secret.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from pipeline.ledger.identity import next_link
from pipeline.ledger.schema import IMMUTABLE, MUTABLE
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import LedgerChange

_compact = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


_TORN = re.compile(r"[0-9a-f]{1,8}$|[0-9a-f]{8} (\{|$)")
"""How the beginning of a line looks: its checksum and its entry, as far as they were written."""


class SealedEntry(dict[str, object]):
    """An entry with its JSON as the chain covers it: a line repeats that text, so it is encoded once.

    After `cover` only `chain` and `cold` may be added.
    """

    __slots__ = ("covered",)

    def __init__(self, entry: Mapping[str, object]) -> None:
        super().__init__(entry)
        self.covered = ""

    def cover(self) -> str:
        """Keep and return the text that the chain covers."""
        self.covered = _covered(self)
        return self.covered


def line_of(entry: Mapping[str, object]) -> str:
    """One journal line, newline included."""
    if isinstance(entry, SealedEntry) and entry.covered:
        cold = f',"cold":{_compact(entry["cold"])}' if "cold" in entry else ""
        # The covered text without its last brace, and behind it what the chain does not cover.
        text = f'{entry.covered[:-1]},"chain":"{entry["chain"]}"{cold}}}'
    else:
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


def is_interrupted(line: str) -> bool:
    """Whether a line is the beginning of one: an append that was interrupted leaves that at the journal's end."""
    return _TORN.match(line) is not None and not line.endswith("\n")


SNAPSHOT = "snapshot"
SNAPSHOT_END = "snapshot end"
MARK = "mark"
"""Events of a journal's line that no request has: a row as it is, the end of such rows, and a mark of the ledger."""


def sealed(entry: dict[str, object], ledger_id: str, chain: str) -> str:
    """Adds the ledger's id and the chain after this event to the entry; returns that chain. `chain` is the one before.

    An intent's `cold` part is added afterwards and is not covered: the request's own digest covers it.
    """
    entry["ledger"] = ledger_id
    covered = entry.cover() if isinstance(entry, SealedEntry) else _covered(entry)
    entry["chain"] = link = next_link(chain, covered)
    return link


def _covered(entry: Mapping[str, object]) -> str:
    return _compact({name: value for name, value in entry.items() if name not in ("chain", "cold")})


def link_of(entry: Mapping[str, object], chain: str) -> str:
    """The chain after an entry, from the one before it."""
    return next_link(chain, _covered(entry))


def row_entry(row: Mapping[str, object], change: LedgerChange, seq: int) -> SealedEntry:
    """The line of a change that the database took: the row after it, without the columns that hold nothing."""
    return SealedEntry(
        {
            "seq": seq,
            "event": change.event.value,
            "at": change.at,
            "request_id": change.request_id,
            "row": {name: value for name, value in row.items() if value is not None},
            "detail": change.detail,
        }
    )


def snapshot_entry(row: Mapping[str, object], seq: int, ledger_id: str, number: int) -> dict[str, object]:
    """The line of a row as it is, the `number`-th (from 1) of those that replace the journal's beginning."""
    return {
        "seq": seq,
        "event": SNAPSHOT,
        "number": number,
        "ledger": ledger_id,
        "at": row["submitted_at"],
        "request_id": row["request_id"],
        "row": {name: row[name] for name in MUTABLE},
        "cold": {name: row[name] for name in IMMUTABLE},
        "detail": "",
    }


def snapshot_end(seq: int, *, ledger_id: str, chain: str, count: int, marks: Mapping[str, str]) -> dict[str, object]:
    """The line after the last of `count` snapshots: from here on the journal knows everything up to `seq` again."""
    return {
        "seq": seq,
        "event": SNAPSHOT_END,
        "ledger": ledger_id,
        "chain": chain,
        "count": count,
        "marks": dict(marks),
    }


def mark_entry(seq: int, values: Mapping[str, str | None]) -> dict[str, object]:
    """The line of what the ledger learned of itself: marks and places; None removes one."""
    return {"seq": seq, "event": MARK, "set": dict(values)}


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


def change_of(entry: Mapping[str, object]) -> LedgerChange:
    """The change that `change_entry` wrote down.

    Raises:
        KeyError, TypeError, ValueError: the entry is of another kind, or damaged.
    """
    wanted = entry["change"]
    if not isinstance(wanted, dict):
        raise TypeError("the journal holds a line of another program")
    return LedgerChange(
        request_id=str(entry["request_id"]),
        event=Event(str(entry["event"])),
        at=float(str(entry["at"])),
        token=None if wanted["token"] is None else str(wanted["token"]),
        values=dict(wanted["values"]),
        detail=str(entry["detail"]),
    )


def last_entry(path: Path) -> dict[str, object] | None:
    """The last whole line; None for an empty or missing journal. Reads the end of the file only."""
    return read_tail(path)[0]


def read_tail(path: Path) -> tuple[dict[str, object] | None, int]:
    """The last whole line, and how many damaged ones follow it. Reads the end of the file only.

    The beginning of a line at the end is not counted: an append that was interrupted leaves it.
    """
    if not path.is_file():
        return None, 0
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        span = 1 << 16
        while True:
            start = max(0, size - span)
            file.seek(start)
            # Every line ends with a line break, so `rest` is empty or what an interrupted append left.
            *lines, rest = file.read().decode("ascii", "replace").split("\n")
            damaged = int(rest != "" and not is_interrupted(rest))
            # Where the span does not begin with the file, its first piece is the end of some longer line.
            for line in reversed(lines if start == 0 else lines[1:]):
                entry = entry_of(f"{line}\n")
                if entry is not None:
                    return entry, damaged
                damaged += 1
            if start == 0:
                return None, damaged
            span *= 4


def last_seq(path: Path) -> int:
    """The sequence number of the last whole line; 0 for an empty or missing journal."""
    entry = last_entry(path)
    return 0 if entry is None else int(str(entry["seq"]))


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
        # Handed to the operating system, which a crash of this process does not undo. The database has these events
        # durably already; `sync` is for those that only the journal has.
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())

    def create(self) -> None:
        """Makes the file, if it is not there yet.

        Raises:
            OSError: it can't be written.
        """
        if self._file is None:
            self._file = self._opened()

    def _opened(self) -> IO[str]:
        self._mend_tail()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o660)
        return os.fdopen(descriptor, "a", encoding="ascii", newline="\n")

    def _mend_tail(self) -> None:
        """A line torn by a crash is cut off, so that the next one starts on its own."""
        if not self.path.exists():
            return
        with self.path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            if size == 0:
                return
            # No line is nearly as long as this: an answer of 20,000 characters and a kept call at most.
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
