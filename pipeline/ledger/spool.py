"""What this process could not book while the ledger's server was away: a file of its own, which outlives it.

A line is a journal's. The file is locked while its process lives; the next one here takes over what dead ones left.
Must never hold what bears no token: recorded twice, such a line could touch another purchase.
"""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from pipeline.ledger.journal import change_entry, change_of, entry_of, line_of
from pipeline.ledger.journal_check import lines_of
from pipeline.ledger.transitions import LedgerChange

RECORDED = ".booked"
"""Ends the name of a file that was recorded, and is kept because something in it could not be."""


class Spool:
    """The spool of this process, a file in `folder`; and those of dead ones, once `inherit` is called."""

    def __init__(self, folder: Path) -> None:
        # Host, process and object: workers on several hosts may share the folder, and two ledgers one process.
        self.path = folder / f"ledger.spool-{platform.node()}-{os.getpid()}-{id(self):x}"
        self._folder = folder
        self._files: dict[Path, IO[str]] = {}
        self.damage: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._files)

    def inherit(self) -> int:
        """Takes over the spools of processes that are dead; returns how many files."""
        for path in sorted(self._folder.glob("ledger.spool-*")):
            # The lock of a living process is held, so its file is left to it.
            file = _locked(path) if not path.name.endswith(RECORDED) else None
            if file is not None:
                self._files[path] = file
        return len(self._files)

    def put(self, changes: Sequence[LedgerChange]) -> None:
        """Keeps changes; they are on the disk when it returns.

        Raises:
            OSError: the file can't be written.
        """
        if self.path not in self._files:
            self._folder.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o660))
            file = _locked(self.path)
            if file is None:
                raise OSError(f"{self.path} is locked")
            self._files[self.path] = file
        file = self._files[self.path]
        file.write("".join(line_of(change_entry(change, 0)) for change in changes))
        file.flush()
        os.fsync(file.fileno())

    def changes(self) -> Iterator[LedgerChange]:
        """Everything that is kept, file by file, in order. Lines that cannot be read are counted in `damage`."""
        self.damage = []
        for path in list(self._files):
            for number, line in enumerate(lines_of(path), start=1):
                try:
                    yield change_of(entry_of(line) or {})
                except (KeyError, TypeError, ValueError):
                    self.damage.append(f"line {number} of {path} can't be read: it may have named a paid job")

    def clear(self, *, keep: bool = False) -> list[Path]:
        """Everything was recorded: removes the files, or keeps them under another name; returns what is kept."""
        kept = []
        for path, file in self._files.items():
            with suppress(OSError):
                if keep:
                    kept.append(path.rename(path.with_name(f"{path.name}{RECORDED}")))
                else:
                    path.unlink()
            file.close()
        self._files.clear()
        return kept

    def close(self) -> None:
        """Leaves the files to the next process."""
        for file in self._files.values():
            file.close()
        self._files.clear()


def _locked(path: Path) -> IO[str] | None:
    """The file, locked; None while its process lives, or when it is gone."""
    try:
        file = path.open("a", encoding="ascii", newline="\n")
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between `open` and the lock its process may have removed it: then this descriptor has no name any more.
        if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
    except OSError:
        pass
    file.close()
    return None
