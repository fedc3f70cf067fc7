"""The run's own log: one JSON object a line in its folder, for machines; warnings also go where people look.

Only warnings are written out at once; the other lines are when the caller calls `flush` on the logger's handlers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from pipeline.reports.progress import UnbreakableStream

_as_json = json.JSONEncoder(ensure_ascii=True, default=str).encode


class JsonLines(logging.Formatter):
    """A record as one JSON object: time, level, event, and the fields it was given."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of ASCII JSON."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = getattr(record, "fields", {})
        line = {"at": moment.replace("+00:00", "Z"), "level": record.levelname.lower(), "event": record.getMessage()}
        return _as_json({**line, **fields})


class _RunFile(logging.FileHandler):
    """A file whose lines wait in memory, but for warnings: a write for each submit costs more than all it says."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps one line."""
        try:
            assert self.stream is not None
            self.stream.write(f"{self.format(record)}\n")
            if record.levelno >= logging.WARNING:
                self.flush()
        except Exception:  # noqa: BLE001 - as in the library: a log that fails is reported on stderr and stops nothing
            self.handleError(record)


@contextmanager
def run_log(path: Path, *, also: TextIO | None = None) -> Iterator[logging.Logger]:
    """A logger that writes JSON lines to `path`, and to the stream `also` where one is given (`--log-json`)."""
    logger = logging.getLogger("pipeline.run")
    logger.setLevel(logging.INFO)
    # The root logger's handlers would print every line of the run on the terminal.
    logger.propagate = False
    path.touch()
    handlers: list[logging.Handler] = [_RunFile(path, encoding="ascii")]
    if also is not None:
        handlers.append(logging.StreamHandler(also))
    for handler in handlers:
        handler.setFormatter(JsonLines())
        logger.addHandler(handler)
    try:
        yield logger
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            with suppress(OSError):  # a full disk
                handler.close()


def append_end(path: Path, fields: Mapping[str, object], *, also: TextIO | None = None) -> None:
    """Write the line `end` to the log of a run whose steps have ended, and to `also` where one is given.

    Raises:
        OSError: it can't be written.
    """
    record = logging.LogRecord("pipeline.run", logging.INFO, "", 0, "end", None, None)
    record.fields = dict(fields)
    line = f"{JsonLines().format(record)}\n"
    if also is not None:
        UnbreakableStream(also).write(line)
    with path.open("a", encoding="ascii") as file:
        file.write(line)
