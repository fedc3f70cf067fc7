"""Records a journal's entries into a ledger. An entry that cannot be applied is passed over and reported, never fatal.

MONEY: an entry that was passed over may have been a purchase. Its request is counted as spent (`unknown`) where the
ledger holds it as never bought; where the ledger does not hold it at all, the ledger gets a hole (see `holes`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import DataError, IntegrityError, InterfaceError

from pipeline.errors import InvariantError, LedgerError
from pipeline.ledger.database import write_meta
from pipeline.ledger.identity import CHAIN, MARKS
from pipeline.ledger.integrity import add_price, book_money, every_attempt
from pipeline.ledger.journal import MARK, SNAPSHOT_END, change_of
from pipeline.ledger.schema import MUTABLE, attempts, checksum, history, spend
from pipeline.ledger.states import Event
from pipeline.ledger.text import storable, storable_value
from pipeline.ledger.transitions import (
    Applied,
    JobTaken,
    Row,
    SpendAccumulator,
    SpendKey,
    apply_change,
    utc_day,
)
from pipeline.records import COST_STATE, CostState, State, job_id_spellings

_NOT_APPLICABLE = (LedgerError, DataError, IntegrityError, InterfaceError, KeyError, TypeError, ValueError)
"""What a damaged or foreign entry raises. A database that is away or full raises something else: the replay ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedOver:
    """An entry that could not be applied, and why. `job_set_id` is the paid job that it names, if any."""

    seq: int
    request_id: str
    why: str
    job_set_id: str | None

    def __str__(self) -> str:
        job = f", which names job {self.job_set_id}," if self.job_set_id else ""
        return f"event {self.seq} of request {self.request_id}{job} could not be recorded: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
    """How many entries were recorded, and which were passed over; `unnamed` are of requests the ledger lacks."""

    recorded: int
    passed_over: tuple[PassedOver, ...] = ()
    unnamed: tuple[PassedOver, ...] = ()


def replay(connection: Connection, entries: Iterable[Mapping[str, object]]) -> ReplayResult:
    """Records journal entries into the ledger, in order, then sums up the spend book again."""
    recorded, seq, chain = 0, 0, ""
    passed: list[PassedOver] = []
    behind: dict[str, PassedOver] = {}
    for entry in entries:
        seq, chain = int(str(entry["seq"])), str(entry.get("chain", chain))
        if entry.get("event") in (MARK, SNAPSHOT_END):
            _learn(connection, entry)
            continue
        request_id = str(entry.get("request_id"))
        try:
            # A savepoint: an entry that can't be applied undoes itself and nothing else.
            with connection.begin_nested():
                if "row" in entry:
                    _put(connection, entry)
                    behind.pop(request_id, None)  # a row holds everything that came before it
                else:
                    _judge_again(connection, entry)
                _note(connection, entry)
        except _NOT_APPLICABLE as error:
            passed.append(_passed_over(entry, seq, error))
            behind[request_id] = passed[-1]
            continue
        recorded += 1
    unnamed = tuple(missed for missed in behind.values() if not _doubt(connection, missed))
    for missed in passed:
        _note_passed_over(connection, missed)
    _sum_up(connection)
    if seq:
        write_meta(connection, {"seq": str(seq)} | ({CHAIN: chain} if chain else {}))
    return ReplayResult(recorded=recorded, passed_over=tuple(passed), unnamed=unnamed)


def _learn(connection: Connection, entry: Mapping[str, object]) -> None:
    """What the ledger knew of itself at this event; the end of a snapshot tells all its marks."""
    if entry["event"] == MARK:
        write_meta(connection, {name: None if value is None else str(value) for name, value in _set(entry).items()})
    elif isinstance(entry.get("marks"), dict):
        marks: dict[str, str | None] = {name: str(value) for name, value in _mapping(entry["marks"]).items()}
        write_meta(connection, dict.fromkeys(MARKS) | marks)


def _set(entry: Mapping[str, object]) -> dict[str, object]:
    return _mapping(entry["set"]) if isinstance(entry.get("set"), dict) else {}


def _passed_over(entry: Mapping[str, object], seq: int, error: BaseException) -> PassedOver:
    said = str(getattr(error, "orig", error)) if not isinstance(error, KeyError) else f"it lacks {error}"
    job = next(
        (
            part["job_set_id"]
            for part in (entry.get("row"), (_values_of(entry)))
            if isinstance(part, dict) and isinstance(part.get("job_set_id"), str)
        ),
        None,
    )
    return PassedOver(
        seq=seq,
        request_id=storable(str(entry.get("request_id"))),
        why=storable(" ".join(said.split())),
        job_set_id=None if job is None else storable(job),
    )


def _values_of(entry: Mapping[str, object]) -> object:
    wanted = entry.get("change")
    return wanted.get("values") if isinstance(wanted, dict) else None


def _doubt(connection: Connection, missed: PassedOver) -> bool:
    """MONEY: a request that the ledger takes for never bought may have been bought by the event it lacks.

    Returns:
        Whether the ledger holds the request; it then counts as spent.
    """
    found = connection.execute(
        select(attempts).where(attempts.c.request_id == missed.request_id, attempts.c.superseded == 0)
    ).first()
    if found is None:
        return False
    row = dict(found._mapping)
    if COST_STATE[State(str(row["state"]))] is not CostState.NONE:
        return True
    newest = connection.execute(select(history.c.at).order_by(history.c.seq.desc()).limit(1)).scalar()
    at = row["submitted_at"] or newest or 0.0
    row.update(
        state=State.UNKNOWN.value,
        submit_attempts=max(1, int(str(row["submit_attempts"]))),
        spend_day=row["spend_day"] or utc_day(float(str(at))),
        submitted_at=at,
        reason=str(missed),
    )
    row["checksum"] = checksum(row)
    key = (attempts.c.request_id == row["request_id"]) & (attempts.c.attempt == row["attempt"])
    connection.execute(update(attempts).where(key).values(row))
    return True


def _note_passed_over(connection: Connection, missed: PassedOver) -> None:
    found = connection.execute(
        select(attempts.c.attempt, attempts.c.state, attempts.c.submitted_at).where(
            attempts.c.request_id == missed.request_id, attempts.c.superseded == 0
        )
    ).first()
    if found is not None:
        _add_note(
            connection,
            request_id=missed.request_id,
            attempt=found.attempt,
            at=found.submitted_at or 0.0,
            event=Event.NOTE.value,
            state=found.state,
            detail=str(missed),
        )


def _mapping(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise LedgerError("the journal holds a line of another program")
    return value


def _put(connection: Connection, entry: Mapping[str, object]) -> None:
    row = {name: storable_value(value) for name, value in _mapping(entry["row"]).items()}
    key = (attempts.c.request_id == row["request_id"]) & (attempts.c.attempt == row["attempt"])
    values = {name: row.get(name) for name in MUTABLE}
    if values != {name: _mapping(entry["row"]).get(name) for name in MUTABLE}:
        values["checksum"] = checksum(values)  # a text was mended
    # Raises for a state that this program does not know: such an entry is passed over, not half applied.
    State(str(values["state"]))
    if connection.execute(update(attempts).where(key).values(values)).rowcount == 0:
        if not row.get("submit_attempts"):
            return  # it was never sent: the manifest plans it again
        if "cold" not in entry:
            raise LedgerError(f"the event that says what request {row['request_id']} asks for is missing")
        connection.execute(insert(attempts).values({**values, **_mapping(entry["cold"])}))
    connection.execute(
        update(attempts)
        .where(
            attempts.c.request_id == row["request_id"], attempts.c.attempt < row["attempt"], attempts.c.superseded == 0
        )
        .values(superseded=1)
    )
    # `superseded` is among the columns that a checksum covers.
    _seal_older(connection, str(row["request_id"]))


def _seal_older(connection: Connection, request_id: str) -> None:
    found = connection.execute(
        select(attempts).where(attempts.c.request_id == request_id, attempts.c.superseded == 1)
    ).all()
    for row in found:
        values = dict(row._mapping)
        key = (attempts.c.request_id == request_id) & (attempts.c.attempt == row.attempt)
        connection.execute(update(attempts).where(key).values(checksum=checksum(values)))


def _judge_again(connection: Connection, entry: Mapping[str, object]) -> None:
    change = change_of(entry)
    found = connection.execute(
        select(attempts).where(attempts.c.request_id == entry["request_id"], attempts.c.superseded == 0)
    ).first()
    row: Row | None = {name: found._mapping[name] for name in MUTABLE} if found is not None else None
    try:
        outcome = apply_change(
            # No cap is judged: what happened has happened. The sums are made from the rows afterwards.
            row,
            change,
            money=SpendAccumulator(lambda *_: 0),
            job_owner=lambda *job: _owner(connection, *job),
        )
    except InvariantError:
        return  # recorded already before the disk failed
    if isinstance(outcome, JobTaken):
        _lose_instead(connection, entry, outcome)
        return
    if row is not None and isinstance(outcome, Applied):
        row["checksum"] = checksum(row)
        key = (attempts.c.request_id == row["request_id"]) & (attempts.c.attempt == row["attempt"])
        connection.execute(update(attempts).where(key).values(row))


def _owner(connection: Connection, gateway: str, job_set_id: str) -> str | None:
    is_job = attempts.c.job_set_id.in_(job_id_spellings(job_set_id))
    return connection.execute(select(attempts.c.request_id).where(attempts.c.gateway == gateway, is_job)).scalar()


def _lose_instead(connection: Connection, entry: Mapping[str, object], taken: JobTaken) -> None:
    """The answer named a job of another request: as in a run, the outcome is unknown."""
    values = {"reason": f"the answer named a job that belongs to request {taken.owner_request_id}"}
    lost = {"token": _mapping(entry["change"])["token"], "values": values}
    _judge_again(connection, {**entry, "event": Event.LOSE.value, "change": lost})


def _note(connection: Connection, entry: Mapping[str, object]) -> None:
    found = connection.execute(
        select(attempts.c.attempt, attempts.c.state).where(
            attempts.c.request_id == entry["request_id"], attempts.c.superseded == 0
        )
    ).first()
    if found is not None:
        _add_note(
            connection,
            request_id=entry["request_id"],
            attempt=found.attempt,
            at=entry["at"],
            event=entry["event"],
            state=found.state,
            detail=storable(str(entry["detail"])),
        )


def _add_note(connection: Connection, **values: object) -> None:
    connection.execute(insert(history).values(values))


def _sum_up(connection: Connection) -> None:
    """Makes the spend book from the rows.

    Raises:
        LedgerError: a row is damaged. MONEY: its price would become the sum that caps are judged by, unnoticed.
    """
    sums: dict[SpendKey, dict[CostState, int]] = {}
    for row in every_attempt(connection):
        if row["checksum"] != checksum(row):
            raise LedgerError(
                f"the row of request {storable(str(row['request_id']))} does not match its checksum; nothing is "
                "bought. `dop ledger check` lists everything, `dop ledger rebuild` makes it again from its journal"
            )
        add_price(sums, row)
    connection.execute(delete(spend))
    book_money(connection, sums)
