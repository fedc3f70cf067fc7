"""Several `dop worker` processes on one ledger: jobs a second and memory, against a plain `dop run` on a local ledger.

`python -m benchmarks.workers [--quick] [--write-docs]`. Gateway, database server, workers and the command that follows
them share this machine's cores, so more workers than cores bring nothing here: on hosts of their own they would.
Each bout has a fresh gateway and a fresh database of one real PostgreSQL server, as durable as in life.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.bout import LEAVE_S, OURS, REPO, START_S, Score, environ_alone, fight, judged, write_rows
from benchmarks.cost import BOUT
from benchmarks.figures import Figures, Unrest, middle
from benchmarks.gateway import Tally, Terms
from benchmarks.measuring import main
from pipeline.runner.cluster.job_claims import Claim, JobClaims
from pipeline.runner.cluster.job_taker import JobTaker, Load
from pipeline.runner.cluster.tables import prepare
from tests.support.ledgers import opened
from tests.support.postgres import PostgresServer, server_binaries

COUNT = 1_000
TEAMS = (1, 2, 3)
RUN = replace(BOUT, count=COUNT)
HELD = 5_000
HOLD = replace(
    BOUT,
    count=HELD,
    until="accepted",
    sandbox={"generation_s": 7200.0},
    settings=("poll.deadline_s=10h",),
    most_s=600.0,
)
LOOKS_S = 30.0
"""How long all of them are held before memory is read."""
STEP_S = 0.1
QUEUE_TASKS = 16
"""Jobs that a worker of the queue alone takes at once; the submits that a worker has in flight."""
_NOTHING = """
INSERT INTO dop_jobs (request_id, run_id, gateway, collects)
SELECT 'request-' || n, 'run', 'nothing', false FROM generate_series(1, %s) AS n
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a process or several used, seconds of CPU, and the memory it had at most; named as `os.wait4` does."""

    ru_utime: float
    ru_stime: float
    ru_maxrss: int


@dataclass(slots=True, kw_only=True)
class Team:
    """Workers on one database. `peaks_mb` and `now_mb` are theirs, one each, read before they left."""

    score: Score
    peaks_mb: list[float]
    now_mb: list[float]
    worker_cpu_s: float
    database_cpu_s: float


@dataclass(slots=True, kw_only=True)
class Stage:
    """One bout's folder, gateway and database, and the processes that play in it."""

    folder: Path
    base_url: str
    url: str
    gateway: asyncio.subprocess.Process
    played: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, name: str, *words: str, settings: tuple[str, ...]) -> subprocess.Popen[bytes]:
        """`dop` with these words on this ledger; what it says goes into a file of that name."""
        overrides = (
            f"gateway.base_url={self.base_url}",
            f"ledger.url={self.url}",
            "cluster.shared_outputs=true",
            "download.enabled=false",
            "pace.rate=auto",
            *(f"budget.{span}=" for span in ("max_cost", "per_day", "per_month")),
            *settings,
        )
        command = [sys.executable, "-m", "pipeline", *words, "--config", "configs/live.yaml"]
        command += ["--outputs", str(self.folder / "outputs")]
        command += [word for text in overrides for word in ("--set", text)]
        with (self.folder / name).open("wb") as log:
            process = subprocess.Popen(command, cwd=REPO, env=environ_alone(self.folder), stdout=log, stderr=log)
        self.played.append(process)
        return process

    def said(self, name: str) -> str:
        """The end of what one of them said."""
        return (self.folder / name).read_text(encoding="utf-8", errors="replace")[-2000:]


def possible() -> bool:
    """Whether this machine has a PostgreSQL server."""
    return server_binaries() is not None


@contextmanager
def server() -> Iterator[PostgresServer]:
    """A server of its own, running."""
    binaries = server_binaries()
    if binaries is None:
        raise SystemExit("no PostgreSQL server on this machine (Debian: apt-get install postgresql)")
    found = PostgresServer(binaries)
    try:
        found.start()
        yield found
    finally:
        found.remove()


@asynccontextmanager
async def stage(database: PostgresServer, bout: Any) -> AsyncIterator[Stage]:
    """A gateway and a database for one bout; whatever still runs at its end is killed."""
    url = await asyncio.to_thread(database.new_database)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        terms = Terms(folder=name, until=(bout.until, bout.count), sandbox=bout.sandbox)
        (folder / "terms.json").write_text(json.dumps(asdict(terms)), encoding="utf-8")
        gateway = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.gateway", str(folder / "terms.json"), cwd=REPO, stdout=subprocess.PIPE
        )
        assert gateway.stdout is not None
        base_url = (await gateway.stdout.readline()).decode().strip()
        this = Stage(folder=folder, base_url=base_url, url=url, gateway=gateway)
        try:
            yield this
        finally:
            for process in this.played:
                if process.returncode is None:
                    process.kill()
                    await asyncio.to_thread(process.wait)
            with suppress(ProcessLookupError):
                gateway.terminate()
            await gateway.wait()
            await asyncio.to_thread(database.drop, url)


async def teamed(database: PostgresServer, workers: int, bout: Any, *, hold_s: float = 0.0) -> Team:
    """So many workers and the command that follows them, until the gateway has seen enough."""
    cpu_before_s = _database_cpu_s(database)
    async with stage(database, bout) as this:
        hired = [this.start(f"worker-{number}", "worker", settings=bout.settings) for number in range(workers)]
        await _all_there(this, workers)
        write_rows(this.folder / "rows.csv", bout.count)
        words = ("run", str(this.folder / "rows.csv"), "--cluster", "--yes", "--no-progress", "-q")
        follower = this.start("follower", *words, settings=bout.settings)
        assert this.gateway.stdout is not None
        for most_s in (START_S, bout.most_s):
            with suppress(TimeoutError):
                await asyncio.wait_for(this.gateway.stdout.readline(), most_s)
        ended_at = time.monotonic()
        await asyncio.sleep(hold_s)
        memory = [_memory_mb(one.pid) for one in hired]
        await _left(follower, patient=bout.until == "noticed")
        usages = [await _left(one, patient=False) for one in hired]
        this.gateway.terminate()
        await this.gateway.wait()
        tally = Tally(**json.loads((this.folder / "tally.json").read_text(encoding="ascii")))
        if not tally.submits:
            raise RuntimeError(f"nothing arrived: {this.said('follower')}\n{this.said('worker-0')}")
        workers_cpu = Usage(
            ru_utime=sum(one.ru_utime for one in usages),
            ru_stime=sum(one.ru_stime for one in usages),
            ru_maxrss=round(1024 * max(peak for peak, _ in memory)),
        )
        score = judged(f"{workers} workers", bout, tally, ended_at=ended_at, usage=workers_cpu)
    return Team(
        score=score,
        peaks_mb=[peak for peak, _ in memory],
        now_mb=[now for _, now in memory],
        worker_cpu_s=score.client_cpu_s,
        database_cpu_s=_database_cpu_s(database) - cpu_before_s,
    )


async def _all_there(this: Stage, workers: int) -> None:
    """Waits until every worker has entered itself in the queue's own list."""
    for _ in range(round(START_S / STEP_S)):
        if await asyncio.to_thread(_entered, this.url) == workers:
            return
        await asyncio.sleep(STEP_S)
    raise RuntimeError(f"a worker did not start: {this.said('worker-0')}")


def _entered(url: str) -> int:
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        try:
            found = connection.execute("SELECT count(*) FROM dop_workers").fetchone()
        except psycopg.errors.UndefinedTable:
            return 0
    return int(found[0]) if found is not None else 0


async def _left(process: subprocess.Popen[bytes], *, patient: bool) -> Any:
    """What a process used, once it ended, or was asked to."""
    gone = asyncio.create_task(asyncio.to_thread(os.wait4, process.pid, 0))
    if patient:
        await asyncio.wait({gone}, timeout=LEAVE_S)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if not gone.done():
            os.kill(process.pid, sign)
            await asyncio.wait({gone}, timeout=LEAVE_S)
    _, code, usage = await gone
    process.returncode = os.waitstatus_to_exitcode(code)
    return usage


def _memory_mb(pid: int) -> tuple[float, float]:
    """At most, and now. Source: proc(5), VmHWM and VmRSS."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = {line.split(":")[0]: line.split()[1] for line in text.splitlines() if line.startswith("Vm")}
    return int(found["VmHWM"]) / 1024, int(found["VmRSS"]) / 1024


def _database_cpu_s(database: PostgresServer) -> float:
    """CPU seconds of the server so far: its first process, those that it saw end, and those that still run."""
    with closing(psycopg.connect(database.url("postgres"), autocommit=True)) as connection:
        found = connection.execute("SHOW data_directory").fetchone()
    assert found is not None
    first = int((Path(found[0]) / "postmaster.pid").read_text(encoding="ascii").split()[0])
    own = _stat(first)
    ticks = sum(map(int, own[11:15]))
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = _stat(int(folder.name))
            ticks += sum(map(int, fields[11:13])) if int(fields[1]) == first else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name; the second is the parent. Source: proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()


async def queue_alone(database: PostgresServer) -> dict[str, float]:
    """What the job queue takes for jobs that do nothing: CPU milliseconds a job of a worker and of the database."""
    url = await asyncio.to_thread(database.new_database)
    with opened(url):  # the statement that takes jobs reads the ledger as well
        await asyncio.to_thread(prepare, url)
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute(_NOTHING, (COUNT,))
    claims = JobClaims(url, "nothing", "alone", silent_s=60.0)
    over = 0

    async def nothing(claim: Claim) -> None:
        nonlocal over
        over += 1
        taker.ended(claim.request_id, is_finished=True)
        if over == COUNT:
            taker.stop()

    taker = JobTaker(claims, load=lambda: Load(held=0, unsent=0), take_up=nothing, submits=QUEUE_TASKS, holds=COUNT)
    database_s, worker_s = _database_cpu_s(database), time.process_time()
    await taker.run()
    await taker.flush()
    worker_s, database_s = time.process_time() - worker_s, _database_cpu_s(database) - database_s
    await claims.close()
    await asyncio.to_thread(database.drop, url)
    return {"jobs": COUNT, "worker_ms": 1000 * worker_s / COUNT, "database_ms": 1000 * database_s / COUNT}


def jobs_per_s(score: Score) -> float:
    """From the first submit to the moment when the last job was seen to be finished, by the gateway's books."""
    return (len(score.noticed_s) if not score.whole else score.accepted) / score.elapsed_s


def row(name: str, scores: list[Score], ratios: list[float], teams: list[Team]) -> dict[str, Any]:
    """Medians over the rounds. `ratios` are to the plain run of the same round."""
    return {
        "name": name,
        "jobs_per_s": round(middle(map(jobs_per_s, scores)), 1),
        "each": sorted(round(jobs_per_s(score), 1) for score in scores),
        "submits_per_s": round(middle(score.accepted / score.accepted_s[-1] for score in scores), 1),
        "ratio": round(middle(ratios), 3),
        "ratios": sorted(round(one, 3) for one in ratios),
        "memory_mb": round(middle(score.memory_mb for score in scores)),
        "cpu_ms": round(middle(1000 * score.client_cpu_s / score.accepted for score in scores), 2),
        "database_cpu_ms": round(middle([1000 * one.database_cpu_s / one.score.accepted for one in teams] or [0]), 2),
        "gateway_cpu_ms": round(middle(1000 * score.gateway_cpu_s / score.accepted for score in scores), 2),
        "polls_a_job": round(middle(score.polls_a_job for score in scores), 2),
        "whole": all(score.whole for score in scores),
    }


def held_row(team: Team) -> dict[str, Any]:
    """One worker that waits for many: megabytes at most and at the end, and the polls meanwhile."""
    return {
        "in_flight": team.score.accepted,
        "peak_mb": round(team.peaks_mb[0]),
        "now_mb": round(team.now_mb[0]),
        "polls": team.score.polls,
    }


async def run(rounds: int) -> tuple[Figures, list[Unrest]]:
    """The rounds, interleaved; then the memory of one worker that holds 5,000."""
    plain: list[Score] = []
    teams: dict[int, list[Team]] = {workers: [] for workers in TEAMS}
    with server() as database:
        queue = await queue_alone(database)
        print(f"queue alone: {queue}", flush=True)
        one_job = await teamed(database, 1, replace(RUN, count=1))
        start = {"worker_cpu_s": one_job.worker_cpu_s, "database_cpu_s": one_job.database_cpu_s}
        print(f"start: {start}", flush=True)
        for number in range(rounds):
            plain.append(await fight(OURS, RUN))
            print(f"round {number + 1}: {OURS} {jobs_per_s(plain[-1]):.1f} jobs/s", flush=True)
            for workers, found in teams.items():
                found.append(await teamed(database, workers, RUN))
                print(f"round {number + 1}: {workers} workers {_line(found[-1])}", flush=True)
        held = await teamed(database, 1, HOLD, hold_s=LOOKS_S)
        print(f"{held_row(held)}", flush=True)
    rows = [row(OURS, plain, [1.0] * rounds, [])]
    for workers, found in teams.items():
        scores = [one.score for one in found]
        ratios = [jobs_per_s(one) / jobs_per_s(base) for one, base in zip(scores, plain, strict=True)]
        rows.append(row(f"{workers} worker{'s' if workers > 1 else ''}", scores, ratios, found))
    for line in rows:
        print(line)
    every = [*plain, *(one.score for found in teams.values() for one in found), held.score]
    figures = {"rows": rows, "held": held_row(held), "count": COUNT, "start": start, "queue": queue}
    return figures, [(one.load, one.late_s) for one in every]


def _line(team: Team) -> str:
    peaks = ", ".join(f"{peak:.0f}" for peak in team.peaks_mb)
    return f"{jobs_per_s(team.score):.1f} jobs/s, at most {peaks} MB" + ("" if team.score.whole else ", cut off")


if __name__ == "__main__":
    main("workers", run)
