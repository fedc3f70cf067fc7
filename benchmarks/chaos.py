"""The example manifest through storms of the sandbox: what it charged, what the ledger says, what was lost or doubled.

`python -m benchmarks.chaos [STORMS]` runs seeds 1..STORMS (20 unless told), each in a folder of its own, the same
command again and again until nothing but unknown outcomes is left.
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
SETTLED = (0, 1, 3)
MOST_RUNS = 6
QUICK = ("sandbox.generation_s=0.3", "sandbox.size=180p", "poll.first_s=0.3", "poll.min_s=0.2", "poll.deadline_s=20")


def storm(seed: int, folder: Path) -> str:
    """One storm; returns its line of the table."""
    settings = [word for text in (*QUICK, f"sandbox.chaos={seed}") for word in ("--set", text)]
    command = [sys.executable, "-m", "pipeline", "run", "manifests/example.yaml", "--outputs", str(folder), *settings]
    codes: list[int] = []
    while len(codes) < MOST_RUNS and (not codes or codes[-1] not in SETTLED):
        codes.append(
            subprocess.run(
                [*command, "-q", "--max-duration", "90s"], check=False, cwd=REPO, capture_output=True
            ).returncode
        )
    return f"{seed:>5} {verdict(folder)}  exits {','.join(map(str, codes))}"


def verdict(folder: Path) -> str:
    """Charged by the gateway, counted by the ledger, lost and doubled; `lost` is a job that nobody would ever find."""
    with closing(sqlite3.connect(folder / "sandbox" / "books.db")) as books:
        jobs = [row[0] for row in books.execute("select fingerprint from jobs")]
    with closing(sqlite3.connect(folder / "ledger.db")) as ledger:
        ((counted,),) = ledger.execute("select count(*) from attempts where state not in ('planned', 'rejected')")
        ((unknown,),) = ledger.execute("select count(*) from attempts where state = 'unknown'")
    doubled = sum(count - 1 for count in Counter(jobs).values())
    lost = max(0, len(jobs) - counted)
    return f"{len(jobs):>8} {counted:>8} {unknown:>8} {lost:>6} {doubled:>8}"


def main() -> None:
    """Prints the table; ends with 1 when anything was lost or doubled."""
    print(f"{'storm':>5} {'charged':>8} {'ledger':>8} {'unknown':>8} {'lost':>6} {'doubled':>8}")
    bad = False
    for seed in range(1, int(sys.argv[1] if len(sys.argv) > 1 else 20) + 1):
        with tempfile.TemporaryDirectory() as name:
            line = storm(seed, Path(name))
        bad |= line.split()[4:6] != ["0", "0"]
        print(line, flush=True)
    sys.exit(bad)


if __name__ == "__main__":
    main()
