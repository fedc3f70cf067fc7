"""Which candidates of a shot are needed now, which are kept, and which shots wait or are used up.

A shot is a row of a manifest with `keep: K`; its seeds are the candidates, in order. What is bought next follows from
states, check results and verdicts alone, so that a run that was killed decides the same again.

What holds:
    - a candidate whose outcome may still be good counts as if it were: also one of unknown outcome, which may be proved
      later. So no candidate is bought for a loss that may turn out to be none;
    - candidates are bought in their order, and none beyond `keep + ahead` that are kept or may be;
    - a shot that has its keepers needs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pipeline.record_class import record
from pipeline.records import FAILED_FOR_GOOD, Candidacy, KeepIf, State

BAD = "bad"
"""The grade of a clip that does not pass. Source: the list of grades of the clip checks."""

KEEP, REJECT = "keep", "reject"
"""Verdicts of a review."""


class CandidateStatus(StrEnum):
    """What became of one candidate."""

    KEPT = "kept"
    LOST = "lost"
    """failed, bad or rejected: another one takes its place"""
    OPEN = "open"
    """on its way, of unknown outcome, or not checked yet: it may be good"""
    WAITING = "waiting"
    """delivered and not bad; only the user can keep it"""
    UNSENT = "unsent"


@record
class Candidate:
    """What is known of one candidate: its newest attempt's state, its clip's grade, its verdict."""

    request_id: str
    state: State
    grade: str | None = None
    verdict: str | None = None

    def status(self, keep_if: KeepIf) -> CandidateStatus:
        """What became of it. A verdict beats the checks; nothing beats a clip that is not there."""
        if self.state is State.PLANNED:
            return CandidateStatus.UNSENT
        if self.state in FAILED_FOR_GOOD:
            return CandidateStatus.LOST
        if self.state is not State.DONE:
            return CandidateStatus.OPEN
        if self.verdict is not None:
            return CandidateStatus.KEPT if self.verdict == KEEP else CandidateStatus.LOST
        if self.grade is None:
            return CandidateStatus.OPEN
        if self.grade == BAD:
            return CandidateStatus.LOST
        return CandidateStatus.KEPT if keep_if is KeepIf.CHECK else CandidateStatus.WAITING


@dataclass(frozen=True, slots=True, kw_only=True)
class ShotStatus:
    """The status of a shot: its candidates by status, in order; which of the unsent ones are needed and which spare."""

    rule: Candidacy
    kept: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    open: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    spare: tuple[str, ...] = ()

    @property
    def missing(self) -> int:
        """How many keepers it lacks."""
        return max(0, self.rule.keep - len(self.kept))

    @property
    def is_used_up(self) -> bool:
        """Whether it lacks keepers and nothing is left that could become one."""
        return self.missing > 0 and not (self.open or self.waiting or self.needed)

    @property
    def waits_for_user(self) -> bool:
        """Whether only the user's picks can bring it further."""
        return self.missing > 0 and len(self.waiting) > 0 and not (self.open or self.needed)


def status_of(rule: Candidacy, candidates: Sequence[Candidate]) -> ShotStatus:
    """The status of a shot; `candidates` in the manifest's order."""
    by_status: dict[CandidateStatus, list[str]] = {status: [] for status in CandidateStatus}
    for candidate in candidates:
        by_status[candidate.status(rule.keep_if)].append(candidate.request_id)
    kept, hopes = (
        len(by_status[CandidateStatus.KEPT]),
        len(by_status[CandidateStatus.OPEN]) + len(by_status[CandidateStatus.WAITING]),
    )
    # What may still come out good counts as if it did, so that no candidate is bought for a loss that may be none.
    wanted = rule.keep + rule.ahead - kept - hopes if kept < rule.keep else 0
    unsent = by_status[CandidateStatus.UNSENT]
    return ShotStatus(
        rule=rule,
        kept=tuple(by_status[CandidateStatus.KEPT]),
        lost=tuple(by_status[CandidateStatus.LOST]),
        open=tuple(by_status[CandidateStatus.OPEN]),
        waiting=tuple(by_status[CandidateStatus.WAITING]),
        needed=tuple(unsent[: max(0, wanted)]),
        spare=tuple(unsent[max(0, wanted) :]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperSummary:
    """Where the shots of a run stand.

    Attributes:
        satisfied: shots that have their keepers.
        used_up, waiting: shots that lack keepers with no candidate left, and those that only the user's picks bring
            further; each as `name (1 of 2 kept)`.
        replaced: request ids of failed candidates of shots that have their keepers all the same.
    """

    shots: int = 0
    satisfied: int = 0
    used_up: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    replaced: frozenset[str] = frozenset()

    def as_json(self) -> dict[str, object]:
        """The object `keepers` of run.json."""
        return {
            "shots": self.shots,
            "satisfied": self.satisfied,
            "used_up": list(self.used_up),
            "waiting": list(self.waiting),
        }


NO_KEEPERS = KeeperSummary()
"""The summary of a run without shots."""


def summary(statuses: Iterable[ShotStatus], states: Mapping[str, State]) -> KeeperSummary:
    """Where the shots of a run stand; `states` of all their candidates."""
    known = list(statuses)
    satisfied = [one for one in known if not one.missing]
    replaced = {lost for one in satisfied for lost in one.lost if states[lost] in FAILED_FOR_GOOD}
    return KeeperSummary(
        shots=len(known),
        satisfied=len(satisfied),
        used_up=tuple(_named(one) for one in known if one.is_used_up),
        waiting=tuple(_named(one) for one in known if one.waits_for_user),
        replaced=frozenset(replaced),
    )


def _named(one: ShotStatus) -> str:
    return f"{one.rule.shot} ({len(one.kept)} of {one.rule.keep} kept)"
