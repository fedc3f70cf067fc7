"""Statements that are run for many lines at once: in a file once for each line, on a server as one over a JSON array.

One text goes to the server, not an array for each column: the driver escapes each element of an array in Python, which
took a fifth of a worker's time.

A driver's way to many statements on a server is a pipeline, and a process that is frozen within one keeps its locks,
which no time-out of the server's own ends. No value is put into a text.
"""

from __future__ import annotations

import json
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

_TYPES = {Text: "text", Integer: "integer", BigInteger: "bigint", Float: "float8"}
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
            text = f"INSERT INTO {table.name} ({names}) {_selected(table, columns)}{end}"
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
        rows = f"({_selected(table, (*columns, *key))}) AS new({', '.join((*columns, *key))})"
        return BatchStatement(
            f"UPDATE {table.name} SET {', '.join(sets)} FROM {rows} WHERE {' AND '.join(where)}", kinds
        )

    def run(self, hand: Executor, statement: BatchStatement, lines: Sequence[tuple[object, ...]]) -> None:
        """Runs a statement for all lines."""
        if not lines:
            return
        if self._on_server:
            assert isinstance(hand, Connection)
            hand.exec_driver_sql(statement.text, (_as_json(lines, statement.kinds),))
        elif isinstance(hand, Connection):
            hand.exec_driver_sql(statement.text, list(lines))
        else:
            hand.executemany(statement.text, lines)


def _selected(table: Table, columns: Sequence[str]) -> str:
    """The lines of the JSON array that is the statement's parameter, each value in the type of its column."""
    values = (f"(line->>{place})::{_TYPES[type(table.c[name].type)]}" for place, name in enumerate(columns))
    return f"SELECT {', '.join(values)} FROM jsonb_array_elements(%s::jsonb) AS line"


def _kinds(table: Table, columns: Iterable[str]) -> tuple[type, ...]:
    return tuple(_KINDS[type(table.c[name].type)] for name in columns)


def _as_json(lines: Sequence[tuple[object, ...]], kinds: Sequence[type]) -> str:
    """The lines as a JSON array of arrays. A float is written with all its digits, so that it is read back the same."""
    return json.dumps(
        [[None if value is None else kind(value) for value, kind in zip(line, kinds, strict=True)] for line in lines]
    )
