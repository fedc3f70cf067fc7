"""Run a command of the program and keep where its CPU went: `sampler.py OUT.json pipeline run ...`.

A timer of the process's own CPU time interrupts it; what each thread has used since is added to what its stack is doing
then. Only the standard library is imported, so that the program of any commit can be measured: it is the one in the
current folder.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

TICK_S = 0.002
"""Seconds of CPU between two looks at the stacks."""

WRITER = "ledger-writer"
"""The name of the thread that writes the ledger."""

WHOLE = (
    ("imports", re.compile(r"importlib[._/]_bootstrap|<frozen importlib")),
    ("reports at the end", re.compile(r"/pipeline/(reports?/(?!progress)|reporting|outlook|landing|runner/finish)")),
    ("plan, and rows into the ledger", re.compile(r"/pipeline/(manifest|planning|plan\.|listing|preflight|selection)")),
)
"""What all that is called from such a module belongs to, and the pattern of its file."""

_CALLERS = r"cli|__main__|session|runner/(?:session|event_loop)"
"""Modules that start the loop, and so are at the bottom of every stack."""

PARTS = (
    ("HTTP (aiohttp)", re.compile(r"/(aiohttp|yarl|multidict|aiosignal|frozenlist)/")),
    ("pace", re.compile(r"/pipeline/(gateway/(ratelimit|pace)|(runner|steps)/(rate_gate|gate|submit_permits))")),
    ("calls and what answers mean", re.compile(r"/pipeline/gateway/")),
    ("ledger, in the loop", re.compile(r"/(pipeline/ledger|sqlalchemy)/|/runner/recorder")),
    ("steps: submit, poll, log", re.compile(rf"/pipeline/(?!{_CALLERS})")),
)
"""Of what is left in the main thread, the innermost of these modules decides; asyncio only where none is there."""

_ASYNCIO = re.compile(r"/(asyncio|selectors|uvloop)")
LOOP = "event loop"
LEDGER_THREAD = "ledger's thread"
OTHER = "everything else"

used_s: dict[str, float] = defaultdict(float)
_seen_s: dict[int, float] = {}


def _files(frame: FrameType | None) -> Iterator[str]:
    """The files of a stack, innermost first."""
    while frame is not None:
        yield frame.f_code.co_filename
        frame = frame.f_back


def part_of(files: list[str], thread: str) -> str:
    """The part of the program that a stack of these files, innermost first, works for."""
    for name, pattern in WHOLE:
        if any(pattern.search(file) for file in files):
            return name
    if thread != "MainThread":
        return LEDGER_THREAD if thread == WRITER else OTHER
    for file in files:
        for name, pattern in PARTS:
            if pattern.search(file):
                return name
    return LOOP if any(_ASYNCIO.search(file) for file in files) else OTHER


def _tick(*_: object) -> None:
    frames = sys._current_frames()
    for thread in threading.enumerate():
        ident = thread.ident
        if ident is None or ident not in frames:
            continue
        try:
            now_s = time.clock_gettime(time.pthread_getcpuclockid(ident))
        except OSError:
            continue  # it has just ended
        used_s[part_of(list(_files(frames[ident])), thread.name)] += now_s - _seen_s.get(ident, 0.0)
        _seen_s[ident] = now_s


def main() -> NoReturn:
    """Runs the command under the timer; the figures are written whichever way it ends."""
    target, module = sys.argv[1:3]
    leave = os._exit

    def kept() -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        with open(target, "w", encoding="ascii") as file:
            json.dump(used_s, file)

    def leave_with_figures(status: int) -> NoReturn:
        kept()
        leave(status)

    os._exit = leave_with_figures
    sys.argv, sys.path[0] = [module, *sys.argv[3:]], os.getcwd()
    signal.signal(signal.SIGPROF, _tick)
    signal.setitimer(signal.ITIMER_PROF, TICK_S, TICK_S)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        kept()
    sys.exit(0)


if __name__ == "__main__":
    main()
