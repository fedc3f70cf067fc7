"""`spend`: the spend book by day, month and model, and its comparison with a vendor's usage CSV. Spends nothing."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.cli.arguments import print_json, settings_of
from pipeline.config.settings import Settings
from pipeline.ledger.reviews import latest_verdicts
from pipeline.ledger.workspace import OpenLedger, open_for_reading
from pipeline.records import State, usd
from pipeline.reports.keeper_costs import keeper_table
from pipeline.reports.progress import strip_control_chars
from pipeline.reports.run_tables import keeper_lines
from pipeline.reports.spend import group_spend
from pipeline.reports.usage_list import jobs_by_id, read_usage


def spend(args: argparse.Namespace) -> int:
    """Money by day, month and model of each gateway; with `--usage FILE` against the vendor's own list.

    With `--per-keeper` what a good clip cost instead.
    """
    settings = settings_of(args)
    prefix = args.day or args.month or ""
    if args.per_keeper:
        return _per_keeper(args, settings, prefix)
    with open_for_reading(settings) as workspace:
        lines = workspace.queries.spend_lines(prefix)
        compared = _reconciled(workspace, args.usage) if args.usage is not None else None
    found = group_spend(lines)
    if args.json:
        answer: dict[str, object] = {"gateways": found}
        print_json(answer if compared is None else {**answer, "usage": compared})
    else:
        _print(found, compared)
    return 0


def _per_keeper(args: argparse.Namespace, settings: Settings, prefix: str) -> int:
    with open_for_reading(settings) as workspace:
        found = keeper_table(workspace.queries.outcomes(latest_verdicts(workspace.ledger), day_prefix=prefix))
    if args.json:
        print_json({"per_keeper": {gateway: table.as_json() for gateway, table in found.items()}})
        return 0
    if not found:
        print("nothing was bought yet")
    for gateway, costs in found.items():
        print("\n".join([gateway, *keeper_lines(costs)]))
    return 0


def _print(found: dict[str, dict[str, object]], compared: dict[str, object] | None) -> None:
    if not found:
        print("nothing was spent yet")
    for gateway, groups in found.items():
        print(f"{gateway}")
        print(f"  {'':<28} {'confirmed':>12} {'disputed':>12} {'reserved':>12}")
        _print_line("total", groups)
        for name in ("by_month", "by_day", "by_model"):
            group = groups[name]
            assert isinstance(group, dict)
            for key, sums in group.items():
                _print_line(key, sums)
    for name, value in (compared or {}).items():
        print(
            f"{name}: {value if not isinstance(value, list) else ', '.join(map(strip_control_chars, value)) or 'none'}"
        )


def _print_line(name: str, sums: object) -> None:
    assert isinstance(sums, dict)
    print(f"  {name:<28} {sums['confirmed_usd']:>12} {sums['disputed_usd']:>12} {sums['reserved_usd']:>12}")


def _reconciled(workspace: OpenLedger, path: Path) -> dict[str, object]:
    """The vendor's list against ours, job by job."""
    theirs = read_usage(path)
    ours = jobs_by_id(workspace)
    both = sorted(theirs.keys() & ours.keys())
    differing = [job for job in both if theirs[job] is not None and theirs[job] != ours[job].price_microusd]
    charged = [job for job in both if theirs[job] != 0]
    refunded = [job for job in both if theirs[job] == 0]
    unmatched = sorted(theirs.keys() - ours.keys())
    unknown = len(workspace.queries.unknowns(workspace.gateway))
    return {
        "usage_rows": len(theirs),
        "matched": len(both),
        "charged": len(charged),
        "not_charged": refunded,
        "price_differs": differing,
        "not_in_ledger": unmatched,
        "not_in_usage": sorted(job for job in ours.keys() - theirs.keys() if ours[job].state is not State.PLANNED),
        "usage_usd": usd(sum(amount or 0 for amount in theirs.values())),
        "ledger_usd": usd(sum(attempt.price_microusd for attempt in ours.values())),
        "unknown_outcomes": unknown,
    }
