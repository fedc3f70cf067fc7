"""The lock of a ledger in a file: a lock on the database file itself, which dies with its holder.

The file's inode is locked, not a name: a symbolic link, a hard link or a removed side file reaches the same lock. It is
a BSD lock (`flock`), which SQLite's own POSIX locks neither see nor disturb.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import LedgerError, LockedError, UsageError
from pipeline.ledger.file_in_place import is_mounted_alone
from pipeline.ledger.side_files import holder_path

POLL_S = 0.1
"""Seconds between two tries while a lock is waited for."""

_held: set[tuple[int, int]] = set()
_held_guard = threading.Lock()
"""Device and inode of the files that this process has locked.

A second descriptor of such a file must never be opened: closing it would drop SQLite's POSIX locks on the file.
"""


@contextmanager
def locked(ledger: Path, *, wait_s: float, now: float) -> Iterator[None]:
    """Holds the lock on the ledger's file, which is made if it is not there yet.

    Raises:
        LockedError: another run holds it; the message names the holder and when it started.
        LedgerError: the file has a second name (a hard link, a mount), whose side files would be other ones.
        UsageError: the folder cannot be written.
    """
    path = ledger.resolve()
    holder = holder_path(path)
    try:
        descriptor, inode = _acquire(path, wait_s)
    except TimeoutError:
        raise LockedError(f"another run holds {ledger} ({_holder_text(holder)}); nothing was sent") from None
    except IsADirectoryError:
        raise UsageError(f"{ledger} is a folder; the ledger is a file: set another ledger.path") from None
    except OSError as error:
        raise UsageError(f"{ledger.parent} can't be written ({error.strerror}); choose another --outputs") from None
    try:
        if os.fstat(descriptor).st_nlink > 1:
            raise LedgerError(
                f"{ledger} has a second name (a hard link). What one name has written lately is not found under the "
                "other, so nothing is bought: remove the other name, or copy the file with `dop ledger copy`"
            )
        if is_mounted_alone(path):
            raise LedgerError(
                f"{ledger} is a mount of its own, apart from the files beside it. What was written lately under "
                "another path is not found here, so nothing is bought: mount its folder instead"
            )
        started = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with suppress(OSError):
            _write_for_group(holder, json.dumps(_self(started)))
        yield
    finally:
        with suppress(OSError):
            # Before the lock is released: afterwards the file could be the next holder's.
            holder.unlink()
        _release(descriptor, inode)


def _acquire(path: Path, wait_s: float) -> tuple[int, tuple[int, int]]:
    """A locked descriptor of the file that has the name now, and its device and inode.

    Raises:
        TimeoutError: another process, or another run of this one, holds it.
    """
    pause = threading.Event()
    for _ in range(1 + int(wait_s / POLL_S)):
        found = _try(path)
        if found is not None:
            return found
        if wait_s > 0:
            pause.wait(POLL_S)
    raise TimeoutError


def _try(path: Path) -> tuple[int, tuple[int, int]] | None:
    with _held_guard:
        with suppress(FileNotFoundError):
            # Asked before the file is opened: closing a second descriptor would drop SQLite's own locks on it.
            if _inode(os.stat(path)) in _held:
                return None
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            inode = _inode(os.fstat(descriptor))
            if inode == _inode(os.stat(path)):  # else a rebuild has put another file there meanwhile
                _held.add(inode)
                return descriptor, inode
        except OSError as error:
            if not isinstance(error, (BlockingIOError, FileNotFoundError)):
                os.close(descriptor)
                raise
        os.close(descriptor)
        return None


def _release(descriptor: int, inode: tuple[int, int]) -> None:
    with _held_guard:
        _held.discard(inode)
        os.close(descriptor)


def _inode(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _write_for_group(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o660)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _self(started: str) -> dict[str, object]:
    """What others are shown of this process while it holds the lock."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = ""
    return {"pid": os.getpid(), "host": os.uname().nodename, "started": started, "user": user}


def _holder_text(holder: Path) -> str:
    try:
        found = json.loads(holder.read_text())
        user = f" of {found['user']}" if found.get("user") else ""
        return f"process {found['pid']}{user} on {found['host']}, since {found['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its holder did not leave a name"
