"""The queue of requests, made from the ledger by one statement: first filling, topping up and rebuilding are alike.

A job is "process this request" and a row of `dop_jobs` that waits or names the worker that has it (`job_claims`), so at
most one worker does. Jobs that collect what is bought are handed out also while buying has to wait. The queue may be
dropped at any time: nothing is known here that the ledger does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg.rows import DictRow, dict_row

from pipeline.ledger.budget import Caps
from pipeline.ledger.postgres_session import client
from pipeline.runner.cluster.job_claims import NOTIFY
from pipeline.runner.firewall import NOT_SENT
from pipeline.runner.refused_rows import REFUSED
from pipeline.runner.replay_recorder import MISMATCH

if TYPE_CHECKING:
    from sqlalchemy import Connection

TOP_UP_LOCK = 0x646F7002
"""Number of the advisory lock under which one worker at a time tops up the queue: `dop` in ASCII, then 2."""

PROBE_LEASE_S = 400.0
"""Seconds for which a worker keeps the right to probe an open breaker; a submit takes 340 s at most."""

SET_ASIDE = f"^({REFUSED}|{NOT_SENT})"
"""A planned row with such a reason is not queued again under the same order: it would fail again."""

NOT_FOUND_OUT = "what became of its submit could not be found out; the next run asks again"
"""The reason of an unknown row that is not queued again under the same order."""

_CAUSES = """
    a.state = 'unknown' AND %(recovers)s AND coalesce(a.reason, '') NOT LIKE %(mismatch)s
        AND (%(again)s OR coalesce(a.reason, '') <> %(not_found_out)s) OR
    a.state IN ('submitting', 'accepted') AND (o.collect OR a.state = 'submitting')
    OR %(again)s AND o.collect AND (a.state = 'stalled' OR a.state = 'done' AND %(files)s
        AND (a.local_path IS NULL OR a.sha256 IS NULL))
    OR a.state = 'done' AND o.collect AND a.sha256 IS NOT NULL AND r.shot IS NOT NULL AND NOT EXISTS
        (SELECT 1 FROM clip_checks c WHERE c.request_id = a.request_id AND c.attempt = a.attempt)
    OR a.state = 'planned' AND r.wanted = 1 AND o.buy AND (%(again)s OR coalesce(a.reason, '') !~ %(set_aside)s)
        AND NOT EXISTS (SELECT 1 FROM dop_halts h WHERE h.run_id = o.run_id AND h.version = o.version)
"""

TOP_UP = f"""
INSERT INTO dop_jobs (request_id, run_id, gateway, collects)
SELECT request_id, run_id, gateway, state <> 'planned' FROM (
    SELECT o.gateway, o.run_id, a.request_id, a.state FROM dop_orders o
    JOIN run_rows r ON r.run_id = o.run_id
    JOIN attempts a ON a.request_id = r.request_id AND a.superseded = 0 AND a.gateway = o.gateway
    WHERE o.gateway = %(gateway)s AND o.is_open AND ({_CAUSES})
    AND NOT EXISTS (SELECT 1 FROM dop_jobs j WHERE j.request_id = a.request_id)
    ORDER BY a.state = 'planned', coalesce(a.reason, '') ~ %(set_aside)s, o.run_id, r.position
    LIMIT greatest(0, %(window)s - (SELECT count(*) FROM dop_jobs j
        WHERE j.worker IS NULL AND j.gateway = %(gateway)s))
) AS due
ON CONFLICT DO NOTHING
"""  # noqa: S608 - constants of this module only; values go in as parameters

_ORDER = """
INSERT INTO dop_orders (run_id, gateway, buy, collect, run_cap, day_cap, month_cap)
VALUES (%(run_id)s, %(gateway)s, %(buy)s, %(collect)s, %(run_cap)s, %(day_cap)s, %(month_cap)s)
ON CONFLICT (run_id) DO UPDATE SET version = dop_orders.version + 1, buy = excluded.buy, collect = excluded.collect,
    run_cap = excluded.run_cap, day_cap = excluded.day_cap, month_cap = excluded.month_cap, is_open = true
"""

_IS_GONE = """
j.worker IS NOT NULL AND NOT EXISTS (SELECT 1 FROM dop_workers w
    WHERE w.id = j.worker AND w.seen_at >= now() - make_interval(secs => %(silent_s)s))
"""

_BACK = f"""
WITH gone AS (
    DELETE FROM dop_workers WHERE gateway = %(gateway)s AND seen_at < now() - make_interval(secs => %(silent_s)s)
), stalled AS (
    SELECT j.request_id FROM dop_jobs j WHERE j.gateway = %(gateway)s AND {_IS_GONE} FOR UPDATE OF j SKIP LOCKED
)
UPDATE dop_jobs SET worker = NULL FROM stalled WHERE dop_jobs.request_id = stalled.request_id
RETURNING stalled.request_id
"""  # noqa: S608 - the same
"""What another host takes back at this very moment is left to it: neither waits for the other."""

_DROP = f"""
DELETE FROM dop_jobs j WHERE j.gateway = %(gateway)s AND (j.worker IS NULL OR {_IS_GONE}) RETURNING j.request_id
"""  # noqa: S608 - the same


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrder:
    """What the workers are to do for a run. `version` rises each time that the run is ordered again."""

    run_id: str
    version: int
    buy: bool
    collect: bool
    caps: Caps


@dataclass(frozen=True, slots=True, kw_only=True)
class StopNotice:
    """A reason why nothing more is bought for a run."""

    text: str
    exit_code: int


def put_order(
    connection: Connection,
    *,
    run_id: str,
    gateway: str,
    buy: bool,
    collect: bool,
    caps: Caps,
    window: int,
    files: bool,
    recovers: bool = False,
) -> None:
    """Orders a run and queues its first window, in the transaction that `connection` is in.

    Args:
        files: whether videos are fetched.
        recovers: whether the gateway can say what became of an unclear submit.
    """
    order = {"run_id": run_id, "gateway": gateway, "buy": buy, "collect": collect}
    spans = {"run_cap": caps.run_microusd, "day_cap": caps.day_microusd, "month_cap": caps.month_microusd}
    # A worker that tops up meanwhile would not see these jobs, and fill the window twice or wait for this transaction.
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (TOP_UP_LOCK,))
    connection.exec_driver_sql(_ORDER, {**order, **spans})
    connection.exec_driver_sql(TOP_UP, _values(gateway, window, again=True, files=files, recovers=recovers))
    connection.exec_driver_sql(NOTIFY, {"gateway": gateway})


def _values(gateway: str, window: int, *, again: bool, files: bool, recovers: bool) -> dict[str, object]:
    """What TOP_UP takes."""
    return {
        "gateway": gateway,
        "window": window,
        "again": again,
        "files": files,
        "recovers": recovers,
        "set_aside": SET_ASIDE,
        "mismatch": f"{MISMATCH}%",
        "not_found_out": NOT_FOUND_OUT,
    }


class JobQueue:
    """The queue of one gateway as workers and followers see it: one connection, reopened when it was lost.

    `recovers` as in put_order.
    """

    def __init__(self, url: str, gateway: str, *, recovers: bool = False) -> None:
        self._url, self._gateway, self._recovers = url, gateway, recovers
        self._connection: psycopg.AsyncConnection[DictRow] | None = None
        self._turn = asyncio.Lock()

    async def order(self, run_id: str) -> RunOrder | None:
        """What is ordered for a run, None when nothing is (any more)."""
        found = await self._ask("SELECT * FROM dop_orders WHERE run_id = %(run_id)s AND is_open", {"run_id": run_id})
        if not found:
            return None
        row = found[0]
        caps = Caps(run_microusd=row["run_cap"], day_microusd=row["day_cap"], month_microusd=row["month_cap"])
        return RunOrder(run_id=run_id, version=row["version"], buy=row["buy"], collect=row["collect"], caps=caps)

    async def stop_notices(self, run_id: str) -> list[StopNotice]:
        """Why nothing more is bought for a run as it is ordered now."""
        text = (
            "SELECT h.text, h.exit_code FROM dop_halts h JOIN dop_orders o USING (run_id, version) "
            "WHERE run_id = %(run_id)s ORDER BY h.exit_code"
        )
        return [StopNotice(**row) for row in await self._ask(text, {"run_id": run_id})]

    async def put_stop_notice(self, run_id: str, version: int, reason: StopNotice) -> None:
        """Nothing more is bought for a run, on any host, until it is ordered again."""
        await self._ask(
            "INSERT INTO dop_halts (run_id, version, text, exit_code) "
            "VALUES (%(run_id)s, %(version)s, %(text)s, %(exit_code)s) ON CONFLICT DO NOTHING RETURNING run_id",
            {"run_id": run_id, "version": version, "text": reason.text, "exit_code": reason.exit_code},
        )

    async def claim_probe(self, holder: str) -> bool:
        """Whether the holder may send the gateway's next probe; one at a time, until it ends or the lease does."""
        text = (
            "INSERT INTO dop_probes (gateway, holder, until) "
            "VALUES (%(gateway)s, %(holder)s, now() + make_interval(secs => %(lease_s)s)) "
            "ON CONFLICT (gateway) DO UPDATE SET holder = excluded.holder, until = excluded.until "
            "WHERE dop_probes.until < now() OR dop_probes.holder = excluded.holder RETURNING holder"
        )
        return bool(await self._ask(text, {"gateway": self._gateway, "holder": holder, "lease_s": PROBE_LEASE_S}))

    async def release_probe(self, holder: str) -> None:
        """The holder's probe has ended."""
        text = "DELETE FROM dop_probes WHERE gateway = %(gateway)s AND holder = %(holder)s RETURNING holder"
        await self._ask(text, {"gateway": self._gateway, "holder": holder})

    async def close_order(self, run_id: str, version: int) -> None:
        """End the run's order: no worker processes the run any more."""
        await self._ask(
            "UPDATE dop_orders SET is_open = false WHERE run_id = %(run_id)s "
            "AND version = %(version)s RETURNING run_id",
            {"run_id": run_id, "version": version},
        )

    async def live(self, run_id: str) -> int:
        """How many jobs of a run are queued or in a worker's hands."""
        text = "SELECT count(*) AS n FROM dop_jobs WHERE run_id = %(run_id)s"
        return int((await self._ask(text, {"run_id": run_id}))[0]["n"])

    async def set_aside(self, run_id: str) -> int:
        """How many planned rows of a run were refused or could not be sent: they wait for the next order."""
        text = (
            "SELECT count(*) AS n FROM run_rows r JOIN attempts a ON a.request_id = r.request_id "
            "AND a.superseded = 0 WHERE r.run_id = %(run_id)s AND a.state = 'planned' AND r.wanted = 1 "
            "AND a.reason ~ %(set_aside)s"
        )
        return int((await self._ask(text, {"run_id": run_id, "set_aside": SET_ASIDE}))[0]["n"])

    async def workers(self, silent_s: float) -> int:
        """How many workers gave a sign lately, of whatever gateway."""
        text = "SELECT count(*) AS n FROM dop_workers WHERE seen_at > now() - make_interval(secs => %(silent_s)s)"
        return int((await self._ask(text, {"silent_s": silent_s}))[0]["n"])

    async def top_up(self, window: int) -> int:
        """Queues what the ledger has and the queue lacks, unless it is half full; how many. One host at a time."""
        async with self._turn:
            connection = await self._open()
            async with connection.transaction():
                # Tried and not waited for: the worker that has the lock does this very work.
                asked = await connection.execute("SELECT pg_try_advisory_xact_lock(%s) AS mine", (TOP_UP_LOCK,))
                row = await asked.fetchone()
                if row is None or not row["mine"]:
                    return 0
                values = _values(self._gateway, window, again=False, files=False, recovers=self._recovers)
                full = (
                    "SELECT count(*) > %s / 2 AS full FROM "
                    "(SELECT 1 FROM dop_jobs WHERE worker IS NULL AND gateway = %s) AS waiting"
                )
                asked = await connection.execute(full, (window, self._gateway))
                row = await asked.fetchone()
                if row is not None and row["full"]:
                    return 0
                queued = (await connection.execute(TOP_UP.encode(), values)).rowcount
                if queued:
                    await connection.execute(NOTIFY.encode(), {"gateway": self._gateway})
                return queued

    async def take_back(self, silent_s: float) -> int:
        """Jobs of workers that were silent for so long are queued again; how many."""
        return len(await self._ask(_BACK, {"gateway": self._gateway, "silent_s": silent_s}))

    async def rebuild(self, window: int, silent_s: float) -> tuple[int, int]:
        """Drops what is queued, but for what living workers hold, and fills it again; (dropped, queued)."""
        dropped = await self._ask(_DROP, {"gateway": self._gateway, "silent_s": silent_s})
        return len(dropped), await self.top_up(window)

    async def close(self) -> None:
        """Lets go of the connection."""
        if self._connection is not None:
            with suppress(psycopg.Error, OSError):
                await self._connection.close()

    async def _ask(self, text: str, values: Mapping[str, object]) -> list[DictRow]:
        async with self._turn:
            connection = await self._open()
            return await (await connection.execute(text.encode(), values)).fetchall()

    async def _open(self) -> psycopg.AsyncConnection[DictRow]:
        if self._connection is None or self._connection.broken or self._connection.closed:
            self._connection = await psycopg.AsyncConnection.connect(
                self._url, autocommit=True, row_factory=dict_row, **client(self._url)
            )
        return self._connection
