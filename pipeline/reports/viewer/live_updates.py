"""What a page is sent during a run: counts and money, and the cells that changed, each as the page shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from pipeline.ledger.reviews import plain_review, reviews_after
from pipeline.ledger.run_registry import Run
from pipeline.ledger.schema import run_rows
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import Attempt
from pipeline.reports.checks.store import load_check
from pipeline.reports.run_lookup import status_json
from pipeline.reports.sheet.cells import CellMedia, SheetCell, sheet_cell
from pipeline.reports.sheet.clip_files import link_to
from pipeline.reports.sheet.page import totals_shown
from pipeline.reports.sheet.run_view import latest_lines
from pipeline.reports.viewer.thumbnail_cache import with_stills

MAX_CELLS = 2_000
"""Changed cells that are sent one by one; a page that missed more must reload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientState:
    """What a page knows: the last event, how many requests there are, the counts and money it shows, and reviews.

    `reviews` is the number of the last review that it has.
    """

    event: int
    requests: int | None = None
    reviews: int = 0
    status: dict[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveUpdate:
    """One update of a page; empty parts are not sent. `is_stale`: the page must reload."""

    seen: ClientState
    status: dict[str, object] | None = None
    cells: tuple[dict[str, object], ...] = ()
    reviews: tuple[dict[str, object], ...] = ()
    is_stale: bool = False


def live_update(workspace: OpenLedger, run_ids: Sequence[str], seen: ClientState) -> LiveUpdate:
    """What happened in the first of the runs since `seen`, and the reviews of all.

    Reads the ledger: call it off the event loop.
    """
    run_id = run_ids[0]
    queries = workspace.queries
    # First of all: what happens while the rest is read comes with the next update, and is never missed.
    now = queries.last_event()
    run = queries.run(run_id)
    # A number beyond the last event is of a ledger that was restored or replaced meanwhile.
    if run is None or now < seen.event:
        return LiveUpdate(seen=ClientState(event=now, reviews=seen.reviews), is_stale=True)
    number, changes = reviews_after(workspace.ledger, seen.reviews)
    if changes:
        listed = frozenset().union(*(listed_requests(workspace, one) for one in run_ids))
        changes = [change for change in changes if change.request_id in listed]
    status = run_status(workspace, run)
    requests = int(str(status["requests"]))
    attempts = queries.changed(run_id, after=seen.event, upto=now) if now > seen.event else []
    grown = seen.requests is not None and requests != seen.requests
    return LiveUpdate(
        seen=ClientState(event=now, requests=requests, status=status, reviews=number),
        status=status if status != seen.status else None,
        cells=tuple(_cells(workspace, run_id, attempts[:MAX_CELLS])),
        reviews=tuple(plain_review(change) for change in changes),
        # A page has no cell yet for requests that were added since it was made.
        is_stale=grown or len(attempts) > MAX_CELLS,
    )


def listed_requests(workspace: OpenLedger, run_id: str) -> frozenset[str]:
    """The ids of the requests that a run lists."""
    statement = select(run_rows.c.request_id).where(run_rows.c.run_id == run_id)
    return frozenset(row.request_id for row in workspace.ledger.ask(statement))


def run_status(workspace: OpenLedger, run: Run) -> dict[str, object]:
    """Counts and money as `dop status --json` has them, and the sums as the page's head shows them."""
    totals = workspace.queries.totals(run.run_id)
    sums = {name: amount for name, amount, _ in totals_shown(totals)}
    return {**status_json(run, totals), "shown": sums}


def _cells(workspace: OpenLedger, run_id: str, attempts: list[Attempt]) -> list[dict[str, object]]:
    folder = workspace.outputs / run_id
    cells = []
    for line, earlier in latest_lines(tuple(attempts)):
        assert isinstance(line, Attempt)
        clip = None if line.local_path is None else workspace.outputs / line.local_path
        stills = with_stills(CellMedia(clip=link_to(clip, folder)))
        check = None if clip is None or not workspace.settings.checks.enabled else load_check(clip)
        cells.append(_as_json(sheet_cell(0, line, earlier, {}, stills, check=check)))
    return cells


def _as_json(cell: SheetCell) -> dict[str, object]:
    return {
        "requestId": cell.request_id,
        "state": cell.state,
        "reason": cell.reason,
        "price": cell.price,
        "due": cell.due,
        "clip": cell.stills.clip,
        "poster": cell.stills.poster,
        "start": cell.stills.start,
        "attempt": cell.attempt,
        "check": cell.check,
        "defects": "; ".join(cell.defects),
        "facts": [text for fact in cell.facts for text in fact],
        "history": list(cell.history),
    }
