"""`run`, `submit` and `collect`: reads what to buy, asks where asking is due, carries the run out, reports it."""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

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
from pipeline.errors import STOPPING_CODES, ExitCode, UsageError
from pipeline.ledger.agreement import Agreement, RequestIds
from pipeline.ledger.budget import NO_CAPS, Caps
from pipeline.ledger.run_registry import Run
from pipeline.planning.against_ledger import Offer, check_bound_objects, make_offer, plan_against_ledger
from pipeline.planning.nothing_new import NothingNew, nothing_new
from pipeline.planning.requests import bind_manifest
from pipeline.planning.run_setup import (
    PurchaseOrder,
    caps_of_run,
    check_plan,
    keep_max_cost,
    open_run,
    runs_to_collect,
    worst_exit_code,
)
from pipeline.planning.saved_plan import load
from pipeline.records import State, counted
from pipeline.runner.callback_inbox import inbox_of
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
        job = _bound_run(opened, order, offer, options)
        rest = offer.agreement
        if args.pilot is not None:
            pilot, rest = split_pilot(opened, job.run, offer.agreement, args.pilot)
            code = _pilot(job, pilot) if len(pilot) else None
            if code is not None:
                summary = replace(endings.summaries[-1], exit_code=code)
                print_notice(summary.lines())
                opened.announce(summary)
                endings.print_json(args, code)
                return code
        code = job.buy(rest)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _BoundRun:
    """A run that was agreed to, with everything but what one of its parts may buy."""

    opened: SpendingSession
    run: Run
    caps: Caps
    order: PurchaseOrder
    sha256_of: Mapping[str, str]
    options: RunOptions

    def buy(self, agreement: Agreement, *, show_end: bool = True) -> int:
        """Buy what `agreement` names, collect, and return the exit code."""
        inputs = RunInputs(
            run=self.run,
            caps=self.caps,
            options=replace(self.options, agreement=agreement, show_end=show_end),
            manifest=self.order.bound.manifest.path,
            sha256_of=self.sha256_of,
        )
        return run_session(self.opened, inputs)


def _bound_run(opened: SpendingSession, order: PurchaseOrder, offer: Offer, options: RunOptions) -> _BoundRun:
    """List what was agreed in the ledger, under the caps that hold."""
    found = open_run(opened.workspace, order, offer)
    keep_max_cost(opened.workspace, found, order.max_cost_microusd)
    caps = caps_of_run(opened.workspace, found, allowed=order.bound.caps(), max_cost_microusd=order.max_cost_microusd)
    print_warnings(offer.summary.warnings)
    return _BoundRun(
        opened=opened, run=found, caps=caps, order=order, sha256_of=offer.summary.sha256_of, options=options
    )


def split_pilot(opened: SpendingSession, found: Run, agreement: Agreement, count: int) -> tuple[Agreement, Agreement]:
    """The `count` cheapest of what was agreed, and the rest of it."""
    prices = opened.workspace.settings.prices_microusd
    planned = opened.workspace.queries.attempts_in(found.run_id, (State.PLANNED,))
    waiting = [attempt for attempt in planned if attempt.request_id in agreement.new]
    waiting.sort(key=lambda attempt: prices[attempt.params.model])
    chosen = waiting[:count]
    price = sum(prices[attempt.params.model] for attempt in chosen)
    ids = {attempt.request_id for attempt in chosen}
    pilot = Agreement(new=RequestIds(ids), price_microusd=price)
    # MONEY: the limit holds for both parts together.
    most = agreement.max_purchases
    rest = replace(
        agreement,
        new=agreement.new.without(ids),  # candidates of shots included that are not wanted yet
        price_microusd=agreement.price_microusd - price,
        max_purchases=None if most is None else most - len(ids),
    )
    return pilot, rest


def _pilot(job: _BoundRun, pilot: Agreement) -> int | None:
    """Buy the pilot's requests first; None when all of them came out well, else the exit code."""
    found = job.run
    chosen = pilot_ids(job.opened, found, pilot)
    code = job.buy(pilot, show_end=False)
    states = job.opened.workspace.queries.states(chosen)
    if pilot_succeeded(job.opened, found, states.values()):
        print_notice([f"pilot: {len(chosen)} of {len(chosen)} rendered; the rest follows"])
        return None
    print_notice([f"pilot: not all of {len(chosen)} rendered ({_tally(states.values())}); nothing more is bought"])
    # An interrupted pilot, or one that met a budget, keeps its own code; one that merely failed must not end with 0.
    return code if code in STOPPING_CODES else ExitCode.UNFINISHED


def pilot_ids(opened: SpendingSession, run: Run, pilot: Agreement) -> list[str]:
    """The ids of the pilot's requests, sorted; read before they are bought."""
    return sorted(
        attempt.request_id
        for page in opened.workspace.queries.iter_attempts(run.run_id, (State.PLANNED,))
        for attempt in page
        if attempt.request_id in pilot
    )


def pilot_succeeded(opened: SpendingSession, run: Run, states: Iterable[State]) -> bool:
    """Whether every request of the pilot is done, and no paid video of the run is missing where videos are fetched."""
    workspace = opened.workspace
    downloads = workspace.settings.download.enabled
    missing = workspace.queries.without_video(run.run_id) if downloads else 0
    return all(state is State.DONE for state in states) and missing == 0


def _tally(states: Iterable[State]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(Counter(states).items()))
