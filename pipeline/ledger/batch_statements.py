"""Statements that are run for many lines at once: in a file once for each line, on a server as one over arrays.

A driver's way to many statements on a server is a pipeline, and a process that is frozen within one keeps its locks,
which no time-out of the server's own ends. No value is put into a text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from sqlalchemy import BigInteger, Connection, Float, Integer, Table, Text


class DbapiConnection(Protocol):
    """SQLite's own connection: SQLAlchemy's way to it costs more than the statements do."""

    def execute(self, text: str, values: Any, /) -> Any:
        """Runs a statement once."""

    def executemany(self, text: str, values: Any, /) -> Any:
        """Runs it for each of the values."""


Executor = Connection | DbapiConnection
"""What runs the statements."""

_ARRAYS = {Text: "text[]", Integer: "integer[]", BigInteger: "bigint[]", Float: "float8[]"}
_KINDS: Mapping[type, type] = {Text: str, Integer: int, BigInteger: int, Float: float}


class BatchStatement(NamedTuple):
    """A statement that is run for many lines, and what each of a line's values is (or None)."""

    text: str
    kinds: tuple[type, ...]


class BatchStatements:
    """Makes and runs them for one kind of database."""

    def __init__(self, dialect: str) -> None:
        self._on_server = dialect == "postgresql"

    def added(self, table: Table, columns: Sequence[str], end: str = "") -> BatchStatement:
        """Inserts lines; `end` says what happens to one that is there already."""
        names = ", ".join(columns)
        if self._on_server:
            text = f"INSERT INTO {table.name} ({names}) SELECT * FROM {self._unnested(table, columns)}{end}"
        else:
            text = f"INSERT INTO {table.name} ({names}) VALUES ({', '.join('?' for _ in columns)}){end}"
        return BatchStatement(text, _kinds(table, columns))

    def changed(self, table: Table, columns: Sequence[str], key: Sequence[str]) -> BatchStatement:
        """Sets `columns` of the rows that `key` names; a line has the values of both, in this order."""
        kinds = _kinds(table, (*columns, *key))
        if not self._on_server:
            sets, where = (f"{name} = ?" for name in columns), (f"{name} = ?" for name in key)
            return BatchStatement(f"UPDATE {table.name} SET {', '.join(sets)} WHERE {' AND '.join(where)}", kinds)
        sets, where = (
            (f"{name} = new.{name}" for name in columns),
            (f"{table.name}.{name} = new.{name}" for name in key),
        )
        rows = f"{self._unnested(table, (*columns, *key))} AS new({', '.join((*columns, *key))})"
        return BatchStatement(
            f"UPDATE {table.name} SET {', '.join(sets)} FROM {rows} WHERE {' AND '.join(where)}", kinds
        )

    def run(self, hand: Executor, statement: BatchStatement, lines: Sequence[tuple[object, ...]]) -> None:
        """Runs a statement for all lines."""
        if not lines:
            return
        if self._on_server:
            assert isinstance(hand, Connection)
            hand.exec_driver_sql(statement.text, _arrays(lines, statement.kinds))
        elif isinstance(hand, Connection):
            hand.exec_driver_sql(statement.text, list(lines))
        else:
            hand.executemany(statement.text, lines)

    def _unnested(self, table: Table, columns: Sequence[str]) -> str:
        arrays = (f"%s::{_ARRAYS[type(table.c[name].type)]}" for name in columns)
        return f"unnest({', '.join(arrays)})"


def _kinds(table: Table, columns: Iterable[str]) -> tuple[type, ...]:
    return tuple(_KINDS[type(table.c[name].type)] for name in columns)


def _arrays(lines: Sequence[tuple[object, ...]], kinds: Sequence[type]) -> tuple[list[object], ...]:
    columns = zip(zip(*lines, strict=True), kinds, strict=True)
    # Converted here, since an array has one type on the server, and one text among numbers would be refused.
    return tuple([None if value is None else kind(value) for value in column] for column, kind in columns)
