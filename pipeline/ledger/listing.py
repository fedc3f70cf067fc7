"""What a run lists, written down: rows of a manifest become planned attempts and lines of the run. Buys nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, and_, delete, insert, select, update

from pipeline.errors import LedgerError
from pipeline.ledger.batch_statements import BatchStatements
from pipeline.ledger.planned_rows import PLANNED_COLUMNS, PlannedRows, dumped
from pipeline.ledger.schema import (
    attempts,
    checksum,
    digest,
    history,
    run_rows,
)
from pipeline.ledger.states import Event
from pipeline.ledger.text import storable
from pipeline.records import Candidacy, Cell, FoldedRow, KeepIf, Request, State

SKIPPED_PREFIX = "skipped:"
FOLDED_PREFIX = "folded:"
"""Begins what a run lists for a row that asks for another row's video: then its request's id, ':' and the row's id."""

_PARAMS_AT = PLANNED_COLUMNS.index("params")
_LISTED_COLUMNS = ("run_id", "request_id", "position", "row_id", "tags", "axes", "listed", "shot", "wanted")


class RowLister:
    """Writes down what one run lists, chunk by chunk, in one transaction."""

    def __init__(self, connection: Connection, run_id: str) -> None:
        self._connection, self._run_id = connection, run_id
        self._planned = PlannedRows(run_id)
        self._statements = statements = BatchStatements(connection.dialect.name)
        self._plan = statements.added(attempts, PLANNED_COLUMNS, " ON CONFLICT (request_id, attempt) DO NOTHING")
        updates = ", ".join(f"{name} = excluded.{name}" for name in _LISTED_COLUMNS[2:])
        self._list = statements.added(
            run_rows, _LISTED_COLUMNS, f" ON CONFLICT (run_id, request_id) DO UPDATE SET {updates}"
        )

    def add(self, chunk: Sequence[Request | Cell | FoldedRow], position: int) -> None:
        """Plan the requests of some rows that the ledger does not know, and list the rows from a position on."""
        requests = [item for item in chunk if isinstance(item, Request)]
        _check_unknown(self._connection, [request.request_id for request in requests])
        fresh = [self._planned.values(request) for request in requests]
        self._statements.run(self._connection, self._plan, fresh)
        # Only an address with a query can be signed; a signature made now must not be replaced by an old one.
        signed = [values for values in fresh if "?" in str(values[_PARAMS_AT])]
        if signed:
            _take_fresh_addresses(self._connection, {str(values[0]): str(values[_PARAMS_AT]) for values in signed})
        rows = [_listed_values(item, self._run_id, place) for place, item in enumerate(chunk, start=position)]
        self._statements.run(self._connection, self._list, rows)


def _check_unknown(connection: Connection, request_ids: Sequence[str]) -> None:
    """MONEY: a request whose row can't be found is new only where its history knows of no submit either.

    A damaged index hides a row, and the request would be planned, and bought, a second time.
    """
    if not request_ids:
        return
    row = select(attempts.c.request_id).where(attempts.c.request_id == history.c.request_id)
    hidden = select(history.c.request_id).where(
        history.c.request_id.in_(request_ids), history.c.event == Event.RESERVE.value, ~row.exists()
    )
    found = connection.execute(hidden.limit(1)).first()
    if found is not None:
        raise LedgerError(
            f"the ledger is damaged: request {found.request_id} was sent, and its row can't be found; nothing is "
            "bought. `dop ledger check` lists everything, `dop ledger rebuild` makes it again from its journal"
        )


def _take_fresh_addresses(connection: Connection, written: Mapping[str, str]) -> None:
    """Give attempts that were never sent the addresses of this reading: the same pictures, other signatures.

    `written` has the params of each request as this reading makes them.
    """
    waiting = select(attempts).where(
        attempts.c.request_id.in_(written), attempts.c.superseded == 0, attempts.c.state == State.PLANNED.value
    )
    for found in connection.execute(waiting).all():
        if found.params != written[found.request_id]:
            row = dict(found._mapping) | {"params": written[found.request_id]}
            row["digest"] = digest(row)
            row["checksum"] = checksum(row)
            key = and_(attempts.c.request_id == found.request_id, attempts.c.attempt == found.attempt)
            changed = {name: row[name] for name in ("params", "digest", "checksum")}
            connection.execute(update(attempts).where(key, attempts.c.state == State.PLANNED.value).values(changed))


def _listed_key(item: Request | Cell | FoldedRow) -> str:
    """The key of a listed row: its request, or what says that it has none of its own."""
    if isinstance(item, Request):
        return item.request_id
    if isinstance(item, FoldedRow):
        return f"{FOLDED_PREFIX}{item.request_id}:{item.row_id}"
    return f"{SKIPPED_PREFIX}{item.row_id}"


def dump_candidacy(candidacy: Candidacy) -> str:
    """A candidacy as the column `shot` holds it."""
    values = [candidacy.shot, candidacy.keep, candidacy.keep_if.value, candidacy.ahead]
    return storable(json.dumps(values, ensure_ascii=False))


def load_candidacy(text: str) -> Candidacy:
    """The inverse of `dump_candidacy`."""
    shot, keep, keep_if, ahead = json.loads(text)
    return Candidacy(shot=shot, keep=keep, keep_if=KeepIf(keep_if), ahead=ahead)


def request_of_key(key: str) -> str:
    """The request that a listed row shows; the key of a placeholder unchanged."""
    return key.removeprefix(FOLDED_PREFIX).partition(":")[0] if key.startswith(FOLDED_PREFIX) else key


def _listed_values(item: Request | Cell | FoldedRow, run_id: str, position: int) -> tuple[object, ...]:
    """A listed row in the order of _LISTED_COLUMNS."""
    shot = None if item.candidacy is None else dump_candidacy(item.candidacy)
    return run_id, _listed_key(item), position, storable(item.row_id), dumped(item.tags), dumped(item.axes), 1, shot, 1


def drop_unlisted(connection: Connection, run_id: str, count: int) -> None:
    """Rows that the manifest no longer has: bought ones go behind the listed ones, the others leave the run."""
    kept = select(attempts.c.request_id).where(attempts.c.run_id == run_id, attempts.c.state != State.PLANNED.value)
    unlisted = and_(run_rows.c.run_id == run_id, run_rows.c.listed == 0)
    connection.execute(delete(run_rows).where(unlisted, run_rows.c.request_id.not_in(kept)))
    old = connection.execute(select(run_rows.c.request_id).where(unlisted).order_by(run_rows.c.position)).all()
    for place, row in enumerate(old, start=count):
        one = and_(run_rows.c.run_id == run_id, run_rows.c.request_id == row.request_id)
        connection.execute(update(run_rows).where(one).values(position=place))


def renew(connection: Connection, request_id: str) -> int:
    """Plans a fresh attempt of one request; returns 1, or 0 when the ledger does not know it."""
    found = connection.execute(
        select(attempts).where(attempts.c.request_id == request_id, attempts.c.superseded == 0)
    ).first()
    if found is None:
        return 0
    old = dict(found._mapping)
    old["superseded"] = 1
    old["checksum"] = checksum(old)
    key = and_(attempts.c.request_id == request_id, attempts.c.attempt == found.attempt)
    connection.execute(update(attempts).where(key).values(superseded=1, checksum=old["checksum"]))
    # Everything that tells of the old attempt (job, token, times, reason) begins empty; only what is asked for is kept.
    new: dict[str, object] = dict.fromkeys(old)
    kept = (
        "request_id",
        "gateway",
        "run_id",
        "model",
        "price_microusd",
        "row_id",
        "params",
        "motion",
        "take",
        "digest",
    )
    new.update({name: old[name] for name in kept})
    new.update(attempt=found.attempt + 1, superseded=0, state=State.PLANNED.value)
    new.update(submit_attempts=0, throttled=0, polls=0, resends=0)
    new["checksum"] = checksum(new)
    connection.execute(insert(attempts).values(new))
    return 1
