"""Brings the names of gateways in an old ledger to the one spelling that this version uses.

A request's id is a hash that holds the gateway's name, so the ids follow: a row that was bought under an old spelling
is found under the new one, and not bought again. Part of a migration; needs the lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection, delete, select, update

from pipeline.config.gateway_address import canonical_gateway
from pipeline.ledger.integrity import add_price, book_money, every_attempt
from pipeline.ledger.schema import attempts, checksum, history, load_params, run_rows, runs, spend
from pipeline.ledger.transitions import SpendKey
from pipeline.records import CostState, Params, request_key


def map_gateways(connection: Connection) -> int:
    """Renames gateways and the requests that depend on their names; returns how many rows of attempts changed."""
    named = {str(name) for (name,) in connection.execute(select(attempts.c.gateway).distinct())}
    named |= {str(name) for (name,) in connection.execute(select(runs.c.gateway).distinct())}
    changed = 0
    for old in sorted(named):
        new = canonical_gateway(old)
        if new == old:
            continue
        ids = _new_ids(connection, old, new)
        changed += sum(_rename(connection, old, new, request_id, ids[request_id]) for request_id in ids)
        connection.execute(update(runs).where(runs.c.gateway == old).values(gateway=new, rows_digest=None))
    if changed:
        sums: dict[SpendKey, dict[CostState, int]] = {}
        for row in every_attempt(connection):
            add_price(sums, row)
        connection.execute(delete(spend))
        book_money(connection, sums)
    return changed


def _new_ids(connection: Connection, old: str, new: str) -> dict[str, str]:
    """Old request id -> its id under the new name; the same where it is unknown, or where that one is taken."""
    known = {str(one) for (one,) in connection.execute(select(attempts.c.request_id).distinct())}
    found: dict[str, str] = {}
    columns = (attempts.c.request_id, attempts.c.params, attempts.c.take)
    for request_id, text, take in connection.execute(select(*columns).where(attempts.c.gateway == old)).all():
        params = load_params(text)
        keys = _image_keys(params)
        wanted = request_id
        if request_key(params, take=take, gateway=old, image_keys=keys) == request_id:
            wanted = request_key(params, take=take, gateway=new, image_keys=keys)
        found[request_id] = wanted if wanted not in known else request_id
        known.add(found[request_id])
    return found


def _image_keys(params: Params) -> Mapping[str, str]:
    """The keys of a request's local images in its id, as far as they are still there."""
    found = {}
    for image in (*params.input_images, *params.input_images_end):
        with suppress(OSError):
            if image.startswith("/"):
                found[image] = f"sha256:{hashlib.sha256(Path(image).read_bytes()).hexdigest()}"
    return found


def _rename(connection: Connection, old: str, new: str, request_id: str, new_id: str) -> int:
    where = (attempts.c.request_id == request_id) & (attempts.c.gateway == old)
    rows = connection.execute(select(attempts).where(where)).all()
    for row in rows:
        values = dict(row._mapping) | {"gateway": new, "request_id": new_id}
        key = where & (attempts.c.attempt == row.attempt)
        values["checksum"] = checksum(values)
        connection.execute(update(attempts).where(key).values(values))
    if new_id != request_id:
        for table in (history, run_rows):
            connection.execute(update(table).where(table.c.request_id == request_id).values(request_id=new_id))
    return len(rows)
