"""`validate` and `plan`: what is wrong with a manifest, what it would buy and what it costs. Nothing is sent."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import asdict
from pathlib import Path

from pipeline.assets.image_checks import cache_text
from pipeline.cli.arguments import bound_manifest, money, print_json, print_warnings, settings_of
from pipeline.cli.commands.plan_estimates import gateway_prices
from pipeline.cli.plan_details import Budgets, budgets_of, row_lines, shown_rows
from pipeline.config.settings import Settings
from pipeline.errors import UsageError
from pipeline.files import existing_folder
from pipeline.ledger.workspace import ledger_exists, open_for_reading
from pipeline.manifest.reader import DEFAULT_MAX_ROWS
from pipeline.planning.against_ledger import check_bound_objects, make_offer, plan_against_ledger, saved_plan
from pipeline.planning.plan import Plan
from pipeline.planning.saved_plan import save
from pipeline.records import counted, usd
from pipeline.reports.progress import strip_control_chars

USUAL_VIDEO_BYTES = 12_000_000
"""Bytes of a 5 s 1080p clip, where none was bought yet. Source: wire, section 6: plan for 5 to 20 MB."""


def validate(args: argparse.Namespace) -> int:
    """All mistakes at once, offline."""
    settings = settings_of(args)
    bound = bound_manifest(args, settings, may_draw=True)
    offer = make_offer(bound, settings, None)
    found = offer.plan
    print_warnings(offer.summary.warnings)
    if args.json:
        print_json({"valid": True, **found.as_json()})
    else:
        print(f"{args.manifest}: valid; {counted(found.requests, 'video')}, ${usd(found.price_microusd)}")
    return 0


def plan(args: argparse.Namespace) -> int:
    """Rows and price by model, split into new, done, in flight, unknown and failed."""
    settings = settings_of(args)
    bound = bound_manifest(args, settings, may_draw=True)
    if args.look:
        print_warnings(check_bound_objects(bound, settings))
    # A saved plan holds the content of its pictures: those of a store have to be known by then.
    offer = plan_against_ledger(bound, settings, must_be_checked=args.out is not None)
    found = offer.plan
    print_warnings(offer.summary.warnings)
    if args.out is not None:
        if bound.manifest.origin != bound.manifest.path:
            raise UsageError("a saved plan names its manifest: write what comes through stdin to a file first")
        save(saved_plan(bound, offer, settings, max_rows=args.max_rows or DEFAULT_MAX_ROWS), args.out)
    budgets = budgets_of(bound, offer, settings, max_cost_microusd=money(args.max_cost, "--max-cost"))
    shown = list(shown_rows(bound, settings, args.show)) if args.show is not None else []
    if args.json:
        print_json(
            {
                **found.as_json(),
                **budgets.as_json(),
                "partly_filled": [asdict(column) for column in bound.manifest.partly_filled],
                **({"rows": shown} if args.show is not None else {}),
            }
        )
    else:
        print(plan_text(args.manifest, found, budgets, settings))
        lines, warnings = gateway_prices(settings, found.by_model)
        for line in lines:
            print(strip_control_chars(line))
        print_warnings(warnings)
        for column in bound.manifest.partly_filled:
            print(strip_control_chars(str(column)))
        for line in cache_text(offer.summary.images, settings):
            print(strip_control_chars(line))
        if args.out is not None:
            print(f"saved: dop run --plan {args.out} buys exactly this, or refuses")
        elif bound.manifest.uses_random_seeds:
            print("its random seeds are drawn when the plan is saved: dop plan --out PLAN, then dop run --plan PLAN")
        for line in row_lines(shown):
            print(line)
    return 0


def plan_text(path: Path, found: Plan, budgets: Budgets, settings: Settings) -> str:
    """The plan for display."""
    where = "the sandbox (nothing is charged)" if settings.gateway.is_embedded else settings.gateway.base_url
    lines = [f"{path}: {counted(found.requests, 'video')}, ${usd(found.price_microusd)} in all, from {where}"]
    lines += [
        f"  {model:<14} {share.requests:>8}  ${usd(share.price_microusd)}"
        for model, share in sorted(found.by_model.items())
    ]
    lines.append(
        f"to buy now: {found.new} for ${usd(found.new_price_microusd)}"
        f"  (done {found.done}, in flight {found.in_flight}, unknown {found.unknown}, failed {found.failed})"
    )
    lines += found.keepers.lines() if found.keepers is not None else []
    if found.resend:
        lines.append(
            f"to send again: {found.resend} of unknown outcome for ${usd(found.resend_price_microusd)}; "
            "each may have been paid already (on_unknown.policy is resend)"
        )
    notes = {"placeholders": found.skipped, "equal rows bought once": found.duplicates}
    lines += [f"{what}: {count}" for what, count in notes.items() if count]
    if found.new and not ledger_exists(settings):
        lines.append(f"no ledger in {settings.outputs.dir} yet: everything counts as new")
    lines += budgets.lines(found.new)
    lines.append(disk_text(found.new + found.in_flight, settings))
    return "\n".join(lines)


def disk_text(videos: int, settings: Settings) -> str:
    """How much room the videos will need, and whether it is there."""
    each = USUAL_VIDEO_BYTES
    if ledger_exists(settings):
        with open_for_reading(settings) as workspace:
            each = workspace.queries.mean_video_bytes(workspace.gateway) or each
    elif settings.gateway.is_embedded:
        each = 200_000
    folder = existing_folder(settings.outputs.dir.absolute())
    free = shutil.disk_usage(folder).free
    enough = "" if free > videos * each else ": NOT ENOUGH ROOM"
    return f"disk: about {videos * each / 1e9:.3f} GB of videos, {free / 1e9:.1f} GB free in {folder}{enough}"
