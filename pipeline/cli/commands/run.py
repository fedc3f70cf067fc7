"""`run`, `submit` and `collect`: reads what to buy, asks where asking is due, carries the run out, reports it."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pipeline.cli.arguments import bound_manifest, money, print_notice, seconds, selection_of, settings_of
from pipeline.cli.commands.plan import plan_text
from pipeline.config.loader import read_key
from pipeline.config.settings import Settings
from pipeline.errors import FatalError, UsageError
from pipeline.ledger.budget import NO_CAPS
from pipeline.ledger.queries import Run
from pipeline.ledger.workspace import open_for_spending
from pipeline.planning.against_ledger import looked_at_objects, plan_against_ledger
from pipeline.planning.requests import bind_manifest
from pipeline.planning.run_setup import PurchaseOrder, open_run, runs_to_collect, worst_exit_code
from pipeline.planning.saved_plan import load
from pipeline.records import State, usd
from pipeline.runner.engine import RunOptions
from pipeline.runner.failure_limit import parse_failure_limit
from pipeline.runner.session import SpendingSession, run_session


def run(args: argparse.Namespace) -> int:
    """Submit, poll, download, report. The same command again continues."""
    return _buy(args, run_options(args, buy=True, collect=True))


def submit(args: argparse.Namespace) -> int:
    """Buy and leave."""
    return _buy(args, run_options(args, buy=True, collect=False))


def collect(args: argparse.Namespace) -> int:
    """Poll, download and report what is already bought. Never spends."""
    settings = settings_of(args)
    wishes = run_options(args, buy=False, collect=True)
    if args.cluster:
        from pipeline.cli.commands.run_on_cluster import collect_on_cluster

        return collect_on_cluster(args, settings, wishes)
    with session(settings, args) as opened:
        codes = [
            run_session(opened, run, caps=NO_CAPS, wishes=wishes) for run in runs_to_collect(opened.workspace, args.run)
        ]
    return worst_exit_code(codes, nothing=args.error_on_nothing)


def run_options(args: argparse.Namespace, *, buy: bool, collect: bool) -> RunOptions:
    """What the flags want of a run."""
    return RunOptions(
        buy=buy,
        collect=collect,
        max_new=args.max_new if buy else None,
        max_duration_s=seconds(args.max_duration, "--max-duration"),
        halt=parse_failure_limit(args.halt) if buy and args.halt else None,
        quiet=args.quiet,
        show_bar=not args.no_progress,
        log_json=args.log_json,
        error_on_nothing=args.error_on_nothing,
        webhook=args.webhook,
        preflight=not (buy and args.no_preflight),
    )


@contextmanager
def session(settings: Settings, args: argparse.Namespace) -> Iterator[SpendingSession]:
    """The ledger opened for spending, with the key for its gateway; notices are told.

    Raises:
        FatalError: a live gateway and no key.
        LockedError: another run works on this ledger.
    """
    key = resolve_api_key(settings)
    lock_wait_s = seconds(args.lock_wait, "--lock-wait") or 0.0
    with open_for_spending(settings, lock_wait_s=lock_wait_s, now=time.time()) as workspace:
        print_notice(workspace.notices)
        yield SpendingSession(workspace=workspace, key=key, tell=lambda line: print_notice([line]))


def resolve_api_key(settings: Settings) -> str:
    """The gateway's key; the sandbox has one of its own, and the person's is never sent to it.

    Raises:
        FatalError: a live gateway and no key.
    """
    if settings.gateway.is_embedded:
        return settings.sandbox.key
    key = read_key(os.environ, Path.home())
    if key is None:
        raise FatalError(
            "no key: put it into the environment variable PIXAZO_API_KEY or the file ~/.pixazo/api-key (chmod 600); "
            "nothing was sent"
        )
    return key


def _order(args: argparse.Namespace, settings: Settings) -> PurchaseOrder:
    flag = money(args.max_cost, "--max-cost")
    if args.plan is None:
        if args.manifest is None:
            raise UsageError("name a manifest, or a plan with --plan PLAN")
        bound = bound_manifest(args, settings)
        return PurchaseOrder(bound=bound, caps=bound.caps(flag))
    if args.manifest is not None or not selection_of(args).is_all or args.max_rows:
        raise UsageError("--plan holds the manifest and the choice of rows: leave both out")
    plan = load(args.plan)
    bound = bind_manifest(
        plan.manifest, settings, frozen_seeds=plan.seeds, selection=plan.selection, max_rows=plan.max_rows
    )
    return PurchaseOrder(bound=bound, caps=bound.caps(flag), plan=plan)


def _buy(args: argparse.Namespace, wishes: RunOptions) -> int:
    settings = settings_of(args)
    if args.cluster:
        from pipeline.cli.commands.run_on_cluster import check

        check(args, settings)
    order = _order(args, settings)
    path = order.bound.manifest.path
    if args.dry_run:
        print(plan_text(path, plan_against_ledger(order.bound, settings), order.caps, settings))
        return 0
    print_notice(f"warning: {warning}" for warning in looked_at_objects(order.bound, settings))
    order.bound.must_be_seen = True
    if not settings.gateway.is_embedded and not args.yes and not _agreed(path, order, settings):
        print_notice(["not bought: the answer was no"])
        return 2
    if args.cluster:
        from pipeline.cli.commands.run_on_cluster import run_ordered

        return run_ordered(args, settings, order, wishes)
    with session(settings, args) as opened:
        found = open_run(opened.workspace, order)
        print_notice(f"warning: {warning}" for warning in order.bound.warnings)
        sha256_of = order.bound.binder.sha256_of
        if args.pilot is not None:
            code = _pilot(opened, found, order, wishes, args.pilot)
            if code is not None:
                return code
        return run_session(opened, found, caps=order.caps, wishes=wishes, manifest=path, sha256_of=sha256_of)


def _pilot(opened: SpendingSession, found: Run, order: PurchaseOrder, wishes: RunOptions, count: int) -> int | None:
    """Buys the `count` cheapest requests first; None when all of them came out well, else the exit code."""
    book = opened.workspace.book
    prices = opened.workspace.settings.prices_microusd
    waiting = book.attempts_in(found.run_id, (State.PLANNED,))
    waiting.sort(key=lambda attempt: prices[attempt.params.model])
    chosen = frozenset(attempt.request_id for attempt in waiting[:count])
    if not chosen:
        return None
    code = run_session(
        opened,
        found,
        caps=order.caps,
        wishes=replace(wishes, only=chosen),
        manifest=order.bound.manifest.path,
        sha256_of=order.bound.binder.sha256_of,
    )
    states = book.states(sorted(chosen))
    if all(state is State.DONE for state in states.values()) and book.without_video(found.run_id) == 0:
        print_notice([f"the pilot's {len(chosen)} came out well; going on"])
        return None
    print_notice([f"the pilot did not come out well ({_tally(states.values())}); nothing more is bought"])
    return code if code in (7, 3, 8, 129, 130, 143) else 5


def _tally(states: object) -> str:
    counts: dict[str, int] = {}
    for state in states:  # type: ignore[attr-defined] # an iterable of states
        counts[state] = counts.get(state, 0) + 1
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))


def _agreed(path: Path, order: PurchaseOrder, settings: Settings) -> bool:
    """Whether the person agrees to the price; a budget is an agreement made beforehand.

    Raises:
        UsageError: nobody is there to ask, and nothing bounds the spending.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        if order.caps.any:
            return True
        raise UsageError(
            f"{settings.gateway.base_url} charges for this: give --yes or a budget (--max-cost USD, or `budget` in the "
            "manifest or the configuration) to run without a terminal; nothing was sent"
        )
    found = plan_against_ledger(order.bound, settings)
    if found.new == 0:
        return True
    print_notice([plan_text(path, found, order.caps, settings)])
    return confirm(f"buy {found.new} videos for ${usd(found.new_price_microusd)}?")


def confirm(question: str) -> bool:
    """Whether the person at the terminal says yes."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
