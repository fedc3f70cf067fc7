"""Is the ledger whole, and can it be made whole again? Checks every row and sum; replays the journal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping

from sqlalchemy import Connection, delete, func, insert, select, update

from pipeline.errors import InvariantError, LedgerError
from pipeline.ledger.database import upsert, write_meta
from pipeline.ledger.schema import MUTABLE, attempts, checksum, digest, history, spend
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied, JobTaken, LedgerChange, Row, SpendAccumulator, SpendKey, apply_change
from pipeline.records import COST_STATE, CostState, State, job_id_spellings

_PAGE = 5_000


def audit(connection: Connection) -> list[str]:
    """What is wrong with the rows and the sums, in words; empty when all is well. Reads everything once."""
    problems: list[str] = []
    sums: dict[SpendKey, dict[CostState, int]] = {}
    for row in _every_attempt(connection):
        name = f"request {row['request_id']} attempt {row['attempt']}"
        if row["checksum"] != checksum(row):
            problems.append(f"{name} does not match its checksum")
        if row["digest"] != digest(row):
            problems.append(f"{name}: what it says was changed")
        try:
            _add(sums, row)
        except ValueError:
            problems.append(f"{name} has no readable state or price")
    problems += _sum_problems(connection, sums)
    latest = select(attempts.c.request_id).where(attempts.c.superseded == 0).group_by(attempts.c.request_id)
    for (request_id,) in connection.execute(latest.having(func.count() > 1)):
        problems.append(f"request {request_id} has two live attempts")
    return problems


def _every_attempt(connection: Connection) -> Iterator[dict[str, object]]:
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


def _add(sums: dict[SpendKey, dict[CostState, int]], row: Mapping[str, object]) -> None:
    kind = COST_STATE[State(str(row["state"]))]
    if kind is CostState.NONE:
        return
    key = (str(row["gateway"]), str(row["run_id"]), str(row["spend_day"]), str(row["model"]))
    amounts = sums.setdefault(key, {})
    amounts[kind] = amounts.get(kind, 0) + int(str(row["price_microusd"]))


def _sum_problems(connection: Connection, sums: Mapping[SpendKey, Mapping[CostState, int]]) -> list[str]:
    booked = {
        (row.gateway, row.run_id, row.day, row.model): (row.confirmed, row.disputed, row.reserved)
        for row in connection.execute(select(spend))
    }
    kinds = (CostState.CONFIRMED, CostState.DISPUTED, CostState.RESERVED)
    problems = []
    for key in sorted({*booked, *sums}, key=repr):  # a damaged book may hold anything
        real = tuple(sums.get(key, {}).get(kind, 0) for kind in kinds)
        if booked.get(key, (0, 0, 0)) != real:
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


def replay(connection: Connection, entries: Iterable[Mapping[str, object]]) -> int:
    """Books journal entries into the ledger, in order, then makes the spend book anew; returns how many were booked.

    Raises:
        LedgerError: an entry belongs to a request that neither the ledger nor the journal describes.
    """
    booked = 0
    seq = 0
    for entry in entries:
        seq = int(str(entry["seq"]))
        if "row" in entry:
            _put(connection, entry)
        elif "change" in entry:
            _judge_again(connection, entry)
        else:
            continue  # the end of a snapshot
        booked += 1
        _note(connection, entry)
    _sums_anew(connection)
    if booked:
        write_meta(connection, {"seq": str(seq)})
    return booked


def _mapping(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise LedgerError("the journal holds a line of another program")
    return value


def _put(connection: Connection, entry: Mapping[str, object]) -> None:
    row = _mapping(entry["row"])
    key = (attempts.c.request_id == row["request_id"]) & (attempts.c.attempt == row["attempt"])
    values = {name: row.get(name) for name in MUTABLE}
    if connection.execute(update(attempts).where(key).values(values)).rowcount == 0:
        if not row.get("submit_attempts"):
            return  # it was never sent: the manifest plans it again
        if "cold" not in entry:
            raise LedgerError(
                f"the journal's line for request {row['request_id']} has no beginning; nothing was changed"
            )
        connection.execute(insert(attempts).values({**values, **_mapping(entry["cold"])}))
    connection.execute(
        update(attempts)
        .where(
            attempts.c.request_id == row["request_id"], attempts.c.attempt < row["attempt"], attempts.c.superseded == 0
        )
        .values(superseded=1)
    )
    _seal_older(connection, str(row["request_id"]))


def _seal_older(connection: Connection, request_id: str) -> None:
    found = connection.execute(
        select(attempts).where(attempts.c.request_id == request_id, attempts.c.superseded == 1)
    ).all()
    for row in found:
        values = dict(row._mapping)
        key = (attempts.c.request_id == request_id) & (attempts.c.attempt == row.attempt)
        connection.execute(update(attempts).where(key).values(checksum=checksum(values)))


def _judge_again(connection: Connection, entry: Mapping[str, object]) -> None:
    wanted = _mapping(entry["change"])
    found = connection.execute(
        select(attempts).where(attempts.c.request_id == entry["request_id"], attempts.c.superseded == 0)
    ).first()
    row: Row | None = {name: found._mapping[name] for name in MUTABLE} if found is not None else None
    change = LedgerChange(
        request_id=str(entry["request_id"]),
        event=Event(str(entry["event"])),
        at=float(str(entry["at"])),
        token=None if wanted["token"] is None else str(wanted["token"]),
        values=_mapping(wanted["values"]),
    )
    try:
        outcome = apply_change(
            row, change, money=SpendAccumulator(lambda *_: 0), job_owner=lambda *job: _owner(connection, *job)
        )
    except InvariantError:
        return  # booked already before the disk failed
    if isinstance(outcome, JobTaken):
        _lose_instead(connection, entry, outcome)
        return
    if row is not None and isinstance(outcome, Applied):
        row["checksum"] = checksum(row)
        key = (attempts.c.request_id == row["request_id"]) & (attempts.c.attempt == row["attempt"])
        connection.execute(update(attempts).where(key).values(row))


def _owner(connection: Connection, gateway: str, job_set_id: str) -> str | None:
    is_job = attempts.c.job_set_id.in_(job_id_spellings(job_set_id))
    return connection.execute(select(attempts.c.request_id).where(attempts.c.gateway == gateway, is_job)).scalar()


def _lose_instead(connection: Connection, entry: Mapping[str, object], taken: JobTaken) -> None:
    """The answer named a job of another request: as in a run, the outcome is unknown."""
    values = {"reason": f"the answer named a job that belongs to request {taken.owner_request_id}"}
    lost = {"token": _mapping(entry["change"])["token"], "values": values}
    _judge_again(connection, {**entry, "event": Event.LOSE.value, "change": lost})


def _note(connection: Connection, entry: Mapping[str, object]) -> None:
    found = connection.execute(
        select(attempts.c.attempt, attempts.c.state).where(
            attempts.c.request_id == entry["request_id"], attempts.c.superseded == 0
        )
    ).first()
    if found is not None:
        connection.execute(
            insert(history).values(
                request_id=entry["request_id"],
                attempt=found.attempt,
                at=entry["at"],
                event=entry["event"],
                state=found.state,
                detail=str(entry["detail"]),
            )
        )


def _sums_anew(connection: Connection) -> None:
    sums: dict[SpendKey, dict[CostState, int]] = {}
    for row in _every_attempt(connection):
        _add(sums, row)
    connection.execute(delete(spend))
    book_money(connection, sums)
