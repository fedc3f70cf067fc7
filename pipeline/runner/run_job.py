"""One run as a command asks for it: with which ledger and key, with what it is carried out, what the steps came to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.ledger.agreement import NOTHING, Agreement
from pipeline.ledger.budget import Caps
from pipeline.ledger.run_registry import Run
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import Totals
from pipeline.reports.run_ending import RunSummary
from pipeline.reports.run_folder import RunFolder
from pipeline.runner.clip_checker import CheckerFactory, PooledChecker
from pipeline.runner.failure_limit import FailureLimit
from pipeline.runner.stop import StopReason


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What this command wants of the run. It buys what `agreement` names, and nothing else."""

    buy: bool = True
    collect: bool = True
    agreement: Agreement = NOTHING
    halt: FailureLimit | None = None
    max_duration_s: float | None = None
    quiet: bool = False
    show_bar: bool = True
    log_json: bool = False
    error_on_nothing: bool = False
    webhook: bool = False
    preflight: bool = True
    show_end: bool = True
    """whether the result is printed at the end; a pilot's is not, as the rest follows"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInputs:
    """What a command carries a run out with.

    Attributes:
        caps: the sums that the run may come to, in micro-dollars.
        manifest: copied into the run's folder; None where the run was listed before.
        sha256_of: local picture -> hash of its bytes, as they were when the run was agreed to.
    """

    run: Run
    caps: Caps
    options: RunOptions
    manifest: Path | None = None
    sha256_of: Mapping[str, str] = field(default_factory=dict)

    def buying(self, agreement: Agreement, *, show_end: bool = True) -> RunInputs:
        """The same for a part of the purchase."""
        return replace(self, options=replace(self.options, agreement=agreement, show_end=show_end))


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendingSession:
    """An opened ledger, the key of its gateway, and where lines for the user go.

    `ended` gets the summary of each run that the command carried out, `announce` that of a whole one (a pilot is a
    part), and `needs_user` a run with what the operator has to do while it continues.
    """

    workspace: OpenLedger
    key: str
    notify: Callable[[str], None]
    ended: Callable[[RunSummary], None] = lambda _: None
    announce: Callable[[RunSummary], None] = lambda _: None
    needs_user: Callable[[Run, str], None] = lambda *_: None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepsResult:
    """What the steps came to."""

    totals: Totals
    reasons: tuple[StopReason, ...]
    submits: int
    polls: int


@dataclass(slots=True, kw_only=True)
class RunJob:
    """Everything that one run is carried out with."""

    workspace: OpenLedger
    run: Run
    folder: RunFolder
    caps: Caps
    key: str
    sha256_of: dict[str, str] = field(default_factory=dict)
    options: RunOptions = field(default_factory=RunOptions)
    needs_user: Callable[[str], None] = lambda _: None
    """called with what the operator has to decide or to put right while the run continues"""
    checker: CheckerFactory = PooledChecker
    wall: Callable[[], float] = time.time
