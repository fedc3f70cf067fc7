"""`spend`: the spend book by day, month and model, and its comparison with a vendor's usage CSV. Spends nothing."""

from __future__ import annotations

import argparse
import csv
from decimal import Decimal, InvalidOperation
from pathlib import Path

from pipeline.cli.arguments import print_json, settings_of
from pipeline.errors import UsageError
from pipeline.ledger.workspace import OpenLedger, open_for_reading
from pipeline.records import MICROUSD, State, canonical_job_id, usd
from pipeline.reports.progress import strip_control_chars
from pipeline.reports.spend import group_spend

ID_COLUMNS = ("job_set_id", "request_id", "job_id", "id")
AMOUNT_COLUMNS = ("amount_usd", "cost_usd", "price_usd", "amount", "cost", "price", "charge", "usd", "total")
"""Headings under which a usage export names a job and its price. Inferred: no such export is documented."""


def spend(args: argparse.Namespace) -> int:
    """Money by day, month and model of each gateway; with `--usage FILE` against the vendor's own list."""
    settings = settings_of(args)
    prefix = args.day or args.month or ""
    with open_for_reading(settings) as workspace:
        lines = workspace.book.spend_lines(prefix)
        compared = _reconciled(workspace, args.usage) if args.usage is not None else None
    found = group_spend(lines)
    if args.json:
        answer: dict[str, object] = {"gateways": found}
        print_json(answer if compared is None else {**answer, "usage": compared})
    else:
        _print(found, compared)
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
    theirs = _usage(path)
    ours = {canonical_job_id(str(attempt.job_set_id)): attempt for attempt in workspace.book.jobs(workspace.gateway)}
    both = sorted(theirs.keys() & ours.keys())
    differing = [job for job in both if theirs[job] is not None and theirs[job] != ours[job].price_microusd]
    charged = [job for job in both if theirs[job] != 0]
    refunded = [job for job in both if theirs[job] == 0]
    unmatched = sorted(theirs.keys() - ours.keys())
    unknown = len(workspace.book.unknowns(workspace.gateway))
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


def _usage(path: Path) -> dict[str, int | None]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            names = {(name or "").strip().lower(): name for name in reader.fieldnames or []}
            id_column = next((names[name] for name in ID_COLUMNS if name in names), None)
            amount_column = next((names[name] for name in AMOUNT_COLUMNS if name in names), None)
            if id_column is None:
                raise UsageError(f"{path}: no column of job ids; one must be called {', '.join(ID_COLUMNS)}")
            found: dict[str, int | None] = {}
            for row in reader:
                job = canonical_job_id((row[id_column] or "").strip())
                if job:
                    amount = _amount(path, reader.line_num, row[amount_column]) if amount_column else None
                    found[job] = amount if job not in found else (found[job] or 0) + (amount or 0)
            return found
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} can't be read as CSV ({error})") from None


def _amount(path: Path, line: int, text: str | None) -> int | None:
    cleaned = (text or "").strip().lstrip("$")
    if not cleaned:
        return None
    try:
        return int((Decimal(cleaned) * MICROUSD).to_integral_value())
    except (InvalidOperation, ValueError):
        raise UsageError(f"{path}:{line}: {text!r} is not an amount") from None
