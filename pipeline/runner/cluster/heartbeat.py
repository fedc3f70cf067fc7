"""The sign of life that a worker leaves on its host, and what `dop worker --health` reads from it.

A file, not the database: while that is away the worker is well, and must not be killed for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

FRESH_S = 20.0
"""A sign is renewed every few seconds; an older one is a frozen worker's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """One worker as it saw itself at `at` (Unix seconds)."""

    pid: int
    state: str
    holding: int
    at: float


class HeartbeatFiles:
    """The signs of this host's workers for one ledger and gateway, in a private folder."""

    def __init__(self, place: str) -> None:
        digest = hashlib.sha256(place.encode()).hexdigest()[:12]
        self._folder = Path(tempfile.gettempdir()) / f"dop-workers-{os.getuid()}-{digest}"
        self._mine = self._folder / f"{os.getpid()}.json"

    def write(self, state: str, holding: int) -> None:
        """Renews this worker's sign; a full disk is no reason to stop working."""
        sign = Heartbeat(pid=os.getpid(), state=state, holding=holding, at=time.time())
        part = self._mine.with_suffix(".part")
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            part.write_text(json.dumps(asdict(sign)))
            part.replace(self._mine)

    def remove(self) -> None:
        """This worker has ended."""
        with suppress(OSError):
            self._mine.unlink()

    def read(self) -> list[Heartbeat]:
        """The signs of the workers that still run here."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            with suppress(OSError, ValueError, TypeError):
                sign = Heartbeat(**json.loads(path.read_text()))
                if _runs(sign.pid):
                    found.append(sign)
        return found

    def healthy(self, now: float) -> bool:
        """Whether at least one worker runs here and none of them is frozen."""
        signs = self.read()
        return bool(signs) and all(now - sign.at <= FRESH_S for sign in signs)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
