"""One worker's newest acceptance while it is being recorded, so that its next intent shares the commit.

MONEY: the order of the ledger's queue is that of the ledger. The acceptance is in the queue before the worker takes its
next request, so no intent of this worker is durable without it, and a worker is never in doubt of two submits at once.
Before its next POST the worker waits until the acceptance is recorded; its intent, behind it in the queue, is durable
by then, so there is nothing left to wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from pipeline.errors import LedgerError
from pipeline.records import Attempt
from pipeline.runner.context import RunContext
from pipeline.runner.firewall import is_cancellation
from pipeline.runner.submit_outcomes import finish, set_aside


class OpenAcceptance:
    """Holds the record of one worker's newest acceptance until it is durable."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._recording: asyncio.Task[bool] | None = None

    async def begin(self, attempt: Attempt, record: Coroutine[Any, Any, bool]) -> None:
        """Start `record`, the acceptance of `attempt`; its change is in the ledger's queue when this returns.

        It is a task of its own, which no cancellation of the worker reaches.
        """
        self._recording = asyncio.create_task(self._recorded(attempt, record))
        # The new task takes its first step, which ends with the change in the queue, before this one takes its next.
        await asyncio.sleep(0)

    async def is_recorded(self) -> bool:
        """Wait until the acceptance, if there is one, is durable; False when the ledger did not take it.

        A caller that is cancelled meanwhile waits for it all the same.
        """
        return self._recording is None or await finish(self._recording)

    async def _recorded(self, attempt: Attempt, record: Coroutine[Any, Any, bool]) -> bool:
        try:
            await record
        except BaseException as error:
            if is_cancellation(error):
                raise
            await set_aside(self._context, attempt, error)
            return not isinstance(error, LedgerError)
        return True
