"""Is the ledger whole? Checks every row against its checksum, and the spend book against the rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from sqlalchemy import Connection, func, select

from pipeline.ledger.database import upsert
from pipeline.ledger.schema import attempts, checksum, digest, spend
from pipeline.ledger.transitions import SpendKey
from pipeline.records import COST_STATE, CostState, State

_PAGE = 5_000
"""Rows that the check reads at a time, so that a ledger of a million rows needs no memory."""


def audit(connection: Connection) -> list[str]:
    """What is wrong with the rows and the sums, in words; empty when all is well. Reads everything once."""
    problems: list[str] = []
    sums: dict[SpendKey, dict[CostState, int]] = {}
    for row in every_attempt(connection):
        name = f"request {row['request_id']} attempt {row['attempt']}"
        if row["checksum"] != checksum(row):
            problems.append(f"{name} does not match its checksum")
        if row["digest"] != digest(row):
            problems.append(f"{name}: what it says was changed")
        try:
            add_price(sums, row)
        except ValueError:
            problems.append(f"{name} has no readable state or price")
    problems += _sum_problems(connection, sums)
    latest = select(attempts.c.request_id).where(attempts.c.superseded == 0).group_by(attempts.c.request_id)
    for (request_id,) in connection.execute(latest.having(func.count() > 1)):
        problems.append(f"request {request_id} has two live attempts")
    return problems


def every_attempt(connection: Connection) -> Iterator[dict[str, object]]:
    """All columns of all attempts, page by page."""
    after = ("", -1)
    while True:
        page = connection.execute(
            select(attempts)
            .where(
                (attempts.c.request_id > after[0])
                | ((attempts.c.request_id == after[0]) & (attempts.c.attempt > after[1]))
            )
            .order_by(attempts.c.request_id, attempts.c.attempt)
            .limit(_PAGE)
        ).all()
        for row in page:
            yield dict(row._mapping)
        if len(page) < _PAGE:
            return
        after = (page[-1].request_id, page[-1].attempt)


def add_price(sums: dict[SpendKey, dict[CostState, int]], row: Mapping[str, object]) -> None:
    """Adds an attempt's price to the sum of its kind.

    Raises:
        ValueError: no readable state or price.
    """
    kind = COST_STATE[State(str(row["state"]))]
    if kind is CostState.NONE:
        return
    key = (str(row["gateway"]), str(row["run_id"]), str(row["spend_day"]), str(row["model"]))
    amounts = sums.setdefault(key, {})
    amounts[kind] = amounts.get(kind, 0) + int(str(row["price_microusd"]))


def _sum_problems(connection: Connection, sums: Mapping[SpendKey, Mapping[CostState, int]]) -> list[str]:
    recorded = {
        (row.gateway, row.run_id, row.day, row.model): (row.confirmed, row.disputed, row.reserved)
        for row in connection.execute(select(spend))
    }
    kinds = (CostState.CONFIRMED, CostState.DISPUTED, CostState.RESERVED)
    problems = []
    for key in sorted({*recorded, *sums}, key=repr):  # a damaged book may hold anything
        real = tuple(sums.get(key, {}).get(kind, 0) for kind in kinds)
        if recorded.get(key, (0, 0, 0)) != real:
            problems.append(f"the spend book of run {key[1]}, {key[2]}, {key[3]} does not equal its requests")
    return problems


def sums_digest(connection: Connection) -> str:
    """16 hex digits over the whole spend book, kept at a clean end and compared at the next start."""
    lines = sorted(repr(tuple(row)) for row in connection.execute(select(spend)))
    return hashlib.blake2b("\n".join(lines).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def book_money(connection: Connection, deltas: Mapping[SpendKey, Mapping[CostState, int]]) -> None:
    """Adds one transaction's money to the spend book."""
    for (gateway, run_id, day, model), amounts in deltas.items():
        added = {kind.value: amounts.get(kind, 0) for kind in CostState if kind is not CostState.NONE}
        statement = upsert(connection, spend)
        statement = statement.values(gateway=gateway, run_id=run_id, day=day, model=model, **added)
        statement = statement.on_conflict_do_update(
            index_elements=["gateway", "run_id", "day", "model"],
            set_={name: spend.c[name] + amount for name, amount in added.items()},
        )
        connection.execute(statement)
