"""`cancel`: asks the gateway to cancel jobs that were bought and have not started. Free; only where the gateway can."""

from __future__ import annotations

import argparse
import asyncio
import time

from pipeline.cli.arguments import ask_to_trust, print_notice, settings_of
from pipeline.config.settings import Settings
from pipeline.errors import ExitCode, LockedError, UsageError
from pipeline.gateway.kinds import kind_of
from pipeline.gateway.kinds.interface import CancelOutcome
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied, LedgerChange
from pipeline.ledger.workspace import OpenLedger, open_for_reading, open_for_spending, open_shared
from pipeline.records import Attempt, State, counted
from pipeline.reports.run_lookup import find_request, find_run
from pipeline.runner.cancellation import cancel_job
from pipeline.runner.credentials import resolve_api_key
from pipeline.runner.embedded_sandbox import gateway_for
from pipeline.runner.engine import gateway_client

IN_FLIGHT = (State.ACCEPTED, State.STALLED)
REASON = "canceled before it started; the gateway does not charge it"


def cancel(args: argparse.Namespace) -> int:
    """Cancel the jobs of a run, or of one request; exit 0 when all are canceled, 1 when some had started."""
    settings = settings_of(args)
    kind = kind_of(settings)
    if not kind.abilities.cancel:
        raise UsageError("this gateway cancels nothing: what was submitted is made, and charged")
    key = resolve_api_key(settings, ask=ask_to_trust)
    with open_for_reading(settings) as workspace:
        chosen = _chosen(workspace, args.what)
    if not chosen:
        print_notice(["nothing to cancel: no job of it is waiting or running"])
        return 0
    outcomes = asyncio.run(_ask(settings, key, chosen))
    canceled = [one for one, outcome in zip(chosen, outcomes, strict=True) if outcome is CancelOutcome.CANCELED]
    too_late = sum(1 for outcome in outcomes if outcome is CancelOutcome.TOO_LATE)
    unclear = len(chosen) - len(canceled) - too_late
    if canceled:
        _record(settings, canceled)
    words = f"canceled: {counted(len(canceled), 'job')}; too late, made and charged: {too_late}; no answer: {unclear}"
    print(words)
    return ExitCode.DONE if len(canceled) == len(chosen) else ExitCode.FAILED


def _chosen(workspace: OpenLedger, wanted: str | None) -> list[Attempt]:
    """The jobs in flight of the run or the request that is named."""
    try:
        run = find_run(workspace, wanted)
    except UsageError:
        if wanted is None:
            raise
        found = [find_request(workspace, wanted, states=IN_FLIGHT)]
    else:
        found = workspace.queries.attempts_in(run.run_id, IN_FLIGHT)
    return [one for one in found if one.gateway == workspace.gateway and one.state in IN_FLIGHT and one.job_set_id]


async def _ask(settings: Settings, key: str, chosen: list[Attempt]) -> list[CancelOutcome]:
    kind = kind_of(settings)
    async with gateway_for(settings) as base_url, gateway_client(settings, base_url, key) as client:
        return [await cancel_job(client, kind, str(one.job_set_id), pause=asyncio.sleep) for one in chosen]


def _record(settings: Settings, canceled: list[Attempt]) -> None:
    """Record what was canceled, unless a run works on the ledger: that records it when its polls say so."""
    now = time.time()
    values: dict[str, object] = {"finished_at": now, "reason": REASON}
    if kind_of(settings).abilities.refunds_known:
        values["price_microusd"] = 0
    changes = [LedgerChange(request_id=one.request_id, event=Event.CANCEL, at=now, values=values) for one in canceled]
    try:
        if settings.ledger.url is not None:
            opened = open_shared(settings, wait_s=0.0, now=now)
        else:
            opened = open_for_spending(settings, lock_wait_s=0.0, now=now)
        with opened as workspace:
            recorded = sum(isinstance(workspace.ledger.apply_now(change), Applied) for change in changes)
        print_notice([f"recorded as canceled: {recorded}"])
    except LockedError:
        print_notice(["a run works on this ledger: it records them as canceled when its polls say so"])
