"""Several machines on one: worker processes that share a real PostgreSQL server and a gateway double."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import psycopg

from tests.support.cli_driver import QUICK, Dop, Ended, wait_for
from tests.support.fake_gateway import GatewayDouble

CLUSTER = {"DOP_CLUSTER__SHARED_OUTPUTS": "true", "DOP_CLUSTER__STALLED_AFTER_S": "5s", "DOP_PACE__RATE": "200/1s"}


class Heartbeat:
    """Tells when this whole machine stood still for a moment, so that a test of single seconds can leave those out.

    And whether its processors had anything to spare at all.
    """

    GAP_S, LATE_S = 0.01, 0.06
    SPARE = 0.05

    def __init__(self) -> None:
        self._begun = self._ended = _processor_time()
        self._stalls: list[tuple[float, float]] = []
        self._end = Event()
        self._thread = Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Heartbeat:
        gc.collect()
        gc.freeze()  # what the tests have loaded: to look through it takes a quarter of a second
        self._begun = _processor_time()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = _processor_time()
        self._end.set()
        self._thread.join()
        gc.unfreeze()

    def _beat(self) -> None:
        before = time.monotonic()
        while not self._end.wait(self.GAP_S):
            now = time.monotonic()
            if now - before > self.GAP_S + self.LATE_S:
                self._stalls.append((before, now))
            before = now

    def stood_still(self, begin: float, end: float) -> bool:
        """Whether there was a stall within these seconds of the monotonic clock."""
        return any(stall < end and begin < over for stall, over in self._stalls)

    def too_busy(self) -> str:
        """Why single seconds cannot be judged; empty where the machine had idle time."""
        idle, spent = (after - before for before, after in zip(self._begun, self._ended, strict=True))
        if idle < self.SPARE * spent:
            return f"its processors were idle for {idle / spent:.1%} of the time"
        return f"load {os.getloadavg()[0]:.1f}" if os.getloadavg()[0] > 2 * (os.cpu_count() or 1) else ""


def _processor_time() -> tuple[float, float]:
    """Idle and whole time of all processors so far, in ticks; Linux, elsewhere as if they had been idle."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return time.monotonic(), time.monotonic()
    times = [float(word) for word in stat.read_text().partition("\n")[0].split()[1:9]]
    return times[3] + times[4], sum(times)


@dataclass(slots=True, kw_only=True)
class Machines(Dop):
    """`Dop` with a ledger on a server, and workers that may be killed, frozen and woken."""

    url: str
    workers: list[subprocess.Popen[str]] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        return Dop.environment(self) | {"DOP_LEDGER__URL": self.url} | CLUSTER | self.environ

    def hire(
        self, count: int = 1, *, within: Sequence[str] = (), words: Sequence[str] = ()
    ) -> list[subprocess.Popen[str]]:
        """Starts workers, and waits until each is heard of.

        `within`: words that start a command on another host; `words`: what is said to these workers alone.
        """
        fresh = []
        for _ in range(count):
            with self._log(len(self.workers)).open("w") as log:
                process = subprocess.Popen(
                    [*within, *self.words("worker", words)],
                    cwd=self.folder,
                    env=self.environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    text=True,
                )
            self.workers.append(process)
            self.started.append(process)
            fresh.append(process)
        for process in fresh:
            wait_for(lambda process=process: self._has_begun(process), at_most_s=120)  # type: ignore[misc]
        return fresh

    def _has_begun(self, process: subprocess.Popen[str]) -> bool:
        assert process.poll() is None, self.all_said()
        return "ready for" in self.said(process)

    def _log(self, number: int) -> Path:
        return self.folder / f"worker-{number}.log"

    def said(self, process: subprocess.Popen[str]) -> str:
        """The output of a worker so far."""
        return self._log(self.workers.index(process)).read_text(encoding="utf-8")

    def all_said(self) -> str:
        """The output of all workers, for the message of a test that fails."""
        return "\n".join(f"-- {number}\n{self.said(one)[-2000:]}" for number, one in enumerate(self.workers))

    def dismiss(self, whom: Sequence[subprocess.Popen[str]] | None = None) -> list[int]:
        """Ends every worker that runs (or these) as an orchestrator would; their exit codes."""
        running = [one for one in (self.workers if whom is None else whom) if one.poll() is None]
        for one in running:
            one.send_signal(signal.SIGTERM)
        return [one.wait(timeout=30) for one in running]

    def asked(self, statement: str) -> list[tuple[object, ...]]:
        """What the database says to a question."""
        with psycopg.connect(self.url) as connection:
            return connection.execute(statement.encode()).fetchall()

    def states(self) -> dict[str, int]:
        """How many requests are in which state."""
        found = self.asked("SELECT state, count(*) FROM attempts WHERE superseded = 0 GROUP BY state")
        return {str(state): int(str(count)) for state, count in found}

    def submitting(self) -> int:
        """How many intents have no outcome yet."""
        return self.states().get("submitting", 0)


def freeze(process: subprocess.Popen[str]) -> None:
    """The process is frozen, as in a suspended virtual machine."""
    os.kill(process.pid, signal.SIGSTOP)


def wake(process: subprocess.Popen[str]) -> None:
    """It continues as if nothing had happened."""
    os.kill(process.pid, signal.SIGCONT)


def bought_twice(double: GatewayDouble) -> list[str]:
    """Bodies that the gateway charged for more than once."""
    return [body for body, count in Counter(double.bodies()).items() if count > 1]


def assert_nothing_lost(
    machines: Machines, double: GatewayDouble, done: Ended, *, requests: int, in_doubt: int
) -> None:
    """Each request is bought once, or unknown and then one of `in_doubt` submits; the rest is done and downloaded."""
    output = done.err + machines.all_said()
    assert bought_twice(double) == [], output
    states = machines.states()
    unknown = states.get("unknown", 0)
    assert states == {"done": requests - unknown} | ({"unknown": unknown} if unknown else {}), output
    assert unknown <= in_doubt, output
    assert done.code == (3 if unknown else 0), output
    assert requests - unknown <= double.charged <= requests, output
    assert len(machines.videos()) == requests - unknown, output


@contextmanager
def several(folder: Path, url: str, double: GatewayDouble) -> Iterator[Machines]:
    """The machines of one test; whatever still runs at its end is killed."""
    machines = Machines(folder=folder, base_url=double.base_url, url=url)
    try:
        yield machines
    finally:
        for one in machines.workers:
            if one.poll() is None:
                wake(one)
        machines.end_all()


__all__ = ["QUICK", "Machines", "assert_nothing_lost", "bought_twice", "freeze", "several", "wake"]
