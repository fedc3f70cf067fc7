"""What a check can find: the words, their grades, and the result for one clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from pipeline.records import Attempt


class Kind(StrEnum):
    """The defects, in the order in which reports name them."""

    UNREADABLE = "unreadable"
    FORMAT = "format"
    SMALL = "small"
    BLACK = "black"
    FLASH = "flash"
    CUT = "cut"
    STROBE = "strobe"
    FROZEN = "frozen"
    STILL = "still"
    FLICKER = "flicker"
    WRONG_START = "wrong_start"
    WRONG_END = "wrong_end"
    SOFT = "soft"
    COLOR_DRIFT = "color_drift"
    DUPLICATE = "duplicate"
    LOOP_SEAM = "loop_seam"


class Grade(StrEnum):
    """The result for a clip."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"
    UNCHECKED = "unchecked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One defect.

    Args:
        grade: WARN or BAD.
        figure: what was measured, in words: `1.2 s from 3.8 s`.
    """

    kind: Kind
    grade: Grade
    figure: str

    def __str__(self) -> str:
        return f"{self.kind} {self.figure}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipCheck:
    """The result for one clip.

    Args:
        reasons: the findings as reports print them, then notes on what could not be compared.
        kinds: the kinds found, one for each finding.
        metrics: what was measured, by name; finite numbers only.
        fingerprint: a few small pictures of the clip for the search for duplicates; empty when it has none.
    """

    grade: Grade
    reasons: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    fingerprint: bytes = b""


def concluded(
    findings: Sequence[Finding], metrics: Mapping[str, float], *, notes: Sequence[str] = (), fingerprint: bytes = b""
) -> ClipCheck:
    """Join the findings of all checks: the worst grade, bad ones first, then the order of `Kind`."""
    order = list(Kind)
    ranked = sorted(findings, key=lambda found: (found.grade is not Grade.BAD, order.index(found.kind)))
    grade = ranked[0].grade if ranked else Grade.OK
    return ClipCheck(
        grade=grade,
        reasons=(*map(str, ranked), *notes),
        kinds=tuple(found.kind for found in ranked),
        metrics=dict(metrics),
        fingerprint=fingerprint,
    )


def unchecked(reason: str) -> ClipCheck:
    """The result for a clip that no check could judge; fails nothing."""
    return ClipCheck(grade=Grade.UNCHECKED, reasons=(f"unchecked: {reason}",))


Key = tuple[str, int]
"""(request_id, attempt)"""

ALL = "all"
"""Among the kinds that count as failures: every kind."""


def counts_as_failure(grade: str, kinds: Iterable[str], fail_on: Sequence[str]) -> bool:
    """Whether a clip is a failure of the run: a bad one that has a kind which is named, or any kind with `all`."""
    return grade == Grade.BAD and (ALL in fail_on or any(kind in fail_on for kind in kinds))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunChecks:
    """What is known of the clips of a run, by request and attempt."""

    found: Mapping[Key, ClipCheck] = field(default_factory=dict)

    def of(self, attempt: Attempt) -> ClipCheck | None:
        """The result for an attempt; None for one without a video."""
        return self.found.get((attempt.request_id, attempt.attempt))

    def counts(self) -> dict[str, object]:
        """Clips by grade, and findings by kind, for run.json and `dop status`."""
        grades = Counter(check.grade for check in self.found.values())
        kinds = Counter(kind for check in self.found.values() for kind in check.kinds)
        return {
            **{grade.value: grades[grade] for grade in Grade},
            "kinds": {kind.value: kinds[kind] for kind in Kind if kinds[kind]},
        }

    def failing(self, fail_on: Sequence[str]) -> int:
        """How many clips count as failures of the run."""
        return sum(counts_as_failure(check.grade, check.kinds, fail_on) for check in self.found.values())
