"""`derive`: from chosen clips to a new manifest, for the dearer model or another strength. Buys nothing."""

from __future__ import annotations

import argparse

from pipeline.cli.arguments import print_notice, settings_of
from pipeline.cli.commands.plan import plan_text
from pipeline.cli.plan_details import budgets_of
from pipeline.planning.against_ledger import plan_against_ledger
from pipeline.planning.derive import field_of
from pipeline.planning.derived_file import write_derived
from pipeline.planning.requests import bind_manifest
from pipeline.records import counted
from pipeline.reports.picks import Picks
from pipeline.reports.review_file import read_picks


def derive(args: argparse.Namespace) -> int:
    """Writes a manifest of the chosen clips with what `--set` changes, and shows what it would cost."""
    changes = _changes(args)
    settings = settings_of(args)
    target, run, clips = write_derived(settings, run=args.run, given=_given(args), changes=changes, output=args.output)
    print_notice([f"{target}: {counted(clips, 'clip')} of {run.run_id}"])
    bound = bind_manifest(target, settings)
    offer = plan_against_ledger(bound, settings)
    print(plan_text(target, offer.plan, budgets_of(bound, offer, settings), settings))
    if not offer.plan.new:
        print_notice(["nothing in it is new: change something with --set, or buy another take with --set take=2"])
    return 0


def _changes(args: argparse.Namespace) -> dict[str, str]:
    """`--set` of a row's field; `section.key` and `models` stay in `args.set`, for the settings."""
    changes: dict[str, str] = {}
    others: list[str] = []
    for text in args.set or []:
        key, separator, value = text.partition("=")
        if not separator or "." in key or key == "models":
            others.append(text)
        else:
            changes[field_of(key.strip())] = value
    args.set = others
    return changes


def _given(args: argparse.Namespace) -> Picks | None:
    """The picks that the command names; None when it leaves them to the run's folder."""
    named = None if args.picks is None else read_picks(args.picks)
    if not args.row:
        return named
    rows = tuple((name,) for name in args.row)
    return Picks(run=named.run, names=named.names + rows) if named is not None else Picks(run=None, names=rows)
