"""`validate` and `plan`: what is wrong with a manifest, what it would buy and what it costs. Nothing is sent."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from pipeline.ledger.budget import Caps
from pipeline.listing import Listing, listing
from pipeline.plan import Plan, split
from pipeline.records import State, usd
from pipeline.settings import Settings
from pipeline.verbs.told import give_json, money, settings_of, tell
from pipeline.workspace import reading


def validate(args: argparse.Namespace) -> int:
    """All mistakes at once, offline."""
    settings = settings_of(args)
    bound = listing(args.manifest, settings)
    plan = split(bound.rows(), lambda _: {})
    tell(f"warning: {warning}" for warning in bound.warnings)
    if args.json:
        give_json({"valid": True, **plan.as_json()})
    else:
        print(f"{args.manifest}: valid; {plan.requests} requests, ${usd(plan.price_microusd)}")
    return 0


def planned(bound: Listing, settings: Settings) -> Plan:
    """The manifest split against the ledger; a ledger that does not exist yet knows nothing."""
    if not settings.ledger_path.exists():
        plan = split(bound.rows(), lambda _: {})
    else:
        with reading(settings) as workspace:
            plan = split(bound.rows(), workspace.book.states)
    plan.duplicates = bound.binder.duplicates
    return plan


def plan(args: argparse.Namespace) -> int:
    """Rows and price by model, split into new, done, in flight, unknown and failed."""
    settings = settings_of(args)
    bound = listing(args.manifest, settings)
    found = planned(bound, settings)
    tell(f"warning: {warning}" for warning in bound.warnings)
    if args.json:
        give_json(found.as_json())
    else:
        print(plan_text(args.manifest, found, bound.caps(money(args.max_cost, "--max-cost")), settings))
    return 0


def plan_text(path: Path, found: Plan, caps: Caps, settings: Settings) -> str:
    """The plan for eyes."""
    where = "the sandbox (nothing is charged)" if settings.gateway.is_embedded else settings.gateway.base_url
    lines = [f"{path}: {found.requests} videos, ${usd(found.price_microusd)} in all, from {where}"]
    lines += [
        f"  {model:<14} {share.requests:>8}  ${usd(share.price_microusd)}"
        for model, share in sorted(found.by_model.items())
    ]
    lines.append(
        f"to buy now: {found.new} for ${usd(found.new_price_microusd)}"
        f"  (done {found.done}, in flight {found.in_flight}, unknown {found.unknown}, failed {found.failed})"
    )
    notes = {"placeholders": found.skipped, "equal rows bought once": found.duplicates}
    lines += [f"{what}: {count}" for what, count in notes.items() if count]
    lines += [f"{span} budget: ${usd(cap)}" for span, cap in _spans(caps).items() if cap is not None]
    if caps.run_microusd is not None and found.new_price_microusd > caps.run_microusd:
        lines.append("the run budget does not cover all of it: the run will stop at the budget and exit with 8")
    return "\n".join(lines)


def _spans(caps: Caps) -> dict[str, int | None]:
    return {"run": caps.run_microusd, "day": caps.day_microusd, "month": caps.month_microusd}


def states_of_nothing(_: list[str]) -> Mapping[str, State]:
    """A ledger that knows nothing."""
    return {}
