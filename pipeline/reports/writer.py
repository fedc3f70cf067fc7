"""What a run leaves for people: report.csv, failures.csv, run.json and report.html in its folder, always written whole.

The page is a picture of the tables: whatever goes wrong with it is a warning, and the tables stand before it is begun.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.loader import effective
from pipeline.files import whole_text
from pipeline.ledger.attempt_rows import SkippedRow
from pipeline.ledger.reviews import all_reviews, clip_reviews, latest_verdicts
from pipeline.ledger.run_registry import Run
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import Attempt, State
from pipeline.reports.checks.findings import RunChecks
from pipeline.reports.run_folder import RunFolder
from pipeline.reports.run_lookup import ending_facts, started_by
from pipeline.reports.sheet import run_view as runview
from pipeline.reports.summary import run_json
from pipeline.reports.tables import NEEDS_THE_USER, REPORT_COLUMNS, report_row, write_csv, write_failures_csv

PAGE = "report.html"

PAGE_LINES = 20_000
"""A larger run gets its page only on request. Measured: 20,000 cells take 3.5 s and 150 MB of memory."""

STILLS_S = 20.0
"""What the end of a run may spend on posters; the page shows clips without one, too."""


def report_rows(
    workspace: OpenLedger,
    run: Run,
    folder: RunFolder,
    *,
    states: Iterable[State] | None = None,
    checks: RunChecks | None = None,
) -> Iterator[dict[str, object]]:
    """The report's lines as raw values, in the manifest's order; with `states` only those.

    Args:
        checks: what is known of the clips, where the caller has read that already.
    """
    known = checks if checks is not None else checks_of(workspace, run)
    reviews = clip_reviews(workspace.ledger)
    for line in workspace.queries.report(run.run_id, states):
        if isinstance(line, Attempt):
            review = reviews.get(line.request_id) if line.state is State.DONE else None
            yield report_row(line, outputs=folder.outputs, run_folder=folder.path, check=known.of(line), review=review)
        else:
            yield _placeholder(line, run)


def checks_of(workspace: OpenLedger, run: Run) -> RunChecks:
    """What is known of the run's clips; nothing where checks are off."""
    if not workspace.settings.checks.enabled:
        return RunChecks()
    from pipeline.reports.checks.run_checks import load_checks  # noqa: PLC0415 - brings numpy

    done = workspace.queries.report_attempts(run.run_id, (State.DONE,), has_file=True)
    return load_checks(done, workspace.outputs)


def _placeholder(line: SkippedRow, run: Run) -> dict[str, object]:
    empty: dict[str, object] = dict.fromkeys(REPORT_COLUMNS)
    return {**empty, "row_id": line.row_id, "status": State.SKIPPED.value, "cost_state": "none", "gateway": run.gateway}


def write_reports(workspace: OpenLedger, run: Run, folder: RunFolder) -> None:
    """Writes report.csv, failures.csv and run.json."""
    checks = checks_of(workspace, run)
    write_csv(report_rows(workspace, run, folder, checks=checks), folder.path / "report.csv")
    failed = report_rows(workspace, run, folder, states=NEEDS_THE_USER, checks=checks)
    write_failures_csv(failed, folder.path / "failures.csv")
    # Read again: `run` is as it was at its start, and has no end.
    now = workspace.queries.run(run.run_id) or run
    summary = run_json(
        run=run.run_id,
        gateway=run.gateway,
        totals=workspace.queries.totals(run.run_id),
        settings={key: value for key, value, _ in effective(workspace.settings)},
        manifest=run.manifest_path,
        started_at=now.started_at,
        ended_at=now.ended_at,
        checks=checks.counts() if checks.found else None,
        ending=ending_facts(workspace, now),
        started_by=started_by(workspace, run),
        keepers=workspace.queries.shots(run.run_id, latest_verdicts(workspace.ledger)).summary,
    )
    with whole_text(folder.path / "run.json") as file:
        json.dump(summary, file, indent=2)
        file.write("\n")


def run_view(workspace: OpenLedger, run: Run) -> runview.RunView:
    """The run as the contact sheet, the grid video and the print show it; everything is read now."""
    now = workspace.queries.run(run.run_id) or run
    sheet = run.sheet or {}
    return runview.RunView(
        run=run.run_id,
        title=run.name,
        gateway=run.gateway,
        lines=tuple(_sheet_lines(workspace.queries.report(run.run_id))),
        totals=workspace.queries.totals(run.run_id),
        outputs=workspace.outputs,
        x=sheet.get("x"),
        y=sheet.get("y"),
        tabs=(sheet["tabs"],) if "tabs" in sheet else (),
        started_at=now.started_at,
        ended_at=now.ended_at,
        started_by=started_by(workspace, run),
        checks=checks_of(workspace, run),
        reviews=tuple(all_reviews(workspace.ledger)),
        prices=workspace.settings.prices_microusd,
    )


def _sheet_lines(lines: Iterable[Attempt | SkippedRow]) -> Iterator[runview.Line]:
    for line in lines:
        yield line if isinstance(line, Attempt) else runview.SkippedLine(row_id=line.row_id, axes=line.axes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportNotice:
    """A notice about the run's page. `is_wrong`: also one who wants to hear only of trouble."""

    text: str
    is_wrong: bool = False


def write_page(workspace: OpenLedger, run: Run, folder: RunFolder) -> list[ReportNotice]:
    """Writes report.html, with posters for as many new videos as a bounded time allows; never raises."""
    later = f"`dop report {run.run_id} -o page.html`"
    try:
        from pipeline.reports.sheet.page import write_sheet  # noqa: PLC0415 - a run that ends early needs no renderer

        lines = sum(workspace.queries.totals(run.run_id).counts.values())
        if lines > PAGE_LINES:
            return [ReportNotice(text=f"no automatic {PAGE} for {lines} requests; {later} makes it")]
        view = run_view(workspace, run)
        left = _make_some_stills(view)
        # The posters were made above within a bounded time; here it would take as long as it takes.
        write_sheet(view, folder.path / PAGE, stills=False)
    except Exception as error:  # noqa: BLE001 - a picture must never cost the run its exit code or its tables
        warning = f"warning: {folder.path / PAGE} could not be made ({error}); the tables are there"
        return [ReportNotice(text=warning, is_wrong=True)]
    return [ReportNotice(text=f"{left} pictures of clips are missing on the page; {later} makes them")] if left else []


PICTURES = (".html", ".htm", ".mp4", ".png", ".zip")
"""Endings of what `draw` draws: the page, all clips as one video, the posters as one picture, the page to send."""


def draw(workspace: OpenLedger, run: Run, path: Path, *, embed: bool = False) -> None:
    """Writes the picture of the run that the ending asks for, with every poster it lacks, however long that takes.

    Args:
        embed: a page that holds its clips.

    Raises:
        OSError: it can't be written.
        UsageError: the run has no clip to show, or too many for one file.
    """
    from pipeline.reports.sheet.contact_print import write_contact_print  # noqa: PLC0415
    from pipeline.reports.sheet.grid_video import write_grid_video  # noqa: PLC0415
    from pipeline.reports.sheet.page import write_sheet  # noqa: PLC0415
    from pipeline.reports.sheet.sharing import write_embedded_page, write_review_zip  # noqa: PLC0415

    view = run_view(workspace, run)
    ending = path.suffix.lower()
    if ending == ".mp4":
        write_grid_video(view, path)
    elif ending == ".png":
        write_contact_print(view, path)
    elif ending == ".zip":
        write_review_zip(view, path)
    elif embed:
        write_embedded_page(view, path)
    else:
        write_sheet(view, path)


def _make_some_stills(view: runview.RunView) -> int:
    """Posters and start frames that are missing, until the time is over; returns how many clips are left without."""
    from pipeline.reports.sheet.thumbnails import make_poster, make_start  # noqa: PLC0415

    posters, starts = missing_stills(view)
    until = time.monotonic() + STILLS_S
    work = [(make_start, clip) for clip in starts] + [(make_poster, clip) for clip in posters]
    for done, (make, clip) in enumerate(work):
        if time.monotonic() > until:
            return len(work) - done
        make(clip)
    return 0


def missing_stills(view: runview.RunView) -> tuple[list[Path], list[Path]]:
    """Clips without a poster, and clips without a start frame, one for each input image."""
    from pipeline.reports.sheet.clip_files import clip_of, start_clips  # noqa: PLC0415
    from pipeline.reports.sheet.thumbnails import poster_path, start_path  # noqa: PLC0415

    lines = runview.latest_lines(view.lines)
    clips = [clip for line, _ in lines if (clip := clip_of(line, view.outputs)) is not None]
    return (
        [clip for clip in clips if not poster_path(clip).exists()],
        [clip for clip in start_clips(lines, view).values() if not start_path(clip).exists()],
    )
