"""`run`, `arun` and `collect`: the calls that reach the gateway."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar

from pipeline.api.arguments import Dollars, at_least_one, max_cost_microusd, selection, settings_from
from pipeline.api.blocking import wait_for
from pipeline.api.manifests import manifest_file
from pipeline.api.reading import bound_manifest
from pipeline.api.results import RunResult, figures_of
from pipeline.assets.object_checks import check_objects_async
from pipeline.cli.arguments import print_notice, print_warnings
from pipeline.config.settings import Settings
from pipeline.errors import UsageError
from pipeline.ledger.budget import NO_CAPS
from pipeline.ledger.run_registry import Run
from pipeline.ledger.workspace import account_of, open_for_spending
from pipeline.planning.against_ledger import make_offer
from pipeline.planning.run_setup import PurchaseOrder, list_run, runs_to_collect
from pipeline.runner.credentials import resolve_api_key
from pipeline.runner.finish import RunOutcome
from pipeline.runner.pilot import buy_pilot
from pipeline.runner.price_check import check_prices
from pipeline.runner.run_job import RunInputs, RunOptions, SpendingSession
from pipeline.runner.session import run_session_async

P = ParamSpec("P")
T = TypeVar("T")


async def arun(
    manifest: object,
    config: Path | str | None = None,
    *,
    name: str | None = None,
    max_cost: Dollars | None = None,
    yes: bool = False,
    tags: Iterable[str] | str = (),
    first: int | None = None,
    sample: int | None = None,
    pilot: int | None = None,
    max_new: int | None = None,
    progress: bool = True,
    new_ledger: bool = False,
    **settings: object,
) -> RunResult:
    """Buy a manifest's videos, wait for them, download them and report them; the same call again continues.

    Pays: at a live gateway only with `max_cost` or `yes`. Budgets of the manifest and the configuration apply as well.
    Interrupting drains the run: nothing more is bought, and the exit code is 130.

    Args:
        manifest: a file, a DataFrame, a list of dictionaries (one for each row), or a whole YAML manifest as a
            dictionary.
        config: a configuration file; without it ./configs/default.yaml, else the sandbox's.
        name: of the run, where the manifest is no file; `notebook` unless given.
        max_cost: US dollars that this run may cost in all its calls.
        yes: buy whatever it costs, up to the budgets.
        tags: buy rows with one of these tags. `first`: the first N rows. `sample`: N videos, the same ones each time.
        pilot: buy the N cheapest first, and the rest only if all of them came.
        max_new: buy at most N videos in this call.
        progress: show progress on stderr.
        new_ledger: buy with a ledger that this account has not used before.
        settings: `section__key=value`, e.g. `outputs__dir="films"`.

    Raises:
        UsageError: mistakes, or a live gateway and no limit of what may be spent; nothing was sent.
        LockedError: another run has this ledger.
        FatalError: no key, no price, or the ledger refuses.
    """
    found = settings_from(config, settings)
    cap = None if max_cost is None else max_cost_microusd(max_cost)
    for argument, value in {"pilot": pilot, "max_new": max_new}.items():
        at_least_one(argument, value)
    if not found.gateway.is_embedded and cap is None and not yes:
        raise UsageError(
            f"{found.gateway.base_url} charges for this: give max_cost=5.00, or yes=True; nothing was sent"
        )
    bound = bound_manifest(manifest_file(manifest, name), found, selection(tags, first, sample))
    warnings = await check_objects_async(found, bound.objects(), manifest=bound.manifest.path, now=time.time())
    print_warnings(warnings)
    order = PurchaseOrder(bound=bound, max_cost_microusd=cap)
    with _session(found, new_ledger=new_ledger) as session:
        workspace = session.workspace
        # MONEY: compared under the lock, so that what is bought is what the manifest and the ledger say now.
        offer = make_offer(bound, found, workspace.queries, max_new=max_new, must_be_checked=True)
        print_warnings(await check_prices(found, session.key, offer.models))
        opened, caps = list_run(workspace, order, offer)
        print_warnings(offer.summary.warnings)
        inputs = RunInputs(
            run=opened,
            caps=caps,
            options=RunOptions(show_bar=progress, quiet=not progress, agreement=offer.agreement),
            manifest=bound.manifest.path,
            sha256_of=offer.summary.sha256_of,
        )
        outcome = await _buy(session, inputs, pilot)
    return _result(outcome, opened, found)


def _blocking(function: Callable[P, Coroutine[object, object, T]]) -> Callable[[Callable[..., object]], Callable[P, T]]:
    """Make a plain function of a coroutine function: the name is the decorated one's, all else is `function`'s."""

    def decorate(named: Callable[..., object]) -> Callable[P, T]:
        @functools.wraps(function, assigned=("__module__", "__doc__", "__annotations__"))
        @functools.wraps(named, assigned=("__name__", "__qualname__"))
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return wait_for(lambda: function(*args, **kwargs))

        return call

    return decorate


@_blocking(arun)
def run() -> None:
    """Documented as `arun`."""


async def _collect(
    run: RunResult | str | None = None,
    config: Path | str | None = None,
    *,
    progress: bool = True,
    **settings: object,
) -> list[RunResult]:
    """Wait for videos that are paid for, download and report them. Never buys.

    Args:
        run: a result, a run's name or its beginning; without it every run that has open requests.
        config: a configuration file, as in `run`. `settings`: as in `run`.
        progress: show progress on stderr.

    Raises:
        UsageError: there is no such run at this gateway.
        LockedError: another run has this ledger.
    """
    found = run.settings if isinstance(run, RunResult) else settings_from(config, settings)
    name = run.run_id if isinstance(run, RunResult) else run
    options = RunOptions(buy=False, show_bar=progress, quiet=not progress)
    results = []
    with _session(found, new_ledger=None) as session:
        for one in runs_to_collect(session.workspace, name):
            outcome = await run_session_async(session, RunInputs(run=one, caps=NO_CAPS, options=options))
            results.append(_result(outcome, one, found))
    return results


@_blocking(_collect)
def collect() -> None:
    """Documented as `_collect`."""


async def _buy(session: SpendingSession, inputs: RunInputs, pilot: int | None) -> RunOutcome:
    """Buy what was agreed; with a pilot its `pilot` cheapest first, and the rest only if all of them came."""
    if pilot is None:
        return await run_session_async(session, inputs)
    found = await buy_pilot(session, inputs, pilot)
    if found.outcome is not None and found.exit_code is not None:
        reasons = (*found.outcome.reasons, "the pilot did not succeed: nothing more was bought")
        return replace(found.outcome, exit_code=found.exit_code, reasons=reasons)
    return await run_session_async(session, inputs.buying(found.rest))


@contextmanager
def _session(settings: Settings, *, new_ledger: bool | None) -> Iterator[SpendingSession]:
    """The ledger opened for spending, with the key of its gateway; notices are printed.

    Args:
        new_ledger: as in `run`; None for a call that buys nothing.
    """
    key = resolve_api_key(settings)
    account = None if new_ledger is None else account_of(settings, key, allow_new_ledger=new_ledger)
    with open_for_spending(settings, lock_wait_s=0.0, now=time.time(), account=account) as workspace:
        print_notice(workspace.notices)
        yield SpendingSession(workspace=workspace, key=key, notify=lambda line: print_notice([line]))


def _result(outcome: RunOutcome, run: Run, settings: Settings) -> RunResult:
    return RunResult(
        run_id=outcome.run_id,
        gateway=run.gateway,
        folder=outcome.folder.absolute(),
        **figures_of(outcome.totals),
        reasons=outcome.reasons,
        exit_code=outcome.exit_code,
        settings=settings,
    )
