"""Why a run stops, and how far: one object that every step looks at. No step stops another in any other way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import IntEnum


class StopScope(IntEnum):
    """How much of the run a reason stops."""

    SUBMITS = 1
    """nothing more is bought; what is paid is collected"""
    ALL = 2
    """what is under way is booked, then the run ends"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopReason:
    """One reason to stop, with the exit code it asks for."""

    text: str
    exit_code: int
    reach: StopScope


class StopSignal:
    """The reasons given so far; waits can be cut short by it."""

    def __init__(self) -> None:
        self.reasons: list[StopReason] = []
        self._changed = asyncio.Event()

    def request(self, text: str, *, exit_code: int, reach: StopScope) -> bool:
        """Adds a reason; False when the same one was given already."""
        reason = StopReason(text=text, exit_code=exit_code, reach=reach)
        if any(known.exit_code == exit_code and known.reach >= reach for known in self.reasons):
            return False
        self.reasons.append(reason)
        self._changed.set()
        return True

    @property
    def submits(self) -> bool:
        """Whether nothing more may be bought."""
        return bool(self.reasons)

    @property
    def all(self) -> bool:
        """Whether everything ends."""
        return any(reason.reach is StopScope.ALL for reason in self.reasons)

    async def wait(self) -> None:
        """Returns when the next reason is given."""
        self._changed.clear()
        await self._changed.wait()
