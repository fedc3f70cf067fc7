"""What a command is to buy or to collect, and the run of the ledger that this becomes. Sends nothing."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import ExitCode, UsageError, gravest
from pipeline.ledger.budget import Caps, lowest
from pipeline.ledger.reviews import latest_verdicts
from pipeline.ledger.run_registry import Run, name_of_part
from pipeline.ledger.shots import mark_wanted
from pipeline.ledger.workspace import OpenLedger
from pipeline.planning.against_ledger import Offer, make_offer
from pipeline.planning.requests import BoundManifest
from pipeline.planning.saved_plan import SavedPlan
from pipeline.reports.missing_videos import missing_videos
from pipeline.reports.run_folder import run_name
from pipeline.reports.run_lookup import find_run, starter_name

if TYPE_CHECKING:
    from sqlalchemy import Connection

LOCAL_MARK = "local:"
"""Begins the digest of rows that depend on files of this machine: they are read again each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PurchaseOrder:
    """What a command is to buy: the rows, the cap it was given, and the plan it was agreed in, if any.

    `max_cost_microusd` is the command's own `--max-cost`, micro-dollars.
    """

    bound: BoundManifest
    max_cost_microusd: int | None = None
    plan: SavedPlan | None = None

    @property
    def digest(self) -> str:
        """What the rows depend on; a run that a plan began belongs to that plan."""
        return self.bound.digest() if self.plan is None else f"plan:{self.plan.state_digest}:{self.bound.digest()}"


def open_run(
    workspace: OpenLedger,
    order: PurchaseOrder,
    offer: Offer,
    also: Callable[[Connection, str], None] | None = None,
) -> Run:
    """The unfinished run of this manifest, or a new one, listing what the manifest says now.

    Which candidates of its shots are wanted is decided again. `offer` is what was made of the order; `also` is done
    with the run's name in the transaction that lists its rows.

    Raises:
        UsageError: the saved plan no longer fits.
    """
    bound, digest = order.bound, order.digest
    path = str(bound.manifest.origin.resolve())
    found = workspace.queries.unfinished_run(path, workspace.gateway, bound.selection.part)
    new: Run | None = None
    if order.plan is not None:
        # What this very plan began, and a crash interrupted, is no change since the plan.
        continues = found is not None and found.rows_digest in (digest, LOCAL_MARK + digest)
        check_plan(workspace, order, order.plan, continues=continues)
    if found is None:
        found = new = _new_run(bound, workspace.gateway, path)
    run_id, verdicts = found.run_id, latest_verdicts(workspace.ledger)

    def then(connection: Connection) -> None:
        mark_wanted(connection, run_id, verdicts)
        if also is not None:
            also(connection, run_id)

    if found.rows_digest != digest:
        mark = LOCAL_MARK if offer.summary.sha256_of else ""
        bound.read(
            lambda rows: workspace.queries.sync_rows(run_id, rows, rows_digest=mark + digest, new=new, also=then),
            known=workspace.queries,
            must_be_checked=True,
        )
    else:
        # The same digest gives the same rows, which are listed already: only what follows from the ledger is made
        # again.
        workspace.ledger.transact(then)
    workspace.queries.set_caps(found.run_id, bound.manifest_caps())
    if new is not None:
        workspace.ledger.saved_states.save(starter_name(found.run_id), {"user": operator_name()})
    return found


def _new_run(bound: BoundManifest, gateway: str, path: str) -> Run:
    now, name = time.time(), name_of_part(bound.manifest.name, bound.selection.part)
    return Run(
        run_id=run_name(name, now),
        name=name,
        gateway=gateway,
        manifest_path=path,
        rows_digest=None,
        started_at=now,
        ended_at=None,
        sheet=_sheet(bound),
    )


def operator_name() -> str:
    """The account that the command runs under, for `dop list` and reports; "" where the system has no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def check_plan(workspace: OpenLedger, order: PurchaseOrder, plan: SavedPlan, *, continues: bool) -> None:
    """Refuse a plan whose requests changed (a picture that was edited), or of which something was bought elsewhere.

    Args:
        continues: whether a run of this plan is there already, so that what it bought is no change.

    Raises:
        UsageError: the plan is refused.
    """
    if plan.gateway != workspace.gateway:
        raise UsageError(f"the plan is for {plan.gateway}, and the configuration is for {workspace.gateway}")
    # The cheap comparison first: the next ones read the whole manifest and every picture.
    if plan.rows_digest != order.bound.digest():
        raise UsageError("the manifest, the defaults or the prices changed since the plan was made: make a new plan")
    now = make_offer(order.bound, workspace.settings, workspace.queries, must_be_checked=True).plan
    if now.requests_digest != plan.requests_digest:
        raise UsageError("a picture changed since the plan was made: make a new plan; nothing was sent")
    if not continues and now.state_digest != plan.state_digest:
        raise UsageError("something of the plan was bought or settled since it was made: make a new plan")


def list_run(workspace: OpenLedger, order: PurchaseOrder, offer: Offer) -> tuple[Run, Caps]:
    """`open_run`, with this command's `--max-cost` kept, and the caps that hold for the command."""
    run = open_run(workspace, order, offer)
    keep_max_cost(workspace, run, order.max_cost_microusd)
    return run, caps_of_run(workspace, run, allowed=order.bound.caps(), max_cost_microusd=order.max_cost_microusd)


def caps_of_run(workspace: OpenLedger, run: Run | None, *, allowed: Caps, max_cost_microusd: int | None) -> Caps:
    """The caps that hold for a command on this run, micro-dollars.

    The newest `--max-cost` that a command gave this run holds until another command gives another: a command that
    continues the run, or retries a part of it, stays under the sum that was agreed before.

    Args:
        allowed: what the manifest and the configuration allow.
        max_cost_microusd: this command's own `--max-cost`.
    """
    most = max_cost_microusd
    if most is None and run is not None:
        # MONEY: or `--max-cost 5` given once, and then the same command without it, would buy without a bound.
        most = workspace.queries.kept_max_cost(run.run_id)
    return lowest((allowed, Caps(run_microusd=most)))


def keep_max_cost(workspace: OpenLedger, run: Run, max_cost_microusd: int | None) -> None:
    """Remember a command's `--max-cost` for the commands that continue this run."""
    if max_cost_microusd is not None:
        workspace.queries.keep_max_cost(run.run_id, max_cost_microusd)


def _sheet(bound: BoundManifest) -> dict[str, str] | None:
    sheet = bound.manifest.sheet
    if sheet is None:
        return None
    named = {"x": sheet.x, "y": sheet.y, "tabs": sheet.tabs}
    return {place: axis for place, axis in named.items() if axis is not None}


def runs_to_collect(workspace: OpenLedger, wanted: str | None) -> list[Run]:
    """The run that is named, or every one with something open or with a video that is gone.

    Raises:
        UsageError: there is none of that name at this gateway.
    """
    queries = workspace.queries
    if wanted is None:
        ours = [run for run in queries.runs() if run.gateway == workspace.gateway]
        # A run whose whole folder was moved away or removed is fetched again when it is named, not by the way.
        here = {run.run_id for run in ours if (workspace.outputs / run.run_id).is_dir()}
        return [
            run
            for run in ours
            if queries.has_open(run.run_id) or (run.run_id in here and missing_videos(workspace, run))
        ]
    run = find_run(workspace, wanted)
    if run.gateway != workspace.gateway:
        raise UsageError(f"run {run.run_id} belongs to {run.gateway}, and the configuration is for {workspace.gateway}")
    return [run]


def worst_exit_code(codes: list[int], *, nothing: bool) -> ExitCode:
    """The one exit code of several runs; `nothing` says that it reports that there was none."""
    if not codes:
        return ExitCode.NOTHING if nothing else ExitCode.DONE
    return gravest(code for code in codes if code != ExitCode.NOTHING)
