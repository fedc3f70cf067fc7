"""What every command that buys shares: its options, the open ledger, and the user's yes to a price."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.cli.announce import Endings
from pipeline.cli.arguments import ask_to_trust, confirm, has_terminal, lock_wait_s, print_notice, seconds
from pipeline.cli.commands.plan import plan_text
from pipeline.cli.notifier import Notifier, notifying
from pipeline.cli.plan_details import budgets_of
from pipeline.config.network import network_environment
from pipeline.config.settings import Settings
from pipeline.errors import UsageError
from pipeline.ledger.accounts import Account
from pipeline.ledger.workspace import OpenLedger, account_of, open_for_spending
from pipeline.planning.against_ledger import Offer
from pipeline.planning.run_setup import (
    PurchaseOrder,
    caps_of_run,
)
from pipeline.records import counted, usd
from pipeline.runner.credentials import resolve_api_key
from pipeline.runner.failure_limit import parse_failure_limit
from pipeline.runner.run_job import RunOptions, SpendingSession


def run_options(args: argparse.Namespace, *, buy: bool, collect: bool) -> RunOptions:
    """What the flags want of a run."""
    return RunOptions(
        buy=buy,
        collect=collect,
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
def session(settings: Settings, args: argparse.Namespace, endings: Endings) -> Iterator[SpendingSession]:
    """The ledger opened for spending, with the key for its gateway; notices are printed.

    Raises:
        FatalError: a live gateway and no key.
        LockedError: another run works on this ledger.
    """
    with notifying(settings, args.verb) as notifier:
        # Before anything is locked: a proxy or a bundle of certificates that can't be used is refused here.
        network_environment(os.environ).ssl_context()
        key = resolve_api_key(settings, ask=ask_to_trust)
        account, wait_s = buying_account(settings, key, args), lock_wait_s(args)
        with open_for_spending(settings, lock_wait_s=wait_s, now=time.time(), account=account) as workspace:
            print_notice(workspace.notices)
            yield spending_session(workspace, key, endings, notifier)


def spending_session(workspace: OpenLedger, key: str, endings: Endings, notifier: Notifier) -> SpendingSession:
    """A session whose runs are printed, kept for `--json` and notified."""
    return SpendingSession(
        workspace=workspace,
        key=key,
        notify=lambda line: print_notice([line]),
        ended=endings.add,
        announce=notifier.ended,
        needs_user=notifier.needs_user,
    )


def buying_account(settings: Settings, key: str | None, args: argparse.Namespace) -> Account | None:
    """The account that is going to buy; None for the embedded sandbox, and for verbs that buy nothing."""
    if key is None or not hasattr(args, "new_ledger"):
        return None
    ask = confirm if has_terminal() else None
    return account_of(settings, key, allow_new_ledger=args.new_ledger, ask=ask)


def agreed(
    args: argparse.Namespace, order: PurchaseOrder, offer: Offer, settings: Settings, workspace: OpenLedger
) -> bool:
    """Whether the user agrees to the price; a budget is an agreement made beforehand. Prints a no.

    Raises:
        UsageError: there is no terminal to ask at, and nothing bounds the spending.
    """
    if offer.stay_unknown:
        print_notice([f"{offer.stay_unknown} stay unknown: sending them again would pass on_unknown.max_cost"])
    if settings.gateway.is_embedded or args.yes:
        return True
    # A `--max-cost` of an earlier command on this run is an agreement too.
    earlier = workspace.queries.unfinished_run(
        str(order.bound.manifest.origin.resolve()), workspace.gateway, order.bound.selection.part
    )
    caps = caps_of_run(workspace, earlier, allowed=order.bound.caps(), max_cost_microusd=order.max_cost_microusd)
    if not has_terminal():
        if caps.any:
            return True
        raise UsageError(
            f"{settings.gateway.base_url} charges for this: give --yes or a budget (--max-cost USD, or `budget` in the "
            "manifest or the configuration) to run without a terminal; nothing was sent"
        )
    if len(offer.agreement) == 0:
        return True
    budgets = budgets_of(order.bound, offer, settings, max_cost_microusd=order.max_cost_microusd)
    print_notice([plan_text(order.bound.manifest.path, offer.plan, budgets, settings)])
    again = len(offer.agreement.resends)
    repeats = f", {again} of them again after an unknown outcome (perhaps paid already)" if again else ""
    videos, price = counted(len(offer.agreement), "video"), usd(offer.agreement.price_microusd)
    most = ("up to ", "at most ") if offer.plan.keepers is not None else ("", "")
    if confirm(f"Buy {most[0]}{videos} for {most[1]}${price}{repeats}?"):
        return True
    print_notice(["Cancelled; nothing was bought."])
    return False
