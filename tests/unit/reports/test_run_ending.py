"""The lines that a user reads at the end of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.ledger.run_registry import Run
from pipeline.records import State, Totals
from pipeline.reports.run_ending import RunSummary

RUN = Run(
    run_id="2026-11-30_2122-s-ba7b",
    name="s.csv",
    gateway="https://gw.example.com:443",
    manifest_path="s.csv",
    rows_digest=None,
    started_at=0.0,
    ended_at=None,
    sheet=None,
)


def summary(*, missing: int, done: int = 5, collects: bool = True) -> RunSummary:
    totals = Totals(counts={State.DONE: done}, confirmed_microusd=done * 135_000)
    return RunSummary(
        run=RUN,
        folder=Path("outputs/r"),
        sheet=Path("outputs/r/report.html"),
        before=Totals(counts={}),
        totals=totals,
        exit_code=5 if missing and collects else 0,
        elapsed_s=2,
        collects=collects,
        missing_videos=missing,
    )


def test_a_video_that_was_not_downloaded_is_not_called_ready() -> None:
    came = summary(missing=3)
    assert came.lines()[0] == "Unfinished: 2 videos ready, 2 new, 3 paid and not downloaded, for $0.675 in 2 s."
    assert (came.as_json()["new_videos"], came.as_json()["missing_videos"]) == (2, 3)
    assert summary(missing=5).lines()[0] == "Unfinished: 0 videos ready, 5 paid and not downloaded, for $0.675 in 2 s."


def test_a_whole_run_and_a_submit_say_how_many_videos_are_ready() -> None:
    assert summary(missing=0).lines()[0] == "Done: 5 videos ready, 5 new for $0.675 in 2 s."
    assert summary(missing=5, collects=False).lines()[0].endswith("5 videos ready, 5 new for $0.675 in 2 s.")


def test_a_stopped_run_says_what_is_rendering_and_what_was_not_bought() -> None:
    totals = Totals(counts={State.DONE: 2, State.ACCEPTED: 1, State.PLANNED: 3}, reserved_microusd=135_000)
    stopped = replace(summary(missing=0), totals=totals, exit_code=130, rendering_microusd=135_000)
    assert stopped.lines()[0] == (
        "Stopped. 1 video is paid and still rendering ($0.135); 3 videos not bought. "
        "Run the same command again, or `dop collect`."
    )
