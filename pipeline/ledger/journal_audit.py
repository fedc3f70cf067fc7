"""Compares a ledger with its journal and changes neither: the journal is replayed into a database in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, select

from pipeline.ledger.database import create_or_check, scratch_engine
from pipeline.ledger.journal_check import ForeignJournalError, Gap, JournalWalk
from pipeline.ledger.replay import PassedOver, replay
from pipeline.ledger.schema import attempts
from pipeline.ledger.writer import LedgerWriter

MAX_DIFFERENCES = 20
"""Requests that are listed one by one; a journal of another history differs in all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalFindings:
    """What a reading of a journal found. All empty: it is whole and says what the ledger says."""

    foreign: str = ""
    lost: tuple[Gap, ...] = ()
    """events that neither the journal nor the ledger holds"""
    gaps: tuple[Gap, ...] = ()
    """events that only the ledger holds"""
    damaged: tuple[int, ...] = ()
    """numbers of lines"""
    passed_over: tuple[PassedOver, ...] = ()
    differences: tuple[str, ...] = ()


def examine(lines: Iterable[str], *, name: str, ledger: LedgerWriter | None) -> JournalFindings:
    """Reads a journal and replays it. `ledger` is None where the database is lost."""
    head = ledger.head if ledger is not None else (0, "")
    walk = JournalWalk(name, ledger_id=ledger.ledger_id if ledger else None, at=head if ledger and head[0] else None)
    engine = scratch_engine()
    try:
        create_or_check(engine, name)
        with engine.begin() as connection:
            found = replay(connection, walk.entries(lines))
            lost = walk.lacks(head[0]) + [Gap(one.seq, one.seq, str(one)) for one in found.unnamed if one.seq > head[0]]
            every = walk.lacks(0)
            # Compared only where both know the same events: otherwise every row that changed later would differ as
            # well.
            is_same = not every and not found.passed_over and walk.seq == head[0]
            differences = _differences(connection, ledger) if ledger is not None and is_same else ()
    except ForeignJournalError as error:
        return JournalFindings(foreign=str(error))
    finally:
        engine.dispose()
    return JournalFindings(
        lost=tuple(lost),
        gaps=tuple(gap for gap in every if gap not in lost),
        damaged=tuple(walk.damaged),
        passed_over=found.passed_over,
        differences=differences,
    )


def _differences(replayed: Connection, ledger: LedgerWriter) -> tuple[str, ...]:
    """Requests that were sent and are not the same in both."""
    sent = select(attempts.c.request_id, attempts.c.attempt, attempts.c.state, attempts.c.job_set_id).where(
        attempts.c.submit_attempts > 0
    )
    journaled = {(row.request_id, row.attempt): (row.state, row.job_set_id) for row in replayed.execute(sent)}
    with ledger.reader.connect() as connection:
        recorded = {(row.request_id, row.attempt): (row.state, row.job_set_id) for row in connection.execute(sent)}
    found = [
        f"request {key[0]} attempt {key[1]} is {_words(recorded.get(key))} in the ledger "
        f"and {_words(journaled.get(key))} in its journal"
        for key in sorted({*journaled, *recorded})
        if journaled.get(key) != recorded.get(key)
    ]
    return tuple(found[:MAX_DIFFERENCES])


def _words(row: tuple[str, str | None] | None) -> str:
    return "missing" if row is None else f"{row[0]} (job {row[1]})" if row[1] else row[0]
