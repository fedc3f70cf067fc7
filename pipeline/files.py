"""Files that are there whole or not at all, and the removal of drafts whose process died.

A draft has a mark in its name and an OS lock while its process lives. A killed process leaves the file and loses the
lock: so the next process of this program knows which drafts it may remove. Never touches a file of another name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

UMASK = os.umask(0o077)
os.umask(UMASK)
"""Which permissions the operator takes from new files; read once, since reading sets it for all threads."""

FILE_MODE = (0o666 & ~UMASK) | 0o600
"""Of reports, videos and pictures: what the umask leaves, so that others of a studio can look where it lets them."""

SECRET = 0o600
"""Mode of files with keys, and of the account's memory in the state folder: for this user alone, whatever the umask."""

LEDGER_MODE = FILE_MODE & 0o660
"""Of copies of a ledger: the umask decides for the group, others read nothing."""

LEDGER_UMASK = UMASK | 0o007
"""While files of the ledger are made: the umask decides for the group, and no others read what was bought."""


DRAFT = re.compile(r"\.draft-[a-z0-9_]{8}-.*")
"""The name of a draft that `draft_beside` makes, and of what SQLite writes beside one."""

FOLDER_PREFIX = "dop-batch-tmp-"
_FOLDER = re.compile(FOLDER_PREFIX + r"[a-z0-9_]{8}")

MAX_NAME_BYTES = 180
"""Bytes of the target's name that its draft repeats: file systems allow 255, SQLite's side files need some more."""

CLAIM_TRIES = 8
"""A cleaner may remove a new draft in the moment before it is locked; then another one is made."""

TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)
"""The process, or the machine, has as many open files as it may have."""

_swept: set[Path] = set()
_swept_lock = threading.Lock()


@contextmanager
def draft_beside(path: Path) -> Iterator[Path]:
    """A private empty file beside `path` for the block, locked by this process and removed at the end.

    The name keeps the ending of `path`, because renderers choose their format by it. The first draft of this process in
    a folder removes those that dead processes left there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep_once(path.parent)
    handle, draft = _new_draft(path)
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def whole_path(path: Path, *, mode: int = FILE_MODE) -> Iterator[Path]:
    """A draft that takes the place of `path` when the block ends well, and vanishes otherwise.

    Writes: `path`, by rename, so that a reader sees the old file or the new one. The block must write the draft in
    place: another file under its name would not be locked.
    """
    with draft_beside(path) as draft:
        yield draft
        # Before the rename: after a power cut the new name must not lead to an empty file.
        fsync_path(draft)
        draft.chmod(mode)
        draft.replace(path)


@contextmanager
def whole_text(path: Path, *, mode: int = FILE_MODE) -> Iterator[TextIO]:
    """The same as an open text file: UTF-8, newlines as written, what cannot be encoded becomes `?`."""
    with (
        whole_path(path, mode=mode) as temporary,
        temporary.open("w", encoding="utf-8", errors="replace", newline="") as stream,
    ):
        yield stream
        stream.flush()


def remedy(error: object) -> str:
    """What the user can do about an error of a file: an imperative without a full stop."""
    number = error.errno if isinstance(error, OSError) else None
    if number in TOO_MANY_FILES or "unable to open database file" in str(error):
        return "close programs or raise the limit of open files (`ulimit -n`), and run again"
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "full" in str(error):
        return "free some disk space and run again"
    if "I/O error" in str(error):  # SQLite says so of a disk that is full at some moments
        return "free some disk space, or check the disk, and run again"
    if number in (errno.EROFS, errno.EACCES, errno.EPERM) or "readonly" in str(error):
        return "make it writable and run again"
    return "run again when that is put right"


def remove_abandoned(folder: Path, *, also: re.Pattern[str] | None = None) -> int:
    """Remove the drafts in `folder` that no living process owns; returns how many.

    Args:
        also: further names of files that their owners lock with `flock`.
    """
    removed = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if DRAFT.fullmatch(entry.name) or (also is not None and also.fullmatch(entry.name)):
                removed += _remove_unowned(Path(entry.path))
    return removed


def temporary_folder() -> tuple[Path, int]:
    """A new private folder for temporary files, and the handle that locks it while this process lives.

    Removes the folders of the same user whose processes died.
    """
    place = Path(tempfile.gettempdir())
    with suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if _FOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                _remove_unowned_folder(Path(entry.path))
    for _ in range(CLAIM_TRIES):
        folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        with suppress(FileNotFoundError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if _lock(handle) is not False and _still_named(handle, folder):
                return folder, handle
            os.close(handle)
    raise OSError(f"{place}: no temporary folder could be locked")


def _sweep_once(folder: Path) -> None:
    with _swept_lock:
        if folder in _swept:
            return
        _swept.add(folder)
    remove_abandoned(folder)


def _new_draft(path: Path) -> tuple[int, Path]:
    """A locked new file beside `path`."""
    name = path.name.encode(errors="surrogateescape")[-MAX_NAME_BYTES:].decode(errors="ignore")
    for _ in range(CLAIM_TRIES):
        handle, made = tempfile.mkstemp(prefix=".draft-", suffix=f"-{name}", dir=path.parent)
        draft = Path(made)
        # A cleaner of another process may have taken the new file for an abandoned one before it was locked.
        if _lock(handle) is not False and _still_named(handle, draft):
            return handle, draft
        os.close(handle)
    raise OSError(f"{path.parent}: no draft could be locked")


def _remove_unowned(path: Path) -> int:
    """Remove a regular file whose lock can be had: its owner is dead. Returns 1 when it was removed."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        is_file = os.fstat(handle).st_nlink > 0 and path.is_file()
        # `_lock` gives None where there are no locks; then nothing shows that the owner is dead, and the file stays.
        if is_file and _lock(handle) and _still_named(handle, path):
            path.unlink()
            return 1
    except OSError:
        pass
    finally:
        os.close(handle)
    return 0


def _remove_unowned_folder(folder: Path) -> None:
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if os.fstat(handle).st_uid == os.getuid() and _lock(handle):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)


def _lock(handle: int) -> bool | None:
    """Whether the lock was had; None where the file system has no locks: nothing is removed there."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _still_named(handle: int, path: Path) -> bool:
    """Whether `path` still names the open file: between open and lock another process may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def fsync_path(path: Path) -> None:
    """Put a file or a folder on the disk: a rename that reaches it before the bytes do leaves an empty file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def existing_folder(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
