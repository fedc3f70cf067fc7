"""Runs: what they are, how they begin and end, and what they list."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Select, insert, select, update

from pipeline.ledger.budget import NO_CAPS, Caps
from pipeline.ledger.database import large_cache, release_memory
from pipeline.ledger.holes import doubt_unsent
from pipeline.ledger.identity import HOLE
from pipeline.ledger.listing import RowLister, drop_unlisted, renew
from pipeline.ledger.schema import (
    run_rows,
    runs,
)
from pipeline.ledger.writer import LedgerWriter
from pipeline.records import Cell, FoldedRow, Request

CHUNK = 2_000
"""Rows of a manifest that are written with one statement: SQLite takes 32,766 parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run as the ledger knows it. `run_id` is its folder's name. `ended_at` is None while it is unfinished."""

    run_id: str
    name: str
    gateway: str
    manifest_path: str
    rows_digest: str | None
    started_at: float
    ended_at: float | None
    sheet: Mapping[str, str] | None
    caps: Caps = NO_CAPS


_PART = re.compile(r" \[part: ([^\]]*)\]")


def name_of_part(name: str, part: str) -> str:
    """The name of a run of a part of a manifest's rows; of all rows where `part` is empty."""
    return f"{name} [part: {part}]" if part else name


def part_of_name(name: str) -> str:
    """The choice of rows that a run's name holds; empty for a run of all rows."""
    found = _PART.search(name)
    return found[1] if found is not None and found.end() == len(name) else ""


def _run_of(row: Any) -> Run:
    values = dict(row._mapping)
    values["sheet"] = json.loads(values["sheet"]) if values["sheet"] else None
    if values["caps"]:
        run, day, month = json.loads(values["caps"])
        values["caps"] = Caps(run_microusd=run, day_microusd=day, month_microusd=month)
    else:
        values["caps"] = NO_CAPS
    return Run(**values)


def _run_values(run: Run) -> dict[str, object]:
    return {
        "run_id": run.run_id,
        "name": run.name,
        "gateway": run.gateway,
        "manifest_path": run.manifest_path,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "sheet": json.dumps(dict(run.sheet)) if run.sheet else None,
        "caps": _caps_text(run.caps),
    }


def _caps_text(caps: Caps) -> str:
    return json.dumps([caps.run_microusd, caps.day_microusd, caps.month_microusd])


class RunRegistry:
    """Runs of one open ledger: begun, listed, capped, ended."""

    def __init__(self, ledger: LedgerWriter) -> None:
        self.ledger = ledger

    def unfinished_run(self, manifest_path: str, gateway: str, part: str = "") -> Run | None:
        """The newest run of this manifest on this gateway that has not ended.

        Args:
            part: the choice of rows in words (`Selection.part`). A run of a part of the rows is a run of its own: it
                neither takes over the run of the whole sheet nor drops any of its rows.
        """
        statement = (
            select(runs)
            .where(runs.c.manifest_path == manifest_path, runs.c.gateway == gateway, runs.c.ended_at.is_(None))
            .order_by(runs.c.started_at.desc(), runs.c.run_id.desc())
        )
        found = (_run_of(row) for row in self.ledger.ask(statement))
        return next((run for run in found if part_of_name(run.name) == part), None)

    def run(self, run_id: str) -> Run | None:
        """A run by its name."""
        return self._one_run(select(runs).where(runs.c.run_id == run_id))

    def runs(self) -> list[Run]:
        """Every run, newest first."""
        with self.ledger.reader.connect() as connection:
            found = connection.execute(select(runs).order_by(runs.c.started_at.desc(), runs.c.run_id.desc()))
            return [_run_of(row) for row in found]

    def _one_run(self, statement: Select[Any]) -> Run | None:
        found = self.ledger.ask(statement)
        return _run_of(found[0]) if found else None

    def set_caps(self, run_id: str, caps: Caps) -> None:
        """Keeps what the manifest allows a run to cost, for commands that are given the run and not the manifest."""
        statement = update(runs).where(runs.c.run_id == run_id).values(caps=_caps_text(caps))
        self.ledger.transact(lambda connection: connection.execute(statement) and None)

    def keep_max_cost(self, run_id: str, microusd: int) -> None:
        """Remember a command's `--max-cost` for the processes that continue the run."""
        self.ledger.saved_states.save(f"max_cost {run_id}", {"microusd": microusd})

    def kept_max_cost(self, run_id: str) -> int | None:
        """The newest `--max-cost` that a command gave the run, micro-dollars."""
        kept = self.ledger.saved_states.load(f"max_cost {run_id}").get("microusd")
        return kept if isinstance(kept, int) else None

    def max_cost(self, run_id: str) -> int | None:
        """What the user allowed the run to cost at most, by the manifest or by `--max-cost`, micro-dollars."""
        run = self.run(run_id)
        sums = (self.kept_max_cost(run_id), run.caps.run_microusd if run is not None else None)
        return min((one for one in sums if one is not None), default=None)

    def reopen_run(self, run_id: str) -> None:
        """Reopen an ended run: something of it is bought again or resolved again."""
        statement = update(runs).where(runs.c.run_id == run_id).values(ended_at=None)
        self.ledger.transact(lambda connection: connection.execute(statement) and None)

    def end_run(self, run_id: str, at: float) -> None:
        """Marks a run as having nothing planned, in flight or unknown."""
        statement = update(runs).where(runs.c.run_id == run_id).values(ended_at=at)
        self.ledger.transact(lambda connection: connection.execute(statement) and None)

    def sync_rows(
        self,
        run_id: str,
        rows: Iterable[Request | Cell | FoldedRow],
        *,
        rows_digest: str,
        new: Run | None = None,
        also: Callable[[Connection], None] | None = None,
    ) -> int:
        """Makes `rows` what the run lists, in order, and plans what the ledger does not know; returns how many rows.

        Rows of an earlier reading that the run has already bought stay listed behind the others; planned ones leave.
        `rows_digest` is what the rows depend on. `new` is a run to be written down together with its rows: a
        mistake among them leaves neither. `also` is done in the same transaction, at its end.
        """

        def work(connection: Connection) -> int:
            if new is not None:
                connection.execute(insert(runs).values(_run_values(new)))
            # Marked before the reading: what it does not name keeps the mark, and leaves the run at the end.
            earlier = connection.execute(update(run_rows).where(run_rows.c.run_id == run_id).values(listed=0)).rowcount
            stream, lister = iter(rows), RowLister(connection, run_id)
            position = 0
            with large_cache(connection):
                while chunk := list(islice(stream, CHUNK)):
                    lister.add(chunk, position)
                    position += len(chunk)
            if earlier:  # a new run has nothing to leave behind, and to look for it reads every row
                drop_unlisted(connection, run_id, position)
            connection.execute(update(runs).where(runs.c.run_id == run_id).values(rows_digest=rows_digest))
            if also is not None:
                also(connection)
            return position

        # A million rows take seconds, in which other hosts must be able to record what they buy.
        listed = self.ledger.transact(work, alone=False)
        release_memory()
        # MONEY: what such a ledger does not know may be bought already, so the rows that were new just now become
        # unknown before any of them can be sent.
        if HOLE in self.ledger.facts:
            doubt_unsent(self.ledger, run_id)
        return listed

    def new_attempts(self, request_ids: Sequence[str]) -> int:
        """Plans a fresh attempt for requests whose latest one ended without a video; returns how many."""

        def work(connection: Connection) -> int:
            return sum(renew(connection, request_id) for request_id in request_ids)

        return self.ledger.transact(work)
