"""The files of a manifest: their lines, what they hash to, and whether they changed meanwhile. Never writes."""

from __future__ import annotations

import atexit
import codecs
import gzip
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import show_as
from pipeline.files import temporary_folder
from pipeline.manifest import delimited, sheet_row, workbook
from pipeline.manifest.delimited import Table
from pipeline.manifest.diagnostics import Diagnostic

YAML_NAMES = (".yaml", ".yml")
SHEET_NAMES = (".csv", ".tsv", ".csv.gz", ".xlsx")
WORKBOOKS = (".xlsx", ".xlsm")
OFFICE_NAMES = (".xls", ".xlsb", ".ods", ".numbers", ".gsheet", ".txt", ".json")
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def encoding_of(start: bytes) -> str:
    """The encoding of a text by its first two bytes: UTF-16 by its mark, or by the zero beside an ASCII letter."""
    if start.startswith(UTF_16):
        return "utf-16"
    # Some programs write UTF-16 without its mark; a text in UTF-8 holds no zeros.
    if len(start) > 1 and (start[0] == 0) != (start[1] == 0):
        return "utf-16-be" if start[0] == 0 else "utf-16-le"
    return "utf-8-sig"


def is_yaml(path: Path) -> bool:
    """Whether a file is YAML by its name."""
    return path.name.lower().endswith(YAML_NAMES)


def is_sheet(path: Path) -> bool:
    """Whether a file is a sheet by its name."""
    return path.name.lower().endswith((*SHEET_NAMES, *WORKBOOKS))


def is_plain_text(path: Path) -> bool:
    """Whether the bytes of a file are the text that it holds, so that they may be searched."""
    if path.name.lower().endswith((".gz", *WORKBOOKS)):
        return False
    with path.open("rb") as file:
        return encoding_of(file.read(2)) == "utf-8-sig"


def why_not_read(path: Path) -> str:
    """What to do about a file that is neither YAML nor a sheet by its name."""
    if path.name.lower().endswith(OFFICE_NAMES):
        return "is not a manifest: export it as 'CSV UTF-8' (.csv), or save it as .xlsx"
    return "is not a manifest by its name: a sheet is called .csv, .tsv, .csv.gz or .xlsx, a YAML file .yaml"


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
            # With its length, so that a row moved from one file into the other changes the whole.
            whole.update(b"%d\n" % file.tell())
        whole.update(part.digest())
    return whole.hexdigest()


def size_bytes(path: Path) -> int:
    """How large the file is."""
    return path.stat().st_size


def text(path: Path) -> str:
    """The whole of a UTF-8 or UTF-16 text, without the mark of its encoding.

    Raises:
        UnicodeDecodeError: it is another encoding; `undecodable` names it.
    """
    content = path.read_bytes()
    return content.decode(encoding_of(content))


def lines(path: Path) -> Iterator[str]:
    """The lines of a text as `text` reads it, their ends as they are; of a .gz file, of what is compressed.

    Raises:
        UnicodeDecodeError: it is another encoding; `undecodable` names it.
        EOFError, gzip.BadGzipFile: a .gz file that is cut off, or is none.
    """
    with _opened(path) as file:
        encoding = encoding_of(file.read(2))
    if path.suffix.lower() == ".gz":
        with gzip.open(path, "rt", encoding=encoding, newline="") as text:
            yield from text
        return
    # Line ends as they are: inside a quoted cell they belong to the prompt.
    with path.open(encoding=encoding, newline="") as text:
        yield from text


def kept_stdin(stream: BinaryIO) -> Path:
    """A file of this process with what comes through stdin, because a manifest is read several times."""
    content = stream.read()
    folder, _ = temporary_folder()  # its lock is given up by the end of the process
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    first = next((line for line in content.decode(encoding_of(content), "replace").splitlines() if line.strip()), "")
    is_sheet = not first or delimited.names_columns(first, sheet_row.is_column)
    path = folder / f"stdin{'.csv' if is_sheet else '.yaml'}"
    path.write_bytes(content)
    show_as(path, lambda line, _: path.name if line is None else f"{path.name}:{line}")
    return path


def table(path: Path, is_column: Callable[[str], bool]) -> Table:
    """The records of a sheet.

    Raises:
        workbook.WorkbookError, UnicodeDecodeError, EOFError, gzip.BadGzipFile: see `unreadable`.
    """
    if path.name.lower().endswith(WORKBOOKS):
        return Table(records=workbook.records(path))
    return delimited.table(lines(path), is_column, delimited.TAB if path.suffix.lower() == ".tsv" else None)


UNREADABLE = (workbook.WorkbookError, UnicodeDecodeError, EOFError, OSError)
"""What reading a sheet may raise."""


def unreadable(path: Path, error: Exception) -> Diagnostic:
    """What is wrong with a sheet whose reading raised one of `UNREADABLE`."""
    if isinstance(error, UnicodeDecodeError):
        return undecodable(path)
    if isinstance(error, EOFError):
        return Diagnostic(file=path, message="is cut off: the compressed file has no end; copy it again")
    if isinstance(error, gzip.BadGzipFile):
        return Diagnostic(file=path, message="is not a gzip file, although its name ends in .gz")
    if isinstance(error, OSError):
        return Diagnostic(file=path, message=f"cannot be read: {error.strerror}")
    return Diagnostic(file=path, message=str(error))


def _opened(path: Path) -> BinaryIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value] # it reads as one
    return path.open("rb")


def undecodable(path: Path) -> Diagnostic:
    """Names the encoding that a file probably has, and the first line that is not UTF-8."""
    with _opened(path) as lines:
        if encoding_of(lines.read(2)) != "utf-8-sig":
            return Diagnostic(file=path, message="is UTF-16 and damaged: save it as 'CSV UTF-8'")
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
