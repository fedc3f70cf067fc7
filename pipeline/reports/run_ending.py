"""How a command ends: three lines for the user, one object for `--json` and for notifications. Pure but for paths.

The first line says what came and what it cost, the second where the sheet is, the third what to do next and whether the
money was real. Plain ASCII, so that every terminal and every log shows them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config.gateway_address import SANDBOX
from pipeline.errors import SIGNAL_EXITS, ExitCode
from pipeline.ledger.keepers import NO_KEEPERS, KeeperSummary
from pipeline.ledger.run_registry import Run
from pipeline.records import RETRYABLE, Attempt, State, Totals, counted, usd
from pipeline.reports.progress import span, strip_control_chars
from pipeline.reports.run_lookup import status_json
from pipeline.reports.summary import keepers_line

RENDERING = (State.SUBMITTING, State.ACCEPTED, State.STALLED)
"""States of a video that is paid for and has not come yet."""

MAX_NAMES = 5
"""Rows that a line names; a longer list is cut, and failures.csv has it all."""

HEADS: Mapping[int, str] = {
    ExitCode.FAILED: "Done, with failures",
    ExitCode.UNKNOWN: "Outcome unknown",
    ExitCode.UNFINISHED: "Unfinished",
    ExitCode.FATAL: "Stopped by an error",
    ExitCode.BUDGET: "Stopped at the budget",
    ExitCode.NOTHING: "Nothing to do",
    **dict.fromkeys(SIGNAL_EXITS, "Stopped"),
}
"""The first words of the result, by exit code."""


def money_words(gateway: str) -> str:
    """The gateway and whether its videos cost money, e.g. `sandbox: no money spent`."""
    if gateway == SANDBOX:
        return "sandbox: no money spent"
    return f"{short_gateway(gateway)}: real money"


def short_gateway(gateway: str) -> str:
    """A gateway's address without the port that its scheme implies."""
    for scheme, port in (("https://", ":443"), ("http://", ":80")):
        if gateway.startswith(scheme):
            return gateway.removesuffix(port)
    return gateway


def named(rows: Sequence[str], most: int = MAX_NAMES) -> str:
    """Row names for a line of the terminal, a long list cut."""
    shown = ", ".join(strip_control_chars(row) for row in rows[:most])
    return shown if len(rows) <= most else f"{shown} and {len(rows) - most} more"


def near_path(path: Path) -> str:
    """The path as the user would type it: relative where it is below the working folder."""
    try:
        short = os.path.relpath(path)
    except (OSError, ValueError):
        return str(path)
    return str(path) if short.startswith(os.pardir) else short


def retry_command(run_id: str, failed: Iterable[Attempt]) -> str:
    """The command that buys all of these again, in backticks; empty where none can be (written off)."""
    kinds = sorted({one.state.value for one in failed if one.state in RETRYABLE})
    return f"`dop retry {run_id} {' '.join(f'--{kind}' for kind in kinds)}`" if kinds else ""


def checks_words(checks: Mapping[str, object], *, only_trouble: bool = False) -> str:
    """Clips by the grade of their check and findings by kind: `3 ok, 1 bad (frozen 1)`; "" when nothing was checked."""
    grades = {name: value for name, value in checks.items() if name != "kinds" and value}
    if not grades or (only_trouble and not grades.keys() & {"warn", "bad"}):
        return ""
    kinds = checks.get("kinds")
    named_kinds = ", ".join(f"{kind} {count}" for kind, count in kinds.items()) if isinstance(kinds, Mapping) else ""
    return ", ".join(f"{count} {name}" for name, count in grades.items()) + (f" ({named_kinds})" if named_kinds else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What one command did with a run.

    Attributes:
        before: the run's totals when the command began; the difference is what this command did.
        totals: the run's totals at the end.
        rendering_microusd: the price of what is paid and has not come.
        unknown_microusd: the price of what is perhaps paid.
        failed: attempts that failed for good during this command.
        unknown: rows of unknown outcome.
        facts: `unfinished`, `budget_reached` and `stopped_by`.
        reasons: why the run stopped early, in words.
        missing_videos: finished requests whose file is not on this machine.
        hidden: what holds of the ending besides what its one exit code says.
        bad_clips: how many clips failed a check that counts as a failure.
        keepers: where the shots stand. `next_candidates` says what would be bought next for them, where this command
            bought nothing.
    """

    run: Run
    folder: Path
    sheet: Path
    before: Totals
    totals: Totals
    exit_code: int
    elapsed_s: float
    collects: bool = True
    rendering_microusd: int = 0
    unknown_microusd: int = 0
    failed: tuple[Attempt, ...] = ()
    unknown: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    hidden: str = ""
    missing_videos: int = 0
    bad_clips: int = 0
    checks: Mapping[str, object] = field(default_factory=dict)
    started_by: str = ""
    keepers: KeeperSummary = NO_KEEPERS
    next_candidates: str = ""

    @property
    def new_videos(self) -> int:
        """Videos that came during this command; what is finished and not on this machine has not come."""
        grown = max(0, self.totals.count(State.DONE) - self.before.count(State.DONE))
        return min(grown, self._ready)

    @property
    def _ready(self) -> int:
        """Finished videos that the user has; before the downloads, in `submit`, those that the gateway has."""
        return self.totals.count(State.DONE) - self._not_downloaded

    @property
    def _not_downloaded(self) -> int:
        return self.missing_videos if self.collects else 0

    @property
    def _rendering(self) -> int:
        return self.totals.count(*RENDERING)

    def lines(self) -> list[str]:
        """What the user reads at the end."""
        checks = checks_words(self.checks, only_trouble=True)
        lines = [
            f"{self._head}{self._result}",
            f"  checks {checks}" if checks else "",
            f"  keep   {strip_control_chars(keepers_line(self.keepers))}" if self.keepers.shots else "",
            f"  sheet  {near_path(self.sheet)}",
            f"  next   {self._next}",
            f"  exit {self.exit_code}: {self.hidden}" if self.hidden else "",
        ]
        shown = [line for line in lines if line]
        return [*shown[:-1], f"{shown[-1]} - {money_words(self.run.gateway)}"]

    @property
    def _head(self) -> str:
        if self.exit_code == ExitCode.DONE:
            return "Done: " if self.collects or not self._rendering else "Submitted: "
        return f"{HEADS.get(self.exit_code, 'Ended')}{'. ' if self.exit_code in SIGNAL_EXITS else ': '}"

    @property
    def _result(self) -> str:
        if self.exit_code in SIGNAL_EXITS and self._rendering:
            left = self.totals.count(State.PLANNED)
            not_bought = f"; {counted(left, 'video')} not bought" if left else ""
            return f"{self._paid_text.removesuffix('.')}{not_bought}. Run the same command again, or `dop collect`."
        return "; ".join(part for part in self._parts() if part) + "."

    @property
    def _paid_text(self) -> str:
        are = "is" if self._rendering == 1 else "are"
        return f"{counted(self._rendering, 'video')} {are} paid and still rendering (${usd(self.rendering_microusd)})."

    def _parts(self) -> list[str]:
        totals, unknown = self.totals, self.totals.count(State.UNKNOWN)
        planned, refund = totals.count(State.PLANNED), self._grown("disputed_microusd")
        doubt = f"{unknown} perhaps paid (${usd(self.unknown_microusd)}): {named(self.unknown)}" if unknown else ""
        failed = f"{len(self.failed)} failed: {named([one.row_id for one in self.failed])}" if self.failed else ""
        rendering = self._paid_text.removesuffix(".") if self._rendering else ""
        return [
            doubt,
            *([self._came] if self.collects else [rendering, self._came]),
            failed + (f" (${usd(refund)} charged, refund not known)" if failed and refund else ""),
            f"{counted(self.bad_clips, 'clip')} failed a check" if self.bad_clips else "",
            rendering if self.collects else "",
            f"{counted(planned, 'video')} not bought" if planned else "",
        ]

    @property
    def _came(self) -> str:
        if not (self.totals.count(State.DONE) or self.collects):
            return ""
        new, missing, price = self.new_videos, self._not_downloaded, self._grown("confirmed_microusd")
        came = f"{counted(self._ready, 'video')} ready" + (f", {new:,} new" if new else "")
        # The price is of all that finished during this command, wherever the files are.
        came += f", {missing:,} paid and not downloaded," if missing else ""
        return f"{came}{f' for ${usd(price)}' if price else ''} in {span(self.elapsed_s)}"

    def _grown(self, amount: str) -> int:
        return max(0, int(getattr(self.totals, amount)) - int(getattr(self.before, amount)))

    @property
    def _next(self) -> str:
        run = self.run.run_id
        if self.next_candidates:
            return strip_control_chars(self.next_candidates)
        if self.exit_code == ExitCode.UNFINISHED and self.keepers.waiting and not self.totals.count(State.PLANNED):
            return "`dop view` to keep or reject clips, then the same command again"
        if self.exit_code == ExitCode.FAILED and self.keepers.used_up and not self.failed:
            return "give the rows more seeds, or keep less of them"
        if self.exit_code == ExitCode.FAILED and self.failed:
            again = retry_command(run, self.failed)
            return f"{again}, or `dop dismiss ROW`" if again else "`dop dismiss ROW`"
        # Without its flags the command would be another one: `--config` chooses the gateway, `--filter-tag` the rows.
        again = "run the same command again"
        texts = {
            3: f"`dop status {run}` has the commands that settle it",
            5: again,
            7: f"{self._cure}, then {again}",
            8: f"raise the budget or wait, then {again}",
        }
        if self.exit_code in texts:
            return texts[self.exit_code]
        if self._rendering:
            return "`dop collect` fetches the videos"
        return "`dop view` to look at the clips and pick"

    @property
    def _cure(self) -> str:
        """What to do about an error that stopped the buying."""
        if any("has no credit" in reason for reason in self.reasons):
            return "add credit to your account at the gateway"
        if any("no longer takes submits" in reason for reason in self.reasons):
            return "`dop doctor --live` checks the address and what is sold there"
        if any("refuses" in reason for reason in self.reasons):
            return "`dop doctor --live` checks the key, `dop key set` stores another"
        return "put the cause right"

    def as_json(self) -> dict[str, object]:
        """The object of `--json`: the fields of `dop status --json`, and what this command did."""
        return {
            **status_json(self.run, self.totals),
            **self.facts,
            "exit_code": self.exit_code,
            "real_money": self.run.gateway != SANDBOX,
            "new_videos": self.new_videos,
            "failed_now": [one.row_id for one in self.failed],
            "unknown_rows": list(self.unknown),
            "missing_videos": self.missing_videos,
            "reasons": list(self.reasons),
            "folder": str(self.folder),
            "sheet": str(self.sheet),
            "elapsed_s": round(self.elapsed_s, 3),
            "started_by": self.started_by or None,
            "checks": dict(self.checks),
            **({"keepers": self.keepers.as_json()} if self.keepers.shots else {}),
        }
