"""The sessions that read a ledger on a server, apart from the one that writes it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from pipeline.errors import LedgerUnavailableError
from pipeline.ledger.outage import backoff_delays
from pipeline.ledger.postgres_session import cause_of, is_away

READERS_MAX_WAIT_S = 10.0
"""A question is asked in the run's own loop, which must keep reading the gateway's answers."""


class ReadPool:
    """Sessions that read; a server that restarts is waited for a little."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A session for some questions that see one moment.

        Raises:
            LedgerUnavailableError: the server can't be reached.
        """
        try:
            with self._connected() as connection:
                yield connection
        except DBAPIError as error:
            if not is_away(error):
                raise
            text = f"the ledger {self.name} is away ({cause_of(error)}); run again later"
            raise LedgerUnavailableError(text) from None

    def _connected(self) -> Connection:
        for pause_s in backoff_delays(READERS_MAX_WAIT_S):
            try:
                return self.engine.connect()
            except DBAPIError as error:
                if not is_away(error):
                    raise
            threading.Event().wait(pause_s)
        return self.engine.connect()

    def dispose(self) -> None:
        """Closes the sessions."""
        self.engine.dispose()
