"""INT, TERM and HUP as calls in the event loop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
"""The signals that end a run -> the exit code they ask for (128 + the signal's number, as shells say it)."""

_NOT_HERE = (NotImplementedError, RuntimeError, ValueError)
"""No handler can be set: the loop is not the main thread's (a notebook), or its kind has no signals."""


def handled_signals() -> tuple[signal.Signals, ...]:
    """The signals to handle: one that was ignored when the process began stays so, as `nohup` asks for."""
    return tuple(number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN)


@contextmanager
def signal_handlers(caught: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Call `caught` for each such signal while the context is open."""
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
