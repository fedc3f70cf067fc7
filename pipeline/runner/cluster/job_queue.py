"""The queue of requests, made from the ledger by one statement: first filling, topping up and rebuilding are alike.

A job is "process this request"; its lock is the request's key, so at most one worker does. There are two queues a
gateway: to buy, and to collect what is bought, which continues while buying has to wait. The queue may be dropped at
any time: nothing is known here that the ledger does not know.
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
from pipeline.runner.firewall import NOT_SENT
from pipeline.runner.refused_rows import REFUSED
from pipeline.runner.replay_recorder import MISMATCH

if TYPE_CHECKING:
    from sqlalchemy import Connection

TASK = "dop.look_after"
COLLECT_SUFFIX = "#look"
"""Ends the name of a gateway's queue of bought requests."""
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
INSERT INTO procrastinate_jobs (queue_name, task_name, priority, lock, queueing_lock, args)
SELECT gateway || CASE WHEN state = 'planned' THEN '' ELSE '{COLLECT_SUFFIX}' END, '{TASK}', 0, request_id, request_id,
    jsonb_build_object('request_id', request_id, 'run_id', run_id)
FROM (
    SELECT o.gateway, o.run_id, a.request_id, a.state FROM dop_orders o
    JOIN run_rows r ON r.run_id = o.run_id
    JOIN attempts a ON a.request_id = r.request_id AND a.superseded = 0 AND a.gateway = o.gateway
    WHERE o.gateway = %(gateway)s AND o.is_open AND ({_CAUSES})
    AND NOT EXISTS (SELECT 1 FROM procrastinate_jobs j WHERE j.queueing_lock = a.request_id AND j.status = 'todo')
    AND NOT EXISTS (SELECT 1 FROM procrastinate_jobs j WHERE j.lock = a.request_id AND j.status = 'doing')
    ORDER BY a.state = 'planned', coalesce(a.reason, '') ~ %(set_aside)s, o.run_id, r.position
    LIMIT greatest(0, %(window)s - (SELECT count(*) FROM procrastinate_jobs j
        WHERE j.status = 'todo' AND j.queue_name IN (%(gateway)s, %(gateway)s || '{COLLECT_SUFFIX}')))
) AS due
ON CONFLICT DO NOTHING
"""  # noqa: S608 - constants of this module only; values go in as parameters

_ORDER = """
INSERT INTO dop_orders (run_id, gateway, buy, collect, run_cap, day_cap, month_cap)
VALUES (%(run_id)s, %(gateway)s, %(buy)s, %(collect)s, %(run_cap)s, %(day_cap)s, %(month_cap)s)
ON CONFLICT (run_id) DO UPDATE SET version = dop_orders.version + 1, buy = excluded.buy, collect = excluded.collect,
    run_cap = excluded.run_cap, day_cap = excluded.day_cap, month_cap = excluded.month_cap, is_open = true
"""

_STALLED = """
SELECT j.* FROM procrastinate_jobs j LEFT JOIN procrastinate_workers w ON w.id = j.worker_id
WHERE j.status = 'doing' AND j.queue_name = ANY(%(queues)s)
AND (w.id IS NULL OR w.last_heartbeat < now() - make_interval(secs => %(silent_s)s))
FOR UPDATE OF j SKIP LOCKED
"""
"""What another host takes back at this very moment is left to it: twice is an error of the engine's."""

_BACK = f"""
WITH stalled AS MATERIALIZED ({_STALLED})
SELECT procrastinate_retry_job_v2(j.id, now(), j.priority, j.queue_name, j.lock) FROM stalled j
WHERE NOT EXISTS
    (SELECT 1 FROM procrastinate_jobs t WHERE t.queueing_lock = j.queueing_lock AND t.status = 'todo')
"""  # noqa: S608 - the same

_TWINS = f"""
WITH stalled AS MATERIALIZED ({_STALLED})
DELETE FROM procrastinate_jobs j WHERE j.id IN (SELECT id FROM stalled) AND EXISTS
    (SELECT 1 FROM procrastinate_jobs t WHERE t.queueing_lock = j.queueing_lock AND t.status = 'todo')
RETURNING j.id
"""  # noqa: S608 - the same

_DROP = f"""
WITH stalled AS MATERIALIZED ({_STALLED})
DELETE FROM procrastinate_jobs j WHERE j.queue_name = ANY(%(queues)s)
AND (j.status <> 'doing' OR j.id IN (SELECT id FROM stalled))
RETURNING j.id
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


def queues(gateway: str) -> list[str]:
    """The names of a gateway's queues."""
    return [gateway, gateway + COLLECT_SUFFIX]


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
        text = (
            "SELECT count(*) AS n FROM procrastinate_jobs "
            "WHERE status IN ('todo', 'doing') AND task_name = %(task)s AND args->>'run_id' = %(run_id)s"
        )
        return int((await self._ask(text, {"run_id": run_id, "task": TASK}))[0]["n"])

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
        text = (
            "SELECT count(*) AS n FROM procrastinate_workers "
            "WHERE last_heartbeat > now() - make_interval(secs => %(silent_s)s)"
        )
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
                    "(SELECT 1 FROM procrastinate_jobs WHERE status = 'todo' AND queue_name = ANY(%s)) AS waiting"
                )
                asked = await connection.execute(full, (window, queues(self._gateway)))
                row = await asked.fetchone()
                if row is not None and row["full"]:
                    return 0
                return (await connection.execute(TOP_UP.encode(), values)).rowcount

    async def take_back(self, silent_s: float) -> int:
        """Jobs of workers that were silent for so long are queued again; how many."""
        # First: a job whose request is queued again already can't be put back, since its queueing lock is taken.
        await self._ask(_TWINS, {"queues": queues(self._gateway), "silent_s": silent_s})
        return len(await self._ask(_BACK, {"queues": queues(self._gateway), "silent_s": silent_s}))

    async def rebuild(self, window: int, silent_s: float) -> tuple[int, int]:
        """Drops what is queued, but for what living workers hold, and fills it again; (dropped, queued)."""
        dropped = await self._ask(_DROP, {"queues": queues(self._gateway), "silent_s": silent_s})
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
