"""The command's three standard streams, made safe before anything is opened or sent.

A terminal that is closed or a reader that goes away (`2>&1 | head`) must never end a run in the middle of a purchase.
Used by the command alone: a program that imports the package keeps its own streams.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress


class BrokenPipeSafeStream(io.TextIOWrapper):
    """A text stream whose reader may go away: what cannot be written is lost, and nothing is raised."""

    def write(self, text: str, /) -> int:
        """Writes what can be written."""
        with suppress(OSError, ValueError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes what can be flushed."""
        with suppress(OSError, ValueError):
            super().flush()


def harden_stdio() -> None:
    """Opens closed streams to nowhere, so that no file takes their numbers, and makes stderr unbreakable."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is given: this very one. Without it the ledger could become number 2.
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115 - for good
    sys.stderr = BrokenPipeSafeStream(
        open(2, "wb", buffering=0, closefd=False),  # noqa: SIM115 - for good
        encoding="utf-8" if sys.stderr is None else sys.stderr.encoding,
        errors="backslashreplace",
        line_buffering=True,
        write_through=True,
    )
