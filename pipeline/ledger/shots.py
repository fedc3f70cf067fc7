"""The shots of a run in the ledger: what its candidates came to, and which of them are wanted now.

`run_rows.wanted` is 0 for a candidate that its shot does not need. It is derived: `mark_wanted` makes it from states,
check results and verdicts, at the start of each run and whenever one of them changes. A run that was killed in between
only has it made again. It buys nothing, and no sum of money depends on it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection, and_, select, update

from pipeline.ledger.database import upsert
from pipeline.ledger.keepers import Candidate, KeeperSummary, ShotStatus, status_of, summary
from pipeline.ledger.listing import dump_candidacy, load_candidacy, request_of_key
from pipeline.ledger.schema import attempts, clip_checks, run_rows
from pipeline.records import Candidacy, State

GRADES = ("ok", "warn", "bad", "unchecked")
"""What a check can come to. Source: the list of grades of the clip checks."""

CHUNK = 2_000
"""Requests that one statement names: SQLite takes 32,766 parameters."""

Verdicts = Mapping[str, str]
"""Request id -> keep or reject."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRecord:
    """What the checks found in the clip of one attempt: the grade, and the reasons as reports print them."""

    request_id: str
    attempt: int
    grade: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shots:
    """The shots of a run as one moment saw them.

    Attributes:
        states: the newest state of each candidate.
        shots_of: candidate -> the shots that it is for; mostly one.
        newly_wanted: how many candidates `mark_wanted` marked as wanted, less those that it marked as spare.
    """

    statuses: tuple[ShotStatus, ...] = ()
    states: Mapping[str, State] = field(default_factory=dict)
    shots_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    newly_wanted: int = 0

    @property
    def needed(self) -> tuple[str, ...]:
        """Every candidate that is to be bought now, in the manifest's order of shots."""
        return tuple(dict.fromkeys(one for shot in self.statuses for one in shot.needed))

    @property
    def rules_of(self) -> dict[str, tuple[Candidacy, ...]]:
        """Candidate -> the rules of the shots that it is for."""
        rules = {one.rule.shot: one.rule for one in self.statuses}
        return {request_id: tuple(rules[name] for name in names) for request_id, names in self.shots_of.items()}

    @property
    def share_candidates(self) -> bool:
        """Whether some candidate is for several shots, which then have to be settled together."""
        return any(len(names) > 1 for names in self.shots_of.values())

    @property
    def summary(self) -> KeeperSummary:
        """Where they stand."""
        return summary(self.statuses, self.states)


NO_SHOTS = Shots()


def read_shots(
    connection: Connection, run_id: str, verdicts: Verdicts, only: Iterable[Candidacy] | None = None
) -> Shots:
    """The shots that a run lists, or some of them."""
    rules, members = _listed(connection, run_id, only)
    if not rules:
        return NO_SHOTS
    shots_of: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for name, keys in members.items():
        for key in keys:
            shots_of[key] += (name,)
    known = read_candidates(connection, {key for keys in members.values() for key in keys}, verdicts)
    return Shots(
        statuses=tuple(
            status_of(rule, [known[key] for key in members[name] if key in known]) for name, rule in rules.items()
        ),
        states={key: candidate.state for key, candidate in known.items()},
        shots_of=shots_of,
    )


def _listed(
    connection: Connection, run_id: str, only: Iterable[Candidacy] | None
) -> tuple[dict[str, Candidacy], Mapping[str, list[str]]]:
    """Name of each shot -> its rule, and its candidates in the manifest's order."""
    listed = select(run_rows.c.request_id, run_rows.c.shot).where(
        run_rows.c.run_id == run_id, run_rows.c.shot.is_not(None), run_rows.c.listed == 1
    )
    if only is not None:
        listed = listed.where(run_rows.c.shot.in_([dump_candidacy(rule) for rule in only]))
    rules: dict[str, Candidacy] = {}
    members: dict[str, list[str]] = defaultdict(list)
    for row in connection.execute(listed.order_by(run_rows.c.position)):
        rule = load_candidacy(row.shot)
        rules.setdefault(rule.shot, rule)
        request_id = request_of_key(row.request_id)
        if request_id not in members[rule.shot]:  # two equal rows of one shot are one candidate
            members[rule.shot].append(request_id)
    return rules, members


def read_candidates(connection: Connection, request_ids: Iterable[str], verdicts: Verdicts) -> dict[str, Candidate]:
    """Request id -> what is known of its newest attempt; without requests that the ledger does not know."""
    same = and_(clip_checks.c.request_id == attempts.c.request_id, clip_checks.c.attempt == attempts.c.attempt)
    asked = sorted(request_ids)
    found: dict[str, Candidate] = {}
    for start in range(0, len(asked), CHUNK):
        some = asked[start : start + CHUNK]
        statement = (
            select(attempts.c.request_id, attempts.c.state, clip_checks.c.grade)
            .select_from(attempts.outerjoin(clip_checks, same))
            .where(attempts.c.request_id.in_(some), attempts.c.superseded == 0)
        )
        for request_id, state, grade in connection.execute(statement):
            found[request_id] = Candidate(
                request_id=request_id, state=State(state), grade=grade, verdict=verdicts.get(request_id)
            )
    return found


def mark_wanted(
    connection: Connection, run_id: str, verdicts: Verdicts, only: Iterable[Candidacy] | None = None
) -> Shots:
    """Mark which candidates of a run are wanted now; returns where its shots stand.

    Args:
        only: some shots, of which none shares a candidate with one that is left out.
    """
    found = read_shots(connection, run_id, verdicts, only)
    newly_wanted = 0
    needed = set(found.needed)
    # A candidate that one shot needs is wanted, although another shot has it to spare.
    spare = {one for shot in found.statuses for one in shot.spare} - needed
    for wanted, request_ids in ((1, needed), (0, spare)):
        ids = sorted(request_ids)
        for start in range(0, len(ids), CHUNK):
            some = run_rows.c.request_id.in_(ids[start : start + CHUNK])
            these = and_(run_rows.c.run_id == run_id, run_rows.c.shot.is_not(None), some, run_rows.c.wanted != wanted)
            changed = connection.execute(update(run_rows).where(these).values(wanted=wanted)).rowcount
            newly_wanted += changed if wanted else -changed
    return replace(found, newly_wanted=newly_wanted)


def save_checks(connection: Connection, records: Sequence[CheckRecord], at: float) -> None:
    """Keep what the checks found; a newer result replaces an older one."""
    statement = upsert(connection, clip_checks)
    statement = statement.on_conflict_do_update(
        index_elements=["request_id", "attempt"],
        set_={name: statement.excluded[name] for name in ("grade", "reasons", "at")},
    )
    rows = [
        {
            "request_id": record.request_id,
            "attempt": record.attempt,
            "grade": record.grade,
            "reasons": json.dumps(record.reasons, ensure_ascii=False),
            "at": at,
        }
        for record in records
    ]
    for start in range(0, len(rows), CHUNK):
        connection.execute(statement, rows[start : start + CHUNK])


def restore_checks(connection: Connection, rows: Iterable[Mapping[str, object]]) -> None:
    """Keep those rows of a damaged file's table that are whole and belong to an attempt that the ledger knows."""
    known = {tuple(row) for row in connection.execute(select(attempts.c.request_id, attempts.c.attempt))}
    whole = [dict(row) for row in rows if (row["request_id"], row["attempt"]) in known and _is_whole(row)]
    for start in range(0, len(whole), CHUNK):
        connection.execute(upsert(connection, clip_checks).on_conflict_do_nothing(), whole[start : start + CHUNK])


def _is_whole(row: Mapping[str, object]) -> bool:
    try:
        reasons = json.loads(str(row["reasons"]))
    except ValueError:
        return False
    return isinstance(reasons, list) and row["grade"] in GRADES and isinstance(row["at"], float)


def read_checks(connection: Connection, request_ids: Sequence[str] | None = None) -> dict[tuple[str, int], CheckRecord]:
    """(request id, attempt) -> what the checks found; of some requests, or of every one."""
    found: dict[tuple[str, int], CheckRecord] = {}
    columns = (clip_checks.c.request_id, clip_checks.c.attempt, clip_checks.c.grade, clip_checks.c.reasons)
    chunks = [None] if request_ids is None else range(0, len(request_ids), CHUNK)
    for start in chunks:
        statement = select(*columns)
        if start is not None and request_ids is not None:
            statement = statement.where(clip_checks.c.request_id.in_(request_ids[start : start + CHUNK]))
        for request_id, attempt, grade, reasons in connection.execute(statement):
            record = CheckRecord(
                request_id=request_id, attempt=attempt, grade=grade, reasons=tuple(json.loads(reasons))
            )
            found[request_id, attempt] = record
    return found
