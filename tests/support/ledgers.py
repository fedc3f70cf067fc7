"""Ledgers for tests: one with a run that lists some requests, and the moves a run makes on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pipeline.ledger.budget import NO_CAPS, Caps
from pipeline.ledger.postgres_ledger import PostgresLedger
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.run_registry import Run
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import LedgerChange
from pipeline.records import CostState, Request
from tests.support.factories import make_request

AT = 1_790_000_000.0
"""A moment of September 2026, as Unix seconds."""

RUN = "2026-09-21_1413-shots-0001"


def make_run(run_id: str = RUN, **only_what_matters: Any) -> Run:
    """A run of shots.csv on the sandbox."""
    fields: dict[str, Any] = {
        "run_id": run_id,
        "name": "shots",
        "gateway": "sandbox",
        "manifest_path": "/tmp/shots.csv",
        "rows_digest": None,
        "started_at": AT,
        "ended_at": None,
        "sheet": None,
    }
    return Run(**fields | only_what_matters)


def requests(count: int, **same: Any) -> list[Request]:
    """So many different requests."""
    return [make_request(seed=seed, **same) for seed in range(1, count + 1)]


Place = Path | str
"""A file, or the URL of a database."""


def ledger_at(place: Place, *, inline: bool = True, **options: Any) -> SqliteLedger | PostgresLedger:
    """The ledger at a file, or on a server."""
    return (
        SqliteLedger(place, inline=inline)
        if isinstance(place, Path)
        else PostgresLedger(place, inline=inline, **options)
    )


@contextmanager
def opened(place: Place, *, inline: bool = True) -> Iterator[tuple[SqliteLedger | PostgresLedger, LedgerQueries]]:
    """The ledger at `place`, ready to spend, closed cleanly at the end."""
    ledger = ledger_at(place, inline=inline)
    try:
        ledger.ready_to_spend()
        yield ledger, LedgerQueries(ledger)
    finally:
        ledger.close()


def start(queries: LedgerQueries, rows: Sequence[Request], run: Run | None = None) -> Run:
    """A new run that lists `rows`."""
    run = run or make_run()
    queries.sync_rows(run.run_id, rows, rows_digest="digest", new=run)
    return run


def change(request: Request, event: Event, **only_what_matters: Any) -> LedgerChange:
    """One event of a request, at AT unless given."""
    return LedgerChange(request_id=request.request_id, event=event, **{"at": AT, **only_what_matters})


def reserve(
    request: Request, token: str = "token", *, run_id: str = RUN, caps: Caps = NO_CAPS, **more: Any
) -> LedgerChange:
    """The intent to buy a request."""
    return change(request, Event.RESERVE, token=token, run_id=run_id, caps=caps, **more)


def accept(request: Request, job: str, token: str = "token") -> LedgerChange:
    """The gateway's id for a request."""
    return change(request, Event.ACCEPT, token=token, values={"job_set_id": job, "accepted_at": AT})


def money(queries: LedgerQueries) -> dict[CostState, int]:
    """The spend book's three sums over all runs, micro-dollars."""
    lines = queries.spend_lines()
    return {
        CostState.CONFIRMED: sum(line.confirmed for line in lines),
        CostState.DISPUTED: sum(line.disputed for line in lines),
        CostState.RESERVED: sum(line.reserved for line in lines),
    }


def read(place: Place, statement: str) -> list[tuple[Any, ...]]:
    """What the file or the server says to a question in SQL, asked apart from the program."""
    if isinstance(place, Path):
        with closing(sqlite3.connect(f"file:{place}?mode=ro", uri=True)) as connection:
            return connection.execute(statement).fetchall()
    return tamper(place, statement)


def tamper(place: Place, statement: str) -> list[tuple[Any, ...]]:
    """Does something to a ledger, behind the program's back."""
    if isinstance(place, Path):
        with closing(sqlite3.connect(place)) as connection, connection:
            return connection.execute(statement).fetchall()
    import psycopg

    with closing(psycopg.connect(place, autocommit=True)) as session:
        done = session.execute(statement.encode())
        return done.fetchall() if done.description else []
