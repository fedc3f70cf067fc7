"""INT, TERM and HUP as calls in the event loop."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from pipeline.errors import ExitCode

SIGNALS = {
    signal.SIGINT: ExitCode.INTERRUPTED,
    signal.SIGTERM: ExitCode.TERMINATED,
    signal.SIGHUP: ExitCode.HANGUP,
}
"""The signals that end a run -> the exit code they ask for (128 + the signal's number, as shells say it)."""

_NOT_HERE = (NotImplementedError, RuntimeError, ValueError)
"""No handler can be set: the loop is not the main thread's (a notebook), or its kind has no signals."""


def handled_signals() -> tuple[signal.Signals, ...]:
    """The signals to handle: one that was ignored when the process began stays so, as `nohup` asks for."""
    return tuple(number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN)


class ForwardedSignals:
    """Signals that another thread received for a run: only the main thread of a process can handle them itself.

    What is sent before the run listens waits for it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[signal.Signals] = []
        self._deliver: Callable[[signal.Signals], object] | None = None

    def send(self, number: signal.Signals) -> None:
        """Hand the signal to the run's event loop, from any thread."""
        with self._lock:
            if self._deliver is None:
                self._waiting.append(number)
            else:
                self._deliver(number)

    @contextmanager
    def delivered_to(self, caught: Callable[[signal.Signals], None]) -> Iterator[None]:
        """Call `caught` in the running event loop for each signal while the context is open."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._deliver = lambda number: loop.call_soon_threadsafe(caught, number)
            waiting, self._waiting = self._waiting, []
        for number in waiting:
            loop.call_soon(caught, number)
        try:
            yield
        finally:
            with self._lock:
                self._deliver = None


FORWARDED: ContextVar[ForwardedSignals | None] = ContextVar("FORWARDED", default=None)
"""Where the signals of a run outside the main thread come from."""


@contextmanager
def signal_handlers(caught: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Call `caught` for each such signal while the context is open."""
    forwarded = FORWARDED.get()
    if forwarded is not None:
        with forwarded.delivered_to(caught):
            yield
        return
    loop = asyncio.get_running_loop()
    handled = handled_signals()
    for number in handled:
        with suppress(*_NOT_HERE):
            loop.add_signal_handler(number, caught, number)
    try:
        yield
    finally:
        for number in handled:
            with suppress(*_NOT_HERE):
                loop.remove_signal_handler(number)
