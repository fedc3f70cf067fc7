"""Every error that a public function may raise, and the exit code that the user sees for it.

    DopError                          the root: message says what happened, to which row or key, and what to do next
    |-- UsageError            2      arguments, configuration or a refused question; nothing was sent
    |   `-- ManifestError     2      one or more Problems, each with file, line, row and column
    |-- LockedError          11      another run holds the lock
    |-- FatalError            7      key refused, no credit, price unknown, wrong address
    |   `-- LedgerError       7      the ledger is damaged, copied, newer or cannot be written
    |       `-- LedgerAwayError 5    its database can't be reached now; run again
    `-- InvariantError        7      a forbidden pair of state and event: nothing was changed

One request's failure is data in the report, never an exception that ends the run. No message may carry a secret.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


class DopError(Exception):
    """Root of the tree; `exit_code` is what the command ends with."""

    exit_code = 7


class UsageError(DopError):
    """The user asked for something that cannot be done as asked; nothing was sent."""

    exit_code = 2


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
        place = str(self.file) if self.file is not None else ""
        for number in (self.line, self.column):
            if number is not None:
                place += f":{number}"
        return ": ".join(part for part in (place, self.where, self.message) if part)


class ManifestError(UsageError):
    """All mistakes of a manifest at once; nothing was sent."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        noun = "mistake" if len(self.problems) == 1 else "mistakes"
        lines = "\n".join(str(problem) for problem in self.problems)
        super().__init__(f"{lines}\n{len(self.problems)} {noun}; nothing was sent")


class LockedError(DopError):
    """Another run holds the lock beside the ledger; the message says how to wait for it."""

    exit_code = 11

    def __init__(self, text: str) -> None:
        super().__init__(f"{text}. Wait for it with --lock-wait 30m, or run again later")


class FatalError(DopError):
    """Nothing more may be bought until the operator acts (key, credit, price, address)."""

    exit_code = 7


class LedgerError(FatalError):
    """The ledger refuses to spend: damaged, copied, newer, or not writable."""


class LedgerUnavailableError(LedgerError):
    """The ledger's database can't be reached now. Nothing is bought meanwhile; the same command continues later."""

    exit_code = 5


class InvariantError(DopError):
    """An event that the state of a request forbids. Nothing was changed."""
