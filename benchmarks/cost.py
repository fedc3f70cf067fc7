"""What a job costs the program itself: no limit at all, 5,000 jobs, against a bare loop that keeps no ledger.

`python -m benchmarks.cost [--quick] [--write-docs]`. One client at a time, the rounds interleaved: single runs
scatter by a quarter.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.bout import OURS, Bout, Score, fight
from benchmarks.figures import Figures, Unrest, middle
from benchmarks.measuring import main

COUNT = 5_000
GENERATION_S = 1.0
SETTINGS = ("poll.first_s=0.8", "poll.min_s=0.2", "poll.max_s=3", "poll.deadline_s=10m")
BOUT = Bout(
    count=COUNT,
    until="noticed",
    sandbox={"generation_s": GENERATION_S},
    poll_every_s=1.8,
    settings=SETTINGS,
    most_s=300.0,
)
CLIENTS = (OURS, "bare", "fresh")


def row(client: str, scores: list[Score], start_cpu_s: float = 0.0) -> dict[str, Any]:
    """Medians over the rounds; `start_cpu_s` is what a run of one job takes, nearly all of it its start."""
    return {
        "client": client,
        "jobs_per_s": round(middle(_jobs_per_s(score) for score in scores), 1),
        "each": sorted(round(_jobs_per_s(score), 1) for score in scores),
        "submits_per_s": round(middle(score.accepted / score.accepted_s[-1] for score in scores), 1),
        "start_cpu_s": round(start_cpu_s, 2),
        "cpu_ms": round(middle(1000 * (score.client_cpu_s - start_cpu_s) / score.accepted for score in scores), 2),
        "gateway_cpu_ms": round(middle(1000 * score.gateway_cpu_s / score.accepted for score in scores), 2),
        "memory_mb": round(middle(score.memory_mb for score in scores)),
        "polls_a_job": round(middle(score.polls_a_job for score in scores), 2),
    }


def _jobs_per_s(score: Score) -> float:
    """From the first submit to the moment when the last job was seen to be finished."""
    return score.accepted / score.elapsed_s


async def run(rounds: int) -> tuple[Figures, list[Unrest]]:
    """The rounds, interleaved."""
    scores: dict[str, list[Score]] = {client: [] for client in CLIENTS}
    start_cpu_s = {client: (await fight(client, replace(BOUT, count=1))).client_cpu_s for client in CLIENTS}
    for number in range(rounds):
        for client in CLIENTS:
            scores[client].append(await fight(client, BOUT))
            print(f"round {number + 1}: {row(client, scores[client][-1:])}", flush=True)
    rows = [row(client, found, start_cpu_s[client]) for client, found in scores.items()]
    for line in rows:
        print(line)
    ratio = [
        a.accepted / a.elapsed_s / (b.accepted / b.elapsed_s) for a, b in zip(scores[OURS], scores["bare"], strict=True)
    ]
    print(f"ours over bare: {middle(ratio):.2f} ({', '.join(f'{one:.2f}' for one in ratio)})")
    figures = {"rows": rows, "ratio": round(middle(ratio), 3), "ratios": sorted(round(one, 3) for one in ratio)}
    return figures, [(score.load, score.late_s) for found in scores.values() for score in found]


if __name__ == "__main__":
    main("cost", run)
