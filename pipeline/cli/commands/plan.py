"""`validate` and `plan`: what is wrong with a manifest, what it would buy and what it costs. Nothing is sent."""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import asdict
from pathlib import Path

from pipeline.assets.image_checks import memory_text
from pipeline.assets.object_checks import look_at_objects
from pipeline.cli.arguments import give_json, listed, money, settings_of, tell, with_price
from pipeline.config.loader import gateway_id
from pipeline.config.settings import Settings
from pipeline.errors import UsageError
from pipeline.ledger.budget import Caps
from pipeline.ledger.workspace import ledger_exists, reading
from pipeline.manifest.reader import DEFAULT_MAX_ROWS, TooManyRowsError
from pipeline.planning.binding import Plan, split
from pipeline.planning.requests import Listing
from pipeline.planning.saved_plan import SavedPlan, save
from pipeline.records import usd
from pipeline.reports.progress import printable

USUAL_VIDEO_BYTES = 12_000_000
"""of a 5 s 1080p clip, where none was bought yet. Source: wire, section 6: plan for 5 to 20 MB."""


def validate(args: argparse.Namespace) -> int:
    """All mistakes at once, offline."""
    settings = settings_of(args)
    bound = listed(args, settings, may_draw=True)
    found = _split(bound, settings, against_ledger=False)
    tell(f"warning: {warning}" for warning in bound.warnings)
    if args.json:
        give_json({"valid": True, **found.as_json()})
    else:
        print(f"{args.manifest}: valid; {found.requests} requests, ${usd(found.price_microusd)}")
    return 0


def plan(args: argparse.Namespace) -> int:
    """Rows and price by model, split into new, done, in flight, unknown and failed."""
    settings = settings_of(args)
    bound = listed(args, settings, may_draw=True)
    if args.look:
        tell(f"warning: {warning}" for warning in looked_at_objects(bound, settings))
    bound.must_be_seen = args.out is not None
    found = planned(bound, settings)
    tell(f"warning: {warning}" for warning in bound.warnings)
    if args.out is not None:
        if bound.manifest.origin != bound.manifest.path:
            raise UsageError("a saved plan names its manifest: write what comes through stdin to a file first")
        save(saved_plan(bound, found, settings, max_rows=args.max_rows or DEFAULT_MAX_ROWS), args.out)
    if args.json:
        give_json({**found.as_json(), "partly_filled": [asdict(column) for column in bound.manifest.partly_filled]})
    else:
        print(plan_text(args.manifest, found, bound.caps(money(args.max_cost, "--max-cost")), settings))
        for column in bound.manifest.partly_filled:
            print(printable(str(column)))
        for line in memory_text(bound.binder.images, settings):
            print(printable(line))
        if args.out is not None:
            print(f"saved: dop run --plan {args.out} buys exactly this, or refuses")
        elif bound.manifest.uses_random_seeds:
            print("its random seeds are drawn when the plan is saved: dop plan --out PLAN, then dop run --plan PLAN")
    return 0


def looked_at_objects(bound: Listing, settings: Settings) -> list[str]:
    """Looks at the images that lie in an object store; returns warnings. Asks the store, for free.

    Raises:
        ManifestError: some are not there, or no pictures.
        UsageError: the store does not answer.
    """
    return look_at_objects(settings, bound.objects(), manifest=bound.manifest.path, now=time.time())


def saved_plan(bound: Listing, found: Plan, settings: Settings, *, max_rows: int) -> SavedPlan:
    """What `--out` keeps: the seeds that were drawn, and what everything depended on."""
    seeds = dict(bound.manifest.drawn)
    bound.frozen_seeds = seeds
    return SavedPlan(
        manifest=bound.manifest.path,
        gateway=gateway_id(settings),
        rows_digest=bound.digest(),
        state_digest=found.state_digest,
        seeds=seeds,
        selection=bound.selection,
        max_rows=max_rows,
        counts=found.as_json(),
    )


def planned(bound: Listing, settings: Settings) -> Plan:
    """The manifest split against the ledger; a ledger that does not exist yet knows nothing.

    Raises:
        ManifestError: mistakes, all of them.
    """
    return _split(bound, settings, against_ledger=ledger_exists(settings))


def _split(bound: Listing, settings: Settings, *, against_ledger: bool) -> Plan:
    try:
        if against_ledger:
            with reading(settings) as workspace:
                found = split(bound.rows(), workspace.book.states)
        else:
            found = split(bound.rows(), lambda _: {})
    except TooManyRowsError as error:
        raise with_price(error, settings) from None
    found.duplicates = bound.binder.duplicates
    return found


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
    spans = {"run": caps.run_microusd, "day": caps.day_microusd, "month": caps.month_microusd}
    lines += [f"{span} budget: ${usd(cap)}" for span, cap in spans.items() if cap is not None]
    if caps.run_microusd is not None and found.new_price_microusd > caps.run_microusd:
        lines.append("the run budget does not cover all of it: the run will stop at the budget and exit with 8")
    lines.append(disk_text(found.new + found.in_flight, settings))
    return "\n".join(lines)


def disk_text(videos: int, settings: Settings) -> str:
    """How much room the videos will need, and whether it is there."""
    each = USUAL_VIDEO_BYTES
    if ledger_exists(settings):
        with reading(settings) as workspace:
            each = workspace.book.mean_video_bytes(workspace.gateway) or each
    elif settings.gateway.is_embedded:
        each = 200_000
    folder = settings.outputs.dir.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    enough = "" if free > videos * each else ": NOT ENOUGH ROOM"
    return f"disk: about {videos * each / 1e9:.3f} GB of videos, {free / 1e9:.1f} GB free in {folder}{enough}"
