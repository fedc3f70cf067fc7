"""What each rule of the rate limiter is worth: it is switched off by name, and the same limiters are met again.

python -m benchmarks.ablation                       every rule: the table of docs/internals/pace.md
python -m benchmarks.ablation --rule reserve        one of them, with the limiters that it changed most
python -m benchmarks.ablation --rows 400 --draw 7   more limiters, other ones
python -m benchmarks.ablation --only bucket         of those drawn only the buckets
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any
from unittest import mock

from benchmarks.pacegrid import GIVE_UP_S, HINTS, Make, bucket, counted, fixed, sliding
from benchmarks.simulation import Changing, Latency, Limiter, Outage, run_submits
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter

RATELIMIT = "pipeline.gateway.ratelimit."
WORTH_SHOWING = 0.02
"""Part of the time by which a limiter was met more slowly, or more quickly, to be named"""


class _Everything:
    def __contains__(self, it: object) -> bool:
        return True


def _always(value: object) -> Callable[..., Any]:
    return lambda *_args, **_kwargs: value


Patch = Mapping[str, object]
RULES: dict[str, tuple[str, Patch]] = {
    "window by hint": ("a first refusal's hint names the window", {"probe.window_by_hint": _always(None)}),
    "usual counts": (
        "a first fill of an unusual number is a bucket's rather",
        {"probing.USUAL_COUNTS": _Everything()},
    ),
    "counted fill": ("a hint is later where refused calls count", {"probing.EARLY_PART": 0.0}),
    "late probes": ("long spans are also probed a hundredth later", {"probing.LATE_SPAN_S": math.inf}),
    "second fill": (
        "the second fill has another duration",
        {"probe.second_fill_rate": lambda fill, span_s: fill.count / min(0.75 * span_s, fill.took_s)},
    ),
    "no bucket": ("a bucket that gains nothing is none", {"following.is_no_bucket": _always(False)}),
    "fixed windows": ("the phase of a fixed window is fitted", {"identification.fit_fixed": _always((0, 0.0))}),
    "whole bursts": ("a small burst is a whole number", {"identification.MAX_WHOLE_BURST": 0}),
    "outages": ("too long a hint is an outage", {"following.Following._is_outage": _always(False)}),
    "known bucket": ("a measured bucket is preferred", {"model_choice.KNOWN_MISFIT": 0.0}),
    "seen windows": ("a window was seen twice", {"model_choice.SEEN_PART": math.inf}),
    "deep buckets": ("a slow, large bucket is doubted", {"model_choice.DEEP_MISFIT": 0.0}),
    "steepest": ("a rise is read off the last calls", {"model_choice.ModelChoice._steepest": _always(0.0)}),
    "counted windows": ("refused calls may count", {"window_follower.COUNTED": math.inf}),
    "whole fill": (
        "a fall is believed of a whole fill only",
        {"window_end.WindowEnd.is_whole_fill": property(_always(True))},
    ),
    "surge": ("more follow a test that was admitted", {"window_growth.MAX_SURGE": 0.0}),
    "unsettled": ("after a change tests are frequent", {"window_growth.UNSETTLED_CALLS": 0}),
    "guard": ("the guard grows after an early call", {"window_follower.GUARD_STEP": 0.0}),
    "careful": (
        "with hints a span counts from an answer",
        {"window_follower.WindowFollower._is_careful": property(_always(False))},
    ),
    "cut short": ("three windows cut short: another limiter", {"window_follower.MAX_CUTS": 1_000_000}),
    "dear buckets": ("dear refusals: rare tests, slow growth", {"bucket_growth.DEAR_CALLS": math.inf}),
    "reserve": ("a fifth of a dear burst is kept", {"bucket_follower.RESERVE_PART": 0.0}),
    "interval": ("a confirmed rate is tested less", {"refitting.MIN_INTERVAL": 250.0}),
    "fallen rate": ("after a fall tests are frequent", {"refitting.FELL": 0.0}),
    "evidence": ("calls in flight are one refusal", {"history.MAX_IN_BURST": 16}),
}


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One random limiter, over one line."""

    name: str
    make: Make
    hint: str
    latency_s: float
    count: int
    seed: int

    def __str__(self) -> str:
        return f"{self.name}, hints {self.hint}, {self.latency_s * 1000:.0f} ms, {self.count} calls"


def draws(count: int, seed: int) -> list[Draw]:
    """Buckets and windows of 2 to 120 calls a second, at 3 to 150 ms; one in four changes, one has an outage."""
    rng = random.Random(seed)
    found: list[Draw] = []
    while len(found) < count:
        per_s, latency_s = _between(rng, 2, 120), _between(rng, 0.003, 0.15)
        span_s, calls = rng.choice((1, 1, 1, 2, 3, 5, 10, 20, 60)), rng.choice((600, 1200))
        size = max(2, round(per_s * span_s))
        if per_s > 12 / latency_s or size > calls / 3:
            continue  # the limit would hardly be met
        drawn = {"part": rng.random(), "burst": max(1, round(per_s * rng.uniform(0.1, 2)))}
        kind = rng.choice(("bucket", "bucket", "fixed", "sliding", "counted"))

        def limit(
            factor: float = 1.0, *, kind: str = kind, size: int = size, span_s: float = span_s, drawn: Any = drawn
        ) -> tuple[str, Make]:
            calls = max(1, round(factor * size))
            if kind == "bucket":
                return bucket(calls, span_s, drawn["burst"])
            if kind == "fixed":
                return fixed(calls, span_s, drawn["part"])
            return sliding(calls, span_s) if kind == "sliding" else counted(calls, span_s)

        name, make = _course(rng, limit, calls * span_s / size)
        found.append(
            Draw(
                name=name,
                make=make,
                hint=rng.choice(("none", "whole", "whole", "exact")),
                latency_s=latency_s,
                count=calls,
                seed=rng.randrange(10**6),
            )
        )
    return found


def _course(rng: random.Random, limit: Callable[..., tuple[str, Make]], run_s: float) -> tuple[str, Make]:
    """The limit as it is, with an outage of a tenth of the run, or falling and rising."""
    name, make = limit()
    begin_s = rng.uniform(0.2, 0.7) * run_s
    fall, rise = rng.uniform(0.25, 0.7), rng.uniform(0.8, 2)
    course = rng.choice(("steady", "steady", "outage", "changing"))
    if course == "outage":
        return f"{name}, outage", lambda: Outage(make(), begin_s, begin_s + run_s / 10)
    if course == "changing":

        def changing() -> Limiter:
            return Changing([(0, make()), (0.3 * run_s, limit(fall)[1]()), (0.65 * run_s, limit(rise)[1]())])

        return f"{name}, then {fall:.2f} and {rise:.2f} of it", changing
    return name, make


def _between(rng: random.Random, least: float, most: float) -> float:
    return math.exp(rng.uniform(math.log(least), math.log(most)))


def run(draw: Draw) -> tuple[float, int]:
    """(makespan in seconds, refused)."""
    tally = run_submits(
        AdaptiveRateLimiter(rate=None),
        draw.make(),
        draw.count,
        hint=HINTS[draw.hint],
        latency=Latency(typical_s=draw.latency_s, spread=0.5),
        seed=draw.seed,
        write_s=0.003,
        pause_s=0.05,
        until_s=GIVE_UP_S,
    )
    return tally.makespan_s if len(tally.accepted) == draw.count else GIVE_UP_S, len(tally.refused)


def without(rule: str, rows: Sequence[Draw]) -> Iterator[tuple[float, int]]:
    """Carries the rows out while the rule is switched off."""
    with ExitStack() as patched:
        for place, value in RULES[rule][1].items():
            patched.enter_context(mock.patch(RATELIMIT + place, value))
        yield from map(run, rows)


def _report(rule: str, rows: Sequence[Draw], usual: Sequence[tuple[float, int]], *, each: bool) -> None:
    changes, refused = [], []
    for (usual_s, usual_refused), (took_s, now_refused) in zip(usual, without(rule, rows), strict=True):
        # As parts of the shorter one: a run that failed both ways weighs the same.
        changes.append((usual_s - took_s) / max(usual_s, took_s))
        refused.append(now_refused - usual_refused)
    worse, better = (sum(sign * change > WORTH_SHOWING for change in changes) for sign in (-1, 1))
    error = stdev(changes) / math.sqrt(len(changes))
    cells = f"{mean(changes):+.4f} +- {error:.4f} | {worse} : {better} | {min(changes):+.2f} | {mean(refused):+.1f}"
    print(f"| {rule}: {RULES[rule][0]} | {cells} |", flush=True)
    if each:
        for change, row in sorted(zip(changes, rows, strict=True), key=lambda it: it[0]):
            if abs(change) > WORTH_SHOWING:
                print(f"    {change:+.3f}  {row}")


def main() -> None:
    """Reads the options and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__)
    parser.add_argument("--rule", choices=RULES, help="only this one")
    parser.add_argument("--rows", type=int, default=200, help="limiters that are drawn")
    parser.add_argument("--draw", type=int, default=1, help="the seed that they are drawn with")
    parser.add_argument("--only", default="", help="of those drawn only the ones with this in their line, as `bucket`")
    args = parser.parse_args()
    rows = [row for row in draws(args.rows, args.draw) if args.only in str(row)]
    usual = [run(row) for row in rows]
    print("| switched off | speed | slower : quicker by 2 % | worst | refused |\n|---|---|---|---|---|")
    for rule in [args.rule] if args.rule else RULES:
        _report(rule, rows, usual, each=args.rule is not None)


if __name__ == "__main__":
    main()
