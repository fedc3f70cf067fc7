"""The run's own log: one JSON object a line in its folder, for machines; warnings also go where people look."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO


class JsonLines(logging.Formatter):
    """A record as one JSON object: time, level, event, and the fields it was given."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of ASCII JSON."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = getattr(record, "fields", {})
        line = {"at": moment.replace("+00:00", "Z"), "level": record.levelname.lower(), "event": record.getMessage()}
        return json.dumps({**line, **fields}, ensure_ascii=True, default=str)


@contextmanager
def run_log(path: Path, *, also: TextIO | None = None) -> Iterator[logging.Logger]:
    """A logger that writes JSON lines to `path`, and to the stream `also` where one is given (`--log-json`)."""
    logger = logging.getLogger("pipeline.run")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    path.touch(mode=0o600)
    handlers: list[logging.Handler] = [logging.FileHandler(path, encoding="ascii")]
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
            handler.close()
