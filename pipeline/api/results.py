"""What the calls return: a plan, how a run ended, and a run's table. Money is in US dollars."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.api.arguments import dollars
from pipeline.api.html import plan_html, run_html
from pipeline.config.settings import Settings
from pipeline.errors import UsageError
from pipeline.ledger.workspace import ledger_exists, ledger_name, open_for_reading
from pipeline.planning.plan import Plan
from pipeline.planning.requests import BoundManifest
from pipeline.records import MICROUSD, Request, State, Totals, counted
from pipeline.reports.dataframe import to_frame
from pipeline.reports.run_folder import RunFolder
from pipeline.reports.run_lookup import find_run
from pipeline.reports.writer import report_rows

if TYPE_CHECKING:
    import pandas as pd

_IN_WORDS = {State.ACCEPTED.value: "in flight", State.PLANNED.value: "not bought"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCost:
    """How many videos of one model, and their price in US dollars."""

    requests: int
    price_usd: Decimal


@dataclass(frozen=True, kw_only=True)
class ManifestPlan:
    """What a manifest asks for, split by what the ledger knows of it. Prices are in US dollars.

    `price_usd` is that of all `requests`, `new_price_usd` what a run would pay now.
    """

    requests: int
    price_usd: Decimal
    new: int
    new_price_usd: Decimal
    done: int
    in_flight: int
    unknown: int
    failed: int
    skipped: int
    duplicates: int
    by_model: Mapping[str, ModelCost]
    _bound: BoundManifest = field(repr=False)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Every video as it would be sent: row, state, model, seed, motion, strength, prompt, images, price."""
        import pandas as pd  # noqa: PLC0415 - takes half a second, and many a plan is only a sum

        settings = self._bound.settings
        requests, _ = self._bound.read(lambda rows: [row for row in rows if isinstance(row, Request)])
        states: Mapping[str, State] = {}
        if ledger_exists(settings):
            with open_for_reading(settings) as workspace:
                states = workspace.queries.states([request.request_id for request in requests])
        return pd.DataFrame(
            {
                "row_id": request.row_id,
                "state": states.get(request.request_id, State.PLANNED).value,
                "model": request.params.model,
                "seed": request.params.seed,
                "motion": request.motion or request.params.motions_id,
                "strength": request.params.strength_hundredths / 100,
                "prompt": request.params.prompt,
                "image": request.params.input_images[0],
                "price_usd": request.price_microusd / MICROUSD,
            }
            for request in requests
        )

    def __str__(self) -> str:
        return f"{self.new} of {counted(self.requests, 'video')} to buy for ${self.new_price_usd:.3f}"

    def _repr_html_(self) -> str:
        costs = {model: (cost.requests, cost.price_usd) for model, cost in self.by_model.items()}
        return plan_html(str(self), self._counts(), costs)

    def _counts(self) -> dict[str, int]:
        names = ("new", "done", "in_flight", "unknown", "failed", "skipped", "duplicates")
        return {name: count for name in names if (count := getattr(self, name))}


def manifest_plan(plan: Plan, bound: BoundManifest) -> ManifestPlan:
    """The plan with its money in dollars."""
    return ManifestPlan(
        requests=plan.requests,
        price_usd=dollars(plan.price_microusd),
        new=plan.new,
        new_price_usd=dollars(plan.new_price_microusd),
        done=plan.done,
        in_flight=plan.in_flight,
        unknown=plan.unknown,
        failed=plan.failed,
        skipped=plan.skipped,
        duplicates=plan.duplicates,
        by_model={
            model: ModelCost(requests=share.requests, price_usd=dollars(share.price_microusd))
            for model, share in sorted(plan.by_model.items())
        },
        _bound=bound,
    )


@dataclass(frozen=True, kw_only=True)
class RunFigures:
    """One run as the ledger had it: counts of each state, and money in US dollars.

    `confirmed_usd` is what the videos cost, `disputed_usd` what failed and refused jobs cost unless they are refunded,
    `reserved_usd` what is in flight or unknown.
    """

    run_id: str
    gateway: str
    folder: Path
    counts: Mapping[str, int]
    confirmed_usd: Decimal
    disputed_usd: Decimal
    reserved_usd: Decimal

    @property
    def done(self) -> int:
        """How many videos the run has."""
        return self.counts.get(State.DONE.value, 0)

    def __str__(self) -> str:
        others = [f"{n} {_IN_WORDS.get(state, state)}" for state, n in self.counts.items() if state != State.DONE.value]
        videos = ", ".join([f"{self.done} of {counted(sum(self.counts.values()), 'video')}", *others])
        rehearsal = " (sandbox: no money spent)" if self.gateway == "sandbox" else ""
        return f"{self.run_id}: {videos}, ${self.confirmed_usd + self.disputed_usd:.3f}{rehearsal}"


@dataclass(frozen=True, kw_only=True)
class RunReport(RunFigures):
    """A run's figures with a line for every attempt."""

    rows: tuple[Mapping[str, object], ...] = field(repr=False)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The lines of report.csv with typed columns; `video` is the clip's absolute path, or missing."""
        frame = to_frame(dict(row) for row in self.rows)
        return frame.assign(video=frame["local_path"].map(self._absolute, na_action="ignore"))

    def _absolute(self, local_path: str) -> str:
        return os.path.normpath(self.folder / local_path)

    def _repr_html_(self) -> str:
        return run_html(str(self), self.rows, self.folder)


@dataclass(frozen=True, kw_only=True)
class RunResult(RunFigures):
    """How a run ended. `exit_code` is that of `dop run`: 0 all done, 3 an unknown outcome, 5 unfinished, 8 budget.

    `reasons` says in words why the run stopped early, if it did.
    """

    reasons: tuple[str, ...]
    exit_code: int
    settings: Settings = field(repr=False)

    @cached_property
    def report(self) -> RunReport:
        """The run's lines, read once."""
        return load_report(self.settings, self.run_id)

    @property
    def frame(self) -> pd.DataFrame:
        """The run's table: `report.frame`."""
        return self.report.frame

    def __await__(self) -> Generator[None, None, RunResult]:
        """The result itself: `await run(..)`, as it was once written, still gives it."""
        return self
        yield  # which makes this a generator, as `await` asks for

    def __str__(self) -> str:
        return "; ".join((super().__str__(), *self.reasons)) + f" (exit code {self.exit_code})"

    def _repr_html_(self) -> str:
        return run_html(str(self), self.report.rows, self.folder)


def figures_of(totals: Totals) -> dict[str, Any]:
    """How many requests are in each state, and the three sums in dollars, by the names of the figures' fields."""
    return {
        "counts": {state.value: count for state, count in totals.counts.items()},
        "confirmed_usd": dollars(totals.confirmed_microusd),
        "disputed_usd": dollars(totals.disputed_microusd),
        "reserved_usd": dollars(totals.reserved_microusd),
    }


def load_report(settings: Settings, name: str | None) -> RunReport:
    """The run of that name, its beginning or its folder; None for the newest.

    Raises:
        UsageError: there is no such run.
    """
    if not ledger_exists(settings):
        raise UsageError(f"no run yet in {ledger_name(settings)}")
    with open_for_reading(settings) as workspace:
        run = find_run(workspace, name)
        folder = RunFolder(workspace.outputs, run.run_id)
        totals = workspace.queries.totals(run.run_id)
        return RunReport(
            run_id=run.run_id,
            gateway=run.gateway,
            folder=folder.path.absolute(),
            **figures_of(totals),
            rows=tuple(report_rows(workspace, run, folder)),
        )
