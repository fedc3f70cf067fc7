"""What a cluster needs besides the program: the two packages of the extra `cluster`, looked for first."""

from __future__ import annotations

from importlib.util import find_spec

from pipeline.errors import UsageError

NEEDED = ("croniter", "psycopg")


def check_installed() -> None:
    """Check for the packages, and name what to install when a cluster is asked for and can't be had.

    Raises:
        UsageError: a package is missing; nothing was sent.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"a cluster needs {' and '.join(missing)}: pip install croniter 'psycopg[binary]'; nothing was sent"
        )
