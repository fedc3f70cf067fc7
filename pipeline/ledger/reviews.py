"""What reviewers said of the clips: keep or reject, stars, a note, and which of two takes they preferred.

A review belongs to a request, so that it follows the clip into every later run of the manifest. Every change is kept,
with who made it and when. For each reviewer and field the newest change counts; among reviewers the newest that was not
withdrawn. So one reviewer never removes what another one said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection, select

from pipeline.errors import LedgerError, UsageError
from pipeline.ledger.database import read_meta
from pipeline.ledger.identity import MOVED
from pipeline.ledger.review_store import add_reviews
from pipeline.ledger.schema import reviews
from pipeline.ledger.side_files import reviews_path
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.ledger.text import storable
from pipeline.ledger.writer import LedgerWriter

T = TypeVar("T")
Verdict = Literal["keep", "reject"]

WITHDRAWN = ""
"""The verdict or note of a change that takes the reviewer's own back; for stars it is 0."""

MAX_STARS = 5
"""The most stars that a clip can have; none means that it was not rated."""
MAX_NOTE_CHARS = 2_000
"""A page of text. A note is one remark on one clip, and every page of the run carries all of them."""

MAX_WHO_CHARS = 80
"""Characters of a reviewer's name, which is printed beside each verdict."""
MAX_ID_CHARS = 200
"""Characters of a request id in a file of reviews; ours have 32, other files must not fill the ledger."""
_FIELDS = ("verdict", "stars", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One change by one reviewer; a field that is None was not changed. `at` is UTC, as `moment` writes it.

    `duel` is 1 where the reviewer preferred the clip to `rival`, -1 where that is taken back.
    """

    request_id: str
    at: str
    who: str
    verdict: str | None = None
    stars: int | None = None
    note: str | None = None
    rival: str | None = None
    duel: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipReview:
    """What counts for a clip now, and what each reviewer said: who -> their own verdict, stars and note."""

    verdict: Verdict | None = None
    stars: int | None = None
    note: str | None = None
    by: Mapping[str, Mapping[str, str | int]] = field(default_factory=dict)


def latest_verdicts(ledger: LedgerWriter) -> dict[str, Verdict]:
    """Request id -> keep or reject, for every clip of which one of them counts now."""
    return {
        request_id: found.verdict for request_id, found in clip_reviews(ledger).items() if found.verdict is not None
    }


def clip_reviews(ledger: LedgerWriter) -> dict[str, ClipReview]:
    """Request id -> what counts for it now, of every request that was ever reviewed."""
    return fold(all_reviews(ledger))


def all_reviews(ledger: LedgerWriter) -> list[Review]:
    """Every change that was ever made, oldest first."""
    columns = [column for column in reviews.columns if column.name != "number"]
    rows = ledger.ask(select(*columns).order_by(reviews.c.at, reviews.c.number))
    return [Review(**row._mapping) for row in rows]


def reviews_after(ledger: LedgerWriter, number: int) -> tuple[int, list[Review]]:
    """The changes with a higher number, and the highest number there is: what a page that follows lacks."""
    rows = ledger.ask(select(reviews).where(reviews.c.number > number).order_by(reviews.c.number))
    changes = [Review(**{name: value for name, value in row._mapping.items() if name != "number"}) for row in rows]
    return (int(rows[-1].number) if rows else number), changes


def plain_review(change: Review) -> dict[str, object]:
    """A change as JSON: without the fields that it leaves alone."""
    return {name: value for name, value in asdict(change).items() if value is not None}


def fold(changes: Iterable[Review]) -> dict[str, ClipReview]:
    """What counts after all changes, which are oldest first."""
    said: dict[str, dict[str, dict[str, tuple[int, str | int]]]] = {}
    for number, review in enumerate(changes):
        own = said.setdefault(review.request_id, {}).setdefault(review.who, {})
        for name in _FIELDS:
            if (value := getattr(review, name)) is not None:
                own[name] = (number, value)
    return {request_id: found for request_id, by in said.items() if (found := _counting(by)).by}


def _counting(by: Mapping[str, Mapping[str, tuple[int, str | int]]]) -> ClipReview:
    own = {who: {name: value for name, (_, value) in said.items() if value} for who, said in by.items()}
    newest: dict[str, tuple[int, str | int]] = {}
    for said in by.values():
        for name, (number, value) in said.items():
            if value and number > newest.get(name, (-1, ""))[0]:
                newest[name] = (number, value)
    counting: dict[str, Any] = {name: value for name, (_, value) in newest.items()}
    return ClipReview(**counting, by={who: said for who, said in own.items() if said})


def record(ledger: LedgerWriter, changes: Sequence[Review]) -> int:
    """Adds changes; when it returns they are on the disk. Those that are there already are not added again.

    It needs no lock: a run in another process may book purchases meanwhile.

    Returns:
        How many were added.
    Raises:
        LedgerError: the ledger could not be written, or was moved to another place.
    """
    copy = reviews_path(ledger.path) if isinstance(ledger, SqliteLedger) else None
    rows = [asdict(change) for change in changes]

    def work(connection: Connection) -> int:
        moved = read_meta(connection).get(MOVED)
        if moved is not None:
            raise LedgerError(f"{ledger.name} was moved to {moved}; review there, with ledger.url")
        return add_reviews(connection, rows, copy)

    return ledger.transact(work, alone=False)


def moment(now: float) -> str:
    """A time as reviews hold it: UTC to the microsecond, so that texts sort as times do."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def reviews_in(items: object, *, who: str | None, now: float) -> list[Review]:
    """Changes as a page or a file says them: a list of objects with the names of `Review`.

    Args:
        who: whose they are, whatever the objects say; None takes each object's own.
        now: Unix seconds; a change without a time, or from the future, was made then.
    Raises:
        UsageError: one of them is no review; the message says which and why.
    """
    if not isinstance(items, list):
        raise UsageError("the reviews are no list")
    return [_review(number, item, who=who, now=now) for number, item in enumerate(items, start=1)]


def _review(number: int, item: object, *, who: str | None, now: float) -> Review:
    if not isinstance(item, Mapping):
        raise UsageError(f"review {number} is no object")
    try:
        review = Review(
            request_id=_text(item, "request_id", MAX_ID_CHARS),
            at=_at(item.get("at"), now),
            who=who or _text(item, "who", MAX_WHO_CHARS),
            verdict=_choice(item, "verdict", ("keep", "reject", WITHDRAWN)),
            stars=_whole(item, "stars", range(MAX_STARS + 1)),
            note=None if item.get("note") is None else _text(item, "note", MAX_NOTE_CHARS, may_be_empty=True),
            rival=None if item.get("rival") is None else _text(item, "rival", MAX_ID_CHARS),
            duel=_whole(item, "duel", (-1, 1)),
        )
    except ValueError as error:
        raise UsageError(f"review {number}: {error}") from None
    if (review.rival is None) is not (review.duel is None):
        raise UsageError(f"review {number}: a duel names `rival` and `duel`")
    return review


def _text(item: Mapping[str, object], name: str, most: int, *, may_be_empty: bool = False) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not (value or may_be_empty):
        raise ValueError(f"{name} is no text")
    if len(value) > most:
        raise ValueError(f"{name} has {len(value)} characters; {most} is the most")
    return storable(value)


def _choice(item: Mapping[str, object], name: str, known: Sequence[str]) -> str | None:
    value = item.get(name)
    if value is not None and value not in known:
        raise ValueError(f"{name} is {value!r}, and not one of {', '.join(repr(one) for one in known)}")
    return None if value is None else str(value)


def _whole(item: Mapping[str, object], name: str, known: Sequence[int]) -> int | None:
    value = item.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value not in known):
        raise ValueError(f"{name} is {value!r}, and not one of {', '.join(map(str, known))}")
    return value if isinstance(value, int) else None


def _at(value: object, now: float) -> str:
    if value is None:
        return moment(now)
    try:
        given = datetime.fromisoformat(str(value))
        seconds = (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"at is {value!r}, and not a time") from None
    # A clock that is ahead would make a review the newest one for ever.
    return moment(min(seconds, now))


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Parts of a long list, so that no write keeps a run's purchases waiting for long."""
    return (items[start : start + size] for start in range(0, len(items), size))
