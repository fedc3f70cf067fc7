"""All benchmarks over HTTP, one after another, then the document.

python -m benchmarks                    write docs/internals/benchmarks.md and its pictures
python -m benchmarks all [--quick]      measure everything first (two hours), and keep the figures
python -m benchmarks limits cost        measure these first
"""

from __future__ import annotations

import argparse

from benchmarks import alone, budget, cost, crowd, large, limits, shared, tls, workers
from benchmarks.measuring import ROUNDS, measured, write_docs

RUNS = {
    "limits": limits.run,
    "alone": alone.run,
    "shared": shared.run,
    "cost": cost.run,
    "budget": budget.run,
    "tls": tls.run,
    "large": large.run,
    "crowd": crowd.run,
    "workers": workers.run,
}


def main() -> None:
    """Measures what is named, keeps it, writes the document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", help=f"what to measure first: all, or some of {', '.join(RUNS)}")
    parser.add_argument("--quick", action="store_true", help="one round")
    args = parser.parse_args()
    names = list(RUNS) if "all" in args.names else list(args.names)
    if "cost" in names and "budget" not in names:
        names.insert(names.index("cost") + 1, "budget")  # where that cost goes
    for name in names:
        if name not in RUNS:
            parser.error(f"no benchmark {name!r}")
    for name in names:
        if name == "workers" and not workers.possible():
            print(
                "workers: left out, there is no PostgreSQL server on this machine (Debian: apt-get install postgresql)"
            )
            continue
        measured(name, RUNS[name], 1 if args.quick else ROUNDS)
    write_docs()


if __name__ == "__main__":
    main()
