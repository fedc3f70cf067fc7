"""The requests that one executor holds: the queue's job waits for each, and some are still to be bought."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from pipeline.records import Attempt


class HeldRequests:
    """Knows which requests are here, and tells the job of each how it ended."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[bool]] = {}
        self._unsent: set[str] = set()
        self._to_buy: asyncio.Queue[Attempt | None] = asyncio.Queue()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._waiting

    @property
    def unsent(self) -> int:
        """How many wait here to be bought."""
        return len(self._unsent)

    def hold(self, request_id: str) -> asyncio.Future[bool]:
        """The request is processed here from now on; the future says whether it came to its end."""
        return self._waiting.setdefault(request_id, asyncio.get_running_loop().create_future())

    def release(self, request_id: str) -> None:
        """It is not processed here any more."""
        self._waiting.pop(request_id, None)
        self.sent(request_id)

    def end(self, request_id: str, *, is_finished: bool) -> None:
        """Wake the job of a request; `is_finished` is False when another worker has to take it up."""
        done = self._waiting.get(request_id)
        if done is not None and not done.done():
            done.set_result(is_finished)

    def end_all(self, *, is_finished: bool) -> None:
        """Wake every job."""
        for request_id in list(self._waiting):
            self.end(request_id, is_finished=is_finished)

    # -- those to be bought

    def buy(self, attempt: Attempt) -> None:
        """Hand an attempt to the submitter."""
        self._unsent.add(attempt.request_id)
        self._to_buy.put_nowait(attempt)

    def sent(self, request_id: str) -> None:
        """It no longer waits to be bought."""
        self._unsent.discard(request_id)

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
