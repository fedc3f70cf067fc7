"""Brings the names of gateways in an old ledger to the one spelling that this version uses.

A request's id is a hash that holds the gateway's name, so the ids follow: a row that was bought under an old spelling
is found under the new one, and not bought again. Needs the lock, and must come after everything that still speaks of
the old ids was recorded: the events that only the journal has, and the outcomes in the spool.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from sqlalchemy import Connection, delete, func, insert, select, update

from pipeline.config.gateway_address import canonical_gateway
from pipeline.ledger.database import read_meta, write_meta
from pipeline.ledger.identity import CHAIN, JOURNAL_STALE
from pipeline.ledger.integrity import add_price, book_money, every_attempt
from pipeline.ledger.journal import line_of
from pipeline.ledger.journal_again import journal_again
from pipeline.ledger.schema import (
    attempts,
    checksum,
    clip_checks,
    history,
    journal,
    load_params,
    reviews,
    run_rows,
    runs,
    spend,
)
from pipeline.ledger.transitions import SpendKey
from pipeline.records import CostState, Params, request_key

LINES_AT_ONCE = 1_000
"""Lines of the journal that one statement writes."""


def map_gateways(connection: Connection) -> list[str]:
    """Renames gateways and the requests that depend on their names, in one transaction with the books beside them.

    The journal in a database is written again here, and the old one is kept as the table `journal_old_names`; that of a
    file is only marked as stale.

    Returns:
        Notices for the user; none where every gateway has its one name.
    """
    old_names = [name for name in _gateways(connection) if canonical_gateway(name) != name]
    notices = [_renamed(connection, old) for old in old_names]
    if old_names:
        sums: dict[SpendKey, dict[CostState, int]] = {}
        for row in every_attempt(connection):
            add_price(sums, row)
        connection.execute(delete(spend))
        book_money(connection, sums)
        if connection.dialect.name == "sqlite":
            write_meta(connection, {JOURNAL_STALE: "yes"})
        else:
            _write_journal_again(connection)
    return notices


def _gateways(connection: Connection) -> list[str]:
    """The names of all gateways in the ledger, each found by one step in an index."""
    found = {str(name) for (name,) in connection.execute(select(runs.c.gateway).distinct())}
    name = connection.execute(select(func.min(attempts.c.gateway))).scalar()
    while name is not None:
        found.add(str(name))
        name = connection.execute(select(func.min(attempts.c.gateway)).where(attempts.c.gateway > name)).scalar()
    return sorted(found)


def _renamed(connection: Connection, old: str) -> str:
    new = canonical_gateway(old)
    ids, uncertain = _new_ids(connection, old, new)
    for request_id, new_id in ids.items():
        _rename(connection, old, new, request_id, new_id)
    connection.execute(update(runs).where(runs.c.gateway == old).values(gateway=new, rows_digest=None))
    notice = f"{old} and {new} are one gateway: {len(ids)} requests of the ledger bear its one name {new} now"
    if not uncertain:
        return notice
    return (
        f"warning: {notice}, but the pictures of {uncertain} that were sent are gone, changed or signed: "
        "a row with one of them may be bought already, compare it with `dop list` before you buy it"
    )


def _new_ids(connection: Connection, old: str, new: str) -> tuple[dict[str, str], int]:
    """Old request id -> its id under the new name, and how many that were sent keep theirs because it is unknown.

    An id that another request has already is not given again.
    """
    known = {str(one) for (one,) in connection.execute(select(attempts.c.request_id).distinct())}
    found: dict[str, str] = {}
    uncertain = 0
    columns = (attempts.c.request_id, attempts.c.params, attempts.c.take, attempts.c.submit_attempts)
    for request_id, text, take, sent in connection.execute(select(*columns).where(attempts.c.gateway == old)).all():
        params = load_params(text)
        keys = _image_keys(params)
        wanted = request_id
        # Only an id that can be computed is renamed: where a picture is gone or has changed, the old name can't be
        # verified.
        if request_key(params, take=take, gateway=old, image_keys=keys) == request_id:
            wanted = request_key(params, take=take, gateway=new, image_keys=keys)
        elif sent:
            uncertain += 1
        found[request_id] = wanted if wanted not in known else request_id
        known.add(found[request_id])
    return found, uncertain


def _image_keys(params: Params) -> Mapping[str, str]:
    """The keys of a request's local images in its id, as far as they are still there."""
    found = {}
    for image in (*params.input_images, *params.input_images_end):
        with suppress(OSError):
            if image.startswith("/"):
                found[image] = f"sha256:{hashlib.sha256(Path(image).read_bytes()).hexdigest()}"
    return found


def _rename(connection: Connection, old: str, new: str, request_id: str, new_id: str) -> None:
    where = (attempts.c.request_id == request_id) & (attempts.c.gateway == old)
    for row in connection.execute(select(attempts).where(where)).all():
        values = dict(row._mapping) | {"gateway": new, "request_id": new_id}
        key = where & (attempts.c.attempt == row.attempt)
        # `gateway` and `request_id` are covered by the checksum.
        values["checksum"] = checksum(values)
        connection.execute(update(attempts).where(key).values(values))
    if new_id == request_id:
        return
    for table in (history, run_rows, clip_checks):
        connection.execute(update(table).where(table.c.request_id == request_id).values(request_id=new_id))
    with _writable(connection, reviews.name):
        for column in (reviews.c.request_id, reviews.c.rival):
            connection.execute(update(reviews).where(column == request_id).values({column: new_id}))


@contextmanager
def _writable(connection: Connection, table: str) -> Iterator[None]:
    """A server refuses to change what is append-only; within this transaction its rows may be replaced."""
    if connection.dialect.name != "postgresql":
        yield
        return
    connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER append_only")
    yield
    connection.exec_driver_sql(f"ALTER TABLE {table} ENABLE TRIGGER append_only")


def _write_journal_again(connection: Connection) -> None:
    """The journal in a database, from its rows: what it says so far is of requests under their old ids."""
    facts = read_meta(connection)
    connection.exec_driver_sql(f"CREATE TABLE {_free_table(connection)} AS TABLE journal")
    with _writable(connection, journal.name):
        connection.execute(delete(journal))
    lines = journal_again(connection, facts, seq=int(facts["seq"]), chain=facts[CHAIN])
    while part := list(islice(lines, LINES_AT_ONCE)):
        connection.execute(
            insert(journal), [{"seq": entry["seq"], "line": line_of(entry).rstrip("\n")} for entry in part]
        )


def _free_table(connection: Connection) -> str:
    """Under which name the old journal is kept."""
    names = set(connection.dialect.get_table_names(connection))
    name, number = "journal_old_names", 1
    while name in names:
        number += 1
        name = f"journal_old_names_{number}"
    return name
