"""Small JSON objects that the ledger keeps for later runs: what was learned of a gateway, how a run ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from sqlalchemy import Connection

from pipeline.ledger.database import read_meta, write_meta
from pipeline.ledger.spending_checks import ReadConnections


class SavedStates:
    """The objects by name, in the ledger's table of facts. They hold no secret and no money.

    Args:
        reader: where they are read.
        transact: runs a function in one write transaction and returns once that is durable.
    """

    def __init__(self, reader: ReadConnections, transact: Callable[[Callable[[Connection], None]], None]) -> None:
        self._reader = reader
        self._transact = transact

    def load(self, name: str) -> dict[str, object]:
        """What was saved under `name`; empty when nothing was."""
        with self._reader.connect() as connection:
            text = read_meta(connection).get(name)
        found = json.loads(text) if text else {}
        return found if isinstance(found, dict) else {}

    def load_all(self, prefix: str) -> dict[str, dict[str, object]]:
        """Everything saved under names that begin with `prefix`, by the rest of the name."""
        with self._reader.connect() as connection:
            kept = read_meta(connection)
        named = {name.removeprefix(prefix): json.loads(text) for name, text in kept.items() if name.startswith(prefix)}
        return {name: values for name, values in named.items() if isinstance(values, dict)}

    def save(self, name: str, values: Mapping[str, object]) -> None:
        """Save `values` under `name` in place of what was there."""
        text = json.dumps(dict(values), sort_keys=True)
        self._transact(lambda connection: write_meta(connection, {name: text}))
