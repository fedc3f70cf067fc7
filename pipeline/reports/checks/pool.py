"""Check many clips at a time: one worker process for each core, fed job by job. Blocks: call it in a thread."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from pipeline.reports.checks.findings import unchecked
from pipeline.reports.checks.jobs import CheckJob
from pipeline.reports.checks.store import save_check

MAX_WORKERS = 16
"""Processes that check clips at the most, so that a machine of many cores keeps memory for its other work."""

_Ordered = tuple[CheckJob, Callable[[], object]]
"""A clip to check, and what is called afterwards."""

PATIENCE_S = 60.0
"""Seconds of wall-clock that a clip gets beyond ten times its CPU seconds, on a machine that is busy."""


class CheckPool:
    """Worker processes, up to one for each core, that check clips as they come. Each result is kept beside its clip.

    A worker that dies or hangs leaves `unchecked` for its clip and is replaced.

    Args:
        workers: how many processes at most; None for one a core.
        stop: set it to give up what is left.
    """

    def __init__(self, *, workers: int | None = None, stop: threading.Event | None = None) -> None:
        self._waiting: queue.SimpleQueue[_Ordered | None] = queue.SimpleQueue()
        self._halt = stop if stop is not None else threading.Event()
        self._limit = workers or min(MAX_WORKERS, cores())
        self._threads: list[threading.Thread] = []

    def put(self, job: CheckJob, done: Callable[[], object]) -> None:
        """Check one clip; `done` is called afterwards, in another thread."""
        self._waiting.put((job, done))
        if len(self._threads) < self._limit:
            thread = threading.Thread(target=_feed, args=(self._waiting, self._halt), name="check", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Wait for what was put, unless `stop` is set; no more comes."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()


def check_all(
    jobs: Sequence[CheckJob],
    *,
    done: Callable[[], object] = lambda: None,
    stop: threading.Event | None = None,
    workers: int | None = None,
) -> None:
    """Check every clip and wait.

    Args:
        done: called after each clip, from several threads.
        stop: set it to give up what is left.
    """
    pool = CheckPool(workers=workers, stop=stop)
    for job in jobs:
        pool.put(job, done)
    pool.close()


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _feed(waiting: queue.SimpleQueue[_Ordered | None], halt: threading.Event) -> None:
    """One worker process and its jobs, until None comes or the work is given up."""
    process: subprocess.Popen[str] | None = None
    try:
        while (ordered := waiting.get()) is not None and not halt.is_set():
            job, done = ordered
            # It may have died after its last answer, of what that clip left behind.
            if process is not None and process.poll() is not None:
                _end(process)
                process = None
            try:
                if process is None:
                    process = _start()
                    # Waiting for a line blocks, and only the end of the process ends it.
                    threading.Thread(target=_kill_on, args=(process, halt), daemon=True).start()
                problem = _ask(process, job)
            except (OSError, ValueError) as error:  # a caller waits for each clip: none may be left without a word
                problem = f"the decoder could not be asked ({error})"
            # Killed because the work is given up, which says nothing of the clip.
            if halt.is_set():
                return
            if problem:
                _leave_word(job, problem)
            done()
    finally:
        if process is not None:
            _end(process)


def _start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.reports.checks.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        # One thread each: there is a worker for every core already.
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": _search_path()},
    )


def _search_path() -> str:
    """Where this process found its modules, so that the worker finds the same ones from any folder."""
    return os.pathsep.join(entry or os.getcwd() for entry in sys.path)


def _ask(process: subprocess.Popen[str], job: CheckJob) -> str:
    """Hand one job over and wait; returns what went wrong, or ""."""
    assert process.stdin is not None
    assert process.stdout is not None
    alarm = threading.Timer(10 * job.max_cpu_s + PATIENCE_S, process.kill)
    alarm.start()
    try:
        process.stdin.write(json.dumps(asdict(job)) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except OSError:
        line = ""
    finally:
        alarm.cancel()
    if not line:
        process.kill()
        process.wait()  # else the next job may be handed to a process that is dying
        return "the decoder crashed or took too long"
    return str(json.loads(line).get("error", ""))


def _kill_on(process: subprocess.Popen[str], halt: threading.Event) -> None:
    while process.poll() is None:
        if halt.wait(0.5):
            process.kill()
            return


def _leave_word(job: CheckJob, problem: str) -> None:
    try:
        save_check(Path(job.clip), unchecked(problem))
    except OSError:
        return  # a full disk: the report says "not checked yet"


def _end(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was written to a process that died
                pipe.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
