"""Fail points: named places of the program at which a test may let the process die."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping

FAIL_POINT_VARIABLE = "DOP_FAIL_POINT"
"""`name` or `name:visit`: the process kills itself there, for tests of what survives a crash."""


def fail_point(environ: Mapping[str, str]) -> Callable[[str], None]:
    """The function that every fail point calls: it does nothing, or ends the process at the one that was named."""
    wanted, _, visit = environ.get(FAIL_POINT_VARIABLE, "").partition(":")
    if not wanted:
        return lambda name: None
    left = [int(visit or "1")]

    def reach(name: str) -> None:
        if name == wanted:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return reach
