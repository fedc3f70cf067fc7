"""Polls and submits in one bucket, `poll.max_lag_s` as a curve, and polls and lag where generation times scatter.

`python -m benchmarks.shared [--quick] [--write-docs]`. Time is pressed together by five: a job takes about 8 s instead
of 40 s, and all poll settings are a fifth of their defaults. The rivals ask for each job every 1 s (5 s, uncompressed).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.bout import OURS, Bout, Score, fight
from benchmarks.figures import Figures, Unrest, middle
from benchmarks.ideal import shared_s
from benchmarks.measuring import main

COUNT, PER_S, GENERATION_S = 1_000, 40, 8.0
PRESSED = ("poll.first_s=3", "poll.min_s=0.6", "poll.max_s=12", "poll.deadline_s=10m")
EVERY_S = 1.0
LAGS_S = (2.0, 4.0, 8.0, 16.0)
ABREAST = 2
"""So many at the same time: more would fight for two cores."""
WIDE = (0.2, 3.0)
SHARED = {"rate": f"{PER_S}/1s", "shared_limit": True, "generation_s": GENERATION_S, "retry_after": "yes"}
UNKNOWN = Bout(count=COUNT, until="noticed", sandbox=SHARED, poll_every_s=EVERY_S, settings=PRESSED, most_s=110.0)
KNOWN = replace(UNKNOWN, known_per_s=PER_S, settings=(*PRESSED, "poll.rate=shared"))
SCATTERED = replace(
    UNKNOWN,
    sandbox={"rate": f"{PER_S}/1s", "generation_s": GENERATION_S, "generation_spread": WIDE},
    known_per_s=PER_S,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a table: a client under a name, in its bout."""

    name: str
    client: str
    bout: Bout


def _with(bout: Bout, setting: str) -> Bout:
    return replace(bout, settings=(*bout.settings, setting))


TABLES: dict[str, tuple[Entry, ...]] = {
    "one bucket": (
        Entry(name="dop run, limit unknown", client=OURS, bout=UNKNOWN),
        Entry(name="dop run, limit known", client=OURS, bout=KNOWN),
        Entry(name="botocore", client="botocore", bout=UNKNOWN),
        Entry(name="aiohttp-retry", client="aiohttp-retry", bout=UNKNOWN),
        Entry(name="tenacity, limit known", client="tenacity", bout=KNOWN),
        Entry(name="cookbook, limit known", client="cookbook", bout=KNOWN),
        Entry(name="bare", client="bare", bout=UNKNOWN),
        Entry(name="sdk, every 0.4 s", client="sdk", bout=replace(UNKNOWN, poll_every_s=0.4)),
    ),
    "curve": tuple(
        Entry(name=f"{lag_s:g}", client=OURS, bout=_with(KNOWN, f"poll.max_lag_s={lag_s}")) for lag_s in LAGS_S
    ),
    "scattered": (
        Entry(name="dop run", client=OURS, bout=SCATTERED),
        Entry(
            name="dop run, poll.max_lag_s=2",
            client=OURS,
            bout=_with(SCATTERED, "poll.max_lag_s=2"),
        ),
        Entry(name="bare, every 1 s", client="bare", bout=SCATTERED),
        Entry(name="bare, every 4 s", client="bare", bout=replace(SCATTERED, poll_every_s=4.0)),
    ),
}


def row(name: str, scores: list[Score]) -> dict[str, Any]:
    """Medians over the rounds."""
    median_s = middle(scores[0].generations_s)
    return {
        "name": name,
        "stretch": round(middle(_stretch(score) for score in scores), 3),
        "stretches": sorted(round(_stretch(score), 3) for score in scores),
        "polls_a_job": round(middle(score.polls_a_job for score in scores), 2),
        "polls_rejected": round(middle(score.polls_rejected / max(1, score.polls) for score in scores), 4),
        "submits_rejected": round(middle(score.rejected_share for score in scores), 4),
        "first": round(middle((score.noticed_s or [score.elapsed_s])[0] / median_s for score in scores), 2),
        "lag": _lag(scores, median_s),
        "whole": all(score.whole for score in scores),
    }


def _lag(scores: list[Score], median_s: float) -> float | None:
    """The mean lag in median generation times; None where no finished job was seen."""
    lags_s = [score.lag_s for score in scores if score.lags_s]
    return round(middle(lags_s) / median_s, 2) if lags_s else None


def _stretch(score: Score) -> float:
    """The makespan over its lower bound."""
    return score.elapsed_s / shared_s(score.generations_s, per_s=PER_S, burst=PER_S)


def result_line(table: str, line: dict[str, Any]) -> str:
    """A line for the terminal."""
    return (
        f"{table:11} {line['name']:26} {line['stretch']:.3f} x the bound  {line['polls_a_job']:5.2f} polls a job "
        f"({line['polls_rejected']:.1%} rejected)  submits rejected {line['submits_rejected']:.1%}  "
        f"first at {line['first']:.2f}, mean lag {line['lag']} generation times"
    ) + ("" if line["whole"] else "  cut off")


async def run(rounds: int) -> tuple[Figures, list[Unrest]]:
    """All tables, the rounds interleaved."""
    scores: dict[tuple[str, str], list[Score]] = {}
    unrest: list[Unrest] = []
    for number in range(rounds):
        for table, entries in TABLES.items():
            for entry, score in zip(entries, await _together(entries), strict=True):
                scores.setdefault((table, entry.name), []).append(score)
                unrest.append((score.load, score.late_s))
            print(f"round {number + 1}: {table} done", flush=True)
    tables = {
        table: [row(entry.name, scores[table, entry.name]) for entry in entries] for table, entries in TABLES.items()
    }
    for table, lines in tables.items():
        for line in lines:
            print(result_line(table, line))
    return {"tables": tables, "median_generation_s": GENERATION_S}, unrest


async def _together(entries: tuple[Entry, ...]) -> list[Score]:
    scores: list[Score] = []
    for first in range(0, len(entries), ABREAST):
        group = entries[first : first + ABREAST]
        scores += await asyncio.gather(*(fight(entry.client, entry.bout) for entry in group))
    return scores


if __name__ == "__main__":
    main("shared", run)
