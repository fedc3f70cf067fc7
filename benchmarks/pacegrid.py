"""The rate limiter against many limiters in virtual time: the tables of docs/internals/pace.md.

python -m benchmarks.pacegrid                   families of limiters, ten seeds: median and minimum of a knowing caller
python -m benchmarks.pacegrid --rows            the same, limiter by limiter
python -m benchmarks.pacegrid --grid held-out   limits, latencies and seeds that nothing was tuned on, to the ideal
python -m benchmarks.pacegrid --jobs 4          either of them, on so many processors
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

from benchmarks.knowing import attainable_s
from benchmarks.simulation import (
    Bucket,
    Changing,
    Counted,
    Fixed,
    Hint,
    Latency,
    Limiter,
    Outage,
    Sliding,
    Weighed,
    ideal_s,
    no_hint,
    run_submits,
    whole_seconds,
)
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter

Make = Callable[[], Limiter]
Found = TypeVar("Found")
ODD = 0.6180339887
"""of a span: where a fixed window begins, so that nothing falls on a round time"""
GIVE_UP_S = 20_000.0
WORST = 10


def exact(true_wait_s: float) -> float | None:
    """Retry-After to the millisecond, rounded up."""
    return math.ceil(true_wait_s * 1000) / 1000


HINTS: dict[str, Hint] = {"none": no_hint, "whole": whole_seconds, "exact": exact}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One limiter, met over one line by one batch; `seeds` one run each."""

    name: str
    make: Make
    hint: str
    latency_s: float
    spread: float = 0.2
    count: int = 1200
    seeds: tuple[int, ...] = (1, 2)
    write_s: float = 0.0
    pause_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """The worse of a row's runs: ideal time over makespan, submits refused, submits sent before a hint had passed."""

    row: Row
    ratio: float
    refused: int
    hint_broken: int

    @property
    def line(self) -> str:
        row = self.row
        rate = f"{row.name:<26} {row.latency_s * 1000:4.0f} ms  hints {row.hint:<6} {row.count:5} rows"
        return f"{rate}  {self.ratio:6.3f} / {self.refused}"


def measure(row: Row) -> Result:
    """Carries a row out."""
    ideal, ratios, refused, broken = ideal_s(row.make, row.count), [], [], 0
    for seed in row.seeds:
        tally = run_submits(
            AdaptiveRateLimiter(rate=None),
            row.make(),
            row.count,
            hint=HINTS[row.hint],
            latency=Latency(typical_s=row.latency_s, spread=row.spread),
            seed=seed,
            write_s=row.write_s,
            pause_s=row.pause_s,
            until_s=GIVE_UP_S,
        )
        whole = len(tally.accepted) == row.count
        ratios.append(ideal / max(tally.makespan_s, 1e-9) if whole else 0.0)
        refused.append(len(tally.refused))
        broken += tally.hint_broken
    return Result(row=row, ratio=min(ratios), refused=max(refused), hint_broken=broken)


def bucket(count: int, span_s: float, burst: float) -> tuple[str, Make]:
    """A bucket that gains `count` in `span_s`."""
    return f"bucket {count}/{span_s:g}s, holds {burst:g}", lambda: Bucket(count / span_s, burst)


def fixed(count: int, span_s: float, part: float = ODD) -> tuple[str, Make]:
    """A fixed window; the run begins when `part` of one is over."""
    return f"fixed {count} in {span_s:g}s", lambda: Fixed(count, span_s, -part * span_s)


def sliding(count: int, span_s: float) -> tuple[str, Make]:
    """A sliding window."""
    return f"sliding {count} in {span_s:g}s", lambda: Sliding(count, span_s)


def counted(count: int, span_s: float) -> tuple[str, Make]:
    """A sliding window in which rejected calls count as well."""
    return f"counted {count} in {span_s:g}s", lambda: Counted(count, span_s)


def weighed(count: int, span_s: float, part: float) -> tuple[str, Make]:
    """Fixed windows that also count a part of the one before."""
    return f"weighed {count} in {span_s:g}s", lambda: Weighed(count, span_s, part * span_s)


def changing(kind: Callable[[int], Limiter], name: str) -> tuple[str, Make]:
    """40, then 15 from 10 s on, then 60 a second from 25 s on."""
    return f"{name} 40-15-60", lambda: Changing([(0, kind(40)), (10, kind(15)), (25, kind(60))])


def outage(limit: tuple[str, Make]) -> tuple[str, Make]:
    """Nothing is admitted for a tenth of the run."""
    name, make = limit
    return f"{name}, outage", lambda: Outage(make(), 12.0, 15.0)


CHANGES = (
    changing(lambda per_s: Bucket(per_s, 40), "bucket"),
    changing(lambda per_s: Bucket(per_s, 5), "bucket of 5"),
    changing(lambda per_s: Sliding(per_s, 1), "sliding"),
    changing(lambda per_s: Fixed(per_s, 1, -0.4), "fixed"),
)
LONG_WINDOWS = (sliding(120, 3), fixed(120, 3, 1.1 / 3), sliding(100, 10), sliding(60, 60))
SHORT_WINDOWS = (sliding(40, 1), fixed(40, 1, 0.4), sliding(5, 1), fixed(20, 1, 0.7))
LARGE_WINDOWS = (*SHORT_WINDOWS[:3], sliding(60, 3), fixed(60, 3, 1.1 / 3), sliding(60, 60), sliding(10, 10))
SLOW = (
    bucket(10, 1, 10),
    bucket(3, 1, 10),
    bucket(3, 1, 1),
    sliding(10, 1),
    sliding(5, 1),
    sliding(10, 10),
    sliding(60, 60),
)
BOTH_S = (0.02, 0.05)


@dataclass(frozen=True, kw_only=True)
class Family:
    """Limiters of one kind, each with these hints and latencies (+- 50 %)."""

    name: str
    limits: Sequence[tuple[str, Make]]
    hints: tuple[str, ...]
    latencies_s: tuple[float, ...] = BOTH_S
    count: int = 1200

    def rows(self) -> Iterator[Row]:
        """One row for each combination, with a client's delays."""
        for (name, make), hint, latency_s in itertools.product(self.limits, self.hints, self.latencies_s):
            yield Row(
                name=name,
                make=make,
                hint=hint,
                latency_s=latency_s,
                spread=0.5,
                count=self.count,
                seeds=TEN_SEEDS,
                write_s=0.003,
                pause_s=0.05,
            )


TEN_SEEDS = tuple(range(21, 31))
FAMILIES = (
    Family(name="bucket, no hints", limits=(bucket(40, 1, 40), bucket(40, 1, 10), bucket(40, 1, 5)), hints=("none",)),
    Family(
        name="bucket, exact hints", limits=(bucket(40, 1, 40), bucket(40, 1, 10), bucket(40, 1, 5)), hints=("exact",)
    ),
    Family(name="bucket, whole hints, holds a second", limits=(bucket(40, 1, 40), bucket(3, 1, 10)), hints=("whole",)),
    Family(name="bucket 40 holds 10, whole hints", limits=(bucket(40, 1, 10),), hints=("whole",)),
    Family(name="bucket 40 holds 5, whole hints", limits=(bucket(40, 1, 5),), hints=("whole",)),
    Family(name="windows of 3 s and more, hints", limits=LONG_WINDOWS, hints=("whole", "exact")),
    Family(name="the same, rejected calls count", limits=(counted(120, 3), counted(100, 10)), hints=("whole", "exact")),
    Family(name="windows of 1 s, whole hints, 20 ms", limits=SHORT_WINDOWS, hints=("whole",), latencies_s=(0.02,)),
    Family(name="windows of 1 s, whole hints, 50 ms", limits=SHORT_WINDOWS, hints=("whole",), latencies_s=(0.05,)),
    Family(name="windows, no hints, 20 and more", limits=LARGE_WINDOWS, hints=("none",)),
    Family(name="fixed 120 in 3 s, phase unknown", limits=(fixed(120, 3, 1.1 / 3),), hints=("none",)),
    Family(name="fixed 600 in 60 s, phase unknown", limits=(fixed(600, 60),), hints=("none",)),
    Family(name="40-15-60, no hints", limits=CHANGES, hints=("none",), latencies_s=(0.02,)),
    Family(name="40-15-60, whole hints", limits=CHANGES, hints=("whole",), latencies_s=(0.02,)),
    Family(
        name="outage of a tenth, hints",
        limits=[outage(limit) for limit in (bucket(40, 1, 40), bucket(40, 1, 10), sliding(120, 3))],
        hints=("whole", "exact"),
        latencies_s=(0.02,),
    ),
    Family(
        name="windows weighed with the one before",
        limits=(weighed(40, 1, 0.3), weighed(120, 3, 0.5), weighed(100, 10, 0.8)),
        hints=("none", "whole"),
    ),
    Family(name="150 submits, 10/s and below", limits=SLOW, hints=("none", "whole"), latencies_s=(0.05,), count=150),
)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Limiters, latencies and seeds to combine; `part` of all combinations is carried out, drawn by the first seed."""

    limits: tuple[tuple[int, float], ...]
    latencies_s: tuple[float, ...]
    parts: tuple[float, float]
    """of a span: how far the two fixed windows of each limit are when the run begins"""
    seeds: tuple[int, ...]
    part: float

    def limiters(self) -> Iterator[tuple[str, Make]]:
        """Buckets of four sizes, fixed windows at two phases, and a sliding window, for each limit."""
        for count, span_s in self.limits:
            for burst in (1, 3, count, 2 * count):
                yield bucket(count, span_s, burst)
            yield from (fixed(count, span_s, part) for part in self.parts)
            yield sliding(count, span_s)

    def rows(self) -> list[Row]:
        """The rows drawn, of those in which the limit is met at all."""
        whole = itertools.product(self.limiters(), self.latencies_s, HINTS, (150, 1200))
        rows = [
            Row(name=name, make=make, hint=hint, latency_s=latency_s, count=count, seeds=self.seeds)
            for (name, make), latency_s, hint, count in whole
        ]
        met = [row for row in rows if ideal_s(row.make, row.count) > 0]
        return random.Random(self.seeds[0]).sample(met, int(self.part * len(met)))


GRIDS = {
    "watched": Grid(
        limits=((7, 1.0), (23, 1.0), (55, 1.0), (90, 60.0), (12, 10.0)),
        latencies_s=(0.005, 0.03, 0.08),
        parts=(0.29, 0.83),
        seeds=(101, 202),
        part=0.5,
    ),
    "seen": Grid(
        limits=((9, 1.0), (31, 1.0), (70, 1.0), (150, 60.0), (25, 10.0)),
        latencies_s=(0.007, 0.02, 0.12),
        parts=(0.41, 0.93),
        seeds=(303, 404),
        part=0.4,
    ),
    "held-out": Grid(
        limits=((17, 1.0), (48, 1.0), (85, 1.0), (220, 60.0), (18, 10.0)),
        latencies_s=(0.009, 0.04, 0.2),
        parts=(0.15, 0.7),
        seeds=(505, 606),
        part=0.4,
    ),
}
"""The first two were seen while the law was changed; the third only afterwards."""


def _known(make: Make) -> Make:
    limiter = make()
    if isinstance(limiter, Counted):
        return lambda: Sliding(limiter.count, limiter.span_s)
    return make


def compare(row: Row) -> tuple[list[float], list[int], int]:
    """For each seed the part of what a knowing caller reaches, and the rejected submits; sent before a hint passed."""
    ratios, refused, broken = [], [], 0
    for seed in row.seeds:
        drawn = {"hint": HINTS[row.hint], "seed": seed, "write_s": row.write_s, "pause_s": row.pause_s}
        latency = Latency(typical_s=row.latency_s, spread=row.spread)
        best_s = attainable_s(
            row.make,
            row.count,
            known=_known(row.make),
            latency=latency,
            until_s=GIVE_UP_S,
            **drawn,  # type: ignore[arg-type]
        )
        tally = run_submits(
            AdaptiveRateLimiter(rate=None),
            row.make(),
            row.count,
            latency=latency,
            until_s=GIVE_UP_S,
            **drawn,  # type: ignore[arg-type]
        )
        whole = len(tally.accepted) == row.count
        ratios.append(best_s / max(tally.makespan_s, 1e-9) if whole else 0.0)
        refused.append(len(tally.refused))
        broken += tally.hint_broken
    return ratios, refused, broken


_shared: list[tuple[Callable[[Row], Any], Row]] = []
"""what the processes of `_of_each` work on: a row has functions, which reach a child process only by a fork"""


def _of_each(work: Callable[[Row], Found], rows: Sequence[Row], jobs: int) -> Iterator[Found]:
    """The result of each row, in order."""
    if jobs == 1:
        yield from map(work, rows)
        return
    _shared[:] = [(work, row) for row in rows]
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap(_of_place, range(len(rows)))


def _of_place(place: int) -> Any:
    work, row = _shared[place]
    return work(row)


def _print_families(*, each: bool, jobs: int) -> None:
    print("| family | median | minimum | refused: median | most |")
    print("|---|---|---|---|---|")
    early = 0
    found = _of_each(compare, [row for family in FAMILIES for row in family.rows()], jobs)
    for family in FAMILIES:
        all_ratios: list[float] = []
        all_refused: list[int] = []
        for row in family.rows():
            ratios, refused, broken = next(found)
            all_ratios, all_refused, early = all_ratios + ratios, all_refused + refused, early + broken
            if each:
                label = f"{row.name}, {row.hint}, {row.latency_s * 1000:.0f} ms"
                print(f"|   {label} | {_cells(ratios, refused)} |", flush=True)
        print(f"| {family.name} | {_cells(all_ratios, all_refused)} |", flush=True)
    print(f"\nsent before a hint had passed: {early}")


def _cells(ratios: Sequence[float], refused: Sequence[int]) -> str:
    return f"{median(ratios):.3f} | {min(ratios):.3f} | {median(refused):g} | {max(refused)}"


def _medians(results: Sequence[Result], title: str) -> str:
    ratio, refused = median(it.ratio for it in results), median(it.refused for it in results)
    tenth = sorted(it.ratio for it in results)[len(results) // 10]
    return f"{title:<22} {len(results):4} rows  median {ratio:.3f} / {refused:g}  a tenth is below {tenth:.3f}"


def _worst_of(row: Row) -> tuple[float, int, int]:
    found = measure(row)
    return found.ratio, found.refused, found.hint_broken


def _print_grid(grid: Grid, jobs: int) -> None:
    rows = grid.rows()
    found = _of_each(_worst_of, rows, jobs)
    results = [
        Result(row=row, ratio=ratio, refused=refused, hint_broken=broken)
        for row, (ratio, refused, broken) in zip(rows, found, strict=True)
    ]
    print(f"the {WORST} worst")
    for result in sorted(results, key=lambda it: it.ratio)[:WORST]:
        print(result.line)
    print(_medians(results, "all"))
    for hint, count in itertools.product(HINTS, (150, 1200)):
        some = [it for it in results if it.row.hint == hint and it.row.count == count]
        print(_medians(some, f"hints {hint}, {count} rows"))
    print(f"sent before a hint had passed: {sum(it.hint_broken for it in results)}")


def main() -> None:
    """Reads the options and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pacegrid", description=__doc__)
    parser.add_argument("--grid", choices=GRIDS, help="instead of the families: its worst rows and medians")
    parser.add_argument("--rows", action="store_true", help="each limiter of the families as well")
    parser.add_argument("--jobs", type=int, default=1, help="processes that work at the same time")
    args = parser.parse_args()
    if args.grid is None:
        _print_families(each=args.rows, jobs=args.jobs)
    else:
        _print_grid(GRIDS[args.grid], args.jobs)


if __name__ == "__main__":
    main()
