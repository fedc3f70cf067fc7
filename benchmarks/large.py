"""A million rows: what planning, listing, opening after a crash and the reports of a large run cost.

    python -m benchmarks.large [--quick] [--write-docs]

Every step runs in a process of its own, so that its CPU seconds (user and system) and the most memory it ever had
are its own, and imports inside itself what no other step needs. CPU and not time: it is the same on a machine that
others use.
"""

from __future__ import annotations

import asyncio
import csv
import gc
import hashlib
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.figures import Figures, Unrest, middle
from benchmarks.measuring import main
from pipeline.config.loader import load
from pipeline.config.settings import Settings
from pipeline.ledger.database import write_meta
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import LedgerChange
from pipeline.ledger.workspace import open_for_reading, open_for_spending
from pipeline.records import State

ROWS, REPORTED = 1_000_000, 100_000
QUICK_PART = 20
"""With one round everything is so much smaller, and the figures are of that size."""
HEADER = ("id", "image", "prompt", "motion", "strength", "seed")
CHUNK = 4_000


def settings_in(folder: Path) -> Settings:
    """The sandbox's settings with everything below `folder`."""
    return load(None, overrides={"outputs.dir": str(folder / "outputs")}, environ={})


def write_rows(path: Path, count: int) -> None:
    """A sheet of so many rows: 500 pictures, 2,000 prompts, a seed each."""
    with path.open("w", newline="", encoding="ascii") as file:
        lines = csv.writer(file)
        lines.writerow(HEADER)
        for number in range(count):
            image = f"https://example.com/images/scene-{number % 500:03d}.jpg"
            prompt = f"A serene lake at dawn, gentle ripples, take {number % 2000}"
            lines.writerow((f"row-{number:07d}", image, prompt, "General", "0.7", number % 1_000_000 + 1))


def plan(folder: Path, count: int) -> None:
    """`dop plan` of the sheet; no ledger yet."""
    from pipeline.planning.against_ledger import make_offer  # noqa: PLC0415
    from pipeline.planning.requests import bind_manifest  # noqa: PLC0415

    settings = settings_in(folder)
    offer = make_offer(bind_manifest(folder / "rows.csv", settings), settings, None)
    assert offer.plan.new == count


def listed(folder: Path, count: int) -> None:
    """What `dop run` does once the user has agreed: it reads the sheet again and writes its rows into the ledger."""
    from pipeline.planning.requests import bind_manifest  # noqa: PLC0415
    from tests.support.ledgers import make_run  # noqa: PLC0415

    settings = settings_in(folder)
    bound = bind_manifest(folder / "rows.csv", settings)
    with open_for_spending(settings, lock_wait_s=0, now=time.time()) as workspace:
        run = make_run(gateway=workspace.gateway)
        listed, _ = bound.read(
            lambda rows: workspace.queries.sync_rows(run.run_id, rows, rows_digest="large", new=run),
            known=workspace.queries,
        )
        assert listed == workspace.queries.totals(run.run_id).count(State.PLANNED) == count


def crash(folder: Path, count: int) -> None:
    """The ledger as a process leaves it that is killed while it buys."""
    with closing(SqliteLedger(settings_in(folder).ledger_path)) as ledger:
        ledger.ready_to_spend()
        _buy(ledger, _planned(ledger, min(count, 1_000)), done=False)
        ledger.transact(lambda connection: write_meta(connection, {"clean": "no"}))
        os._exit(0)


def opened(folder: Path, _: int) -> None:
    """Open the crashed ledger for spending, and leave it as it was for the next step."""
    with open_for_spending(settings_in(folder), lock_wait_s=0, now=time.time()):
        os._exit(0)


def checked(folder: Path, _: int) -> None:
    """`dop ledger check`: every row."""
    ledger = SqliteLedger(settings_in(folder).ledger_path)
    assert not ledger.problems()
    os._exit(0)


def bought(folder: Path, count: int) -> None:
    """List the rows of the reports, and buy them all."""
    listed(folder, count)
    with closing(SqliteLedger(settings_in(folder).ledger_path)) as ledger:
        ledger.ready_to_spend()
        _buy(ledger, _planned(ledger, count), done=True)


def report_csv(folder: Path, count: int) -> None:
    """report.csv of the run."""
    from pipeline.reports.run_folder import RunFolder  # noqa: PLC0415
    from pipeline.reports.tables import write_csv  # noqa: PLC0415
    from pipeline.reports.writer import report_rows  # noqa: PLC0415

    with open_for_reading(settings_in(folder)) as workspace:
        run = workspace.queries.runs()[0]
        rows = report_rows(workspace, run, RunFolder(workspace.outputs, run.run_id))
        assert write_csv(rows, folder / "report.csv") == count


def report_html(folder: Path, _: int) -> None:
    """report.html of the run."""
    from pipeline.reports.sheet.page import write_sheet  # noqa: PLC0415
    from pipeline.reports.writer import run_view  # noqa: PLC0415

    with open_for_reading(settings_in(folder)) as workspace:
        write_sheet(run_view(workspace, workspace.queries.runs()[0]), folder / "report.html", stills=False)


def _planned(ledger: SqliteLedger, count: int) -> list[str]:
    with ledger.reader.connect() as connection:
        found = connection.exec_driver_sql(f"SELECT request_id FROM attempts WHERE state = 'planned' LIMIT {count}")
        return [request_id for (request_id,) in found]


def _buy(ledger: SqliteLedger, request_ids: Sequence[str], *, done: bool) -> None:
    from tests.support.ledgers import RUN  # noqa: PLC0415

    at = time.time()
    for first in range(0, len(request_ids), CHUNK):
        some = request_ids[first : first + CHUNK]
        ledger.apply_all(
            LedgerChange(request_id=one, event=Event.RESERVE, at=at, token=one, run_id=RUN) for one in some
        )
        if not done:
            continue
        ledger.apply_all(
            LedgerChange(
                request_id=one,
                event=Event.ACCEPT,
                at=at + 2,
                token=one,
                values={"job_set_id": f"job-{one}", "accepted_at": at + 1},
            )
            for one in some
        )
        ledger.apply_all(
            LedgerChange(
                request_id=one,
                event=Event.COMPLETE,
                at=at + 90,
                token=one,
                values={"video_url": f"https://cdn.example/{one}.mp4", "finished_at": at + 90},
            )
            for one in some
        )


def bound_of_plan(folder: Path, count: int) -> None:
    """What planning can't go below: the rows are read by the csv module, and each gets one hash."""
    with (folder / "rows.csv").open(newline="", encoding="utf-8") as file:
        found = {hashlib.blake2b("\x1f".join(row).encode(), digest_size=32).digest() for row in csv.reader(file)}
    assert len(found) == count + 1


def bound_of_listing(folder: Path, count: int) -> None:
    """What listing can't go below: SQLite writes the same two tables with their indexes, from rows that are there."""
    with closing(sqlite3.connect(folder / "copy.db", isolation_level=None)) as copy:
        copy.execute("ATTACH ? AS whole", (str(settings_in(folder).ledger_path),))
        tables = "('attempts', 'run_rows')"
        kept = f"FROM whole.sqlite_schema WHERE tbl_name IN {tables} AND sql IS NOT NULL"
        for (statement,) in copy.execute(f"SELECT sql {kept} ORDER BY type DESC").fetchall():
            copy.execute(statement)
        copy.execute("BEGIN")
        for table in ("attempts", "run_rows"):
            rows = copy.execute(f"SELECT * FROM whole.{table}")
            marks = ", ".join("?" for _ in rows.description)
            copy.executemany(f"INSERT INTO main.{table} VALUES ({marks})", rows)
        copy.execute("COMMIT")
        assert copy.execute("SELECT count(*) FROM main.attempts").fetchone() == (count,)


def bound_of_reports(folder: Path, count: int) -> None:
    """What reports can't go below: the driver reads the same rows, and the csv module writes their values."""
    with (
        closing(sqlite3.connect(settings_in(folder).ledger_path)) as ledger,
        (folder / "bound.csv").open("w", newline="", encoding="utf-8") as file,
    ):
        lines = csv.writer(file)
        statement = "SELECT * FROM run_rows LEFT JOIN attempts USING (request_id) ORDER BY run_rows.position"
        for row in ledger.execute(statement):
            lines.writerow(row)
        assert ledger.execute("SELECT count(*) FROM attempts").fetchone() == (count,)


STEPS: dict[str, Callable[[Path, int], None]] = {
    step.__name__: step
    for step in (
        plan,
        listed,
        crash,
        opened,
        checked,
        bought,
        report_csv,
        report_html,
        bound_of_plan,
        bound_of_listing,
        bound_of_reports,
    )
}
MEASURED = {
    "plan": ("plan of the sheet", 12.0, None),
    "listed": ("rows into a new ledger", 40.0, None),
    "opened": ("open the ledger after a crash", 5.0, None),
    "checked": ("`dop ledger check`", None, None),
    "report_csv": ("report.csv", 2.5, None),
    "report_html": ("report.html", 5.0, 250),
}
"""Step -> what it is called, the target in CPU seconds and in MB; None where there is none."""


BOUNDS = {
    "plan": "bound_of_plan",
    "listed": "bound_of_listing",
    "report_csv": "bound_of_reports",
    "report_html": "bound_of_reports",
}
"""Step -> the one that does only what no program can leave out."""


ALL_ROWS = ("plan", "listed", "crash", "opened", "checked", "bound_of_plan", "bound_of_listing")
SOLD = ("bought", "report_csv", "report_html", "bound_of_reports")


def _alone(step: str, folder: Path, count: int) -> dict[str, float]:
    """CPU seconds of a step in a process of its own, without those of its imports, and MB of its memory."""
    child = os.spawnv(
        os.P_NOWAIT, sys.executable, [sys.executable, "-m", "benchmarks.large", step, str(folder), str(count)]
    )
    _, status, used = os.wait4(child, 0)
    if status:
        raise RuntimeError(f"{step} ended with {status}")
    return {"cpu_s": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}


def measure(rows: int, reported: int) -> dict[str, dict[str, float]]:
    """Every step once, in order."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        for folder, count, steps in (
            (Path(name) / "million", rows, ALL_ROWS),
            (Path(name) / "reports", reported, SOLD),
        ):
            folder.mkdir()
            write_rows(folder / "rows.csv", count)
            for step in steps:
                found[step] = _alone(step, folder, count)
                print(f"{step} of {count:,}: {found[step]['cpu_s']:.2f} s, {found[step]['peak_mb']:.0f} MB", flush=True)
    return found


def _bound_s(step: str, scores: Sequence[dict[str, dict[str, float]]]) -> float | None:
    return round(middle(score[BOUNDS[step]]["cpu_s"] for score in scores), 2) if step in BOUNDS else None


async def run(rounds: int) -> tuple[Figures, list[Unrest]]:
    """The rounds; medians."""
    part = QUICK_PART if rounds == 1 else 1
    scores = [await asyncio.to_thread(measure, ROWS // part, REPORTED // part) for _ in range(rounds)]
    lines: list[dict[str, Any]] = []
    for step, (name, target_s, target_mb) in MEASURED.items():
        lines.append(
            {
                "name": name,
                "rows": (REPORTED if step.startswith("report") else ROWS) // part,
                "cpu_s": round(middle(score[step]["cpu_s"] for score in scores), 2),
                "peak_mb": round(middle(score[step]["peak_mb"] for score in scores)),
                "target_s": target_s,
                "target_mb": target_mb,
                "bound_s": round(middle(score[BOUNDS[step]]["cpu_s"] for score in scores), 2)
                if step in BOUNDS
                else None,
            }
        )
    return {"rows": lines}, [(os.getloadavg()[0], 0.0)]


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] in STEPS:
        gc.set_threshold(10_000)  # as the command line does
        STEPS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main("large", run)
