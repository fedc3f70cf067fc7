"""Brings a ledger of an earlier version up to date, step by step, with a copy of the file beside it first.

One step leads from one version to the next, in one transaction that also writes the new version: a step that is cut
leaves the old version whole. Must never run without the lock, and never change what was bought.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DatabaseError

from pipeline.errors import LedgerError
from pipeline.files import LEDGER_MODE, fsync_path, whole_path
from pipeline.ledger.database import create_reviews, number_in, read_meta, write_meta
from pipeline.ledger.identity import CHAIN, GENESIS, LEDGER_ID, new_ledger_id
from pipeline.ledger.schema import SCHEMA_VERSION, clip_checks, reviews, run_rows

Step = Callable[[Connection], None]


def _give_identity(connection: Connection) -> None:
    """1 -> 2: a random id and the beginning of a hash chain. The journal's lines so far are in no chain."""
    known = read_meta(connection)
    # `known` wins: a ledger that has an id, perhaps from its journal, keeps it.
    write_meta(connection, {LEDGER_ID: new_ledger_id(), CHAIN: GENESIS} | known)


def _add_reviews(connection: Connection) -> None:
    """2 -> 3: a table for what reviewers say of clips."""
    if reviews.name not in connection.dialect.get_table_names(connection):
        create_reviews(connection)


def _add_shots(connection: Connection) -> None:
    """3 -> 4: which shot a listed row is a candidate of, whether it is wanted, and what the checks found in clips."""
    known = {column["name"] for column in connection.dialect.get_columns(connection, run_rows.name)}
    for name, kind in (("shot", "TEXT"), ("wanted", "INTEGER NOT NULL DEFAULT 1")):
        if name not in known:
            connection.exec_driver_sql(f"ALTER TABLE run_rows ADD COLUMN {name} {kind}")
    for index in run_rows.indexes:
        index.create(connection, checkfirst=True)
    clip_checks.create(connection, checkfirst=True)


STEPS: Mapping[int, Step] = MappingProxyType({1: _give_identity, 2: _add_reviews, 3: _add_shots})
"""Version -> what makes the next version of it."""


def migrate(
    engine: Engine, path: Path | None, *, name: str = "", to: int = SCHEMA_VERSION, steps: Mapping[int, Step] = STEPS
) -> tuple[int, Path | None] | None:
    """Brings the ledger to version `to`; returns the old version and its copy, None when there was nothing to do.

    A ledger on a server has no `path`, and is not copied: its own backups are the copy.

    Raises:
        LedgerError: no step leads there, or one failed; the ledger is then as it was before that step.
    """
    name = name or str(path)
    with engine.begin() as connection:
        found = number_in(read_meta(connection), "schema_version", name)
    if found >= to:
        return None
    missing = [version for version in range(found, to) if version not in steps]
    if missing:
        raise LedgerError(f"{name} has version {found}, too old for this program; nothing was changed")
    backup = copy_file(path, path.with_name(f"{path.name}.v{found}-backup"), replace=True) if path else None
    for version in range(found, to):
        _take(engine, name, version, steps[version], backup)
    return found, backup


def _take(engine: Engine, name: str, version: int, step: Step, backup: Path | None) -> None:
    try:
        with engine.begin() as connection:
            if number_in(read_meta(connection), "schema_version", name) != version:
                return  # another process took this step meanwhile
            step(connection)
            write_meta(connection, {"schema_version": str(version + 1)})
    except DatabaseError as error:
        kept = f", and {backup.name} is a copy of it from before" if backup else ""
        raise LedgerError(
            f"{name} could not be brought from version {version} to {version + 1} ({error.orig}); it is as it was{kept}"
        ) from None


def copy_file(path: Path, target: Path, *, replace: bool = False) -> Path:
    """A consistent copy of a ledger, made while it may be in use; private, whole or not there.

    Raises:
        LedgerError: the target exists, or can't be written, or the ledger can't be read.
    """
    if target.exists() and not replace:
        raise LedgerError(f"{target} exists already; nothing was copied")
    if not target.parent.is_dir():
        raise LedgerError(f"{path} could not be copied to {target} ({target.parent} is no folder)")
    try:
        with (
            whole_path(target, mode=LEDGER_MODE) as draft,
            closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(draft)) as copy,
        ):
            source.backup(copy)
        fsync_path(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(f"{path} could not be copied to {target} ({error})") from None
    return target
