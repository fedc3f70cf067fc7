"""The row of the shared rate in PostgreSQL: read and written under its lock by a visit, read without one before a call.

The clock is the database's. What was learned need not survive a crash of the server: no commit here waits for the disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

import psycopg
from psycopg.rows import DictRow, dict_row

from pipeline.gateway.ratelimit.rates import Rate
from pipeline.ledger.postgres_session import client
from pipeline.runner.cluster.shared_limit import RowState, SharedPace

STALE_S = 2.0
"""A transaction that its worker leaves open for longer (seconds; frozen) is ended by the server."""
SESSION = {"synchronous_commit": "off", "idle_in_transaction_session_timeout": f"{int(STALE_S * 1000)}ms"}

_IN_FLIGHT = "(SELECT count(*) FROM attempts a WHERE a.gateway = p.gateway AND a.state IN ('submitting', 'accepted'))"
_READ = "SELECT * FROM dop_rates WHERE gateway = %(gateway)s FOR UPDATE"
_NOW = (
    "SELECT extract(epoch FROM clock_timestamp())::float8 AS now, "  # noqa: S608 - constants of this module only
    f"CASE WHEN p.cap IS NOT NULL OR %(count)s THEN {_IN_FLIGHT} ELSE 0 END AS in_flight "
    "FROM dop_rates p WHERE p.gateway = %(gateway)s"
)
_CHECK = (
    "SELECT p.blocked_at, p.held_until, p.cap, "  # noqa: S608 - the same
    f"CASE WHEN p.cap IS NOT NULL THEN {_IN_FLIGHT} ELSE 0 END AS in_flight "
    "FROM dop_rates p WHERE p.gateway = %(gateway)s"
)
_WRITE = (
    "UPDATE dop_rates SET state = %(state)s, held_until = %(held_until)s, blocked_at = %(blocked_at)s, cap = %(cap)s "
    "WHERE gateway = %(gateway)s"
)
_CONFIGURE = """
INSERT INTO dop_rates (gateway, rate_count, rate_span_s, rate_burst, job_cap, cap)
VALUES (%(gateway)s, %(rate_count)s, %(rate_span_s)s, %(rate_burst)s, %(job_cap)s, %(job_cap)s)
ON CONFLICT (gateway) DO UPDATE SET rate_count = excluded.rate_count, rate_span_s = excluded.rate_span_s,
    rate_burst = excluded.rate_burst, job_cap = excluded.job_cap,
    cap = CASE WHEN dop_rates.job_cap IS NOT DISTINCT FROM excluded.job_cap THEN dop_rates.cap ELSE excluded.cap END
"""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Check:
    """What the row says right before a call: slots taken before `blocked_at` are void, and those beyond the cap."""

    blocked_at: float
    held_until: float
    cap: int | None
    in_flight: int


class RateRow(Protocol):
    """The row of one gateway."""

    async def change(self, act: Callable[[RowState, float, int], tuple[RowState, T]], *, count: bool) -> T:
        """Carry out `act(row, now, jobs in flight)` and keep the row that it returns; others wait meanwhile."""
        ...

    async def check(self) -> Check:
        """One read, without waiting for anything."""
        ...

    async def close(self) -> None:
        """Let go of it."""
        ...


class PostgresRateRow:
    """The row in PostgreSQL. One connection, used by one caller at a time; a lost one is reopened."""

    def __init__(self, url: str, gateway: str) -> None:
        self._url, self._gateway = url, gateway
        self._connection: psycopg.AsyncConnection[DictRow] | None = None
        self._turn = asyncio.Lock()

    async def configure(self, settings: SharedPace) -> None:
        """What the configuration says, for all workers: the one that started last decides."""
        rate = settings.rate
        values = {
            "rate_count": None if rate is None else rate.count,
            "rate_span_s": None if rate is None else rate.per_s,
            "rate_burst": settings.burst,
            "job_cap": settings.job_cap,
        }
        async with self._turn:
            await (await self._open()).execute(_CONFIGURE, {**values, "gateway": self._gateway})

    async def change(self, act: Callable[[RowState, float, int], tuple[RowState, T]], *, count: bool) -> T:
        """See `RateRow`: two round trips."""
        async with self._turn:
            connection = await self._open()
            try:
                return await self._changed(connection, act, {"gateway": self._gateway, "count": count})
            except BaseException:
                await connection.close()  # whatever was open is rolled back by the server
                raise

    async def _changed(
        self,
        connection: psycopg.AsyncConnection[DictRow],
        act: Callable[[RowState, float, int], tuple[RowState, T]],
        key: Mapping[str, object],
    ) -> T:
        # The driver's own `transaction` in a pipeline waits for the server twice more, a quarter of a visit's CPU.
        async with connection.pipeline():
            await connection.execute(b"BEGIN")
            read = await connection.execute(_READ.encode(), key)
            clock = await connection.execute(_NOW.encode(), key)  # after the lock, which may be waited for
            row, at = await read.fetchone(), await clock.fetchone()
            if row is None or at is None:
                raise psycopg.DataError(f"the rate of {self._gateway} is not in the database")
            after, result = act(_row_state(row), float(at["now"]), int(at["in_flight"]))
            values = {"state": after.state, "held_until": after.held_until, "blocked_at": after.blocked_at}
            await connection.execute(_WRITE.encode(), {**key, **values, "cap": after.cap})
            await connection.execute(b"COMMIT")
        return result

    async def check(self) -> Check:
        """See `RateRow`."""
        async with self._turn:
            found = await (await self._open()).execute(_CHECK.encode(), {"gateway": self._gateway})
            row = await found.fetchone()
        if row is None:
            raise psycopg.DataError(f"the rate of {self._gateway} is not in the database")
        return Check(row["blocked_at"], row["held_until"], row["cap"], row["in_flight"])

    async def close(self) -> None:
        """Lets go of the connection."""
        if self._connection is not None:
            with suppress(psycopg.Error, OSError):
                await self._connection.close()

    async def _open(self) -> psycopg.AsyncConnection[DictRow]:
        if self._connection is None or self._connection.broken or self._connection.closed:
            self._connection = await psycopg.AsyncConnection.connect(
                self._url, autocommit=True, row_factory=dict_row, **client(self._url, **SESSION)
            )
        return self._connection


def _row_state(row: DictRow) -> RowState:
    rate = None if row["rate_count"] is None else Rate(row["rate_count"], row["rate_span_s"])
    state = row["state"]
    return RowState(
        settings=SharedPace(rate=rate, burst=row["rate_burst"], job_cap=row["job_cap"]),
        state=None if state is None else bytes(state),
        held_until=row["held_until"],
        blocked_at=row["blocked_at"],
        cap=row["cap"],
    )
