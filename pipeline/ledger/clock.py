"""The days that budgets count by: they never run backwards, whatever a clock does.

In a file the newest event bounds the day from below, and a clock that is minutes behind it refuses to buy. On a server
the server's clock counts, for every host alike.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, func, select

from pipeline.errors import LedgerError
from pipeline.ledger.schema import history, spend

TOLERANCE_S = 300.0
"""How far a clock may be behind the newest event, in seconds: time services set clocks back by seconds, not more."""

CLOCK = "clock accepted at"
"""Mark: the operator said that the clock is right now; events up to this number of the history say nothing of it."""


def newest_event_at(connection: Connection, accepted: str | None) -> float:
    """Unix seconds of the latest event in the history, 0 where there is none."""
    statement = select(func.max(history.c.at))
    if accepted is not None:
        statement = statement.where(history.c.seq > int(accepted))
    return float(connection.execute(statement).scalar() or 0.0)


def newest_day_at(connection: Connection) -> float:
    """Unix seconds of the beginning of the latest day on which money was recorded, 0 before the first."""
    day = connection.execute(select(func.max(spend.c.day))).scalar()
    return datetime.fromisoformat(str(day)).replace(tzinfo=UTC).timestamp() if day else 0.0


def last_history_number(connection: Connection) -> int:
    """The number of the newest line of the history."""
    return int(connection.execute(select(func.coalesce(func.max(history.c.seq), 0))).scalar_one())


def is_behind(now: float, newest_at: float) -> bool:
    """Whether a clock is so far before an event that one of the two must be wrong."""
    return now < newest_at - TOLERANCE_S


def check_clock(name: str, now: float, newest_at: float) -> None:
    """MONEY: a clock that was set back would open the cap of a day that is over.

    Raises:
        LedgerError: the clock is behind the ledger's newest event.
    """
    if is_behind(now, newest_at):
        raise LedgerError(
            f"the clock of this machine says {_moment(now)}, and the newest event of {name} is of "
            f"{_moment(newest_at)}: budgets of days can't be kept like that, so nothing is bought. Set the clock "
            "right; if the time of that event is the wrong one, `dop ledger adopt` takes the clock of now for right"
        )


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
