"""One pace for all workers of a gateway: a row of the database, from which every slot is taken by one statement.

A slot is a moment. It may be a little ahead (`AHEAD_S`); the worker that took it sleeps until then, so workers never
contend for the same moment. Hints, refusals and the cap on jobs in flight are in the row too and hold everybody. The
clock is the database's. Seconds are Unix seconds of that clock. Slots need not survive a crash: no commit here waits
for the disk.

The rate is configured or measured: a rejection says that the allowance was empty, so the calls admitted since the last
one are what flowed in (as `gateway.ratelimit` reads it for one process). In between it grows a little until the
next rejection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import exp2, sqrt

import psycopg
from psycopg.rows import DictRow, dict_row

from pipeline.ledger.postgres_session import client

AHEAD_S = 0.5
"""How far ahead a slot may be taken."""
CATCH_UP_GAPS, CATCH_UP_S = 0.5, 0.02
"""How late a slot may be taken and still be made up for: the smaller of these (gaps, seconds)."""
HASTE, LATE_S = 1.01, 1.0
"""How much faster than the rate go those that were held up between slot and wire; and how late they may be at most."""
MIN_HINT_S, MAX_HINT_S = 1.0, 60.0
"""A longer hint is obeyed a minute at a time: then one submit asks again."""
FIRST_GROWTH, PATIENCE, MAX_DOUBLINGS = 0.002, 60.0, 12.0
"""The rate grows by this share of itself, doubling every `PATIENCE` submits let in (more where a refusal is dear)."""
GUESS_TEST_INTERVAL_CALLS = 10.0
"""While the rate is a guess from the first refusal."""
DEAR_CALLS, MAX_DEAR = 20.0, 8.0
"""A hint that costs this many submits makes the patience twice as long, and so on."""
SLACK, MIN_ADMITTED = 0.998, 4.0
"""A measured rate is taken by this share of itself, and only from so many admitted submits on."""
MIN_PER_S, MAX_PER_S = 1 / 900, 10_000.0
"""Bounds of any rate in submits a second: one in 15 minutes, the longest hint, and more than any gateway admits."""
PROBE_GAP_S = 1.0
"""After a refusal one submit at a time until one is let in; the next after this long when none is answered."""
CAP_TEST_INTERVAL_CALLS = 4.0
"""Jobs that must end, as a multiple of a learned cap, before one more is tried."""
RETRY_S = 0.5
"""Seconds before a worker asks the shared row again after it gave no answer."""
STALE_S = 2.0
"""A transaction that its worker leaves open for longer (frozen) is ended by the server."""
SESSION = {"synchronous_commit": "off", "idle_in_transaction_session_timeout": f"{int(STALE_S * 1000)}ms"}

_RATE = f"(p.rate * (1 + {FIRST_GROWTH} * (power(2, least(p.quiet / p.patience, {MAX_DOUBLINGS})) - 1)))"
_GAP = f"(1.0 / coalesce(p.configured_per_s, {_RATE}))"
_START = (
    "CASE WHEN p.configured_per_s IS NULL AND p.rate IS NULL THEN t.now "
    f"ELSE greatest(t.now, p.due - (p.burst - 1) * {_GAP}) END"
)
_BEGIN = f"CASE WHEN t.now - p.due <= least({CATCH_UP_GAPS} * {_GAP}, {CATCH_UP_S}) THEN p.due ELSE t.now END"
_CAP = "least(p.cap, p.configured_cap)"
_IN_FLIGHT = "(SELECT count(*) FROM attempts a WHERE a.gateway = p.gateway AND a.state IN ('submitting', 'accepted'))"
_OK = f"(t.now >= p.held_until AND ({_START}) <= t.now + {AHEAD_S} AND ({_CAP} IS NULL OR {_IN_FLIGHT} < {_CAP}))"
_GROWN = f"p.cap IS NOT NULL AND p.ended + %(ended)s >= {CAP_TEST_INTERVAL_CALLS} * p.cap"

TAKE = f"""
UPDATE dop_pace AS p SET
    slot = CASE WHEN {_OK} THEN {_START} END,
    due = CASE WHEN {_OK} AND coalesce(p.configured_per_s, p.rate) IS NOT NULL THEN ({_BEGIN}) + {_GAP} ELSE p.due END,
    held_until = CASE WHEN {_OK} AND p.probing THEN ({_START}) + {PROBE_GAP_S} ELSE p.held_until END,
    origin = coalesce(p.origin, t.now),
    let_in = p.let_in + %(let_in)s,
    quiet = p.quiet + %(let_in)s,
    cap = CASE WHEN {_GROWN} THEN p.cap + 1 ELSE p.cap END,
    ended = CASE WHEN {_GROWN} THEN 0 ELSE p.ended + %(ended)s END
FROM (SELECT extract(epoch FROM clock_timestamp())::float8 AS now) AS t
WHERE p.gateway = %(gateway)s
RETURNING p.slot, t.now, p.probing, p.blocked_at,
    greatest(p.held_until, CASE WHEN coalesce(p.configured_per_s, p.rate) IS NULL THEN t.now ELSE {_START} END) AS ready
"""  # noqa: S608 - constants of this module only; values go in as parameters

ON_ADMITTED = """
UPDATE dop_pace SET probing = false, fails = 0, held_until = CASE WHEN probing THEN 0 ELSE held_until END
WHERE gateway = %(gateway)s AND blocked_at < %(sent_at)s
"""

_HELD_SLOT = (
    f"greatest(p.blocked_at, p.hinted_at) <= %(taken_at)s AND ({_CAP} IS NULL OR {_IN_FLIGHT} <= {_CAP}) "
    f"AND coalesce(p.left_at + {_GAP} / {HASTE} <= t.now + {LATE_S}, true)"
)
LEAVE = f"""
UPDATE dop_pace AS p SET
    leaves = CASE WHEN {_HELD_SLOT} THEN greatest(t.now, p.left_at + {_GAP} / {HASTE}) END,
    left_at = CASE WHEN {_HELD_SLOT} THEN greatest(t.now, p.left_at + {_GAP} / {HASTE}) ELSE p.left_at END
FROM (SELECT extract(epoch FROM clock_timestamp())::float8 AS now) AS t
WHERE p.gateway = %(gateway)s
RETURNING p.leaves - t.now AS in_s
"""  # noqa: S608 - the same

TOO_MANY = f"""
UPDATE dop_pace p SET cap = coalesce(%(stated)s::integer, greatest({_IN_FLIGHT} - 1, 1)), ended = 0
WHERE gateway = %(gateway)s
"""  # noqa: S608 - the same


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedSlot:
    """What the row said: `in_s` seconds to a slot that is ours, or None and when to ask again.

    `db_now` is the database's clock, `probing` whether everybody waits to be let in again, `blocked_at` when the limit
    was last met.
    """

    in_s: float | None
    ask_again_s: float
    db_now: float
    probing: bool
    blocked_at: float


def rejected_row(
    row: Mapping[str, float | bool | None], *, sent_at: float, now: float, hint_s: float | None
) -> DictRow:
    """The row's new values after the submit sent at `sent_at` was refused by the rate limit. Pure.

    Only the first refusal of a limit counts; those sent before it was known change nothing but the hold.
    """
    held = float(row["held_until"] or 0.0)
    hold_s = None if hint_s is None else min(max(hint_s, MIN_HINT_S), MAX_HINT_S)
    if hold_s is not None:
        held = max(held, now + hold_s)
    if sent_at <= float(row["blocked_at"] or 0.0):
        return {"held_until": held, "hinted_at": now}
    rate = _measured(row, sent_at)
    dear = 1.0 if hold_s is None else min(1.0 + rate * hold_s / DEAR_CALLS, MAX_DEAR)
    fails = int(row["fails"] or 0) + 1
    if hold_s is None:
        held = max(held, now + min(2.0 ** (fails - 1) / rate, MAX_HINT_S))
    return {
        "held_until": held,
        "rate": rate,
        "quiet": 0.0,
        "patience": (PATIENCE if row["rate"] is not None else GUESS_TEST_INTERVAL_CALLS) * dear,
        "probing": True,
        "fails": fails,
        "blocked_at": now,
        "hinted_at": now,
        "origin": sent_at if hold_s is None else held,
        "let_in": 0.0,
    }


def grown_rate(row: Mapping[str, float | bool | None]) -> float:
    """Submits a second at this moment: the measured rate and what it has grown by. Pure; the row must have a rate."""
    doublings = min(float(row["quiet"] or 0.0) / float(row["patience"] or PATIENCE), MAX_DOUBLINGS)
    return float(row["rate"] or 0.0) * (1 + FIRST_GROWTH * (exp2(doublings) - 1))


def _measured(row: Mapping[str, float | bool | None], sent_at: float) -> float:
    """Submits a second that the allowance lets in, as far as is known at this refusal.

    What was saved up during a hold came in as well: the truth is between the rate since its end and since its begin.
    """
    let_in = float(row["let_in"] or 0.0)
    since_s = max(sent_at - float(row["origin"] or sent_at), 1e-3)
    if row["rate"] is None:
        return min(max(max(let_in, 1.0) / max(since_s, 0.05), MIN_PER_S), MAX_PER_S)
    grown = grown_rate(row)
    if let_in < MIN_ADMITTED:
        return max(0.92 * grown, MIN_PER_S)
    whole_s = max(sent_at - float(row["blocked_at"] or 0.0), since_s)
    return min(max(SLACK * let_in / sqrt(since_s * whole_s), 0.5 * grown, MIN_PER_S), 0.99 * grown)


class SharedRateLimiter:
    """The row of one gateway. One connection, used by one caller at a time; a lost one is reopened."""

    def __init__(self, url: str, gateway: str) -> None:
        self._url, self._gateway = url, gateway
        self._connection: psycopg.AsyncConnection[DictRow] | None = None
        self._turn = asyncio.Lock()
        self.closed = False

    async def configure(self, *, per_s: float | None, burst: int, cap: int | None) -> None:
        """What the configuration says, for everybody: the worker that started last decides."""
        await self._ask(
            "INSERT INTO dop_pace (gateway, configured_per_s, burst, configured_cap) "
            "VALUES (%(gateway)s, %(per_s)s, %(burst)s, %(cap)s) ON CONFLICT (gateway) DO UPDATE SET "
            "configured_per_s = excluded.configured_per_s, burst = excluded.burst, "
            "configured_cap = excluded.configured_cap RETURNING gateway",
            {"per_s": per_s, "burst": burst, "cap": cap},
        )

    async def take(self, *, let_in: int = 0, ended: int = 0) -> SharedSlot:
        """Takes the next slot, if one is near; `let_in` submits were taken and `ended` jobs ended since the last call.

        Raises:
            psycopg.Error: the database can't be asked; nothing was taken.
        """
        row = await self._ask(TAKE, {"let_in": let_in, "ended": ended})
        now, slot = float(row["now"]), row["slot"]
        in_s = None if slot is None else max(0.0, float(slot) - now)
        again_s = min(max(float(row["ready"]) - now - AHEAD_S / 2, 0.05), 1.0)
        return SharedSlot(
            in_s=in_s, ask_again_s=again_s, db_now=now, probing=bool(row["probing"]), blocked_at=row["blocked_at"]
        )

    async def on_admitted(self, sent_at: float) -> None:
        """A submit sent at `sent_at` was let in: no worker has to probe any more."""
        await self._ask(ON_ADMITTED, {"sent_at": sent_at}, answers=False)

    async def leave(self, taken_at: float) -> float | None:
        """In how many seconds a submit whose slot was taken at `taken_at` may go out; None when its slot is void.

        Void: a refusal came since, the jobs in flight do not fit any more, or too many are late at once. What is late
        catches up little by little, so that no second sees more than the rate and a hundredth.
        """
        in_s = (await self._ask(LEAVE, {"taken_at": taken_at}))["in_s"]
        return None if in_s is None else max(0.0, float(in_s))

    async def on_rejected(self, sent_at: float, hint_s: float | None) -> None:
        """The rate limit refused a submit: every worker holds, and the rate is measured again."""
        async with self._turn:
            connection = await self._open()
            async with connection.transaction():
                select = "SELECT *, extract(epoch FROM clock_timestamp())::float8 AS now FROM dop_pace "
                found = await connection.execute(select + "WHERE gateway = %s FOR UPDATE", (self._gateway,))
                row = await found.fetchone()
                assert row is not None
                values = rejected_row(row, sent_at=sent_at, now=row["now"], hint_s=hint_s)
                columns = ", ".join(f"{name} = %({name})s" for name in values)
                text = f"UPDATE dop_pace SET {columns} WHERE gateway = %(gateway)s"  # noqa: S608 - our own names
                await connection.execute(text.encode(), {**values, "gateway": self._gateway})

    async def too_many(self, stated: int | None = None) -> None:
        """Too many jobs are in flight, says the gateway: the number it states is the cap, else what is in flight."""
        await self._ask(TOO_MANY, {"stated": stated}, answers=False)

    async def close(self) -> None:
        """Lets go of the connection."""
        self.closed = True
        if self._connection is not None:
            with suppress(psycopg.Error, OSError):
                await self._connection.close()

    async def _ask(self, text: str, values: Mapping[str, object], *, answers: bool = True) -> DictRow:
        async with self._turn:
            connection = await self._open()
            found = await connection.execute(text.encode(), {**values, "gateway": self._gateway})
            row = await found.fetchone() if answers else {}
            if row is None:
                raise psycopg.DataError(f"the pace of {self._gateway} is not in the database")
            return row

    async def _open(self) -> psycopg.AsyncConnection[DictRow]:
        if self._connection is None or self._connection.broken or self._connection.closed:
            self._connection = await psycopg.AsyncConnection.connect(
                self._url, autocommit=True, row_factory=dict_row, **client(self._url, **SESSION)
            )
        return self._connection
