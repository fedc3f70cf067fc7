"""Runs and what they list, and every question that is asked of the ledger. Reads see one moment."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, delete, func, insert, or_, select, update

from pipeline.errors import LedgerError
from pipeline.ledger.budget import NO_CAPS, Caps
from pipeline.ledger.database import upsert
from pipeline.ledger.holes import doubt_unsent
from pipeline.ledger.identity import HOLE
from pipeline.ledger.schema import (
    attempts,
    checksum,
    digest,
    dump_params,
    history,
    load_params,
    run_rows,
    runs,
    spend,
)
from pipeline.ledger.states import Event
from pipeline.ledger.writer import LedgerWriter
from pipeline.records import Attempt, Cell, CostState, FoldedRow, Request, State, Totals, job_id_spellings

CHUNK = 2_000
UNFINISHED = (State.PLANNED, State.SUBMITTING, State.ACCEPTED, State.STALLED, State.UNKNOWN)
SKIPPED_PREFIX = "skipped:"
FOLDED_PREFIX = "folded:"
"""Begins what a run lists for a row that asks for another row's video: then its request's id, ':' and the row's id."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendLine:
    """The money of one day, run and model of one gateway, in micro-dollars."""

    gateway: str
    run_id: str
    day: str
    model: str
    confirmed: int
    disputed: int
    reserved: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedRow:
    """A placeholder of the manifest, for the report and the sheet."""

    row_id: str
    axes: tuple[tuple[str, str], ...]


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


def _attempt_of(row: Any, run_id: str | None) -> Attempt:
    values = row._asdict()  # a plain dictionary: a row's own mapping looks each name up the slow way
    bought_elsewhere = run_id is not None and values["run_id"] != run_id and values["state"] != State.PLANNED
    return Attempt(
        request_id=values["request_id"],
        attempt=values["attempt"],
        gateway=values["gateway"],
        run_id=values["run_id"],
        row_id=values["listed_as"] or values["row_id"],
        tags=tuple(json.loads(values["tags"] or "[]")),
        axes=tuple((name, label) for name, label in json.loads(values["axes"] or "[]")),
        params=load_params(values["params"]),
        motion=values["motion"],
        take=values["take"],
        price_microusd=values["price_microusd"],
        state=State(values["state"]),
        token=values["token"],
        idempotency_key=values["idempotency_key"],
        job_set_id=values["job_set_id"],
        polling_url=values["polling_url"],
        video_url=values["video_url"],
        preview_url=values["preview_url"],
        local_path=values["local_path"],
        size_bytes=values["size_bytes"],
        sha256=values["sha256"],
        submit_attempts=values["submit_attempts"],
        throttled=values["throttled"],
        polls=values["polls"],
        resends=values["resends"],
        submitted_at=values["submitted_at"],
        accepted_at=values["accepted_at"],
        finished_at=values["finished_at"],
        reason=values["reason"],
        bought_in=values["run_id"] if bought_elsewhere else None,
    )


def _check_unsent(rows: Iterable[Any]) -> None:
    """MONEY: what is about to be bought says what it said when it was planned."""
    for row in rows:
        if row.state == State.PLANNED and row.digest != digest(row._mapping):
            raise LedgerError(
                f"the ledger is damaged: request {row.request_id}: what it says was changed; nothing is bought. "
                "`dop ledger check` lists everything, `dop ledger rebuild` makes it anew from its journal"
            )


class LedgerQueries:
    """Questions and run keeping on one open ledger."""

    def __init__(self, ledger: LedgerWriter) -> None:
        self.ledger = ledger

    # -- runs

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

    def start_run(self, run: Run) -> None:
        """Writes a new run down."""
        self.ledger.transact(lambda connection: connection.execute(insert(runs).values(_run_values(run))) and None)

    def set_caps(self, run_id: str, caps: Caps) -> None:
        """Keeps what the manifest allows a run to cost, for commands that are given the run and not the manifest."""
        statement = update(runs).where(runs.c.run_id == run_id).values(caps=_caps_text(caps))
        self.ledger.transact(lambda connection: connection.execute(statement) and None)

    def reopen_run(self, run_id: str) -> None:
        """An ended run goes on: something of it is bought again or settled anew."""
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
        rows_digest: Callable[[], str],
        new: Run | None = None,
        also: Callable[[Connection], None] | None = None,
    ) -> int:
        """Makes `rows` what the run lists, in order, and plans what the ledger does not know; returns how many rows.

        Rows of an earlier reading that the run has already bought stay listed behind the others; planned ones leave.
        `rows_digest` is asked once the rows are exhausted. `new` is a run to be written down together with its rows: a
        mistake among them leaves neither. `also` is done in the same transaction, at its end.
        """

        def work(connection: Connection) -> int:
            if new is not None:
                connection.execute(insert(runs).values(_run_values(new)))
            connection.execute(update(run_rows).where(run_rows.c.run_id == run_id).values(listed=0))
            stream = iter(rows)
            position = 0
            while chunk := list(islice(stream, CHUNK)):
                _list_chunk(connection, run_id, chunk, position)
                position += len(chunk)
            _drop_unlisted(connection, run_id, position)
            connection.execute(update(runs).where(runs.c.run_id == run_id).values(rows_digest=rows_digest()))
            if also is not None:
                also(connection)
            return position

        listed = self.ledger.transact(work, alone=False)
        if HOLE in self.ledger.facts:
            doubt_unsent(self.ledger, run_id)
        return listed

    def new_attempts(self, request_ids: Sequence[str]) -> int:
        """Plans a fresh attempt for requests whose latest one ended without a video; returns how many."""

        def work(connection: Connection) -> int:
            return sum(_renew(connection, request_id) for request_id in request_ids)

        return self.ledger.transact(work)

    # -- questions

    def files(self, run_id: str) -> list[tuple[str, str]]:
        """Request and file of every video that the run lists and that was saved."""
        statement = (
            select(attempts.c.request_id, attempts.c.local_path)
            .select_from(run_rows.join(attempts, attempts.c.request_id == run_rows.c.request_id))
            .where(run_rows.c.run_id == run_id, attempts.c.local_path.is_not(None))
        )
        return [(row.request_id, row.local_path) for row in self.ledger.ask(statement)]

    def latest(self, run_id: str, request_id: str) -> Attempt:
        """The latest attempt of a request, as the run lists it."""
        statement = _run_view(run_id).where(attempts.c.request_id == request_id, attempts.c.superseded == 0)
        return _attempt_of(self.ledger.ask(statement)[0], run_id)

    def row_names(self, request_ids: Sequence[str]) -> dict[str, str]:
        """The row for which each request was first planned."""
        statement = select(attempts.c.request_id, attempts.c.row_id).where(attempts.c.request_id.in_(request_ids))
        return {row.request_id: row.row_id for row in self.ledger.ask(statement)}

    def states(self, request_ids: Sequence[str]) -> dict[str, State]:
        """The state of each request that the ledger knows."""
        statement = select(attempts.c.request_id, attempts.c.state).where(
            attempts.c.request_id.in_(request_ids), attempts.c.superseded == 0
        )
        return {row.request_id: State(row.state) for row in self.ledger.ask(statement)}

    def iter_attempts(
        self, run_id: str, states: Iterable[State], *, size: int = 500, lacks_file: bool = False
    ) -> Iterator[list[Attempt]]:
        """The run's latest attempts in any of `states`, in the manifest's order, read page by page as it is asked.

        With `lacks_file` only those whose video was not saved.
        """
        wanted = [state.value for state in states]
        files = [attempts.c.local_path.is_(None)] if lacks_file else []
        after = -1
        while True:
            statement = (
                _run_view(run_id)
                .where(run_rows.c.position > after, attempts.c.state.in_(wanted), attempts.c.superseded == 0, *files)
                .limit(size)
            )
            found = self.ledger.ask(statement)
            if found:
                _check_unsent(found)
                yield [_attempt_of(row, run_id) for row in found]
            if len(found) < size:
                return
            after = found[-1].position

    def report(self, run_id: str, states: Iterable[State] | None = None) -> Iterator[Attempt | SkippedRow]:
        """Every line of the run's report, in the manifest's order: one per attempt, placeholders included.

        With `states` only the latest attempts that are in one of them.
        """
        if states is None:
            wanted = or_(attempts.c.superseded == 0, attempts.c.run_id == run_id, attempts.c.request_id.is_(None))
        else:
            wanted = and_(attempts.c.superseded == 0, attempts.c.state.in_([state.value for state in states]))
        with self.ledger.reader.connect() as connection:
            statement = _run_view(run_id).where(wanted)
            for row in connection.execution_options(yield_per=CHUNK).execute(statement):
                if row.request_id is None and row.listed_request.startswith(FOLDED_PREFIX):
                    yield from _folded(connection, row, run_id)
                elif row.request_id is None:
                    yield SkippedRow(row_id=row.listed_as, axes=tuple((a, b) for a, b in json.loads(row.axes)))
                else:
                    yield _attempt_of(row, run_id)

    def last_event(self) -> int:
        """The number of the newest line of history; every change of an attempt makes a higher one."""
        return int(self.ledger.ask(select(func.coalesce(func.max(history.c.seq), 0)))[0][0])

    def changed(self, run_id: str, *, after: int, upto: int) -> list[Attempt]:
        """Every attempt of the requests that the run lists and that events `after` < n <= `upto` belong to."""
        listed = select(run_rows.c.request_id).where(run_rows.c.run_id == run_id)
        touched = select(history.c.request_id).where(
            history.c.seq > after, history.c.seq <= upto, history.c.request_id.in_(listed)
        )
        statement = _run_view(run_id).where(
            attempts.c.request_id.in_(touched), or_(attempts.c.superseded == 0, attempts.c.run_id == run_id)
        )
        return [_attempt_of(row, run_id) for row in self.ledger.ask(statement)]

    def totals(self, run_id: str) -> Totals:
        """Counts of what the run lists by state, and the money that this run booked."""
        joined = run_rows.join(
            attempts, and_(attempts.c.request_id == run_rows.c.request_id, attempts.c.superseded == 0)
        )
        counted = (
            select(attempts.c.state, func.count())
            .select_from(joined)
            .where(run_rows.c.run_id == run_id)
            .group_by(attempts.c.state)
        )
        with self.ledger.reader.connect() as connection:
            counts = {State(state): number for state, number in connection.execute(counted)}
            money = _money(connection, spend.c.run_id == run_id)
        return Totals(counts=counts, **money)

    def spent(self, gateway: str, day_prefix: str) -> Totals:
        """The money of a gateway on a day or in a month (`2026-11`), without counts."""
        with self.ledger.reader.connect() as connection:
            where = and_(spend.c.gateway == gateway, spend.c.day.like(f"{day_prefix}%"))
            return Totals(counts={}, **_money(connection, where))

    def has_open(self, run_id: str) -> bool:
        """Whether the run lists anything that is planned, in flight, unknown, or finished without its file."""
        open_states = [state.value for state in UNFINISHED]
        lacks_file = and_(attempts.c.state == State.DONE.value, attempts.c.local_path.is_(None))
        statement = (
            select(attempts.c.request_id)
            .select_from(run_rows.join(attempts, attempts.c.request_id == run_rows.c.request_id))
            .where(
                run_rows.c.run_id == run_id,
                attempts.c.superseded == 0,
                or_(attempts.c.state.in_(open_states), lacks_file),
            )
            .limit(1)
        )
        return bool(self.ledger.ask(statement))

    def attempts_in(self, run_id: str, states: Iterable[State]) -> list[Attempt]:
        """The run's latest attempts in any of `states`, in the manifest's order."""
        return [attempt for page in self.iter_attempts(run_id, states) for attempt in page]

    def spend_lines(self, day_prefix: str = "", gateway: str | None = None) -> list[SpendLine]:
        """The spend book by day, run and model; of one gateway, where named."""
        statement = select(spend).where(spend.c.day.like(f"{day_prefix}%")).order_by(spend.c.day, spend.c.run_id)
        if gateway is not None:
            statement = statement.where(spend.c.gateway == gateway)
        return [SpendLine(**row._mapping) for row in self.ledger.ask(statement)]

    def jobs(self, gateway: str) -> Iterator[Attempt]:
        """Every attempt of a gateway that has a job id."""
        statement = _plain_view().where(attempts.c.gateway == gateway, attempts.c.job_set_id.is_not(None))
        with self.ledger.reader.connect() as connection:
            for row in connection.execution_options(yield_per=CHUNK).execute(statement):
                yield _attempt_of(row, None)

    def accepted_since(self, run_id: str, at: float) -> int:
        """How many of the run's submits were accepted since a moment."""
        statement = select(func.count()).where(attempts.c.run_id == run_id, attempts.c.accepted_at >= at)
        return int(self.ledger.ask(statement)[0][0])

    def latest_job(self, gateway: str) -> tuple[str, str | None] | None:
        """Id and polling URL of the latest job this gateway ever gave; None when it gave none."""
        statement = (
            select(attempts.c.job_set_id, attempts.c.polling_url)
            .where(attempts.c.gateway == gateway, attempts.c.job_set_id.is_not(None))
            .order_by(attempts.c.accepted_at.desc())
            .limit(1)
        )
        found = self.ledger.ask(statement)
        return (found[0].job_set_id, found[0].polling_url) if found else None

    def newest_outcomes(self, gateway: str, limit: int) -> list[tuple[Event, float]]:
        """What the latest submits of this gateway came to (accept, reject or lose), oldest first, with Unix seconds."""
        telling = [event.value for event in (Event.ACCEPT, Event.REJECT, Event.LOSE)]
        is_ours = (
            select(attempts.c.request_id)
            .where(attempts.c.request_id == history.c.request_id, attempts.c.gateway == gateway)
            .exists()
        )
        statement = (
            select(history.c.event, history.c.at)
            .where(history.c.event.in_(telling), is_ours)
            .order_by(history.c.seq.desc())
            .limit(limit)
        )
        return [(Event(row.event), float(row.at)) for row in reversed(self.ledger.ask(statement))]

    def mean_video_bytes(self, gateway: str) -> int | None:
        """What a video of this gateway weighs on average; None before the first one."""
        statement = select(func.avg(attempts.c.size_bytes)).where(attempts.c.gateway == gateway)
        mean = self.ledger.ask(statement)[0][0]
        return None if mean is None else int(mean)

    def without_video(self, run_id: str) -> int:
        """How many of the run's finished requests have no file yet."""
        statement = (
            select(func.count())
            .select_from(run_rows.join(attempts, attempts.c.request_id == run_rows.c.request_id))
            .where(
                run_rows.c.run_id == run_id,
                attempts.c.superseded == 0,
                attempts.c.state == State.DONE,
                attempts.c.local_path.is_(None),
            )
        )
        return int(self.ledger.ask(statement)[0][0])

    def abandoned_submits(self, gateway: str | None = None) -> list[str]:
        """Requests whose submit was under way when their run died."""
        statement = select(attempts.c.request_id).where(attempts.c.state == State.SUBMITTING)
        if gateway is not None:
            statement = statement.where(attempts.c.gateway == gateway)
        return [row.request_id for row in self.ledger.ask(statement)]

    def unknowns(self, gateway: str) -> list[Attempt]:
        """Every request of a gateway whose outcome nobody has settled."""
        statement = _plain_view().where(
            attempts.c.state == State.UNKNOWN, attempts.c.superseded == 0, attempts.c.gateway == gateway
        )
        return [_attempt_of(row, None) for row in self.ledger.ask(statement)]

    def resent(self, run_id: str) -> tuple[int, frozenset[str]]:
        """What this run has sent again after an unknown outcome: its price, micro-dollars; and who was ever sent again.

        Counts what waits to be sent again too, and what a person sent again with `dop resolve --resend`.
        """
        listed = select(run_rows.c.request_id).where(run_rows.c.run_id == run_id)
        statement = select(attempts.c.request_id, attempts.c.run_id, attempts.c.state, attempts.c.price_microusd).where(
            attempts.c.resends > 0, attempts.c.request_id.in_(listed)
        )
        found = self.ledger.ask(statement)
        ours = [row.price_microusd for row in found if row.run_id == run_id or row.state == State.PLANNED]
        return sum(ours), frozenset(row.request_id for row in found)

    def resent_among(self, request_ids: Sequence[str]) -> frozenset[str]:
        """Those of the requests that were sent again after an unknown outcome, in any run."""
        found: set[str] = set()
        for start in range(0, len(request_ids), CHUNK):
            some = request_ids[start : start + CHUNK]
            statement = select(attempts.c.request_id).where(attempts.c.resends > 0, attempts.c.request_id.in_(some))
            found.update(row.request_id for row in self.ledger.ask(statement))
        return frozenset(found)

    def find(self, wanted: str) -> list[Attempt]:
        """Latest attempts whose request id begins with `wanted`, or whose row or job id is `wanted`; newest first."""
        listed = select(run_rows.c.request_id).where(run_rows.c.row_id == wanted)
        statement = (
            _plain_view()
            .where(
                attempts.c.superseded == 0,
                or_(
                    attempts.c.request_id.startswith(wanted, autoescape=True),
                    attempts.c.row_id == wanted,
                    attempts.c.job_set_id.in_(job_id_spellings(wanted)),
                    attempts.c.request_id.in_(listed),
                ),
            )
            .order_by(attempts.c.submitted_at.desc())
            .limit(50)
        )
        return [_attempt_of(row, None) for row in self.ledger.ask(statement)]

    def listed(self, run_id: str, request_id: str) -> Attempt | None:
        """The latest attempt of one request that a run lists."""
        statement = _run_view(run_id).where(run_rows.c.request_id == request_id, attempts.c.superseded == 0)
        found = self.ledger.ask(statement)
        _check_unsent(found)
        return _attempt_of(found[0], run_id) if found else None

    def attempts_of(self, request_id: str) -> list[Attempt]:
        """Every attempt of one request, the latest last."""
        statement = _plain_view().where(attempts.c.request_id == request_id).order_by(attempts.c.attempt)
        return [_attempt_of(row, None) for row in self.ledger.ask(statement)]

    def history(self, request_id: str) -> list[dict[str, object]]:
        """Everything that happened to a request, oldest first."""
        statement = select(history).where(history.c.request_id == request_id).order_by(history.c.seq)
        return [dict(row._mapping) for row in self.ledger.ask(statement)]


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


def _money(connection: Connection, where: Any) -> dict[str, int]:
    kinds = (CostState.CONFIRMED, CostState.DISPUTED, CostState.RESERVED)
    sums = [func.coalesce(func.sum(spend.c[kind.value]), 0) for kind in kinds]
    row = connection.execute(select(*sums).where(where)).one()
    return {f"{kind.value}_microusd": int(amount) for kind, amount in zip(kinds, row, strict=True)}


def _run_view(run_id: str) -> Select[Any]:
    return (
        select(
            attempts,
            run_rows.c.row_id.label("listed_as"),
            run_rows.c.request_id.label("listed_request"),
            run_rows.c.tags,
            run_rows.c.axes,
            run_rows.c.position,
        )
        .select_from(run_rows.outerjoin(attempts, attempts.c.request_id == run_rows.c.request_id))
        .where(run_rows.c.run_id == run_id)
        .order_by(run_rows.c.position, attempts.c.attempt)
    )


def _plain_view() -> Select[Any]:
    listing = and_(run_rows.c.request_id == attempts.c.request_id, run_rows.c.run_id == attempts.c.run_id)
    return select(attempts, run_rows.c.row_id.label("listed_as"), run_rows.c.tags, run_rows.c.axes).select_from(
        attempts.outerjoin(run_rows, listing)
    )


def _list_chunk(
    connection: Connection, run_id: str, chunk: Sequence[Request | Cell | FoldedRow], position: int
) -> None:
    fresh = [_planned_row(item, run_id) for item in chunk if isinstance(item, Request)]
    if fresh:
        planned = upsert(connection, attempts)
        connection.execute(planned.on_conflict_do_nothing(index_elements=["request_id", "attempt"]), fresh)
        _take_fresh_addresses(connection, fresh)
    listing = upsert(connection, run_rows)
    listing = listing.on_conflict_do_update(
        index_elements=["run_id", "request_id"],
        set_={name: listing.excluded[name] for name in ("position", "row_id", "tags", "axes", "listed")},
    )
    rows = [_listed_row(item, run_id, place) for place, item in enumerate(chunk, start=position)]
    connection.execute(listing, rows)


def _take_fresh_addresses(connection: Connection, fresh: Sequence[Mapping[str, object]]) -> None:
    """Give attempts that were never sent the addresses of this reading: the same pictures, other signatures."""
    written = {row["request_id"]: row["params"] for row in fresh if "?" in str(row["params"])}
    if not written:
        return
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


def _planned_row(request: Request, run_id: str) -> dict[str, object]:
    row: dict[str, object] = {column.name: None for column in attempts.columns}
    row.update(
        request_id=request.request_id,
        attempt=1,
        superseded=0,
        gateway=request.gateway,
        run_id=run_id,
        model=request.params.model,
        price_microusd=request.price_microusd,
        state=State.PLANNED.value,
        submit_attempts=0,
        throttled=0,
        polls=0,
        resends=0,
        row_id=request.row_id,
        params=dump_params(request.params),
        motion=request.motion,
        take=request.take,
    )
    row["digest"] = digest(row)
    row["checksum"] = checksum(row)
    return row


def _listed_key(item: Request | Cell | FoldedRow) -> str:
    """The key of a listed row: its request, or what says that it has none of its own."""
    if isinstance(item, Request):
        return item.request_id
    if isinstance(item, FoldedRow):
        return f"{FOLDED_PREFIX}{item.request_id}:{item.row_id}"
    return f"{SKIPPED_PREFIX}{item.row_id}"


def _folded(connection: Connection, listed: Row[Any], run_id: str) -> Iterator[Attempt]:
    """The latest attempt of another row's request, as this row shows it: with its own id and tags, and at no cost."""
    request_id = listed.listed_request.removeprefix(FOLDED_PREFIX).partition(":")[0]
    statement = _run_view(run_id).where(attempts.c.request_id == request_id, attempts.c.superseded == 0)
    for row in connection.execute(statement):
        shown = _attempt_of(row, run_id)
        yield replace(
            shown,
            row_id=listed.listed_as,
            tags=tuple(json.loads(listed.tags)),
            axes=tuple((name, label) for name, label in json.loads(listed.axes)),
            bought_in=shown.bought_in or run_id,
        )


def _listed_row(item: Request | Cell | FoldedRow, run_id: str, position: int) -> dict[str, object]:
    return {
        "run_id": run_id,
        "request_id": _listed_key(item),
        "position": position,
        "row_id": item.row_id,
        "tags": json.dumps(item.tags, ensure_ascii=False),
        "axes": json.dumps(item.axes, ensure_ascii=False),
        "listed": 1,
    }


def _drop_unlisted(connection: Connection, run_id: str, count: int) -> None:
    """Rows that the manifest no longer has: bought ones go behind the listed ones, the others leave the run."""
    kept = select(attempts.c.request_id).where(attempts.c.run_id == run_id, attempts.c.state != State.PLANNED.value)
    unlisted = and_(run_rows.c.run_id == run_id, run_rows.c.listed == 0)
    connection.execute(delete(run_rows).where(unlisted, run_rows.c.request_id.not_in(kept)))
    old = connection.execute(select(run_rows.c.request_id).where(unlisted).order_by(run_rows.c.position)).all()
    for place, row in enumerate(old, start=count):
        one = and_(run_rows.c.run_id == run_id, run_rows.c.request_id == row.request_id)
        connection.execute(update(run_rows).where(one).values(position=place))


def _renew(connection: Connection, request_id: str) -> int:
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
