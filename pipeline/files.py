"""Files that are there whole or not at all. Never leaves a half-written report under its final name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """A private temporary path beside `path` that takes its place when the block ends well, and vanishes otherwise.

    Writes: `path`, by rename, so that a reader sees the old file or the new one. The temporary name keeps the ending,
    because renderers choose their format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _to_disk(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def whole_text(path: Path) -> Iterator[TextIO]:
    """The same as an open text file: UTF-8, newlines as written, what cannot be encoded becomes `?`."""
    with (
        whole_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="replace", newline="") as stream,
    ):
        yield stream
        stream.flush()


def _to_disk(path: Path) -> None:
    """A rename that reaches the disk before the bytes do would leave an empty report after a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
