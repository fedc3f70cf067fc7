"""The files beside a ledger's database: named after its full name, so that x.db and x.sqlite share none of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import LedgerError

USABLE_JOURNAL = "Put its own journal there; if that is lost, `dop ledger rebuild` writes it again from the ledger"

SPARE_BYTES = 256 * 1024
"""Kept beside the ledger and given up when the disk is full, so that a paid answer can still be recorded."""

_SQLITE_HEADER = b"SQLite format 3\0"


def journal_path(ledger: Path) -> Path:
    """The second book."""
    return ledger.with_name(f"{ledger.name}.journal")


def reviews_path(ledger: Path) -> Path:
    """The second copy of the reviews."""
    return ledger.with_name(f"{ledger.name}.reviews")


def spare_path(ledger: Path) -> Path:
    """The file that is given up when the disk is full."""
    return ledger.with_name(f"{ledger.name}.spare")


def keep_spare(spare: Path) -> None:
    """Makes the file, if it is not there and can be."""
    with suppress(OSError):
        if not spare.exists():
            descriptor = os.open(spare, os.O_WRONLY | os.O_CREAT, 0o660)
            with os.fdopen(descriptor, "wb") as file:
                file.write(os.urandom(SPARE_BYTES))  # not zeros: a sparse or compressed file frees nothing


def holder_path(ledger: Path) -> Path:
    """Who holds the lock, for messages."""
    return ledger.with_name(f"{ledger.name}.holder")


def found_journal(ledger: Path) -> Path:
    """The journal of a ledger, also under the name that earlier versions gave it; need not exist."""
    path, old = journal_path(ledger), ledger.with_suffix(".journal")
    is_old = old != path and not path.exists() and old.is_file() and not _has_sibling(ledger)
    return old if is_old else path


def unusable(path: Path) -> str:
    """Why no file can be read at this path (a folder, a link that leads nowhere, no permission); "" where one can be,
    or where nothing is."""
    if not os.path.lexists(path):
        return ""
    try:
        # O_NONBLOCK: without it, opening a named pipe would wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return f"is a link to {os.readlink(path)}, which is not there"
    except OSError as error:
        return f"can't be read ({error.strerror})"
    try:
        mode = os.fstat(descriptor).st_mode
        return "" if stat.S_ISREG(mode) else "is a folder" if stat.S_ISDIR(mode) else "is no file"
    finally:
        os.close(descriptor)


@contextmanager
def usable_journal(path: Path) -> Iterator[None]:
    """A block that reads and writes a journal.

    Raises:
        LedgerError: no file can be read at its path, or an OSError left the block.
    """
    why = unusable(path)
    try:
        if not why:
            yield
    except OSError as error:
        why = f"can't be used ({error.strerror or error})"
    if why:
        raise LedgerError(f"the journal {path} {why}; nothing is bought. {USABLE_JOURNAL}")


def take_over_old_files(ledger: Path) -> None:
    """Renames side files of an earlier version, unless another ledger of the same stem may have written them. Needs
    the lock."""
    path, old = journal_path(ledger), found_journal(ledger)
    if old != path:
        old.rename(path)
    if not _has_sibling(ledger):
        for suffix in (".spare", ".holder", ".lock"):
            with suppress(OSError):
                ledger.with_suffix(suffix).unlink()


def _has_sibling(ledger: Path) -> bool:
    """Whether another database is here under the same stem: earlier versions let the two share a journal.

    SQLite's own files of this ledger are never opened: closing one would drop the locks that this process has on it,
    and the next program that reads the ledger would cut the shared index off under its user (SIGBUS).
    """
    return any(
        _is_database(other)
        for other in ledger.parent.glob(f"{ledger.stem}.*")
        if other != ledger and other.stem == ledger.stem and not other.name.startswith(f"{ledger.name}-")
    )


def _is_database(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return file.read(len(_SQLITE_HEADER)) == _SQLITE_HEADER
    return False
