"""The example manifest through storms of the sandbox: what it charged, what the ledger says, what was lost or doubled.

`python -m benchmarks.chaos [STORMS]` runs seeds 1..STORMS (20 unless given), each in a folder of its own, the same
command again and again until nothing but unknown outcomes is left. Money in USD.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path

REPO = Path(__file__).parents[1]
MAX_RUNS = 6
QUICK = ("sandbox.generation_s=0.3", "sandbox.size=180p", "poll.first_s=0.3", "poll.min_s=0.2", "poll.deadline_s=20")


def storm(seed: int, folder: Path) -> str:
    """One storm; returns its line of the table."""
    settings = [word for text in (*QUICK, f"sandbox.chaos={seed}") for word in ("--set", text)]
    command = [sys.executable, "-m", "pipeline", "run", "manifests/example.yaml", "--outputs", str(folder), *settings]
    codes: list[int] = []
    while len(codes) < MAX_RUNS and (not codes or unfinished(folder)):
        codes.append(
            subprocess.run(
                [*command, "-q", "--max-duration", "90s"], check=False, cwd=REPO, capture_output=True
            ).returncode
        )
    if not (folder / "ledger.db").exists():
        sys.exit(f"storm {seed}: nothing was bought, exits {codes}")
    return f"{seed:>5} {verdict(folder)}  exits {','.join(map(str, codes))}"


def unfinished(folder: Path) -> bool:
    """Whether the same command again could still do something; a job that never ends is collected when it does."""
    if not (folder / "ledger.db").exists():
        return False
    with closing(sqlite3.connect(folder / "ledger.db")) as ledger:
        ((left,),) = ledger.execute(
            "select count(*) from attempts where state in ('planned', 'submitting', 'accepted')"
        )
    return bool(left)


def verdict(folder: Path) -> str:
    """What the gateway charged, what the ledger holds, and what went wrong between them.

    A job is lost when the ledger has no attempt with its id and none of unknown outcome that could be it: no one would
    ever find it. A request is doubled by each job after its first.
    """
    with closing(sqlite3.connect(folder / "sandbox" / "books.db")) as books:
        jobs = list(books.execute("select job_set_id, fingerprint, price_microusd from jobs"))
    with closing(sqlite3.connect(folder / "ledger.db")) as ledger:
        bought = list(ledger.execute("select job_set_id, state, price_microusd from attempts where state <> 'planned'"))
    bought = [line for line in bought if line[1] != "rejected"]
    known = {name for name, _, _ in bought}
    unknown = sum(state == "unknown" for _, state, _ in bought)
    lost = max(0, sum(name not in known for name, _, _ in jobs) - unknown)
    doubled = sum(count - 1 for count in Counter(request for _, request, _ in jobs).values())
    charged, recorded = (sum(price for *_, price in lines) / 1e6 for lines in (jobs, bought))
    return f"{len(jobs):>5} {charged:>8.3f} {len(bought):>7} {recorded:>8.3f} {unknown:>8} {lost:>6} {doubled:>8}"


def main() -> None:
    """Prints the table; ends with 1 when anything was lost or doubled."""
    print(
        f"{'storm':>5} {'jobs':>5} {'charged':>8} {'ours':>7} {'ledger':>8} {'unknown':>8} {'lost':>6} {'doubled':>8}"
    )
    bad = False
    for seed in range(1, int(sys.argv[1] if len(sys.argv) > 1 else 20) + 1):
        with tempfile.TemporaryDirectory() as name:
            line = storm(seed, Path(name))
        bad |= line.split()[6:8] != ["0", "0"]
        print(line, flush=True)
    sys.exit(bad)


if __name__ == "__main__":
    main()
