"""The files of a manifest: their lines, what they hash to, and whether they changed meanwhile. Never writes."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pipeline.manifest.diagnostics import Diagnostic


def why_not_a_file(path: Path) -> str | None:
    """Why a path cannot be read as a file; None if it can. A pipe or a folder is never opened."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError:
        return "cannot be read: not a path"
    if not stat.S_ISREG(mode):
        return "is not a file"
    return None if os.access(path, os.R_OK) else "cannot be read: Permission denied"


def stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file is written: inode, size in bytes, time of change in ns."""
    state = path.stat()
    return state.st_ino, state.st_size, state.st_mtime_ns


def sha256(paths: tuple[Path, ...]) -> str:
    """Hex sha256 over the bytes of the files, one after the other, each with its length before it."""
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            part = hashlib.file_digest(file, "sha256")
            whole.update(b"%d\n" % file.tell())
        whole.update(part.digest())
    return whole.hexdigest()


def size_bytes(path: Path) -> int:
    """How large the file is."""
    return path.stat().st_size


def text(path: Path) -> str:
    """The whole of a UTF-8 text, without its byte order mark.

    Raises:
        UnicodeDecodeError: it is another encoding; `undecodable` names it.
    """
    return path.read_bytes().decode("utf-8-sig")


def lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 text, with or without a byte order mark, their ends as they are.

    Raises:
        UnicodeDecodeError: it is another encoding; `undecodable` names it.
    """
    with path.open(encoding="utf-8-sig", newline="") as text:
        yield from text


def undecodable(path: Path) -> Diagnostic:
    """Names the encoding that a file probably has, and the first line that is not UTF-8."""
    with path.open("rb") as lines:
        start = lines.read(4)
        if start.startswith((b"\xff\xfe", b"\xfe\xff")):
            return Diagnostic(file=path, message="is UTF-16 ('Unicode text'): save it as 'CSV UTF-8'")
        lines.seek(0)
        for number, line in enumerate(lines, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                bad = f"byte 0x{line[error.start]:02X}"
                return Diagnostic(
                    file=path, line=number, message=f"is not UTF-8 ({bad}; Windows-1252?): save it as 'CSV UTF-8'"
                )
    return Diagnostic(file=path, message="is not UTF-8: save it as 'CSV UTF-8'")
