"""The pace against many limiters in virtual time: what docs/pace.md tells of it, and a grid nothing was tuned on.

python -m benchmarks.pacegrid                   the tables of docs/pace.md
python -m benchmarks.pacegrid --grid held-out   limits, bursts, latencies and seeds the law was never tuned on
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.simulation import (
    Bucket,
    Changing,
    Fixed,
    Hint,
    Latency,
    Limiter,
    Sliding,
    ideal_s,
    no_hint,
    run_submits,
    whole_seconds,
)
from pipeline.gateway.ratelimit.limiter import AdaptiveRateLimiter

Make = Callable[[], Limiter]
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
        told = f"{row.name:<26} {row.latency_s * 1000:4.0f} ms  hints {row.hint:<6} {row.count:5} rows"
        return f"{told}  {self.ratio:6.3f} / {self.refused}"


def measure(row: Row) -> Result:
    """Carries a row out."""
    ideal, ratios, refused, broken = ideal_s(row.make, row.count), [], [], 0
    for seed in row.seeds:
        tally = run_submits(
            AdaptiveRateLimiter(told=None),
            row.make(),
            row.count,
            hint=HINTS[row.hint],
            latency=Latency(typical_s=row.latency_s),
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


DOCUMENTED: Sequence[tuple[str, Make]] = (
    bucket(40, 1, 40),
    bucket(40, 1, 5),
    fixed(40, 1),
    sliding(40, 1),
    sliding(5, 1),
    sliding(10, 10),
    fixed(10, 10),
    bucket(1, 1, 60),
    bucket(3, 1, 10),
    bucket(3, 1, 1),
    bucket(100, 1, 100),
    sliding(100, 1),
    fixed(100, 1),
    sliding(600, 60),
    fixed(600, 60),
    fixed(37, 7),
)
SETTINGS = ((0.005, "none"), (0.005, "whole"), (0.05, "none"), (0.05, "whole"))


def documented() -> Iterator[list[Row]]:
    """The rows of docs/pace.md: one limiter a line."""
    for name, make in DOCUMENTED:
        yield [Row(name=name, make=make, hint=hint, latency_s=latency_s) for latency_s, hint in SETTINGS]


def changing() -> Iterator[list[Row]]:
    """40, then 15 from 20 s, then 60 a second from 40 s: 2,000 submits without hints and with."""
    kinds: dict[str, Callable[[int], Limiter]] = {
        "bucket": lambda per_s: Bucket(per_s, per_s),
        "bucket of 5": lambda per_s: Bucket(per_s, 5),
        "fixed": lambda per_s: Fixed(per_s, 1),
        "sliding": lambda per_s: Sliding(per_s, 1),
    }
    for name, kind in kinds.items():

        def make(kind: Callable[[int], Limiter] = kind) -> Limiter:
            return Changing([(0, kind(40)), (20, kind(15)), (40, kind(60))])

        yield [
            Row(name=f"{name} 40-15-60", make=make, hint=hint, latency_s=0.005, count=2000)
            for hint in ("none", "whole")
        ]


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
"""The first two were looked at while the law was changed; the third only afterwards."""


def _print_table() -> None:
    for rows in itertools.chain(documented(), changing()):
        cells = " | ".join(f"{result.ratio:.3f} / {result.refused}" for result in map(measure, rows))
        print(f"| {rows[0].name} | {cells} |", flush=True)


def _medians(results: Sequence[Result], title: str) -> str:
    ratio, refused = median(it.ratio for it in results), median(it.refused for it in results)
    tenth = sorted(it.ratio for it in results)[len(results) // 10]
    return f"{title:<22} {len(results):4} rows  median {ratio:.3f} / {refused:g}  a tenth is below {tenth:.3f}"


def _print_grid(grid: Grid) -> None:
    results = [measure(row) for row in grid.rows()]
    print(f"the {WORST} worst")
    for result in sorted(results, key=lambda it: it.ratio)[:WORST]:
        print(result.line)
    print(_medians(results, "all"))
    for hint, count in itertools.product(HINTS, (150, 1200)):
        some = [it for it in results if it.row.hint == hint and it.row.count == count]
        print(_medians(some, f"hints {hint}, {count} rows"))
    print(f"sent before a hint had passed: {sum(it.hint_broken for it in results)}")


def main() -> None:
    """Reads the option and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pacegrid", description=__doc__)
    parser.add_argument("--grid", choices=GRIDS, help="instead of the tables: its worst rows and medians")
    grid: str | None = parser.parse_args().grid
    if grid is None:
        _print_table()
    else:
        _print_grid(GRIDS[grid])


if __name__ == "__main__":
    main()
