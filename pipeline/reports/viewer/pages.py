"""The pages: every run, the money, and one run's contact sheet with what only a server can add to it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from urllib.parse import quote

import av

from pipeline.errors import DopError
from pipeline.ledger.reviews import record, reviews_after
from pipeline.ledger.run_registry import Run
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import FAILED_FOR_GOOD, IN_FLIGHT, State, Totals, usd
from pipeline.reports.review_file import earlier_picks
from pipeline.reports.sheet.clip_files import USUAL_SHAPE, clip_of
from pipeline.reports.sheet.page import build_sheet, sheet_html, template_environment
from pipeline.reports.sheet.run_view import RunView
from pipeline.reports.spend import group_spend
from pipeline.reports.viewer.thumbnail_cache import with_stills
from pipeline.reports.writer import run_view

_HERE = Path(__file__).parent
MAX_OTHERS = 100
"""Newest runs that a page offers to show beside its own."""
MAX_STILLS = 4
"""Pictures that stand for a run in the list of runs."""


def runs_page(workspace: OpenLedger) -> str:
    """Every run, newest first, with counts and money."""
    queries = workspace.queries
    lines = [
        {**_run_line(run, queries.totals(run.run_id)), "stills": _some_stills(workspace.outputs / run.run_id)}
        for run in queries.runs()
    ]
    return template_environment(_HERE).get_template("runs.html").render(runs=lines, ledger=workspace.ledger.name)


def _some_stills(folder: Path) -> list[str]:
    """Names of posters of a run's clips, spread over all of them; made when the page asks, if there is none yet."""
    try:
        clips = sorted(entry.name for entry in os.scandir(folder / "videos") if entry.name.endswith(".mp4"))
    except OSError:
        return []
    few = [clips[at * len(clips) // MAX_STILLS] for at in range(MAX_STILLS)] if len(clips) > MAX_STILLS else clips
    return [f"{name.removesuffix('.mp4')}.jpg" for name in few]


def _run_line(run: Run, totals: Totals) -> Mapping[str, object]:
    return {
        "run_id": run.run_id,
        "link": f"runs/{quote(run.run_id)}/",
        "name": run.name,
        "gateway": run.gateway,
        "started": datetime.fromtimestamp(run.started_at, UTC).strftime("%Y-%m-%d %H:%M"),
        "is_open": run.ended_at is None,
        "done": totals.count(State.DONE),
        "all": sum(totals.counts.values()),
        "in_flight": totals.count(*IN_FLIGHT),
        "failed": totals.count(*FAILED_FOR_GOOD),
        "unknown": totals.count(State.UNKNOWN),
        "confirmed": usd(totals.confirmed_microusd),
        "disputed": usd(totals.disputed_microusd),
        "reserved": usd(totals.reserved_microusd),
    }


def spend_page(workspace: OpenLedger) -> str:
    """The spend book of each gateway, by month, day, model and run."""
    return (
        template_environment(_HERE)
        .get_template("spend.html")
        .render(gateways=group_spend(workspace.queries.spend_lines()))
    )


def sheet_page(workspace: OpenLedger, run: Run, *, reviewer: str, beside: Sequence[Run] = ()) -> str:
    """The run's contact sheet as it is now; its script continues from the event that is read before anything else.

    Args:
        beside: other runs whose clips the page shows too.
    """
    event = workspace.queries.last_event()
    reviews, _ = reviews_after(workspace.ledger, 0)
    with suppress(DopError):  # an old file that can't be read, or a full disk: the page is there all the same
        record(workspace.ledger, earlier_picks(workspace, run))
    view = replace(
        run_view(workspace, run), reviewer=reviewer, beside=tuple(run_view(workspace, other) for other in beside)
    )
    others = [one for one in workspace.queries.runs() if one.run_id != run.run_id and one.gateway == run.gateway]
    sheet = build_sheet(view, workspace.outputs / run.run_id)
    cells = tuple(replace(cell, stills=with_stills(cell.stills)) for cell in sheet.cells)
    known = json.dumps(
        {
            "event": event,
            "requests": view.totals.requests,
            "reviews": reviews,
            "ended": view.ended_at is not None,
            "others": [(other.run_id, f"{other.name} ({other.run_id})") for other in others[:MAX_OTHERS]],
        }
    )
    script = f"const served = {known};\n{_live_script()}"
    return sheet_html(view, replace(sheet, cells=cells), shape=_shape(view), served_script=script)


def _shape(view: RunView) -> tuple[int, int]:
    """Width and height of the run's first clip, so that cells have its shape before pictures load."""
    for line in view.lines:
        clip = clip_of(line, view.outputs)
        if clip is not None:
            try:
                with av.open(str(clip)) as container:
                    stream = container.streams.video[0]
                    return stream.width, stream.height
            except (av.FFmpegError, OSError, IndexError):
                continue
    return USUAL_SHAPE


@cache
def _live_script() -> str:
    return (_HERE / "live.js").read_text(encoding="utf-8")


@cache
def style() -> str:
    """The style sheet of the list and of the spend page."""
    return (_HERE / "view.css").read_text(encoding="utf-8")
