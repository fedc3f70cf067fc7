"""How a run ended, as one exit code. Source: the list of exit codes, first that applies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import SIGNAL_EXITS, ExitCode, gravest
from pipeline.ledger.keepers import NO_KEEPERS, KeeperSummary
from pipeline.records import State, Totals
from pipeline.runner.loss_budget import LIMITED
from pipeline.runner.stop import StopReason

SIGNAL_NAMES = {ExitCode.HANGUP: "SIGHUP", ExitCode.INTERRUPTED: "SIGINT", ExitCode.TERMINATED: "SIGTERM"}
"""The exit code of a run that a signal stopped, with the signal's name."""

STOPS = frozenset({ExitCode.FATAL, ExitCode.BUDGET, ExitCode.UNFINISHED, *SIGNAL_EXITS})
"""Codes of reasons to stop that are codes of the run."""

RUN_AGAIN = "run the same command again"
"""What continues an unfinished run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnding:
    """What is left when a run stops. `missing_videos` counts finished requests without their file.

    `failed` counts the requests that failed for good in this command: a failure of an earlier one made that one's code.
    `nothing_to_do` says that the command had nothing to buy or collect, and that the user asked for a code of its own.
    `collects` is false for a command that only buys: what is in flight is then as it should be. `keepers` says where
    the shots stand: one that waits for the user's picks is unfinished, one without candidates left is a failure.
    """

    totals: Totals
    failed: int = 0
    reasons: Sequence[StopReason] = ()
    missing_videos: int = 0
    nothing_to_do: bool = False
    collects: bool = True
    keepers: KeeperSummary = NO_KEEPERS

    @property
    def is_open(self) -> bool:
        """Whether the run must go on another time: something is planned, in flight or unknown, or lacks its file.

        Shots that wait for the user's picks keep it open, so that the next command continues it.
        """
        states = (State.PLANNED, State.SUBMITTING, State.ACCEPTED, State.STALLED, State.UNKNOWN)
        return self.totals.count(*states) > 0 or self.missing_videos > 0 or bool(self.keepers.waiting)

    @property
    def is_unfinished(self) -> bool:
        """Whether the command left something that it was to do."""
        if self.collects:
            return self.is_open
        pending = self.totals.count(State.PLANNED, State.SUBMITTING, State.UNKNOWN)
        return pending > 0 or bool(self.keepers.waiting)

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the command."""
        applying = {
            ExitCode.UNKNOWN: self.totals.count(State.UNKNOWN) > 0,
            ExitCode.UNFINISHED: self.is_unfinished,
            ExitCode.FAILED: (self.failed > 0 or bool(self.keepers.used_up)) and not self.nothing_to_do,
            ExitCode.NOTHING: self.nothing_to_do,
        }
        asked = {reason.exit_code for reason in self.reasons} & STOPS
        return gravest({*asked, *(code for code, applies in applying.items() if applies)})

    @property
    def facts(self) -> dict[str, object]:
        """What one exit code cannot say: `unfinished`, `budget_reached`, and the signal in `stopped_by` (or None)."""
        asked = {reason.exit_code for reason in self.reasons}
        pending = [State.PLANNED, State.SUBMITTING]
        if self.collects:
            pending += [State.ACCEPTED, State.STALLED]
        return {
            "unfinished": self.totals.count(*pending) > 0 or (self.collects and self.missing_videos > 0),
            "budget_reached": ExitCode.BUDGET in asked,
            "stopped_by": next((name for code, name in SIGNAL_NAMES.items() if code in asked), None),
        }

    @property
    def words(self) -> str:
        """All that holds of the ending, in one line; empty where the exit code says it all."""
        facts = self.facts
        unknown, planned = self.totals.count(State.UNKNOWN), self.totals.count(State.PLANNED)
        parts = [f"{unknown} unknown (`dop status` has the commands that settle them)"] if unknown else []
        parts += ["the budget is reached"] if facts["budget_reached"] else []
        parts += [f"stopped by {facts['stopped_by']}"] if facts["stopped_by"] else []
        if facts["unfinished"]:
            left = f", {planned} not bought" if planned else ""
            # At the limit the same command would buy nothing: the reason's own text says what is to be done first.
            is_limited = planned and any(
                one.exit_code == ExitCode.UNKNOWN and LIMITED in one.text for one in self.reasons
            )
            then = "settle the unknown ones first, or allow more with --max-unknown" if is_limited else RUN_AGAIN
            parts.append(f"unfinished{left}: {then}")
        return "; ".join(parts) if len(parts) > 1 else ""
