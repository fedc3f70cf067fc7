"""The event loop of a run: uvloop's where it is installed (the extra `fast`), asyncio's own otherwise."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` with the fastest loop that is installed."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Makes uvloop's loop; None where there is none, which leaves the choice to asyncio."""
    try:
        uvloop: Any = importlib.import_module("uvloop")
    except ImportError:
        return None

    class Loop(uvloop.Loop):  # type: ignore[misc] # untyped where it is not installed
        """uvloop's loop with the time of now.

        MONEY: its own clock is read once a turn, so a process that was frozen within a turn would take a reservation
        for young that others have settled meanwhile (see `submitter`).
        """

        def time(self) -> float:
            """Seconds of the monotonic clock."""
            return time.monotonic()

    return Loop
