"""One client against one gateway, each in a process of its own, judged by the gateway's books.

`ours` is the whole command, `dop run` with its durable ledger; the others are `rivals`.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gateway import IMAGE, Tally, Terms
from benchmarks.rivals import HEADERS, Work

REPO = Path(__file__).parents[1]
OURS = "dop run"
PROGRAM = ("-m", "pipeline")
"""How `dop` is started, behind the name of the interpreter."""
GRACE_S = 0.1
"""A call that arrives this soon after a hint was given was on its way already."""
START_S, LEAVE_S = 60.0, 30.0
NEVER_POLL = ("poll.first_s=1h", "poll.min_s=1h", "poll.max_s=1h", "poll.deadline_s=10h")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bout:
    """What is to be done: `sandbox` as SandboxSettings has it, `rate` what the clients know, `settings` ours."""

    count: int
    until: str = "accepted"
    sandbox: dict[str, Any] = field(default_factory=dict)
    changes: tuple[tuple[float, str], ...] = ()
    known_per_s: int | None = None
    poll_every_s: float | None = None
    settings: tuple[str, ...] = NEVER_POLL
    most_s: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What the gateway's books say. Times count from the first submit that arrived."""

    client: str
    accepted: int
    rejected: int
    accepted_s: list[float]
    elapsed_s: float
    started_at: float
    early: int
    polls: int
    polls_rejected: int
    noticed_s: list[float]
    lags_s: list[float]
    generations_s: list[float]
    whole: bool
    client_cpu_s: float
    gateway_cpu_s: float
    memory_mb: float
    load: float
    late_s: float

    @property
    def rejected_share(self) -> float:
        """Of all submits that arrived."""
        return self.rejected / max(1, self.accepted + self.rejected)

    @property
    def polls_a_job(self) -> float:
        """All polls, also those that were refused."""
        return self.polls / max(1, self.accepted)

    @property
    def lag_s(self) -> float:
        """How late a finished job was noticed, on average."""
        return statistics.fmean(self.lags_s) if self.lags_s else float("nan")


async def fight(client: str, bout: Bout, *, program: Sequence[str] = PROGRAM, folder_of_program: Path = REPO) -> Score:
    """One client's bout, from the first call to the last that counts, or until `most_s` are over.

    Args:
        program: how `dop` is started, behind the name of the interpreter.
        folder_of_program: the source tree that it is started in.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        terms = Terms(folder=name, until=(bout.until, bout.count), sandbox=bout.sandbox, changes=bout.changes)
        (folder / "terms.json").write_text(json.dumps(asdict(terms)), encoding="utf-8")
        gateway = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.gateway", str(folder / "terms.json"), cwd=REPO, stdout=subprocess.PIPE
        )
        assert gateway.stdout is not None
        base_url = (await gateway.stdout.readline()).decode().strip()
        player = subprocess.Popen(  # noqa: ASYNC220 - os.wait4 tells what it used, asyncio's own does not
            command(client, bout, base_url, folder, program),
            cwd=folder_of_program,
            env=environ_alone(folder),
            stdout=subprocess.DEVNULL,
            stderr=(folder / "stderr").open("wb"),
        )
        gone = asyncio.create_task(asyncio.to_thread(os.wait4, player.pid, 0))
        for most_s in (START_S, bout.most_s):
            enough = asyncio.create_task(gateway.stdout.readline())
            await asyncio.wait({gone, enough}, timeout=most_s, return_when=asyncio.FIRST_COMPLETED)
        ended_at = time.monotonic()
        usage = await _leave(player, gone, patient=client == OURS and bout.until == "noticed" and enough.done())
        enough.cancel()
        with suppress(ProcessLookupError):
            gateway.terminate()
        await gateway.wait()
        tally = Tally(**json.loads((folder / "tally.json").read_text(encoding="ascii")))
        if not tally.submits:
            raise RuntimeError(f"{client}: nothing arrived: {(folder / 'stderr').read_text()[-2000:]}")
        return judged(client, bout, tally, ended_at=ended_at, usage=usage)


async def _leave(player: subprocess.Popen[bytes], gone: asyncio.Task[Any], *, patient: bool) -> Any:
    """Ours may write its report when all is done; a client that is not done is asked to leave."""
    if patient:
        await asyncio.wait({gone}, timeout=LEAVE_S)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if not gone.done():
            with suppress(ProcessLookupError):
                os.kill(player.pid, sign)
            await asyncio.wait({gone}, timeout=LEAVE_S)
    _, code, usage = gone.result()
    player.returncode = code
    return usage


def command(client: str, bout: Bout, base_url: str, folder: Path, program: Sequence[str] = PROGRAM) -> list[str]:
    """The client's command line."""
    if client != OURS:
        work = Work(base_url=base_url, count=bout.count, known_per_s=bout.known_per_s, poll_every_s=bout.poll_every_s)
        (folder / "work.json").write_text(json.dumps(asdict(work)), encoding="utf-8")
        return [sys.executable, "-m", "benchmarks.rivals", client, str(folder / "work.json")]
    write_rows(folder / "rows.csv", bout.count)
    rate = f"{bout.known_per_s}/1s" if bout.known_per_s else "auto"
    overrides = (f"gateway.base_url={base_url}", f"pace.rate={rate}", *bout.settings)
    settings = [word for text in overrides for word in ("--set", text)]
    flags = ("--config", "configs/live.yaml", "--outputs", str(folder / "outputs"), "--no-download", "--no-progress")
    money = ("--yes", "-q", "--set", "budget.max_cost=", "--set", "budget.per_day=", "--set", "budget.per_month=")
    return [sys.executable, *program, "run", str(folder / "rows.csv"), *flags, *money, *settings]


def write_rows(path: Path, count: int) -> None:
    """The manifest that buys what `rivals.submit_body` buys."""
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["id", "image", "prompt", "seed", "model", "motion", "strength", "enhance_prompt"])
        for seed in range(1, count + 1):
            prompt = "A serene lake with gentle ripples"
            lines.writerow([f"lake-{seed}", IMAGE, prompt, seed, "dop-preview", "General", "0.7", "false"])


def environ_alone(folder: Path) -> dict[str, str]:
    """The environment of a client's process: nothing of the caller's own settings gets in."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(folder), "PIXAZO_API_KEY": HEADERS["Ocp-Apim-Subscription-Key"]}


def judged(client: str, bout: Bout, tally: Tally, *, ended_at: float, usage: Any) -> Score:
    """The score of a tally. A bout that was cut off counts up to its end."""
    started = tally.submits[0][0]
    accepted = sorted(answered - started for _, answered, status, _ in tally.submits if status < 300)
    noticed = sorted(seen - started for _, _, seen in tally.jobs.values() if seen is not None)
    last_s = max([0.0, *accepted, *noticed])
    whole = len(accepted if bout.until == "accepted" else noticed) >= bout.count
    return Score(
        client=client,
        accepted=len(accepted),
        rejected=sum(status == 429 for _, _, status, _ in tally.submits),
        accepted_s=accepted,
        elapsed_s=last_s if whole else ended_at - started,
        started_at=started,
        early=_early(tally),
        polls=len(tally.polls),
        polls_rejected=sum(status == 429 for _, status in tally.polls),
        noticed_s=noticed,
        lags_s=[seen - (at or 0.0) - (took or 0.0) for at, took, seen in tally.jobs.values() if seen is not None],
        generations_s=[took for _, took, _ in tally.jobs.values() if took is not None],
        whole=whole,
        client_cpu_s=usage.ru_utime + usage.ru_stime,
        gateway_cpu_s=tally.cpu_s,
        memory_mb=usage.ru_maxrss / 1024,
        load=os.getloadavg()[0],
        late_s=sorted(tally.late_s)[int(0.99 * len(tally.late_s))] if tally.late_s else 0.0,
    )


def _early(tally: Tally) -> int:
    """Submits that arrived while a hint, given at least GRACE_S before, still held."""
    early, held_from, held_until = 0, float("inf"), float("-inf")
    events = [(arrived, None) for arrived, _, _, _ in tally.submits]
    hints = [(answered, hint) for _, answered, _, hint in tally.submits if hint is not None]
    for at, hint in sorted([*events, *hints], key=lambda event: event[0]):
        if hint is None:
            early += held_from + GRACE_S <= at < held_until
        elif at + hint > held_until:
            held_from = at if at >= held_until else held_from
            held_until = at + hint
    return early


async def side_by_side(clients: tuple[str, ...], bout: Bout) -> list[Score]:
    """All clients at the same time, each with a gateway of its own: whatever disturbs the machine disturbs all."""
    return list(await asyncio.gather(*(fight(client, bout) for client in clients)))
