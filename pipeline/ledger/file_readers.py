"""The connections that read a ledger in a file, apart from the one that writes it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from pipeline.errors import LedgerError
from pipeline.files import remedy
from pipeline.ledger.database import sqlite_engine


class FileReaders:
    """Connections that read the ledger in a file; each is opened for some questions that see one moment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._engine = sqlite_engine(path, write=False)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """One connection.

        Raises:
            LedgerError: the file, or one beside it, can't be opened now. What is wrong in it stays a DatabaseError.
        """
        try:
            with self._engine.connect() as connection:
                yield connection
        except OperationalError as error:
            if "unable to open" not in str(error.orig):
                raise
            cause = self._cause()
            why = error.orig if cause is None else cause.strerror
            raise LedgerError(
                f"the ledger {self._path} can't be opened ({why}); {remedy(cause or error.orig)}"
            ) from None

    def _cause(self) -> OSError | None:
        """Why the file can't be opened, by the system's own word: SQLite keeps it to itself."""
        try:
            os.close(os.open(self._path, os.O_RDONLY))
        except OSError as error:
            return error
        return None

    def dispose(self) -> None:
        """Closes what is open."""
        self._engine.dispose()
