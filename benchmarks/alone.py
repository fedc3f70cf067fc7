"""How near `dop run` comes to a limit over HTTP when it has the machine to itself.

`python -m benchmarks.alone [--rounds N] [--write-docs]`. The scenarios of `limits` without the other clients, and two
more: a bucket smaller than a second's worth with whole-second hints, and a window of three seconds.
"""

from __future__ import annotations

from benchmarks.bout import OURS, Bout, Score, fight
from benchmarks.figures import Figures, Unrest
from benchmarks.ideal import Limit, Stage, last_s
from benchmarks.limits import CUT, Scenario, result_line, row, scenarios
from benchmarks.measuring import main

COUNT = 1_200


def more() -> list[Scenario]:
    """Two limiters that a caller with whole-second hints finds hard to recognise."""
    small = (Stage(from_s=0.0, limit=Limit(kind="bucket", limit=40, burst=10)),)
    window = (Stage(from_s=0.0, limit=Limit(kind="sliding", limit=120, period_s=3)),)
    settings = {"retry_after": "yes"}
    return [
        Scenario(
            name="unknown, bucket of 40/s holding 10, with Retry-After",
            bout=Bout(
                count=COUNT,
                sandbox={"rate": "40/1s", "limiter": "bucket", "burst": 10, **settings},
                most_s=CUT * last_s(small, COUNT) + 5,
            ),
            stages=small,
        ),
        Scenario(
            name="unknown, sliding 120 in 3 s, with Retry-After",
            bout=Bout(
                count=COUNT,
                sandbox={"rate": "120/3s", "limiter": "sliding", **settings},
                most_s=CUT * last_s(window, COUNT) + 5,
            ),
            stages=window,
        ),
    ]


async def run(rounds: int) -> tuple[Figures, list[Unrest]]:
    """All scenarios that a client is judged by, the rounds interleaved."""
    played = [*(one for one in scenarios() if one.target is not None), *more()]
    scores: dict[str, list[Score]] = {one.name: [] for one in played}
    unrest: list[Unrest] = []
    for _ in range(rounds):
        for one in played:
            score = await fight(OURS, one.bout)
            scores[one.name].append(score)
            unrest.append((score.load, score.late_s))
            print(result_line(one.name, row(one, OURS, [score])), flush=True)
    return {"rows": [{"name": one.name, **row(one, OURS, scores[one.name])} for one in played]}, unrest


if __name__ == "__main__":
    main("alone", run)
