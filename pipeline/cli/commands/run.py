"""`run`, `submit` and `collect`: reads what to buy, asks where asking is due, carries the run out, reports it."""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from dataclasses import replace

from pipeline.cli.announce import Endings, end_of_nothing, print_offer, print_start
from pipeline.cli.arguments import (
    bound_manifest,
    manifests_here,
    money,
    print_notice,
    print_warnings,
    selection_of,
    settings_of,
)
from pipeline.cli.commands.plan import plan_text
from pipeline.cli.plan_details import budgets_of
from pipeline.cli.spending import agreed, run_options, session
from pipeline.config.settings import Settings
from pipeline.errors import ExitCode, UsageError
from pipeline.ledger.budget import NO_CAPS
from pipeline.planning.against_ledger import Offer, check_bound_objects, make_offer, plan_against_ledger
from pipeline.planning.nothing_new import NothingNew, nothing_new
from pipeline.planning.requests import bind_manifest
from pipeline.planning.run_setup import PurchaseOrder, check_plan, list_run, runs_to_collect, worst_exit_code
from pipeline.planning.saved_plan import load
from pipeline.records import counted
from pipeline.runner import event_loop
from pipeline.runner.callback_inbox import inbox_of
from pipeline.runner.pilot import PilotResult, buy_pilot
from pipeline.runner.price_check import check_prices
from pipeline.runner.run_job import RunInputs, RunOptions, SpendingSession
from pipeline.runner.session import run_session


def run(args: argparse.Namespace) -> int:
    """Submit, poll, download, report. The same command again continues."""
    return _buy(args, run_options(args, buy=True, collect=True))


def submit(args: argparse.Namespace) -> int:
    """Buy and leave."""
    return _buy(args, run_options(args, buy=True, collect=False))


def collect(args: argparse.Namespace) -> int:
    """Poll, download and report what is already bought. Never spends."""
    settings = settings_of(args)
    options = run_options(args, buy=False, collect=True)
    if args.cluster:
        from pipeline.cli.commands.run_on_cluster import collect_on_cluster

        return collect_on_cluster(args, settings, options)
    endings = Endings()
    with session(settings, args, endings) as opened:
        runs = runs_to_collect(opened.workspace, args.run)
        print_start(args, settings, f"{counted(len(runs), 'run')} to collect." if runs else "Nothing to collect.")
        codes = [run_session(opened, RunInputs(run=run, caps=NO_CAPS, options=options)) for run in runs]
    code = worst_exit_code(codes, nothing=args.error_on_nothing)
    endings.print_json(args, code, several=True)
    return code


def _order(args: argparse.Namespace, settings: Settings) -> PurchaseOrder:
    flag = money(args.max_cost, "--max-cost")
    if args.plan is None:
        if args.manifest is None:
            raise UsageError(f"name a manifest, or a plan with --plan PLAN{manifests_here()}")
        bound = bound_manifest(args, settings)
        return PurchaseOrder(bound=bound, max_cost_microusd=flag)
    if args.manifest is not None or not selection_of(args).is_all or args.max_rows:
        raise UsageError("--plan holds the manifest and the choice of rows: leave both out")
    plan = load(args.plan)
    bound = bind_manifest(
        plan.manifest, settings, frozen_seeds=plan.seeds, selection=plan.selection, max_rows=plan.max_rows
    )
    return PurchaseOrder(bound=bound, max_cost_microusd=flag, plan=plan)


def _buy(args: argparse.Namespace, options: RunOptions) -> int:
    settings = settings_of(args)
    if args.cluster:
        from pipeline.cli.commands.run_on_cluster import check

        check(args, settings)
    order = _order(args, settings)
    path = order.bound.manifest.path
    if args.dry_run:
        offer = plan_against_ledger(order.bound, settings)
        budgets = budgets_of(order.bound, offer, settings, max_cost_microusd=order.max_cost_microusd)
        print(plan_text(path, offer.plan, budgets, settings))
        return 0
    print_warnings(check_bound_objects(order.bound, settings))
    if args.cluster:
        from pipeline.cli.commands.run_on_cluster import run_ordered

        return run_ordered(args, settings, order, options)
    endings = Endings()
    with session(settings, args, endings) as opened:
        # MONEY: compared, shown and agreed under the lock, so that nothing comes between the answer and the purchase.
        offer = make_offer(
            order.bound,
            settings,
            opened.workspace.queries,
            max_new=args.max_new,
            announced=order.plan,
            must_be_checked=True,
        )
        if (existing := _nothing_to_do(args, opened, order, offer)) is not None:
            return end_of_nothing(args, opened.workspace, existing)
        print_offer(args, settings, order, offer)
        # Before the question: a price that the gateway has changed belongs to what the user says yes to.
        print_warnings(asyncio.run(check_prices(settings, opened.key, offer.models)))
        if not agreed(args, order, offer, settings, opened.workspace):
            return ExitCode.USAGE
        inputs = _inputs(opened, order, offer, options)
        if args.pilot is not None:
            pilot = _pilot(opened, inputs, args.pilot)
            if pilot.exit_code is not None:
                summary = replace(endings.summaries[-1], exit_code=pilot.exit_code)
                print_notice(summary.lines())
                opened.announce(summary)
                endings.print_json(args, pilot.exit_code)
                return pilot.exit_code
            inputs = inputs.buying(pilot.rest)
        code = run_session(opened, inputs)
        endings.print_json(args, code)
        return code


def _nothing_to_do(
    args: argparse.Namespace, opened: SpendingSession, order: PurchaseOrder, offer: Offer
) -> NothingNew | None:
    """What exists already, where no run is needed.

    MONEY: a callback that waits may name a second paid job, and only a run reads it.
    """
    has_callbacks = args.webhook and inbox_of(opened.workspace.settings).has_deliveries()
    existing = None if has_callbacks else nothing_new(opened.workspace, order, offer)
    if existing is not None and order.plan is not None:
        check_plan(opened.workspace, order, order.plan, continues=False)  # one that was carried out is refused
    return existing


def _inputs(opened: SpendingSession, order: PurchaseOrder, offer: Offer, options: RunOptions) -> RunInputs:
    """List what was agreed in the ledger, under the caps that hold."""
    found, caps = list_run(opened.workspace, order, offer)
    print_warnings(offer.summary.warnings)
    return RunInputs(
        run=found,
        caps=caps,
        options=replace(options, agreement=offer.agreement),
        manifest=order.bound.manifest.path,
        sha256_of=offer.summary.sha256_of,
    )


def _pilot(opened: SpendingSession, inputs: RunInputs, count: int) -> PilotResult:
    """Buy the pilot's requests first, and say what came of it."""
    found = event_loop.run(buy_pilot(opened, inputs, count, show_end=False))
    if found.exit_code is not None:
        tally = ", ".join(f"{number} {state}" for state, number in sorted(Counter(found.states).items()))
        print_notice([f"pilot: not all of {len(found.states)} rendered ({tally}); nothing more is bought"])
    elif found.outcome is not None:
        print_notice([f"pilot: {len(found.states)} of {len(found.states)} rendered; the rest follows"])
    return found
