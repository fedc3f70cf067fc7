"""The requests that one executor holds; some of them are still to be bought."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from pipeline.records import Attempt


class HeldRequests:
    """Knows which requests are here.

    Args:
        on_end: called with each request once it is processed here no longer, and whether it came to its end.
        on_sent: called when one waits to be bought no longer.
    """

    def __init__(self, *, on_end: Callable[[str, bool], None], on_sent: Callable[[], None]) -> None:
        self._on_end, self._on_sent = on_end, on_sent
        self._held: set[str] = set()
        self._unsent: set[str] = set()
        self._to_buy: asyncio.Queue[Attempt | None] = asyncio.Queue()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._held

    @property
    def unsent(self) -> int:
        """How many wait here to be bought."""
        return len(self._unsent)

    def hold(self, request_id: str) -> bool:
        """The request is processed here from now on; False when it was before."""
        if request_id in self._held:
            return False
        self._held.add(request_id)
        return True

    def end(self, request_id: str, *, is_finished: bool) -> None:
        """It is not processed here any more; `is_finished` is False when another worker has to take it up."""
        if request_id in self._held:
            self._held.discard(request_id)
            self._unsent.discard(request_id)
            self._on_end(request_id, is_finished)

    def end_all(self, *, is_finished: bool) -> None:
        """Nothing is processed here any more."""
        for request_id in list(self._held):
            self.end(request_id, is_finished=is_finished)

    # -- those to be bought

    def buy(self, attempt: Attempt) -> None:
        """Hand an attempt to the submitter."""
        self._unsent.add(attempt.request_id)
        self._to_buy.put_nowait(attempt)

    def sent(self, request_id: str) -> None:
        """It no longer waits to be bought."""
        if request_id in self._unsent:
            self._unsent.discard(request_id)
            self._on_sent()

    def unsent_ids(self) -> list[str]:
        """The requests that wait to be bought."""
        return list(self._unsent)

    async def fed(self) -> AsyncIterator[Attempt]:
        """The attempts to buy as they come, until `stop_buying`."""
        while (attempt := await self._to_buy.get()) is not None:
            yield attempt

    def stop_buying(self) -> None:
        """No attempt follows."""
        self._to_buy.put_nowait(None)

    def forget_unsent(self) -> None:
        """Empty the queue of attempts to buy."""
        with suppress(asyncio.QueueEmpty):
            while True:
                self._to_buy.get_nowait()
