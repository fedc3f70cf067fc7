"""Where the CPU of a job goes, part by part, now and at an earlier commit; and how that compares with a bare loop.

`python -m benchmarks.budget [--quick] [--write-docs]`. The program of both commits is started under `sampler`, one
after the other and interleaved with the bare loop that makes a connection for each submit and keeps no ledger.
"""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.bout import OURS, REPO, Score, fight
from benchmarks.cost import BOUT
from benchmarks.document import OUTSIDE
from benchmarks.figures import Figures, Unrest, middle
from benchmarks.measuring import main

BEFORE = "39b4c4f"
"""The last commit before the cost of a job was worked on."""

COUNT = 2_000
MAX_TRIES = 3
"""Bouts until one ends in time to write its figures."""
FRESH = "fresh"
RUN = replace(BOUT, count=COUNT)


async def sampled(tree: Path) -> tuple[Score, dict[str, float]]:
    """One bout of the program in a source tree; CPU micro-seconds a job by part.

    Repeated where the program was ended before it had written its figures, as on a machine that others use too much.
    """
    with tempfile.TemporaryDirectory() as name:
        figures = Path(name) / "used.json"
        program = (str(REPO / "benchmarks" / "sampler.py"), str(figures), "pipeline")
        for _ in range(MAX_TRIES):
            score = await fight(OURS, RUN, program=program, folder_of_program=tree)
            if figures.exists():
                used_s = json.loads(figures.read_text(encoding="ascii"))
                return score, {part: 1e6 * seconds / score.accepted for part, seconds in used_s.items()}
    raise RuntimeError("the program under the sampler wrote no figures")


def checkout(commit: str, folder: Path) -> None:
    """The source tree of a commit."""
    packed = subprocess.run(["git", "archive", commit], cwd=REPO, stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")


async def run(rounds: int) -> tuple[Figures, list[Unrest]]:
    """The rounds, interleaved."""
    parts: dict[str, list[dict[str, float]]] = {"before": [], "now": []}
    loop_us: dict[str, list[float]] = {"before": [], "now": [], FRESH: []}
    jobs_per_s: dict[str, list[float]] = {"before": [], "now": [], FRESH: []}
    unrest: list[Unrest] = []
    start_s = (await fight(FRESH, replace(RUN, count=1))).client_cpu_s
    with tempfile.TemporaryDirectory() as name:
        await asyncio.to_thread(checkout, BEFORE, Path(name))
        for _ in range(rounds):
            for which, tree in (("before", Path(name)), ("now", REPO)):
                score, used_us = await sampled(tree)
                parts[which].append(used_us)
                loop_us[which].append(sum(us for part, us in used_us.items() if part not in OUTSIDE))
                jobs_per_s[which].append(score.accepted / score.elapsed_s)
                unrest.append((score.load, score.late_s))
            score = await fight(FRESH, RUN)
            loop_us[FRESH].append(1e6 * (score.client_cpu_s - start_s) / score.accepted)
            jobs_per_s[FRESH].append(score.accepted / score.elapsed_s)
            print({name: round(found[-1]) for name, found in loop_us.items()}, flush=True)
    names = sorted({part for found in parts.values() for one in found for part in one})
    figures: Figures = {
        "jobs": COUNT,
        "commit": BEFORE,
        "parts": {
            part: {which: round(middle(one.get(part, 0.0) for one in found)) for which, found in parts.items()}
            for part in names
        },
        "loop_us": {name: round(middle(found)) for name, found in loop_us.items()},
        "jobs_per_s": {name: round(middle(found), 1) for name, found in jobs_per_s.items()},
        "cpu_ratio": _ratios(loop_us),
        "jobs_ratio": _ratios(jobs_per_s),
    }
    return figures, unrest


def _ratios(found: dict[str, list[float]]) -> dict[str, float]:
    """Medians of the rounds' ratios to the bare loop with fresh connections."""
    return {
        which: round(middle(one / fresh for one, fresh in zip(found[which], found[FRESH], strict=True)), 2)
        for which in ("before", "now")
    }


if __name__ == "__main__":
    main("budget", run)
