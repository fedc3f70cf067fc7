"""What the contact sheet shows of a run: one record, so that a page, a grid video and a print show the same.

Holds no file and sends no request; the caller reads the ledger and the manifest and fills it in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.ledger.reviews import Review
from pipeline.record_class import record
from pipeline.records import Attempt, Totals
from pipeline.reports.checks.findings import RunChecks


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedLine:
    """A placeholder of the manifest (`skip: true`): an empty cell of the sheet."""

    row_id: str
    axes: tuple[tuple[str, str], ...] = ()
    tags: tuple[str, ...] = ()


@record
class RateSample:
    """How many submits the gateway answered with 429, and how many it took, since the last sample. `at`: Unix s."""

    at: float
    submitted: int
    throttled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """One run as the sheet shows it.

    `lines` are attempts and placeholders in manifest order; of several attempts of one request the latest is the cell
    and the others are its history. `x`, `y` and `tabs` are the manifest's `sheet:`; None or empty: chosen by what
    varies. `outputs` is the folder that `Attempt.local_path` is relative to. Times are Unix seconds, `started_by` is
    the operator's account name. Without `samples` the plot of the pace is drawn from the attempts' own times. `checks`
    is what was found in the clips. `reviews` are what reviewers said, oldest first; `reviewer` is who looks at the page
    ("" where the page is a file); `prices` are micro-dollars of each model, for what the kept clips would cost on it.
    `beside` are other runs whose clips the page shows too, to compare them with this one's.
    """

    run: str
    title: str
    gateway: str
    lines: tuple[Attempt | SkippedLine, ...]
    totals: Totals
    outputs: Path
    x: str | None = None
    y: str | None = None
    tabs: tuple[str, ...] = ()
    started_at: float | None = None
    ended_at: float | None = None
    started_by: str = ""
    samples: tuple[RateSample, ...] = ()
    checks: RunChecks = field(default_factory=RunChecks)
    reviews: tuple[Review, ...] = ()
    reviewer: str = ""
    prices: Mapping[str, int] = field(default_factory=dict)
    beside: tuple[RunView, ...] = ()

    def attempts(self) -> Iterator[Attempt]:
        """Every attempt, without the placeholders."""
        return (line for line in self.lines if isinstance(line, Attempt))


Line = Attempt | SkippedLine


Cell = tuple[Line, tuple[Attempt, ...]]
"""The latest attempt of a request (or a placeholder), and the attempts before it, in order."""


def latest_lines(lines: tuple[Line, ...]) -> list[Cell]:
    """One entry a cell, listed where the request's first attempt was."""
    cells: list[Cell] = []
    place: dict[str, int] = {}
    for line in lines:
        if isinstance(line, SkippedLine) or line.request_id not in place:
            if isinstance(line, Attempt):
                place[line.request_id] = len(cells)
            cells.append((line, ()))
            continue
        known, earlier = cells[place[line.request_id]]
        older, newer = sorted((known, line), key=lambda one: one.attempt if isinstance(one, Attempt) else 0)
        if isinstance(older, Attempt):
            cells[place[line.request_id]] = (newer, tuple(sorted([*earlier, older], key=lambda one: one.attempt)))
    return cells
