"""`resolve --all` and `resolve --from-usage`: many unknown outcomes at once, shown before anything is changed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.cli.arguments import confirm, has_terminal, print_notice
from pipeline.errors import UsageError
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import Attempt, counted, usd
from pipeline.reports.run_tables import table
from pipeline.reports.usage_list import jobs_by_id, read_usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What becomes of one unknown outcome: exactly one of `adopt` (a job id), `charged` and `resend`, or none.

    `why` says what led to it.
    """

    attempt: Attempt
    why: str
    adopt: str | None = None
    charged: bool = False
    resend: bool = False

    @property
    def words(self) -> str:
        """What will be done."""
        if self.adopt is not None:
            return f"adopt job {self.adopt}"
        return "write off as charged" if self.charged else "plan again" if self.resend else "leave unknown"


def chosen_resolutions(workspace: OpenLedger, args: argparse.Namespace) -> list[Resolution]:
    """One resolution for each unknown outcome of the gateway, once the operator agrees to them; [] when not.

    Raises:
        UsageError: there is nothing unknown, or no terminal to ask at and no --yes.
    """
    unknown = workspace.queries.unknowns(workspace.gateway)
    if not unknown:
        raise UsageError(f"nothing at {workspace.gateway} is unknown: there is nothing to resolve")
    if args.from_usage is not None:
        found = from_usage(workspace, unknown, args.from_usage)
    else:
        if args.adopt is not None:
            raise UsageError("--adopt names one job: name one request, not --all")
        found = [Resolution(attempt=one, why="--all", charged=args.charged, resend=not args.charged) for one in unknown]
    return _agreed(found, args)


def from_usage(workspace: OpenLedger, unknown: Sequence[Attempt], path: Path) -> list[Resolution]:
    """What the gateway's list of charged jobs says of each unknown outcome.

    MONEY: "not charged" lets a request be sent again, so it needs proof that the list covers the time of its submit:
    jobs of ours in it from before and from after. One job that is not ours is adopted only where one outcome is
    unknown, as nothing says which of several it belongs to.
    """
    usage = read_usage(path)
    ours = jobs_by_id(workspace)
    unlisted = [job for job, amount in usage.items() if job not in ours and amount != 0]
    times = [one.accepted_at for job, one in ours.items() if job in usage and one.accepted_at is not None]
    found = []
    for attempt in unknown:
        sent_at = attempt.submitted_at
        covered = sent_at is not None and bool(times) and min(times) <= sent_at <= max(times)
        if len(unlisted) == 1 == len(unknown) and usage[unlisted[0]] in (None, attempt.price_microusd):
            why = "the one job in the list that the ledger does not know"
            found.append(Resolution(attempt=attempt, why=why, adopt=unlisted[0]))
        elif unlisted:
            why = f"the list has {counted(len(unlisted), 'job')} that the ledger does not know: which is it?"
            found.append(Resolution(attempt=attempt, why=why))
        elif covered:
            found.append(Resolution(attempt=attempt, why="every job in the list is known: not charged", resend=True))
        else:
            found.append(Resolution(attempt=attempt, why="the list does not cover the time of its submit"))
    return found


def _agreed(found: Sequence[Resolution], args: argparse.Namespace) -> list[Resolution]:
    rows = [[one.attempt.row_id, f"${usd(one.attempt.price_microusd)}", one.words, one.why] for one in found]
    print_notice(table(("ROW", "PRICE", "DECISION", "BECAUSE"), rows))
    decided = [one for one in found if one.adopt is not None or one.charged or one.resend]
    if not decided:
        print_notice(["nothing is decided: resolve each by its name (`dop status` has the commands)"])
        return []
    if args.yes:
        return decided
    if not has_terminal():
        raise UsageError("give --yes to resolve these without a terminal; nothing was changed")
    return decided if confirm(f"Resolve {counted(len(decided), 'outcome')} so?") else []
