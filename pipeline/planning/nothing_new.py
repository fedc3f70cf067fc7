"""A rerun that has nothing to do: every video of the manifest exists already, or failed for good. Sends nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.ledger.workspace import OpenLedger
from pipeline.planning.against_ledger import Offer
from pipeline.planning.run_setup import PurchaseOrder
from pipeline.records import FAILED_FOR_GOOD, Attempt, Request, State
from pipeline.reports.missing_videos import missing_videos

CHUNK = 500
"""Requests that the ledger is asked about at a time: SQLite takes 32,766 parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingNew:
    """Where the videos of a manifest are that needs nothing more.

    Attributes:
        done: the attempts whose videos exist.
        runs: the runs that made them, the one with the most first.
        failed: the latest attempt of each request that failed for good in an earlier command.
    """

    done: tuple[Attempt, ...]
    runs: tuple[str, ...]
    failed: tuple[Attempt, ...]


def nothing_new(workspace: OpenLedger, order: PurchaseOrder, offer: Offer) -> NothingNew | None:
    """What exists already where the command has nothing to do; None where it has: a run is then needed.

    A run is needed as well where something is in flight or unknown, where an earlier run of this manifest is
    unfinished, where a video's file is missing, and where a shot lacks clips: it is checked, or named.
    """
    plan = offer.plan
    if len(offer.agreement) or plan.new or plan.in_flight or plan.unknown or not plan.done + plan.failed:
        return None
    if plan.keepers is not None and plan.keepers.kept < plan.keepers.wanted:
        return None
    bound, queries = order.bound, workspace.queries
    path = str(bound.manifest.origin.resolve())
    if queries.unfinished_run(path, workspace.gateway, bound.selection.part) is not None:
        return None
    requests, _ = bound.read(lambda rows: [row for row in rows if isinstance(row, Request)], known=queries)
    done: list[Attempt] = []
    failed: list[Attempt] = []
    for start in range(0, len(requests), CHUNK):
        chunk = requests[start : start + CHUNK]
        kept = {one.request_id: one for one in queries.latest_attempts([request.request_id for request in chunk])}
        for request in chunk:
            attempt = kept.get(request.request_id)
            if attempt is None:
                continue  # a candidate that its shot does not need and no run has listed
            if attempt.state is State.DONE:
                done.append(attempt)
            elif attempt.state in FAILED_FOR_GOOD:
                failed.append(replace(attempt, row_id=request.row_id))
    if _lacks_files(workspace, done):
        return None
    runs = Counter(attempt.run_id for attempt in done)
    return NothingNew(done=tuple(done), runs=tuple(run for run, _ in runs.most_common()), failed=tuple(failed))


def _lacks_files(workspace: OpenLedger, done: Sequence[Attempt]) -> bool:
    """Whether a video of these was not downloaded, or is not there any more."""
    if not workspace.settings.download.enabled:
        return False
    if any(attempt.local_path is None for attempt in done):
        return True
    ours = {attempt.request_id for attempt in done}
    runs = [workspace.queries.run(run_id) for run_id in dict.fromkeys(attempt.run_id for attempt in done)]
    missing = (video for run in runs if run is not None for video in missing_videos(workspace, run))
    return any(video.request_id in ours for video in missing)
