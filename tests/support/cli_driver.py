"""The command as a user or a timer starts it: in a folder of its own, with a bare environment.

`Dop` gives every call a process of its own; `Here` calls it in this process, which saves its start of 1 to 3 s.
What it leaves is read from its files alone: report.csv, the summary line, the ledger's spend table.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import chdir, closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from unittest import mock

from pipeline.cli.main import main
from tests.support.ledgers import read

DOP = Path(sys.executable).with_name("dop")
KEY = "test-key-for-loopback-0123456789"
CHECKS_OFF = {"DOP_CHECKS__ENABLED": "false"}
"""Most tests are not about what is in a clip; those that are set it to true. It saves half a second a run."""

QUICK = ("poll.first_s=0.05", "poll.min_s=0.05", "poll.max_s=0.2")
"""A gateway double answers at once; without these the tests would wait for a second each."""

COLUMNS = [
    "request_id",
    "row_id",
    "tags",
    "status",
    "model",
    "seed",
    "prompt",
    "image",
    "end_image",
    "motion",
    "motions_id",
    "motions_strength",
    "enhance_prompt",
    "check_nsfw",
    "take",
    "attempt",
    "job_set_id",
    "video_url",
    "local_path",
    "size_bytes",
    "sha256",
    "price_usd",
    "cost_usd",
    "cost_state",
    "submit_attempts",
    "throttled",
    "polls",
    "submitted_at",
    "finished_at",
    "duration_s",
    "reason",
    "check",
    "check_reasons",
    "verdict",
    "stars",
    "note",
    "gateway",
    "bought_in",
]
"""Of report.csv, in order."""

SUMMARY = re.compile(
    r"^done=(\d+) failed=(\d+) refused=(\d+) unknown=(\d+) in_flight=(\d+) planned=(\d+) "
    r"confirmed=(\d+\.\d{3}) disputed=(\d+\.\d{3}) reserved=(\d+\.\d{3}) run=(\S+)$"
)
SUMMARY_WORDS = ("done", "failed", "refused", "unknown", "in_flight", "planned")
_NAME = r"(\d{4}-\d\d-\d\d_\d{4}-[a-z0-9-]+-[0-9a-f]{4})"
SHEET = re.compile(rf"(?:^  sheet  \S*?|run=){_NAME}(?=/report\.\w+$|\")", re.M)
"""The second of the three lines at the end of a run, or the last of `--log-json`: it names the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How one command ended. `outputs` is the folder that it was given."""

    code: int
    out: str
    err: str
    outputs: Path | None = None

    @property
    def run(self) -> str:
        """The run's name."""
        found = SHEET.findall(self.err)
        assert found, self.err
        return str(found[-1])

    @property
    def counts(self) -> dict[str, int]:
        """The counts of the summary line; those that are 0 are left out."""
        found = self._summary.groups()
        return {word: int(number) for word, number in zip(SUMMARY_WORDS, found, strict=False) if number != "0"}

    @property
    def usd(self) -> tuple[Decimal, Decimal, Decimal]:
        """confirmed, disputed and reserved of the summary line."""
        found = self._summary
        return Decimal(found[7]), Decimal(found[8]), Decimal(found[9])

    @property
    def _summary(self) -> re.Match[str]:
        """The summary line that the command wrote to the run's log."""
        assert self.outputs is not None
        events = map(json.loads, (self.outputs / self.run / "run.log").read_text().splitlines())
        *_, line = (event["summary"] for event in events if event["event"] == "end")
        found = SUMMARY.match(line)
        assert found, line
        return found


@dataclass(slots=True, kw_only=True)
class Dop:
    """One person's folder: manifests, an outputs folder, and the gateway that the command is pointed at."""

    folder: Path
    base_url: str | None = None
    environ: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def end_all(self) -> None:
        """Kills what a failed test left running."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    @property
    def outputs(self) -> Path:
        """The outputs folder."""
        return self.folder / "out"

    @property
    def latest(self) -> Path:
        """The newest run's folder."""
        return (self.outputs / "latest").resolve()

    def environment(self) -> dict[str, str]:
        """What the process sees: nothing of the tester's own settings."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ", "LC_ALL", "PYTHONPATH") if name in os.environ}
        variables = {"HOME": str(self.folder / "home"), "PIXAZO_API_KEY": KEY}
        if self.base_url is not None:
            variables["DOP_GATEWAY__BASE_URL"] = self.base_url
        return kept | CHECKS_OFF | variables | self.environ

    def words(self, verb: str, words: Iterable[object]) -> list[str]:
        """The whole command line; settings of a quick test first, so that the test's own come after them."""
        quick = [word for setting in QUICK for word in ("--set", setting)]
        return [str(DOP), *verb.split(), *quick, "--outputs", str(self.outputs), *map(str, words)]

    def start(self, verb: str, *words: object, fail_point: str | None = None) -> subprocess.Popen[str]:
        """The running command. Its outputs are read by `ended`."""
        environ = self.environment() | ({"DOP_FAIL_POINT": fail_point} if fail_point else {})
        process = subprocess.Popen(
            self.words(verb, words),
            cwd=self.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def typed(self, *words: str) -> Ended:
        """The command exactly as written, without a quick test's own settings."""
        done = subprocess.run(
            [str(DOP), *words],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ended(code=done.returncode, out=done.stdout, err=done.stderr, outputs=outputs_of(words))

    def call(self, verb: str, *words: object, fail_point: str | None = None, timeout_s: float = 60) -> Ended:
        """The command, from start to end."""
        return ended(self.start(verb, *words, fail_point=fail_point), timeout_s=timeout_s)

    def buy(self, manifest: Path, *words: object, fail_point: str | None = None, timeout_s: float = 60) -> Ended:
        """`dop run MANIFEST --yes`."""
        return self.call("run", manifest, "--yes", *words, fail_point=fail_point, timeout_s=timeout_s)

    def rows(self, run: str | None = None) -> list[dict[str, str]]:
        """report.csv of a run, the newest unless named."""
        folder = self.outputs / run if run else self.latest
        with (folder / "report.csv").open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))

    def videos(self, run: str | None = None) -> list[Path]:
        """The files that a run's report names."""
        folder = self.outputs / run if run else self.latest
        return [(folder / row["local_path"]).resolve() for row in self.rows(run) if row["local_path"]]

    def ledger(self, statement: str) -> list[tuple[object, ...]]:
        """What the ledger's file, or its server, says to a question in SQL."""
        if "DOP_LEDGER__URL" in self.environ:
            return read(self.environ["DOP_LEDGER__URL"], statement)
        with closing(sqlite3.connect(f"file:{self.outputs / 'ledger.db'}?mode=ro", uri=True)) as connection:
            return connection.execute(statement).fetchall()

    def ledger_mills(self) -> int:
        """Everything the ledger counts as spent or perhaps spent, in thousandths of a dollar."""
        ((total,),) = self.ledger("select coalesce(sum(confirmed + disputed + reserved), 0) from spend")
        return int(str(total)) // 1000

    def csv(self, text: str, name: str = "shots.csv") -> Path:
        """A manifest as a file of this folder."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path


class Here(Dop):
    """The command called in this very process; one that is killed or runs meanwhile still gets its own."""

    def call(self, verb: str, *words: object, fail_point: str | None = None, timeout_s: float = 60) -> Ended:
        if fail_point is not None:
            return super().call(verb, *words, fail_point=fail_point, timeout_s=timeout_s)
        return self.typed(*self.words(verb, words)[1:])

    def typed(self, *words: str) -> Ended:
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, self.environment(), clear=True),
            chdir(self.folder),
            open(os.devnull) as unwritable,
            mock.patch.object(sys, "stdin", unwritable),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                code = main(words)
            except SystemExit as ending:
                code = int(str(ending.code))
        return Ended(code=code, out=out.getvalue(), err=err.getvalue(), outputs=outputs_of(words))


def ended(process: subprocess.Popen[str], *, timeout_s: float = 60) -> Ended:
    """Waits for the end of a command; one that does not end is killed and fails the test."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"the command did not end in {timeout_s} s:\n{out}\n{err}") from None
    words = [str(word) for word in process.args] if isinstance(process.args, list) else []
    return Ended(code=process.returncode, out=out, err=err, outputs=outputs_of(words))


def outputs_of(words: Sequence[str]) -> Path | None:
    """The folder behind `--outputs`."""
    return Path(words[words.index("--outputs") + 1]) if "--outputs" in words else None


def wait_for(condition: Callable[[], bool], *, at_most_s: float = 30) -> None:
    """Looks again and again until something has happened in another process."""
    until = time.monotonic() + at_most_s
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


def table(rows: Iterable[Mapping[str, object]]) -> str:
    """A CSV manifest of rows, each a mapping of columns."""
    lines = list(rows)
    columns = list(dict.fromkeys(name for row in lines for name in row))
    return "\n".join([",".join(columns), *(",".join(str(row.get(name, "")) for name in columns) for row in lines), ""])


def shots(count: int, **same: object) -> str:
    """A CSV manifest of so many different rows."""
    made = (
        {"id": f"row-{number}", "image": f"https://cdn.example.com/{number}.jpg", "prompt": f"scene {number} of all"}
        | {"seed": number}
        | same
        for number in range(1, count + 1)
    )
    return table(made)


def candidates(count: int, seeds: str, **same: object) -> str:
    """A CSV manifest of so many shots that keep one clip of some seeds."""
    return table(
        {
            "id": f"shot-{number}",
            "image": f"https://cdn.example.com/{number}.jpg",
            "prompt": f"scene {number} of all",
            "seeds": seeds,
            "keep": 1,
        }
        | same
        for number in range(1, count + 1)
    )


def killed(ending: Ended) -> bool:
    """Whether the process was killed at its fail point."""
    return ending.code == -signal.SIGKILL


def cost(rows: Iterable[Mapping[str, str]]) -> Decimal:
    """The sum of a report's costs."""
    return sum((Decimal(row["cost_usd"]) for row in rows), Decimal(0))
