"""A finished run for reviewers: shots with several takes each, in a real ledger, over a few little clips."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.ledger.states import Event
from pipeline.records import Request
from tests.support.factories import make_request
from tests.support.ledgers import RUN, accept, change, opened, reserve, start
from tests.support.sheet_run import make_clip

CLIPS = 8
"""So many different clips; the others are links to them."""

MOTIONS = ("Dolly In", "360 Orbit", "Crane Up", "Static")


def make_review_run(outputs: Path, *, shots: int, takes: int, width: int = 160, height: int = 96) -> list[Request]:
    """A run of `shots` rows with `takes` seeds each, all done and downloaded; returns its requests in order."""
    rows = [_request(shot, take) for shot in range(shots) for take in range(takes)]
    videos = outputs / RUN / "videos"
    for number in range(min(CLIPS, len(rows))):
        make_clip(videos / f"clip-{number}.mp4", hue=number * 30, width=width, height=height)
    with opened(outputs / "ledger.db") as (ledger, queries):
        start(queries, rows)
        ledger.apply_all([reserve(row) for row in rows])
        ledger.apply_all([accept(row, f"job-{number}") for number, row in enumerate(rows)])
        ledger.apply_all([change(row, Event.COMPLETE) for row in rows])
        saved = [{"local_path": str(_link(videos, number).relative_to(outputs))} for number in range(len(rows))]
        ledger.apply_all([change(row, Event.SAVE, values=one) for row, one in zip(rows, saved, strict=True)])
        queries.end_run(RUN, 1_790_000_600.0)
    return rows


def _request(shot: int, take: int) -> Request:
    seed = 1_000 * shot + take + 1
    return make_request(
        row_id=f"sq{shot // 6 + 1:02d}_sh{shot + 1:03d}@{seed}",
        seed=seed,
        prompt=f"Shot {shot + 1}, morning light over the harbour",
        motion=MOTIONS[shot % len(MOTIONS)],
        axes=(("seed", str(seed)),),
        tags=(f"sq{shot // 6 + 1:02d}",),
    )


def _link(videos: Path, number: int) -> Path:
    """A file of its own name for each clip, as a run leaves them: browsers cache by name."""
    path = videos / f"take-{number:04d}.mp4"
    os.link(videos / f"clip-{number % CLIPS}.mp4", path)
    return path
