"""Is the ledger whole? Checks rows against their checksums, and the spend book against the rows.

`audit` reads every row. `audit_since` reads the rows that changed since the ledger was last known to be whole, and has
the database add up all the others: what a killed process may have left half done is found in seconds, however large
the ledger is. What only `audit` finds never leads to a second purchase: each row is checked again before it is bought.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, Row, func, select

from pipeline.ledger.database import upsert
from pipeline.ledger.schema import COVERED, IMMUTABLE, attempts, hash_of, history, spend
from pipeline.ledger.transitions import SpendKey
from pipeline.records import COST_STATE, CostState, State

_PAGE = 5_000
"""Rows that are read at a time: of a million the memory would be full."""

_CHECKSUM_AT, _DIGEST_AT = len(COVERED), COVERED.index("digest")
_READ = tuple(attempts.c[name] for name in (*COVERED, "checksum", *IMMUTABLE))
"""Every column, so that both hashes are over a part of it."""


def audit(connection: Connection) -> list[str]:
    """What is wrong with the rows and the sums, in words; empty when all is well. Reads everything once."""
    problems: list[str] = []
    sums: dict[SpendKey, dict[CostState, int]] = {}
    for row in _every_row(connection):
        problems += _row_problems(row)
        try:
            _add_price(sums, row)
        except ValueError:
            problems.append(f"{_name_of(row)} has no readable state or price")
    problems += _sum_problems(connection, sums)
    latest = select(attempts.c.request_id).where(attempts.c.superseded == 0).group_by(attempts.c.request_id)
    for (request_id,) in connection.execute(latest.having(func.count() > 1)):
        problems.append(f"request {request_id} has two live attempts")
    return problems


def audit_since(connection: Connection, number: int) -> list[str]:
    """What is wrong with the rows that events after line `number` of the history changed, and with the sums over all.

    The database adds the prices up, and looks for two live attempts only where a request has several.
    """
    changed = select(history.c.request_id).where(history.c.seq > number).distinct()
    statement = select(*_READ).where(attempts.c.request_id.in_(changed))
    found = connection.execution_options(yield_per=_PAGE).execute(statement)
    problems = [problem for row in found for problem in _row_problems(row)]
    problems += _sum_problems(connection, _sums_of_rows(connection))
    again = select(attempts.c.request_id).where(attempts.c.attempt > 1)
    live = select(attempts.c.request_id).where(attempts.c.superseded == 0, attempts.c.request_id.in_(again))
    live = live.group_by(attempts.c.request_id).having(func.count() > 1)
    return problems + [f"request {request_id} has two live attempts" for (request_id,) in connection.execute(live)]


def _sums_of_rows(connection: Connection) -> dict[SpendKey, dict[CostState, int]]:
    """The prices of all rows by kind, added up by the database. A row of no readable state adds nothing."""
    key = (attempts.c.gateway, attempts.c.run_id, attempts.c.spend_day, attempts.c.model)
    paid = [state.value for state, kind in COST_STATE.items() if kind is not CostState.NONE]
    statement = (
        select(*key, attempts.c.state, func.sum(attempts.c.price_microusd))
        .where(attempts.c.state.in_(paid))
        .group_by(*key, attempts.c.state)
    )
    sums: dict[SpendKey, dict[CostState, int]] = {}
    for gateway, run_id, day, model, state, microusd in connection.execute(statement):
        amounts = sums.setdefault((str(gateway), str(run_id), str(day), str(model)), {})
        kind = COST_STATE[State(state)]
        amounts[kind] = amounts.get(kind, 0) + int(microusd or 0)
    return sums


def _name_of(row: Row[Any]) -> str:
    return f"request {row.request_id} attempt {row.attempt}"


def _row_problems(row: Row[Any]) -> list[str]:
    """What is wrong with a row of `_READ`; slices, since names are looked up slowly and there may be a million rows."""
    problems = []
    if row[_CHECKSUM_AT] != hash_of(repr(list(row[:_CHECKSUM_AT]))):
        problems.append(f"{_name_of(row)} does not match its checksum")
    if row[_DIGEST_AT] != hash_of(repr(list(row[_CHECKSUM_AT + 1 :]))):
        problems.append(f"{_name_of(row)}: what it says was changed")
    return problems


def every_attempt(connection: Connection) -> Iterator[dict[str, object]]:
    """All columns of all attempts, page by page."""
    for row in _every_row(connection):
        yield dict(row._mapping)


def _every_row(connection: Connection) -> Iterator[Row[Any]]:
    after = ("", -1)
    while True:
        page = connection.execute(
            select(*_READ)
            .where(
                (attempts.c.request_id > after[0])
                | ((attempts.c.request_id == after[0]) & (attempts.c.attempt > after[1]))
            )
            .order_by(attempts.c.request_id, attempts.c.attempt)
            .limit(_PAGE)
        ).all()
        yield from page
        if len(page) < _PAGE:
            return
        # By the key and not by OFFSET, which would read all earlier rows again for each page.
        after = (page[-1].request_id, page[-1].attempt)


def add_price(sums: dict[SpendKey, dict[CostState, int]], row: Mapping[str, object]) -> None:
    """Adds an attempt's price to the sum of its kind.

    Raises:
        ValueError: no readable state or price.
    """
    key = (str(row["gateway"]), str(row["run_id"]), str(row["spend_day"]), str(row["model"]))
    _add_to(sums, key, row["state"], row["price_microusd"])


def _add_price(sums: dict[SpendKey, dict[CostState, int]], row: Row[Any]) -> None:
    key = (str(row.gateway), str(row.run_id), str(row.spend_day), str(row.model))
    _add_to(sums, key, row.state, row.price_microusd)


def _add_to(sums: dict[SpendKey, dict[CostState, int]], key: SpendKey, state: object, microusd: object) -> None:
    kind = COST_STATE[State(str(state))]
    if kind is CostState.NONE:
        return
    amounts = sums.setdefault(key, {})
    amounts[kind] = amounts.get(kind, 0) + int(str(microusd))


def _sum_problems(connection: Connection, sums: Mapping[SpendKey, Mapping[CostState, int]]) -> list[str]:
    recorded = {
        (row.gateway, row.run_id, row.day, row.model): (row.confirmed, row.disputed, row.reserved)
        for row in connection.execute(select(spend))
    }
    kinds = (CostState.CONFIRMED, CostState.DISPUTED, CostState.RESERVED)
    problems = []
    for key in sorted({*recorded, *sums}, key=repr):  # a damaged book may hold anything
        real = tuple(sums.get(key, {}).get(kind, 0) for kind in kinds)
        # A line whose sums are all 0 and no line are the same: money that came back leaves zeros.
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
