"""Find a run or a request by its name, and describe it as JSON."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.ledger.run_registry import Run
from pipeline.ledger.workspace import OpenLedger, ledger_name
from pipeline.records import FAILED_FOR_GOOD, IN_FLIGHT, Attempt, State, Totals, usd

MAX_NAMES = 5
"""Runs that a message lists where several may be meant."""


def ending_name(run_id: str) -> str:
    """Under which name the ledger keeps how a run's newest command ended."""
    return f"ending {run_id}"


def ending_facts(workspace: OpenLedger, run: Run) -> dict[str, object]:
    """How the run's newest command ended: `unfinished`, `budget_reached`, `stopped_by` (a signal's name, or None)."""
    usual: dict[str, object] = {"unfinished": run.ended_at is None, "budget_reached": False, "stopped_by": None}
    kept = workspace.ledger.saved_states.load(ending_name(run.run_id))
    return usual | {key: value for key, value in kept.items() if key in usual}


def starter_name(run_id: str) -> str:
    """Under which name the ledger keeps who started the run."""
    return f"started_by {run_id}"


def started_by(workspace: OpenLedger, run: Run) -> str:
    """The account name of the operator who started the run; "" where it is not known."""
    return str(workspace.ledger.saved_states.load(starter_name(run.run_id)).get("user", ""))


def status_json(run: Run, totals: Totals, rate_per_s: float = 0.0) -> dict[str, object]:
    """The object of `dop status --json`.

    `eta_s` counts what is left to submit at the rate of the last minute; None while nothing was accepted in it.
    """
    left = totals.count(State.PLANNED, State.SUBMITTING)
    return {
        "run": run.run_id,
        "gateway": run.gateway,
        "requests": totals.requests,
        "new": totals.count(State.PLANNED),
        "not_needed": totals.spare,
        "done": totals.count(State.DONE),
        "in_flight": totals.count(*IN_FLIGHT),
        "unknown": totals.count(State.UNKNOWN),
        "failed": totals.count(*FAILED_FOR_GOOD),
        "confirmed_usd": usd(totals.confirmed_microusd),
        "disputed_usd": usd(totals.disputed_microusd),
        "reserved_usd": usd(totals.reserved_microusd),
        "ended": run.ended_at is not None,
        "rate_per_s": round(rate_per_s, 3),
        "eta_s": 0.0 if run.ended_at is not None else round(left / rate_per_s, 1) if rate_per_s and left else None,
    }


def find_run(workspace: OpenLedger, wanted: str | None) -> Run:
    """The run that the user means: a name, a folder, the beginning of a name, or the newest.

    Raises:
        UsageError: there is none, or more than one.
    """
    runs = workspace.queries.runs()
    if not runs:
        raise UsageError(f"no run yet in {ledger_name(workspace.settings)}")
    if wanted is None or Path(wanted).name == "latest":
        latest = workspace.outputs / "latest"
        name = latest.resolve().name if latest.is_symlink() else runs[0].run_id
        return next((run for run in runs if run.run_id == name), runs[0])
    name = Path(wanted).name
    found = [run for run in runs if run.run_id == name] or [run for run in runs if run.run_id.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(run.run_id for run in found[:MAX_NAMES])
        raise UsageError(f"{len(found)} runs begin with {wanted!r}: {names}; write more of the name")
    near = _near(name, [run.run_id for run in runs])
    raise UsageError(f"no run is named {wanted!r}{near}; `dop list` shows them all")


def _near(wanted: str, known: Iterable[str]) -> str:
    """Names that may be meant, for the end of a message; "" where none is near."""
    names = list(dict.fromkeys(known))
    near = [name for name in names if wanted.lower() in name.lower()]
    near += [name for name in difflib.get_close_matches(wanted, names, n=3, cutoff=0.6) if name not in near]
    return f". Did you mean {', '.join(near[:3])}?" if near else ""


def find_request(
    workspace: OpenLedger, wanted: str, *, run: str | None = None, states: Collection[State] = ()
) -> Attempt:
    """The request a user means: the beginning of its id, its row's id, or its job's id; rather one in `states`.

    Args:
        run: the run whose row is meant, where several runs have one of that name.

    Raises:
        UsageError: there is none, or more than one.
    """
    found = workspace.queries.find(wanted)
    if run is not None:
        run_id = find_run(workspace, run).run_id
        found = [one for one in found if workspace.queries.listed(run_id, one.request_id) is not None]
    found = [one for one in found if one.state in states] or found
    found = [one for one in found if one.gateway == workspace.gateway] or found
    if len(found) == 1:
        return found[0]
    if not found:
        rows = workspace.queries.row_ids()
        near = _near(wanted, rows) if len(wanted) > 1 else ""
        listed = f"; rows are {', '.join(rows[:MAX_NAMES])}{', ...' if len(rows) > MAX_NAMES else ''}" if rows else ""
        raise UsageError(f"no request is named {wanted!r}{near or listed}")
    names = ", ".join(f"{one.request_id} ({one.row_id}, {one.run_id}, {one.gateway})" for one in found[:10])
    raise UsageError(f"{len(found)} requests are named {wanted!r}: {names}; name the one by its id")
