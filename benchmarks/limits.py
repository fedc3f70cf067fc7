"""How near each client comes to a limit: unknown, known, changing, with honest, missing and misleading wait hints.

`python -m benchmarks.limits [--quick] [--write-docs]`. All clients of a scenario run at the same time, each with a
gateway of its own; then `dop run` once more, alone. The gateway's books are what counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.bout import OURS, Bout, Score, fight, side_by_side
from benchmarks.figures import Figures, Unrest, middle
from benchmarks.ideal import Kind, Limit, Stage, last_s
from benchmarks.measuring import main

RIVALS = ("botocore", "aiohttp-retry", "tenacity", "cookbook", "bare")
ALONE = f"{OURS}, alone"
DEAF = ("botocore", "bare")
"""None of the rivals reads a hint, so without one two of them show that nothing changes."""
COUNT, PER_S = 1_200, 40
CUT = 1.25
"""Times the ideal: who is not done by then is judged by what was accepted until then."""
CHANGING_COUNT = 1_200
CHANGES = ((12.0, 15), (27.0, 60))
KINDS: tuple[Kind, ...] = ("bucket", "fixed", "sliding")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A named bout, who takes part, and the limiter that it is judged by."""

    name: str
    bout: Bout
    stages: tuple[Stage, ...]
    clients: tuple[str, ...] = (OURS, *RIVALS)
    target: float | None = None
    """the ratio to be reached; then ours runs once more, alone"""
    scores: dict[str, list[Score]] = field(default_factory=dict)

    def ratio(self, score: Score) -> float:
        """The ideal time for what was accepted, over the time it took."""
        return last_s(self.stages, score.accepted, score.started_at) / max(score.elapsed_s, 1e-9)


def scenarios() -> list[Scenario]:
    """All of them, in the document's order."""
    found = [
        _scenario(
            f"unknown, {kind}, {'with' if hint == 'yes' else 'without'} Retry-After",
            kind,
            hint,
            clients=(OURS, *RIVALS) if hint == "yes" else (OURS, *DEAF),
        )
        for kind in KINDS
        for hint in ("yes", "no")
    ]
    known = (OURS, "tenacity", "cookbook", "bare")
    found += [_scenario(f"known, {kind}", kind, "yes", known_per_s=PER_S, clients=known) for kind in ("bucket",)]
    found += [_changing(kind) for kind in KINDS]
    long = _scenario(
        "20 in 30 s unknown, fixed, with Retry-After",
        "fixed",
        "yes",
        limit=20,
        period_s=30,
        count=60,
        clients=(OURS, *DEAF),
        target=None,
    )
    return [
        *found,
        long,
        _scenario(
            "unknown, bucket, Retry-After always 3600",
            "bucket",
            "misleading",
            clients=(OURS, *DEAF),
            cut=4.0,
            target=None,
        ),
    ]


def _scenario(
    name: str,
    kind: Kind,
    hint: str,
    *,
    known_per_s: int | None = None,
    clients: tuple[str, ...] = (OURS, *RIVALS),
    limit: int = PER_S,
    period_s: int = 1,
    count: int = COUNT,
    cut: float = CUT,
    target: float | None = 0.98,
) -> Scenario:
    stages = (Stage(from_s=0.0, limit=Limit(kind=kind, limit=limit, period_s=period_s)),)
    rate = f"{limit}/{period_s}s"
    bout = Bout(
        count=count,
        sandbox={"rate": rate, "limiter": kind, "retry_after": hint},
        known_per_s=known_per_s,
        most_s=cut * last_s(stages, count) + 5,
    )
    return Scenario(name=name, bout=bout, stages=stages, clients=clients, target=target)


def _changing(kind: Kind) -> Scenario:
    steps = [(0.0, PER_S), *CHANGES]
    stages = tuple(Stage(from_s=at, limit=Limit(kind=kind, limit=rate)) for at, rate in steps)
    bout = Bout(
        count=CHANGING_COUNT,
        sandbox={"rate": f"{PER_S}/1s", "limiter": kind, "retry_after": "no"},
        changes=tuple((at, f"{rate}/1s") for at, rate in CHANGES),
        most_s=CUT * last_s(stages, CHANGING_COUNT) + 5,
    )
    return Scenario(name=f"40 -> 15 -> 60 a second, {kind}, without Retry-After", bout=bout, stages=stages, target=0.95)


def row(scenario: Scenario, client: str, scores: Sequence[Score]) -> dict[str, Any]:
    """One client's line: medians over the rounds, and the spread of the ratio."""
    ratios = sorted(scenario.ratio(score) for score in scores)
    return {
        "client": client,
        "ratio": round(middle(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "rejected": int(middle(score.rejected for score in scores)),
        "share": round(middle(score.rejected_share for score in scores), 4),
        "early": int(max(score.early for score in scores)),
        "accepted": int(middle(score.accepted for score in scores)),
        "whole": all(score.whole for score in scores),
    }


def result_line(name: str, line: dict[str, Any]) -> str:
    """A line for the terminal."""
    return (
        f"{name:46} {line['client']:14} {line['ratio']:.3f} of the ideal  rejected {line['rejected']:6} "
        f"({line['share']:6.1%})  early {line['early']:5}" + ("" if line["whole"] else "  cut off")
    )


def by_second(score: Score) -> list[int]:
    """Accepted submits in each second."""
    counts = Counter(int(at) for at in score.accepted_s)
    return [counts[second] for second in range(max(counts, default=0) + 1)]


async def run(rounds: int) -> tuple[Figures, list[Unrest]]:
    """All scenarios, the rounds interleaved."""
    played = scenarios()
    unrest: list[Unrest] = []
    traces: dict[str, list[int]] = {}
    for number in range(rounds):
        for scenario in played:
            for score in await side_by_side(scenario.clients, scenario.bout):
                scenario.scores.setdefault(score.client, []).append(score)
                unrest.append((score.load, score.late_s))
                if scenario.bout.changes and "bucket" in scenario.name:
                    traces[score.client] = by_second(score)
            if scenario.target is not None:
                scenario.scores.setdefault(ALONE, []).append(await fight(OURS, scenario.bout))
            for client in (OURS, ALONE):
                if client in scenario.scores:
                    line = row(scenario, client, scenario.scores[client][-1:])
                    print(f"round {number + 1}:", result_line(scenario.name, line), flush=True)
    tables: list[Figures] = [
        {"name": one.name, "target": one.target, "rows": [row(one, *found) for found in _ours_first(one.scores)]}
        for one in played
    ]
    for table in tables:
        for line in table["rows"]:
            print(result_line(table["name"], line))
    steps = [(0.0, PER_S), *CHANGES]
    return {"scenarios": tables, "changing": traces, "steps": steps}, unrest


def _ours_first(scores: dict[str, list[Score]]) -> list[tuple[str, list[Score]]]:
    return sorted(scores.items(), key=lambda found: not found[0].startswith(OURS))


if __name__ == "__main__":
    main("limits", run)
