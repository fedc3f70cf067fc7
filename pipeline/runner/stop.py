"""Why a run stops, and how much of it: one object that every step reads. No step stops another in any other way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import IntEnum


class StopScope(IntEnum):
    """How much of the run a reason stops."""

    SUBMITS = 1
    """nothing more is bought; what is paid is collected"""
    ALL = 2
    """what is in flight is recorded, then the run ends"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopReason:
    """One reason to stop, with the exit code it asks for."""

    text: str
    exit_code: int
    reach: StopScope


class StopSignal:
    """The reasons given so far. `request` wakes every waiter itself, so that no caller can forget to."""

    def __init__(self) -> None:
        self.reasons: list[StopReason] = []
        self._listeners: list[Callable[[], None]] = []

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Call `wake` after each new reason. It must return at once; it reads the reasons from here."""
        self._listeners.append(wake)

    def unsubscribe(self, wake: Callable[[], None]) -> None:
        """Call `wake` no more."""
        self._listeners.remove(wake)

    def request(self, text: str, *, exit_code: int, reach: StopScope) -> bool:
        """Add a reason and wake all waiters; False when the same one was given already."""
        reason = StopReason(text=text, exit_code=exit_code, reach=reach)
        # A thousand rows that fail alike give one reason. A wider scope with the same code is a new one: it stops more.
        if any(known.exit_code == exit_code and known.reach >= reach for known in self.reasons):
            return False
        self.reasons.append(reason)
        # A copy, since a waiter that wakes unsubscribes.
        for wake in tuple(self._listeners):
            wake()
        return True

    @property
    def submits(self) -> bool:
        """Whether nothing more may be bought."""
        return bool(self.reasons)

    @property
    def all(self) -> bool:
        """Whether everything ends."""
        return any(reason.reach is StopScope.ALL for reason in self.reasons)

    async def follow(self) -> AsyncIterator[StopReason]:
        """Yield every reason once, those given already first, then each as it is given. Never ends."""
        news = asyncio.Event()
        self.subscribe(news.set)
        try:
            seen = 0
            while True:
                while seen < len(self.reasons):
                    seen += 1
                    yield self.reasons[seen - 1]
                news.clear()
                # A reason may have come while the caller worked on the last one; waiting now would sleep through it.
                if seen == len(self.reasons):
                    await news.wait()
        finally:
            self.unsubscribe(news.set)

    async def pause(self, seconds: float, *, until: StopScope = StopScope.SUBMITS) -> None:
        """Sleep for so long, or until a reason of at least the scope `until` is given."""
        over = asyncio.Event()

        def wake() -> None:
            if self.all or (self.submits and until is StopScope.SUBMITS):
                over.set()

        self.subscribe(wake)
        alarm = asyncio.get_running_loop().call_later(seconds, over.set)
        # A reason that was given before the subscription.
        wake()
        try:
            await over.wait()
        finally:
            alarm.cancel()
            self.unsubscribe(wake)
