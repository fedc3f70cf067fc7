"""Keep buying until good, with real clips and real checks: `python -m benchmarks.keep --shots 200`.

A rehearsal with 40 % broken clips: each shot has 12 candidates and wants one. The run is killed (SIGKILL) at random
moments on the way and started again. Prints the purchases against the sequential minimum, which follows from the
checks' own results, and whether anything was bought twice or another run buys again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path

PICTURES = ("astronaut", "cat", "coffee", "galaxies", "raccoon", "rocket")
MOTIONS = ("Dolly In", "Arc Left", "Zoom In", "Crane Up", "Handheld", "360 Orbit")
CANDIDATES = 12
DEFECTS = 0.4
LITE_USD = 0.135

SETTINGS = (
    f"sandbox.defects={DEFECTS}", "sandbox.generation_s=1s", "sandbox.size=240p", "on_unknown.max=1000",
    "poll.deadline_s=24h", "poll.max_lag_s=5",  # the sandbox is killed too: its jobs do not continue meanwhile
)  # fmt: skip


def manifest(folder: Path, shots: int) -> Path:
    """A sheet of so many shots with twelve candidates each."""
    path = folder / "shots.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "prompt", "motion", "strength", "model", "seeds", "keep"])
        for number in range(shots):
            picture, motion = PICTURES[number % 6], MOTIONS[number // 6 % 6]
            row = [f"shot{number}", f"sandbox:{picture}", f"Shot {number}", motion, "0.5", "dop-lite", f"x{CANDIDATES}"]
            writer.writerow([*row, "1"])
    return path


def dop(folder: Path, sheet: Path) -> subprocess.Popen[str]:
    """`dop run`, while it runs."""
    words = [sys.executable, "-m", "pipeline", "run", str(sheet), "--no-progress", "--quiet", "--max-rows", "100000"]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    return subprocess.Popen(words, cwd=folder, stderr=subprocess.DEVNULL, text=True, env=dict(os.environ))


def ask(folder: Path, question: str) -> list[tuple[str, ...]]:
    """What the ledger says."""
    path = folder / "outputs" / "ledger.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(question).fetchall()


def last_event(folder: Path) -> object:
    """Number of the newest event; None while the ledger is not there or is being made."""
    try:
        return ask(folder, "SELECT max(seq) FROM history")[0][0]
    except (IndexError, sqlite3.Error):
        return None


def measured(folder: Path, shots: int, kills: int) -> dict[str, object]:
    """Buy it all, killed so often on the way."""
    sheet, chance = manifest(folder, shots), random.Random(1)
    began, killed = time.monotonic(), 0
    while True:
        process = dop(folder, sheet)
        if killed == kills or not _is_at_work(folder, process):
            process.wait()
            break
        try:
            process.wait(chance.uniform(0.0, 4.0))
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    took, code = time.monotonic() - began, process.returncode
    bought = "SELECT count(*) FROM attempts WHERE state NOT IN ('planned', 'rejected')"
    first = int(ask(folder, bought)[0][0])
    again = dop(folder, sheet)
    again.wait()
    return {
        "shots": shots,
        "killed": killed,
        "exit_code": code,
        "seconds": round(took),
        "bought": first,
        "bought_by_another_run": int(ask(folder, bought)[0][0]) - first,
        "paid_twice": _paid_twice(folder),
        "usd": round(first * LITE_USD, 3),
        "most_usd": round(shots * CANDIDATES * LITE_USD, 3),
        **_compared(folder),
    }


def _is_at_work(folder: Path, process: subprocess.Popen[str]) -> bool:
    """Whether the run wrote something new to its ledger; False when it ended before."""
    before = last_event(folder)
    while process.poll() is None:
        if last_event(folder) != before:
            return True
        time.sleep(0.05)
    return False


def _compared(folder: Path) -> dict[str, object]:
    """Purchases against the sequential minimum: up to the first clip that is not bad, in the order of the seeds."""
    listed = ask(
        folder,
        "SELECT r.row_id, a.state, c.grade FROM run_rows r JOIN attempts a ON a.request_id = r.request_id "
        "AND a.superseded = 0 LEFT JOIN clip_checks c ON c.request_id = a.request_id AND c.attempt = a.attempt "
        "ORDER BY r.run_id, r.position",
    )
    shots: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row_id, state, grade in listed:
        shots[row_id.partition("@")[0]].append((state, grade))
    minimum = bought = kept = unknown = 0
    for candidates in shots.values():
        good = [n for n, (state, grade) in enumerate(candidates) if state == "done" and grade != "bad"]
        kept += bool(good)
        if any(state == "unknown" for state, _ in candidates):
            unknown += 1  # a purchase whose answer a kill took away: its shot waits, and has no minimum yet
            continue
        minimum += good[0] + 1 if good else len(candidates)
        bought += sum(state not in ("planned", "rejected") for state, _ in candidates)
    return {"kept": kept, "shots_with_unknown": unknown, "minimum": minimum, "ratio": round(bought / minimum, 4)}


def _paid_twice(folder: Path) -> int:
    """Requests that the sandbox's own books charged more than once."""
    path = folder / "outputs" / "sandbox" / "books.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        twice = "SELECT count(*) FROM (SELECT 1 FROM jobs GROUP BY fingerprint HAVING count(*) > 1)"
        return int(connection.execute(twice).fetchone()[0])


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shots", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measured(Path(folder), args.shots, args.kills), indent=2))


if __name__ == "__main__":
    main()
