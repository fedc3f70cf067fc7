"""One worker's hold on jobs of the queue: many are taken, ended and given back by one statement, with their rows.

A hold lasts as long as its worker signs (`sign`); others take back what a silent one had. No commit here waits for the
disk. A crash of the server may forget holds, and then another worker takes a request up as well: the ledger decides
what is bought, not the hold. An intent is durable only after the hold that it followed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg

from pipeline.ledger.attempt_rows import LISTED_VIEW, listed_attempt
from pipeline.ledger.postgres_session import client
from pipeline.records import Attempt

SESSION = {"synchronous_commit": "off"}
CHANNEL = "dop_jobs"
"""Where workers are notified that jobs of a gateway wait."""
NOTIFY = f"SELECT pg_notify('{CHANNEL}', %(gateway)s)"
RETRY_S = 5.0
"""Seconds until a lost connection for notifications is reopened; the worker asks from time to time meanwhile."""

_WAITING = "FROM dop_jobs WHERE gateway = %(gateway)s AND collects = {collects} AND worker IS NULL"

_DUE = f"""
    SELECT request_id {_WAITING} ORDER BY number
    LIMIT (SELECT least({{limit}}, ceil(count(*)::float8 / (SELECT n FROM crew)))
        FROM (SELECT 1 {_WAITING} LIMIT {{limit}} * (SELECT n FROM crew)) AS few)
    FOR UPDATE SKIP LOCKED
"""  # noqa: S608 - constants of this module; values go in as parameters
"""Where few are left, a worker takes no more than its share of them: the others would have nothing to do."""

_TO_BUY = "least(%(to_buy)s, %(room)s - (SELECT count(*) FROM to_collect))"

TURN = f"""
WITH ended AS (
    DELETE FROM dop_jobs WHERE request_id = ANY(%(ended)s) AND worker = %(worker)s
), crew AS (
    SELECT greatest(count(*), 1) AS n FROM dop_workers
    WHERE gateway = %(gateway)s AND seen_at >= now() - make_interval(secs => %(silent_s)s)
), to_collect AS ({_DUE.format(collects="true", limit="%(to_collect)s")}
), to_buy AS ({_DUE.format(collects="false", limit=_TO_BUY)}
), taken AS (
    UPDATE dop_jobs SET worker = %(worker)s
    FROM (SELECT request_id FROM to_collect UNION ALL SELECT request_id FROM to_buy) AS due
    WHERE dop_jobs.request_id = due.request_id
    RETURNING dop_jobs.request_id, dop_jobs.run_id, dop_jobs.collects, dop_jobs.number
)
SELECT t.request_id, t.run_id, t.collects, {LISTED_VIEW} FROM taken t
LEFT JOIN run_rows r ON r.run_id = t.run_id AND r.request_id = t.request_id
LEFT JOIN attempts a ON a.request_id = r.request_id AND a.superseded = 0
ORDER BY t.number
"""  # noqa: S608 - constants of this module and names of columns; values go in as parameters
"""Ends jobs and takes others, each with what `RunQueries.listed` says of its request."""

_SIGN = """
INSERT INTO dop_workers (id, gateway) VALUES (%(worker)s, %(gateway)s)
ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp()
"""

_GIVE_BACK = "UPDATE dop_jobs SET worker = NULL WHERE request_id = ANY(%(back)s) AND worker = %(worker)s"

_LEAVE = (
    "UPDATE dop_jobs SET worker = NULL WHERE worker = %(worker)s",
    "UPDATE dop_schedules SET worker = NULL WHERE worker = %(worker)s",
    "DELETE FROM dop_workers WHERE id = %(worker)s",
    NOTIFY,
)

_CLAIM_TIME = """
INSERT INTO dop_schedules AS s (gateway, at, worker) VALUES (%(gateway)s, %(at)s, %(worker)s)
ON CONFLICT (gateway) DO UPDATE SET at = excluded.at, worker = excluded.worker
WHERE s.at < excluded.at AND (s.worker IS NULL OR NOT EXISTS (SELECT 1 FROM dop_workers w
    WHERE w.id = s.worker AND w.seen_at >= now() - make_interval(secs => %(silent_s)s)))
RETURNING at
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job that this worker has now; `attempt` is None when the run lists the request no longer."""

    request_id: str
    run_id: str
    collects: bool
    attempt: Attempt | None


class JobClaims:
    """The jobs of one gateway that one worker's session holds, over a connection of its own.

    Every method raises psycopg.Error when the database is away; the session ends then.

    Args:
        worker: names the session; no other has the same name.
        silent_s: a worker without a sign for so long (seconds) is gone.
    """

    def __init__(self, url: str, gateway: str, worker: str, *, silent_s: float) -> None:
        self._url, self._gateway, self._worker, self._silent_s = url, gateway, worker, silent_s
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        self._turn = asyncio.Lock()

    async def turn(self, ended: Sequence[str], *, to_buy: int, to_collect: int, room: int | None = None) -> list[Claim]:
        """End jobs, and take at most `to_buy` and `to_collect` others, oldest first; fewer where few are left for all.

        With `room` no more than so many in all, and those to collect first.

        Raises:
            LedgerError: a row that is to be bought was changed since it was planned.
        """
        room = to_buy + to_collect if room is None else room
        most = {"to_buy": to_buy, "to_collect": min(to_collect, room), "room": room}
        values = {"ended": list(ended), **most, "silent_s": self._silent_s}
        return [
            Claim(request_id=request_id, run_id=run_id, collects=collects, attempt=listed_attempt(row, run_id))
            for request_id, run_id, collects, *row in await self._ask(TURN, values)
        ]

    async def give_back(self, request_ids: Sequence[str]) -> None:
        """Let other workers take these jobs."""
        await self._ask(_GIVE_BACK, {"back": list(request_ids)})

    async def sign(self) -> None:
        """Say that this worker is there."""
        await self._ask(_SIGN)

    async def claim_time(self, at: float) -> bool:
        """Whether this worker is to start the scheduled run of `at` (Unix seconds): once, and while none runs."""
        return bool(await self._ask(_CLAIM_TIME, {"at": at, "silent_s": self._silent_s}))

    async def end_scheduled(self) -> None:
        """The scheduled run that this worker started has ended."""
        await self._ask(_LEAVE[1])

    async def close(self) -> None:
        """Give everything back, and let go of the connection."""
        with suppress(psycopg.Error, OSError):
            for text in _LEAVE:
                await self._ask(text)
        if self._connection is not None:
            with suppress(psycopg.Error, OSError):
                await self._connection.close()

    async def _ask(self, text: str, values: dict[str, object] | None = None) -> list[tuple[Any, ...]]:
        async with self._turn:
            if self._connection is None:
                self._connection = await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True, **client(self._url, **SESSION)
                )
            own = {"gateway": self._gateway, "worker": self._worker}
            found = await self._connection.execute(text.encode(), own | (values or {}))
            return await found.fetchall() if found.description is not None else []


async def notifications(url: str, gateway: str, on_jobs: Callable[[], None]) -> None:
    """Calls `on_jobs` whenever jobs of the gateway were queued or given back, for ever."""
    while True:
        with suppress(psycopg.Error, OSError):
            async with await psycopg.AsyncConnection.connect(url, autocommit=True, **client(url)) as connection:
                await connection.execute(f"LISTEN {CHANNEL}".encode())
                async for note in connection.notifies():
                    if note.payload == gateway:
                        on_jobs()
        await asyncio.sleep(RETRY_S)
