"""The command line of the benchmarks: what to measure, how often, and whether the document is written again."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable

from benchmarks.document import DOCUMENT, write
from benchmarks.figures import Figures, Unrest, keep, kept
from benchmarks.plots import draw_changing, draw_lag

ROUNDS = 3

Run = Callable[[int], Awaitable[tuple[Figures, list[Unrest]]]]
"""Takes the number of rounds; returns the figures, and how unquiet the machine was in each bout."""


def measured(name: str, run: Run, rounds: int) -> None:
    """Runs one benchmark and keeps its figures."""
    figures, unrest = asyncio.run(_ran(run, rounds))
    keep(name, figures, rounds=rounds, unrest=unrest)


async def _ran(run: Run, rounds: int) -> tuple[Figures, list[Unrest]]:
    return await run(rounds)


def write_docs() -> None:
    """The document and its pictures, from whatever figures are kept."""
    write()
    for name, draw in (("limits", draw_changing), ("shared", draw_lag)):
        figures = kept(name)
        if figures is not None:
            draw(figures)
    print(DOCUMENT)


def main(name: str, run: Run) -> None:
    """One benchmark as a command."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--write-docs", action="store_true", help="keep the figures and write docs/internals/benchmarks.md"
    )
    args = parser.parse_args()
    rounds = 1 if args.quick else args.rounds
    if args.write_docs:
        measured(name, run, rounds)
        write_docs()
    else:
        asyncio.run(_ran(run, rounds))
