"""`resolve` and `retry`: what the operator decides about requests that ended badly or whose outcome is unknown."""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import AbstractContextManager
from dataclasses import replace

from pipeline.cli.announce import Endings, print_start
from pipeline.cli.arguments import (
    ask_to_trust,
    confirm,
    has_terminal,
    lock_wait_s,
    money,
    print_notice,
    print_warnings,
    settings_of,
)
from pipeline.cli.commands.resolve_many import chosen_resolutions
from pipeline.cli.spending import run_options, session
from pipeline.config.settings import Settings
from pipeline.errors import DopError, ExitCode, UsageError
from pipeline.ledger.agreement import Agreement, RequestIds
from pipeline.ledger.budget import NO_CAPS, Caps, lowest
from pipeline.ledger.reviews import latest_verdicts
from pipeline.ledger.run_registry import Run
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied, JobTaken, LedgerChange
from pipeline.ledger.workspace import OpenLedger, open_for_reading, open_for_spending, open_shared
from pipeline.planning.requests import configured_caps
from pipeline.planning.retry import same_content
from pipeline.planning.run_setup import caps_of_run, keep_max_cost
from pipeline.records import RETRYABLE, Attempt, State, counted, usd
from pipeline.reports.checks.findings import RunChecks
from pipeline.reports.run_ending import named
from pipeline.reports.run_lookup import find_request, find_run
from pipeline.runner.adoption_check import check_adoption
from pipeline.runner.credentials import resolve_api_key
from pipeline.runner.downloader import STILL_DEAD
from pipeline.runner.keeper_results import keep_results
from pipeline.runner.link_renewal import NO_RESULT, may_have_video
from pipeline.runner.price_check import check_prices
from pipeline.runner.run_job import RunInputs, SpendingSession
from pipeline.runner.session import run_session


def resolve(args: argparse.Namespace) -> int:
    """Resolves one unknown outcome, or many: adopted, charged, or to be sent again by the next run."""
    _check_way(args)
    settings = settings_of(args)
    if args.adopt is not None and args.id is not None:
        _check_adopted(settings, args)
    with _ledger(settings, args) as workspace:
        print_notice(workspace.notices)
        if args.all or args.from_usage is not None:
            chosen = chosen_resolutions(workspace, args)
            for one in chosen:
                print(_settle(workspace, one.attempt, adopt=one.adopt, charged=one.charged))
            return ExitCode.DONE if chosen else ExitCode.USAGE
        attempt = _unknown_one(workspace, args.id)
        print(_settle(workspace, attempt, adopt=args.adopt, charged=args.charged))
    return 0


def _unknown_one(workspace: OpenLedger, wanted: str) -> Attempt:
    attempt = find_request(workspace, wanted, states=(State.UNKNOWN,))
    if attempt.state is not State.UNKNOWN:
        raise UsageError(f"{attempt.row_id} is {attempt.state}, not unknown: there is nothing to settle")
    return attempt


def _check_adopted(settings: Settings, args: argparse.Namespace) -> None:
    """Ask the gateway for the job that is to be adopted, before the ledger is locked.

    MONEY: a mistyped id would leave the paid job behind for good, since an adopted one is never exchanged.
    """
    with open_for_reading(settings) as workspace:
        attempt = _unknown_one(workspace, args.id)
    try:
        key = resolve_api_key(settings, ask=ask_to_trust)
        unchecked = asyncio.run(check_adoption(settings, key, attempt, args.adopt))
    except UsageError:
        raise
    except DopError as error:  # without a key the operator's word counts, as where the gateway does not answer
        unchecked = str(error)
    if unchecked:
        print_notice([f"the job could not be checked: {unchecked}"])


def _check_way(args: argparse.Namespace) -> None:
    """Exactly one way for one request or all of them; a usage list decides the way itself.

    Raises:
        UsageError: none, or one too many.
    """
    has_way = args.adopt is not None or args.charged or args.resend
    if args.from_usage is not None and (has_way or args.id is not None or args.all):
        raise UsageError("--from-usage decides for every unknown outcome: leave out the request and the other flags")
    if args.from_usage is None and not has_way:
        raise UsageError("say how: --charged, --resend, or --adopt JOB_ID")
    if args.from_usage is None and args.all == (args.id is not None):
        raise UsageError("name one request, or --all for every unknown outcome")


def _ledger(settings: Settings, args: argparse.Namespace) -> AbstractContextManager[OpenLedger]:
    """The ledger to settle in: on a server also while workers run.

    MONEY: not to send again. A worker that is frozen just before its POST would pay a second time when it wakes.
    """
    if settings.ledger.url is not None and not (args.resend or args.from_usage):
        return open_shared(settings, wait_s=lock_wait_s(args), now=time.time())
    return open_for_spending(settings, lock_wait_s=lock_wait_s(args), now=time.time())


def _settle(workspace: OpenLedger, attempt: Attempt, *, adopt: str | None, charged: bool) -> str:
    now = time.time()
    price = usd(attempt.price_microusd)
    if adopt is not None:
        values = {"job_set_id": adopt, "accepted_at": attempt.submitted_at or now, "reason": None}
        _record(workspace, LedgerChange(request_id=attempt.request_id, event=Event.ADOPT, at=now, values=values))
        return f"{attempt.row_id}: in flight as job {adopt}; `dop collect` fetches it"
    if charged:
        values = {"reason": "the operator says it was charged and the video is lost", "finished_at": now}
        _record(workspace, LedgerChange(request_id=attempt.request_id, event=Event.CHARGE, at=now, values=values))
        return f"{attempt.row_id}: written off, ${price} is disputed"
    values = {"reason": "the operator says it was not charged", "resends": attempt.resends + 1}
    _record(workspace, LedgerChange(request_id=attempt.request_id, event=Event.RESEND, at=now, values=values))
    return f"{attempt.row_id}: planned again; the next `dop run` buys it for ${price}"


def _record(workspace: OpenLedger, change: LedgerChange) -> None:
    outcome = workspace.ledger.apply_now(change)
    if isinstance(outcome, JobTaken):
        raise UsageError(f"that job already belongs to request {outcome.owner_request_id}")
    if not isinstance(outcome, Applied):
        raise UsageError("another command resolved it meanwhile; nothing was changed")


def retry(args: argparse.Namespace) -> int:
    """Buys chosen kinds of failure again, each as a new attempt; the price is shown first."""
    settings = settings_of(args)
    kinds = {State(kind) for kind in ("failed", "refused", "expired", "canceled", "rejected") if getattr(args, kind)}
    if not kinds:
        raise UsageError("say which kinds to buy again: --failed --refused --expired --canceled --rejected")
    endings = Endings()
    with session(settings, args, endings) as opened:
        workspace = opened.workspace
        run = find_run(workspace, args.run)
        if run.gateway != workspace.gateway:
            raise UsageError(f"run {run.run_id} belongs to {run.gateway}, the configuration to {workspace.gateway}")
        failed = _not_replaced(workspace, run, _asked_again(opened, run, _of_kinds(workspace, run, kinds), args))
        if args.max_new is not None:
            failed = failed[: args.max_new]
        same = same_content(failed, settings)
        chosen = same.attempts
        for attempt, why in same.changed:
            print_notice([f"left out: row {attempt.row_id}: {why}; run the manifest to buy it as a new video"])
        if not chosen:
            print_notice([f"{run.run_id} has nothing of that kind"])
            return ExitCode.FAILED if same.changed else ExitCode.NOTHING if args.error_on_nothing else ExitCode.DONE
        flag = money(args.max_cost, "--max-cost")
        allowed = lowest((run.caps, configured_caps(settings)))
        caps = caps_of_run(workspace, run, allowed=allowed, max_cost_microusd=flag)
        if args.dry_run:
            price = sum(settings.prices_microusd.get(one.params.model, 0) for one in chosen)
            print(f"{counted(len(chosen), 'video')} would be bought again for ${usd(price)}: ", end="")
            print(named([one.row_id for one in chosen]))
            return 0
        models = {attempt.params.model for attempt in chosen}
        print_warnings(asyncio.run(check_prices(settings, opened.key, models)))
        if not _agreed(chosen, caps, settings, args):
            return ExitCode.USAGE
        keep_max_cost(workspace, run, flag)
        workspace.queries.reopen_run(run.run_id)
        # Those that a budget cut short are planned still, and need no new attempt.
        workspace.queries.new_attempts([one.request_id for one in chosen if one.state is not State.PLANNED])
        keep_results(workspace, run, RunChecks())  # a shot wants those of its candidates that it lacks, in their order
        agreement = Agreement(
            new=RequestIds(attempt.request_id for attempt in chosen),
            price_microusd=sum(settings.prices_microusd[attempt.params.model] for attempt in chosen),
        )
        options = replace(run_options(args, buy=True, collect=True), agreement=agreement)
        code = run_session(opened, RunInputs(run=run, caps=caps, options=options, sha256_of=same.sha256_of))
        code = code or (1 if same.changed else 0)
        endings.print_json(args, code)
        return code


def _asked_again(opened: SpendingSession, run: Run, failed: list[Attempt], args: argparse.Namespace) -> list[Attempt]:
    """Those that a free poll gave no video for: what is made and did not come is asked for before it is bought again.

    MONEY: one whose job the gateway said nothing about is left out. It is paid, and may be fetched later.
    """
    made = {one.request_id for one in failed if may_have_video(one)}
    if not made or args.dry_run:
        return failed
    what = f"{counted(len(made), 'video')} of finished jobs"
    print_notice([f"{what}: asked for once more before anything is bought again"])
    began, queries = time.time(), opened.workspace.queries
    run_session(opened, RunInputs(run=run, caps=NO_CAPS, options=run_options(args, buy=False, collect=True)))
    now = {one.request_id: one for one in queries.latest_attempts(list(made))}
    left = []
    for one in failed:
        newest = now.get(one.request_id, one)
        if one.request_id in made and newest.state is not one.state:
            continue
        if one.request_id in made and not _was_asked(newest, queries.history(one.request_id), since=began):
            print_notice([f"left out: row {one.row_id}: no answer about its paid job; try again later"])
            continue
        left.append(one)
    return left


def _was_asked(attempt: Attempt, history: list[dict[str, object]], *, since: float) -> bool:
    """Whether the gateway said since then that it has no link, or no living one."""
    last = history[-1]
    is_new = last["event"] == Event.NOTE.value and float(str(last["at"])) >= since
    return is_new and (attempt.reason or "").startswith((STILL_DEAD, NO_RESULT))


def _of_kinds(workspace: OpenLedger, run: Run, kinds: set[State]) -> list[Attempt]:
    """Those that ended so, and those that an earlier retry of these kinds planned again and did not buy."""
    queries = workspace.queries
    ended = queries.attempts_in(run.run_id, kinds & RETRYABLE)
    # The last attempt is the one that was planned and not bought; what it was to replace is the one before.
    again = [one for one in queries.attempts_in(run.run_id, (State.PLANNED,)) if one.attempt > 1]
    return ended + [one for one in again if queries.attempts_of(one.request_id)[-2].state in kinds]


def _not_replaced(workspace: OpenLedger, run: Run, failed: list[Attempt]) -> list[Attempt]:
    """Those that no other candidate of their shot took the place of; says how many are left out."""
    replaced = workspace.queries.shots(run.run_id, latest_verdicts(workspace.ledger)).summary.replaced
    left_out = sum(attempt.request_id in replaced for attempt in failed)
    if left_out:
        print_notice([f"left out: {counted(left_out, 'failed candidate')} of rows that have their clips (`keep`)"])
    return [attempt for attempt in failed if attempt.request_id not in replaced]


def _agreed(chosen: list[Attempt], caps: Caps, settings: Settings, args: argparse.Namespace) -> bool:
    prices = settings.prices_microusd
    unpriced = sorted({attempt.params.model for attempt in chosen} - set(prices))
    if unpriced:
        raise UsageError(f"no price is known for {', '.join(unpriced)}; add it under `prices`")
    price = sum(prices[attempt.params.model] for attempt in chosen)
    again = f"{counted(len(chosen), 'video')} again for ${usd(price)}"
    print_start(args, settings, f"Buying {again}.")
    if settings.gateway.is_embedded or args.yes:
        return True
    if has_terminal():
        return confirm(f"Buy {again}?")
    if caps.any:
        return True
    raise UsageError("give --yes or a budget to buy without a terminal; nothing was sent")
