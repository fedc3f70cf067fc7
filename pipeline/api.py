"""The notebook's door: plan, run and report as functions that return typed results. The same corridor as the command.

Nothing here decides about money: what `dop run` refuses is refused here, and a live gateway needs to be told each time
what may be spent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.assets.object_checks import check_objects_async
from pipeline.cli.arguments import print_notice
from pipeline.config.loader import environment, load
from pipeline.config.settings import Settings
from pipeline.errors import UsageError
from pipeline.ledger.workspace import account_of, ledger_exists, ledger_name, open_for_reading, open_for_spending
from pipeline.manifest.reader import TooManyRowsError
from pipeline.planning.against_ledger import make_offer, plan_against_ledger
from pipeline.planning.plan import Plan
from pipeline.planning.requests import BoundManifest, bind_manifest, with_price
from pipeline.planning.run_setup import PurchaseOrder, caps_of_run, keep_max_cost, open_run
from pipeline.records import MICROUSD, Attempt, State, Totals, microusd
from pipeline.reports.dataframe import to_frame
from pipeline.reports.run_folder import RunFolder
from pipeline.reports.run_lookup import find_run
from pipeline.reports.summary import summary_line
from pipeline.reports.writer import report_rows
from pipeline.runner.credentials import resolve_api_key
from pipeline.runner.engine import RunOptions
from pipeline.runner.session import RunOutcome, SpendingSession, run_session_async

if TYPE_CHECKING:
    import pandas as pd

Dollars = str | int | Decimal
"""US dollars. A float is no amount: 0.1 is not a tenth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended. `exit_code` is that of `dop run`: 0 all done, 3 an unknown outcome, 5 unfinished, 8 budget."""

    run_id: str
    folder: Path
    totals: Totals
    reasons: tuple[str, ...]
    exit_code: int
    settings: Settings = field(repr=False)

    @property
    def counts(self) -> dict[str, int]:
        """How many requests are in each state."""
        return {state.value: count for state, count in self.totals.counts.items()}

    @property
    def done(self) -> int:
        """How many videos the run has."""
        return self.totals.count(State.DONE)

    @property
    def confirmed_usd(self) -> Decimal:
        """What the videos cost."""
        return dollars(self.totals.confirmed_microusd)

    @property
    def disputed_usd(self) -> Decimal:
        """What failed and refused jobs cost, unless they are refunded."""
        return dollars(self.totals.disputed_microusd)

    @property
    def reserved_usd(self) -> Decimal:
        """What is in flight or unknown."""
        return dollars(self.totals.reserved_microusd)

    def __str__(self) -> str:
        return summary_line(self.totals, self.run_id)


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """One run's attempts as the ledger had them, in the manifest's order, and the same as a table."""

    run_id: str
    gateway: str
    folder: Path
    totals: Totals
    attempts: tuple[Attempt, ...]
    rows: tuple[Mapping[str, object], ...] = field(repr=False)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The lines of report.csv with typed columns; `video` is the clip's absolute path, or missing."""
        frame = to_frame(dict(row) for row in self.rows)
        return frame.assign(video=frame["local_path"].map(self._absolute, na_action="ignore"))

    def _absolute(self, local_path: str) -> str:
        return os.path.normpath(self.folder / local_path)

    def __str__(self) -> str:
        return summary_line(self.totals, self.run_id)


def dollars(amount_microusd: int) -> Decimal:
    """Exact US dollars."""
    return Decimal(amount_microusd) / MICROUSD


def plan(path: Path | str, config: Path | str | None = None, **settings: object) -> Plan:
    """What a manifest would buy, split into new, done, in flight, unknown and failed. Sends nothing.

    Args:
        config: a configuration file; without it ./configs/default.yaml, else the sandbox's.
        settings: `section__key=value`, e.g. `outputs__dir="films"`, as the environment has it.

    Raises:
        ManifestError, UsageError: all mistakes.
    """
    found = _settings(config, settings)
    return _planned(_listing(Path(path), found), found)


async def run(
    path: Path | str,
    config: Path | str | None = None,
    *,
    max_cost: Dollars | None = None,
    yes: bool = False,
    max_new: int | None = None,
    progress: bool = True,
    new_ledger: bool = False,
    **settings: object,
) -> RunResult:
    """Submits, polls, downloads and reports; the same call again continues. Interrupting it drains the run.

    Pays: a live gateway only with `max_cost` or `yes`; budgets of the manifest and the configuration hold besides.

    Args:
        max_cost: US dollars, the most this run may cost over all its restarts.
        yes: buy whatever it costs, up to the budgets.
        max_new: buy at most so many in this call.
        progress: a bar on stderr.
        new_ledger: buy with a ledger that this account has not used before.

    Raises:
        UsageError: mistakes, or a live gateway and nothing that says what may be spent; nothing was sent.
        LockedError: another run works on this ledger.
        FatalError: no key, no price, or the ledger refuses.
    """
    found = _settings(config, settings)
    cap = None if max_cost is None else _microusd(max_cost)
    if not found.gateway.is_embedded and cap is None and not yes:
        raise UsageError(
            f"{found.gateway.base_url} charges for this: say max_cost='5.00', or yes=True; nothing was sent"
        )
    bound = _listing(Path(path), found)
    looks = await check_objects_async(found, bound.objects(), manifest=bound.manifest.path, now=time.time())
    print_notice(f"warning: {warning}" for warning in looks)
    bound.must_be_seen = True
    order = PurchaseOrder(bound=bound, max_cost_microusd=cap)
    key = resolve_api_key(found)
    account = account_of(found, key, allow_new_ledger=new_ledger)
    with open_for_spending(found, lock_wait_s=0.0, now=time.time(), account=account) as workspace:
        print_notice(workspace.notices)
        # MONEY: compared under the lock, so that what is bought is what the manifest and the ledger say now.
        offer = make_offer(bound, found, workspace.book, max_new=max_new)
        opened = open_run(workspace, order)
        keep_max_cost(workspace, opened, cap)
        options = RunOptions(agreement=offer.agreement, show_bar=progress, quiet=not progress)
        print_notice(f"warning: {warning}" for warning in bound.warnings)
        session = SpendingSession(workspace=workspace, key=key, tell=lambda line: print_notice([line]))
        outcome = await run_session_async(
            session,
            opened,
            caps=caps_of_run(workspace, opened, allowed=bound.caps(), max_cost_microusd=cap),
            options=options,
            manifest=bound.manifest.path,
            sha256_of=bound.binder.sha256_of,
        )
    return _result(outcome, found)


def report(run: RunResult | str | None = None, config: Path | str | None = None, **settings: object) -> RunReport:
    """A run's attempts and its table; of the newest run unless named. Sends nothing.

    Args:
        run: what `run()` returned, a run's name or its beginning, or its folder.

    Raises:
        UsageError: there is no such run.
    """
    found = run.settings if isinstance(run, RunResult) else _settings(config, settings)
    name = run.run_id if isinstance(run, RunResult) else run
    if not ledger_exists(found):
        raise UsageError(f"no run yet in {ledger_name(found)}")
    with open_for_reading(found) as workspace:
        chosen = find_run(workspace, name)
        folder = RunFolder(workspace.outputs, chosen.run_id)
        attempts = (line for line in workspace.book.report(chosen.run_id) if isinstance(line, Attempt))
        return RunReport(
            run_id=chosen.run_id,
            gateway=chosen.gateway,
            folder=folder.path.absolute(),
            totals=workspace.book.totals(chosen.run_id),
            attempts=tuple(attempts),
            rows=tuple(report_rows(workspace, chosen, folder)),
        )


def _settings(config: Path | str | None, given: Mapping[str, object]) -> Settings:
    overrides = {name.replace("__", ".", 1): _text(value) for name, value in given.items()}
    path = None if config is None else Path(config)
    return load(path, overrides=overrides, environ=environment(os.environ, Path.cwd()))


def _text(value: object) -> str:
    """A setting as somebody would write it."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _microusd(amount: Dollars) -> int:
    if isinstance(amount, float):
        raise UsageError(f"max_cost={amount!r}: give dollars as text, e.g. '5.00'; nothing was sent")
    try:
        return microusd(amount)
    except ValueError as error:
        raise UsageError(f"max_cost: {error}; nothing was sent") from None


def _listing(path: Path, settings: Settings) -> BoundManifest:
    try:
        return bind_manifest(path, settings)
    except TooManyRowsError as error:
        raise with_price(error, settings) from None


def _planned(bound: BoundManifest, settings: Settings) -> Plan:
    found = plan_against_ledger(bound, settings).plan
    print_notice(f"warning: {warning}" for warning in bound.warnings)
    return found


def _result(outcome: RunOutcome, settings: Settings) -> RunResult:
    return RunResult(
        run_id=outcome.run_id,
        folder=outcome.folder.absolute(),
        totals=outcome.totals,
        reasons=outcome.reasons,
        exit_code=outcome.exit_code,
        settings=settings,
    )
