"""The first line and the end of commands that buy or collect: on the terminal and as `--json`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pipeline.cli.arguments import print_json, print_notice
from pipeline.config.settings import Settings
from pipeline.errors import ExitCode
from pipeline.ledger.workspace import OpenLedger
from pipeline.planning.against_ledger import Offer
from pipeline.planning.nothing_new import NothingNew
from pipeline.planning.run_setup import PurchaseOrder
from pipeline.records import counted, usd
from pipeline.reports.dismissals import dismissals, not_dismissed
from pipeline.reports.run_ending import RunSummary, money_words, named, near_path


def print_start(args: argparse.Namespace, settings: Settings, text: str) -> None:
    """The first line of a command: the gateway, whether money is real, and what the command is going to do."""
    if args.quiet or args.log_json:
        return
    where = "sandbox" if settings.gateway.is_embedded else settings.gateway.base_url
    print_notice([f"Gateway {money_words(where)}. {text}"])


def print_offer(args: argparse.Namespace, settings: Settings, order: PurchaseOrder, offer: Offer) -> None:
    """The first line of a purchase."""
    plan, count = offer.plan, len(offer.agreement)
    price = usd(offer.agreement.price_microusd)
    parts = [f"{counted(count, 'video')} to buy for ${price}" if count else "nothing new to buy"]
    if count and plan.keepers is not None:
        least = count - plan.keepers.most + plan.keepers.least
        parts = [f"{max(0, least):,} to {counted(count, 'video')} to buy, at most ${price}"]
    counts = {"ready": plan.done, "in flight": plan.in_flight, "unknown": plan.unknown, "failed": plan.failed}
    parts += [f"{number:,} {word}" for word, number in counts.items() if number]
    print_start(args, settings, f"{near_path(order.bound.manifest.path)}: {', '.join(parts)}.")


class Endings:
    """The summaries of the runs that one command carried out."""

    def __init__(self) -> None:
        self.summaries: list[RunSummary] = []

    def add(self, summary: RunSummary) -> None:
        """One more run ended."""
        self.summaries.append(summary)

    def print_json(self, args: argparse.Namespace, code: int, *, several: bool = False) -> None:
        """The object of `--json`: the newest run's, or all of them under `runs`."""
        if not args.json:
            return
        objects = [summary.as_json() for summary in self.summaries]
        print_json({"exit_code": code, "runs": objects} if several else {**objects[-1], "exit_code": code})


def end_of_nothing(args: argparse.Namespace, workspace: OpenLedger, found: NothingNew) -> int:
    """Print that a rerun had nothing to do; returns the exit code."""
    failed = [attempt.row_id for attempt in not_dismissed(found.failed, dismissals(workspace))]
    code = ExitCode.NOTHING if args.error_on_nothing else ExitCode.DONE
    # A flag of this very command asks about the clips as they are; a setting speaks of new clips only.
    if args.fail_on_check is not None and _bad_clips(workspace, found):
        code = ExitCode.FAILED
    if args.json:
        print_json(
            {
                "run": None,
                "gateway": workspace.gateway,
                "nothing_to_buy": True,
                "done": len(found.done),
                "new_videos": 0,
                "made_in": list(found.runs),
                "failed_earlier": failed,
                "exit_code": code,
            }
        )
    if not args.quiet:
        print_notice(nothing_lines(found, failed, workspace.gateway))
    return code


def _bad_clips(workspace: OpenLedger, found: NothingNew) -> int:
    from pipeline.reports.checks.run_checks import load_checks

    checks = load_checks(found.done, workspace.outputs)
    return checks.failing(workspace.settings.checks.fail_on)


def nothing_lines(found: NothingNew, failed: Sequence[str], gateway: str) -> list[str]:
    """What the user reads when there was nothing to buy."""
    others = len(found.runs) - 1
    more = f" and {counted(others, 'other run')}" if others > 0 else ""
    where = f" ({found.runs[0]}{more})" if found.runs else ""
    exist = (
        f"all {counted(len(found.done), 'video')} already exist" if len(found.done) > 1 else "the video exists already"
    )
    text = exist if len(found.done) else "no video is missing that can be bought"
    lines = [f"Nothing to buy: {text}{where} - {money_words(gateway)}"]
    if failed:
        lines.append(f"  {len(failed)} failed earlier: {named(failed)}; `dop retry`, or `dop dismiss ROW`")
    return lines
