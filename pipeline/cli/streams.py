"""The command's three standard streams, made safe before anything is opened or sent.

A terminal that is closed or a reader that goes away (`2>&1 | head`) must never end a run in the middle of a purchase.
Used by the command alone: a program that imports the package keeps its own streams.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipeline.errors import DopError, ExitCode


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


class OutputStream(io.TextIOWrapper):
    """stdout: a reader that went away is no error, a device that is full is one, and every terminal can show it."""

    def write(self, text: str, /) -> int:
        """Write; what the terminal's encoding lacks becomes an escape.

        Raises:
            OutputError: the device is full, or broken.
        """
        with _as_output_error():
            return super().write(text)

    def flush(self) -> None:
        """Flush.

        Raises:
            OutputError: the device is full, or broken.
        """
        with _as_output_error():
            super().flush()


class OutputError(DopError):
    """What was to be printed on stdout could not be: the command may have done its work, its words are lost."""

    exit_code = ExitCode.UNFINISHED


@contextmanager
def _as_output_error() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"stdout can't be written: {error.strerror or error}") from None


def close_stdout(code: int) -> int:
    """Write out what stdout still holds; returns the exit code. No traceback at the very end of the process."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _to_nowhere()
    except (OutputError, OSError, ValueError) as error:
        _to_nowhere()
        print(f"dop: {error}", file=sys.stderr)
        return code or OutputError.exit_code
    return code


def _to_nowhere() -> None:
    """What is left in the buffer goes to the null device when the interpreter ends."""
    with suppress(OSError, ValueError):
        # The interpreter flushes once more when it ends: a second failure there would print a traceback and change the
        # code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def harden_stdio() -> None:
    """Opens closed streams to nowhere, so that no file takes their numbers, and makes stdout and stderr safe."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is given: this very one. Without it the ledger could become number 2.
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = OutputStream(
        open(1, "wb", closefd=False),  # noqa: SIM115 - for good
        encoding="utf-8" if sys.stdout is None else sys.stdout.encoding,
        errors="backslashreplace",
        line_buffering=os.isatty(1),
    )
    sys.stderr = BrokenPipeSafeStream(
        # Without a buffer: the last notice before a crash is the one that is needed.
        open(2, "wb", buffering=0, closefd=False),  # noqa: SIM115 - for good
        encoding="utf-8" if sys.stderr is None else sys.stderr.encoding,
        errors="backslashreplace",
        line_buffering=True,
        write_through=True,
    )
