"""Whether the file of an open ledger is still found under its name, and a copy of it where it is not.

MONEY: a process keeps a file open that was removed or replaced. What it records there is lost with the process, and the
next run would find none of it: so nothing more is bought, and what the open file holds is kept under another name.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import cast

from sqlalchemy import Connection

from pipeline.errors import DopError, LedgerError
from pipeline.files import LEDGER_MODE, whole_path

_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}
"""How the kernel writes these characters in a path of `_MOUNTS`."""


class FileInPlace:
    """The file that had the name when the ledger was opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened = _identity(path)

    def __bool__(self) -> bool:
        """Whether it has the name now; an error of the disk contradicts nothing."""
        with suppress(FileNotFoundError, NotADirectoryError):
            try:
                return _identity(self._path) == self._opened
            except PermissionError:
                return True
        return False


def _identity(path: Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def is_mounted_alone(path: Path) -> bool:
    """Whether the file itself is a mount (`mount --bind`, `docker -v FILE:FILE`), apart from the files beside it."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False  # no Linux: such mounts are not known there
    # The fifth field of a line is the mount point. Source: proc(5), mountinfo.
    return any(_unescaped(line.split(" ")[4]) == str(path) for line in lines if line.count(" ") > 4)


def _unescaped(text: str) -> str:
    for escape, character in _ESCAPES.items():
        text = text.replace(escape, character)
    return text


def lost_file(path: Path, transact: Callable[[Callable[[Connection], Path]], Path]) -> LedgerError:
    """What the operator reads about an open ledger whose file has lost its name; its content is kept by `transact`."""
    text = f"the ledger {path} was removed or replaced while it was in use; nothing more was bought"
    try:
        kept = transact(lambda connection: rescue(connection, path))
    except (DopError, OSError, sqlite3.Error) as error:
        return LedgerError(f"{text}, and what it held can't be kept: {error}")
    return LedgerError(f"{text}. What it held is kept in {kept}: put it back under its name, then `dop ledger adopt`")


def rescue(connection: Connection, path: Path) -> Path:
    """Writes what an open ledger holds beside the place where its file was; returns the copy.

    Raises:
        OSError, sqlite3.Error: it can't be written.
    """
    target = path.with_name(f"{path.name}.rescued")
    while target.exists():
        target = target.with_name(f"{target.name}+")
    target.parent.mkdir(parents=True, exist_ok=True)
    connection.exec_driver_sql("COMMIT")  # a copy would wait for the end of this very transaction
    source = cast(sqlite3.Connection, connection.connection.driver_connection)
    with whole_path(target, mode=LEDGER_MODE) as draft, closing(sqlite3.connect(draft)) as copy:
        source.backup(copy)
    return target
