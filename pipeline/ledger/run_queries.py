"""What one run lists: its attempts, its report, and what they come to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy import and_, func, or_, select

from pipeline.ledger.attempt_rows import (
    SkippedRow,
    attempt_of,
    check_unsent,
    folded,
    run_view,
    sums_of,
)
from pipeline.ledger.listing import FOLDED_PREFIX
from pipeline.ledger.schema import (
    attempts,
    history,
    run_rows,
    spend,
)
from pipeline.ledger.writer import LedgerWriter
from pipeline.records import Attempt, State, Totals

CHUNK = 2_000
"""Rows that are fetched at a time by a question whose answer does not fit in memory."""

UNFINISHED = (State.PLANNED, State.SUBMITTING, State.ACCEPTED, State.STALLED, State.UNKNOWN)

LACKS_FILE = or_(attempts.c.local_path.is_(None), attempts.c.sha256.is_(None))
"""Of a finished request: its video was never saved, or was found to be gone; then `local_path` says where it was."""


TO_DO = or_(attempts.c.state != State.PLANNED.value, run_rows.c.wanted == 1)
"""Leaves out planned candidates that no shot needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedFile:
    """One video that was saved: `local_path` is relative to the outputs folder."""

    request_id: str
    row_id: str
    local_path: str
    size_bytes: int | None


class RunQueries:
    """Questions about what a run lists."""

    ledger: LedgerWriter

    def files(self, run_id: str) -> list[tuple[str, str]]:
        """Request and file of every video that the run lists and that was saved."""
        statement = (
            select(attempts.c.request_id, attempts.c.local_path)
            .select_from(run_rows.join(attempts, attempts.c.request_id == run_rows.c.request_id))
            .where(run_rows.c.run_id == run_id, attempts.c.local_path.is_not(None))
        )
        return [(row.request_id, row.local_path) for row in self.ledger.ask(statement)]

    def saved_files(self, run_id: str) -> list[SavedFile]:
        """Every video that the run lists and that is saved as far as the ledger knows, in the manifest's order."""
        statement = (
            select(attempts.c.request_id, attempts.c.row_id, attempts.c.local_path, attempts.c.size_bytes)
            .select_from(run_rows.join(attempts, attempts.c.request_id == run_rows.c.request_id))
            .where(
                run_rows.c.run_id == run_id,
                attempts.c.superseded == 0,
                attempts.c.state == State.DONE.value,
                ~LACKS_FILE,
            )
            .order_by(run_rows.c.position)
        )
        return [SavedFile(**row._mapping) for row in self.ledger.ask(statement)]

    def latest(self, run_id: str, request_id: str) -> Attempt:
        """The latest attempt of a request, as the run lists it."""
        statement = run_view(run_id).where(attempts.c.request_id == request_id, attempts.c.superseded == 0)
        return attempt_of(self.ledger.ask(statement)[0], run_id)

    def listed(self, run_id: str, request_id: str) -> Attempt | None:
        """The latest attempt of one request that a run lists."""
        statement = run_view(run_id).where(run_rows.c.request_id == request_id, attempts.c.superseded == 0)
        found = self.ledger.ask(statement)
        check_unsent(found)
        return attempt_of(found[0], run_id) if found else None

    def iter_attempts(
        self, run_id: str, states: Iterable[State], *, size: int = 500, lacks_file: bool = False
    ) -> Iterator[list[Attempt]]:
        """The run's latest attempts in any of `states`, in the manifest's order, read page by page as it is asked.

        With `lacks_file` only those whose video was not saved, or was found to be gone. Planned candidates that no shot
        needs are left out.
        """
        wanted = [state.value for state in states]
        files = [LACKS_FILE] if lacks_file else []
        after = -1
        while True:
            statement = (
                run_view(run_id)
                .where(run_rows.c.position > after, attempts.c.state.in_(wanted), attempts.c.superseded == 0, *files)
                .where(TO_DO)
                .limit(size)
            )
            found = self.ledger.ask(statement)
            if found:
                check_unsent(found)
                yield [attempt_of(row, run_id) for row in found]
            if len(found) < size:
                return
            # By position and not by OFFSET: rows may be bought while the pages are read, and none is skipped for it.
            after = found[-1].position

    def attempts_in(self, run_id: str, states: Iterable[State]) -> list[Attempt]:
        """The run's latest attempts in any of `states`, in the manifest's order."""
        return [attempt for page in self.iter_attempts(run_id, states) for attempt in page]

    def report(
        self, run_id: str, states: Iterable[State] | None = None, *, has_file: bool = False
    ) -> Iterator[Attempt | SkippedRow]:
        """Every line of the run's report, in the manifest's order: one per attempt, placeholders included.

        With `states` only the latest attempts that are in one of them; with `has_file` only those whose clip was saved.
        """
        if states is None:
            wanted = or_(attempts.c.superseded == 0, attempts.c.run_id == run_id, attempts.c.request_id.is_(None))
        else:
            wanted = and_(attempts.c.superseded == 0, attempts.c.state.in_([state.value for state in states]))
        if has_file:
            wanted = and_(wanted, attempts.c.local_path.is_not(None))
        with self.ledger.reader.connect() as connection:
            statement = run_view(run_id).where(wanted)
            for row in connection.execution_options(yield_per=CHUNK).execute(statement):
                if row[0] is not None:  # its request
                    yield attempt_of(row, run_id)
                elif row.listed_request.startswith(FOLDED_PREFIX):
                    yield from folded(connection, row, run_id)
                else:
                    yield SkippedRow(row_id=row.listed_as, axes=tuple((a, b) for a, b in json.loads(row.axes)))

    def report_attempts(
        self, run_id: str, states: Iterable[State] | None = None, *, has_file: bool = False
    ) -> Iterator[Attempt]:
        """The lines of `report` without the placeholders."""
        return (line for line in self.report(run_id, states, has_file=has_file) if isinstance(line, Attempt))

    def changed(self, run_id: str, *, after: int, upto: int) -> list[Attempt]:
        """Every attempt of the requests that the run lists and that events `after` < n <= `upto` belong to."""
        listed = select(run_rows.c.request_id).where(run_rows.c.run_id == run_id)
        touched = select(history.c.request_id).where(
            history.c.seq > after, history.c.seq <= upto, history.c.request_id.in_(listed)
        )
        statement = run_view(run_id).where(
            attempts.c.request_id.in_(touched), or_(attempts.c.superseded == 0, attempts.c.run_id == run_id)
        )
        return [attempt_of(row, run_id) for row in self.ledger.ask(statement)]

    def totals(self, run_id: str) -> Totals:
        """Counts of what the run lists by state, and the money that this run recorded."""
        joined = run_rows.join(
            attempts, and_(attempts.c.request_id == run_rows.c.request_id, attempts.c.superseded == 0)
        )
        is_spare = and_(attempts.c.state == State.PLANNED.value, run_rows.c.wanted == 0)
        counted = (
            select(attempts.c.state, is_spare.label("is_spare"), func.count())
            .select_from(joined)
            .where(run_rows.c.run_id == run_id)
            .group_by(attempts.c.state, is_spare)
        )
        with self.ledger.reader.connect() as connection:
            found = connection.execute(counted).all()
            money = sums_of(connection, spend.c.run_id == run_id)
        counts = {State(state): number for state, spare, number in found if not spare}
        return Totals(counts=counts, spare=sum(number for _, spare, number in found if spare), **money)

    def has_open(self, run_id: str) -> bool:
        """Whether the run lists anything that is planned, in flight, unknown, or finished without its file.

        A planned candidate that no shot needs is nothing to do.
        """
        open_states = [state.value for state in UNFINISHED]
        lacks_file = and_(attempts.c.state == State.DONE.value, LACKS_FILE)
        statement = (
            select(attempts.c.request_id)
            .select_from(run_rows.join(attempts, attempts.c.request_id == run_rows.c.request_id))
            .where(
                run_rows.c.run_id == run_id,
                attempts.c.superseded == 0,
                or_(attempts.c.state.in_(open_states), lacks_file),
                TO_DO,
            )
            .limit(1)
        )
        return bool(self.ledger.ask(statement))

    def accepted_since(self, run_id: str, at: float) -> int:
        """How many of the run's submits were accepted since a moment."""
        statement = select(func.count()).where(attempts.c.run_id == run_id, attempts.c.accepted_at >= at)
        return int(self.ledger.ask(statement)[0][0])

    def price_in(self, run_id: str, states: Iterable[State]) -> int:
        """What the run's latest attempts in any of `states` cost together, micro-dollars."""
        statement = (
            select(func.coalesce(func.sum(attempts.c.price_microusd), 0))
            .select_from(run_rows.join(attempts, attempts.c.request_id == run_rows.c.request_id))
            .where(
                run_rows.c.run_id == run_id,
                attempts.c.superseded == 0,
                attempts.c.state.in_([state.value for state in states]),
            )
        )
        return int(self.ledger.ask(statement)[0][0])

    def without_video(self, run_id: str) -> int:
        """How many of the run's finished requests have no file yet."""
        statement = (
            select(func.count())
            .select_from(run_rows.join(attempts, attempts.c.request_id == run_rows.c.request_id))
            .where(
                run_rows.c.run_id == run_id,
                attempts.c.superseded == 0,
                attempts.c.state == State.DONE,
                LACKS_FILE,
            )
        )
        return int(self.ledger.ask(statement)[0][0])

    def resent(self, run_id: str) -> tuple[int, frozenset[str]]:
        """What this run has sent again after an unknown outcome: its price, micro-dollars; and who was ever sent again.

        Counts what waits to be sent again too, and what the operator sent again with `dop resolve --resend`.
        """
        listed = select(run_rows.c.request_id).where(run_rows.c.run_id == run_id)
        statement = select(attempts.c.request_id, attempts.c.run_id, attempts.c.state, attempts.c.price_microusd).where(
            attempts.c.resends > 0, attempts.c.request_id.in_(listed)
        )
        found = self.ledger.ask(statement)
        ours = [row.price_microusd for row in found if row.run_id == run_id or row.state == State.PLANNED]
        return sum(ours), frozenset(row.request_id for row in found)
