"""Every error that a public function may raise, and the exit code that the user sees for it.

    DopError                          the root: message says what happened, to which row or key, and what to do next
    |-- UsageError            2      arguments, configuration or a refused question; nothing was sent
    |   `-- ManifestError     2      one or more Problems, each with file, line, row and column
    |-- LockedError          11      another run holds the lock
    |-- FatalError            7      key refused, no credit, price unknown, wrong address
    |   `-- LedgerError       7      the ledger is damaged, copied, newer or cannot be written
    |       `-- LedgerUnavailableError 5    its database can't be reached now; run again
    `-- InvariantError        7      a forbidden pair of state and event: nothing was changed

One request's failure is data in the report, never an exception that ends the run. No message may carry a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TypeAlias


class ExitCode(IntEnum):
    """What a command ends with. Users' scripts rely on the numbers."""

    DONE = 0
    FAILED = 1
    """a request or a check failed in this command"""
    USAGE = 2
    """arguments, manifest or configuration are wrong, or the user said no"""
    UNKNOWN = 3
    """an outcome is unknown, perhaps paid"""
    UNFINISHED = 5
    """something is left to do: run the same command again"""
    FATAL = 7
    """key refused, no credit, wrong address, damaged ledger"""
    BUDGET = 8
    """the budget is reached"""
    NOTHING = 9
    """nothing to do, where the user asked for a code of its own"""
    LOCKED = 11
    """another run holds the ledger"""
    HANGUP = 129
    INTERRUPTED = 130
    TERMINATED = 143


SIGNAL_EXITS = frozenset({ExitCode.HANGUP, ExitCode.INTERRUPTED, ExitCode.TERMINATED})
"""Codes of a run that a signal stopped, after a clean save."""

PRECEDENCE = (
    *(ExitCode.USAGE, ExitCode.LOCKED, ExitCode.FATAL, ExitCode.UNKNOWN, ExitCode.BUDGET),
    *(ExitCode.HANGUP, ExitCode.INTERRUPTED, ExitCode.TERMINATED, ExitCode.UNFINISHED),
    *(ExitCode.FAILED, ExitCode.NOTHING, ExitCode.DONE),
)
"""Of several codes that apply, the first one is the command's."""

STOPPING_CODES = frozenset({ExitCode.FATAL, ExitCode.UNKNOWN, ExitCode.BUDGET, *SIGNAL_EXITS})
"""Codes of a pilot that become the command's own; any other one makes the command unfinished."""


def gravest(codes: Iterable[int]) -> ExitCode:
    """The first of these codes by precedence; DONE where there are none."""
    given = set(codes)
    return next((code for code in PRECEDENCE if code in given), ExitCode.DONE)


class DopError(Exception):
    """Root of the tree; `exit_code` is what the command ends with."""

    exit_code = ExitCode.FATAL


class UsageError(DopError):
    """The user asked for something that cannot be done as asked; nothing was sent."""

    exit_code = ExitCode.USAGE


Place: TypeAlias = Callable[[int | None, int | None], str]
"""A line and a column of a file -> the place as the user knows it."""

_PLACES: dict[Path, Place] = {}


def show_as(file: Path, place: Place) -> None:
    """Show places of `file`, which only this process knows, as the user knows them: lines of stdin, rows of a table."""
    _PLACES[file] = place


def _in_file(name: Path | str) -> Place:
    return lambda line, column: ":".join(str(part) for part in (name, line, column) if part is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake in a manifest or a configuration, with its place.

    `line` and `column` count from 1; `where` is the path in the user's words, e.g. `rows[0].strength`.
    """

    file: Path | None
    message: str
    where: str = ""
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        place = ""
        if self.file is not None:
            place = _PLACES.get(self.file, _in_file(self.file))(self.line, self.column)
        return ": ".join(part for part in (place, self.where, self.message) if part)


class ManifestError(UsageError):
    """All mistakes of a manifest at once; nothing was sent."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join([*map(str, self.problems), self.count]))

    @property
    def count(self) -> str:
        """How many mistakes there are, in words."""
        return f"{len(self.problems)} {'mistake' if len(self.problems) == 1 else 'mistakes'}"


class LockedError(DopError):
    """Another run holds the lock beside the ledger; the message says how to wait for it."""

    exit_code = ExitCode.LOCKED

    def __init__(self, text: str) -> None:
        super().__init__(f"{text}. Wait for it with --lock-wait 30m, or run again later")


class FatalError(DopError):
    """Nothing more may be bought until the operator acts (key, credit, price, address)."""

    exit_code = ExitCode.FATAL


class LedgerError(FatalError):
    """The ledger refuses to spend: damaged, copied, newer, or not writable."""


class LedgerUnavailableError(LedgerError):
    """The ledger's database can't be reached now. Nothing is bought meanwhile; the same command continues later."""

    exit_code = ExitCode.UNFINISHED


class InvariantError(DopError):
    """An event that the state of a request forbids. Nothing was changed."""
