"""An unforeseen error of one row or one step stays its own: it is written to the row, and the run continues.

MONEY: an exception that left a step would end the others, and a POST that is cancelled may be paid. So every step
catches everything around the work on one row and reports it here. The same failure of three different rows in a row is
no row's own fault any more: then nothing more is bought, and what is paid is collected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pipeline.errors import DopError, ExitCode
from pipeline.gateway.json_fields import one_line
from pipeline.gateway.redaction import redact
from pipeline.ledger.states import Event
from pipeline.runner.recorder import EventRecorder
from pipeline.runner.stop import StopScope, StopSignal

MAX_EQUAL_FAILURES = 3
"""Different rows that fail in the same way, with no success of the same step between, before nothing more is bought."""

NOT_SENT = "not sent: "
"""Begins the reason of a planned row that could not be sent; it is bought after the others next time."""


def error_words(error: BaseException) -> str:
    """The error as one line for the user, without secrets."""
    text = str(error) if isinstance(error, DopError) else f"{type(error).__name__}: {error}".rstrip(": ")
    return redact(one_line(text))


def is_cancellation(error: BaseException) -> bool:
    """Whether the error is the cancellation of the task that is running.

    Everything else is contained, also what is no `Exception`: a library written in Rust raises its panics as a
    `BaseException`, and a `CancelledError` that no task asked for would end a worker without a word.
    """
    return isinstance(error, asyncio.CancelledError) and is_cancelled()


def is_cancelled() -> bool:
    """Whether the task that is running was asked to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Firewall:
    """Parks rows that failed in an unforeseen way and counts equal failures."""

    def __init__(self, recorder: EventRecorder, stop: StopSignal, notify: Callable[[str], None]) -> None:
        self._recorder = recorder
        self._stop = stop
        self._notify = notify
        self._failed: dict[str, tuple[str, set[str]]] = {}

    def passed(self, step: str) -> None:
        """A row came through this step: an earlier failure was the failed row's own."""
        self._failed.pop(step, None)

    def failed(self, step: str, request_id: str, error: BaseException) -> None:
        """Count one failure of a row in this step; the third equal one stops the buying."""
        kind = type(error).__name__
        known, rows = self._failed.get(step, (kind, set()))
        # Rows are counted, not failures: one bad row that fails at every try must not stop the others' buying.
        rows = rows | {request_id} if known == kind else {request_id}
        self._failed[step] = (kind, rows)
        if len(rows) >= MAX_EQUAL_FAILURES:
            text = f"{len(rows)} different rows failed in the same way while {step} ({error_words(error)})"
            self._stop.request(f"{text}; nothing more is bought", exit_code=ExitCode.FATAL, reach=StopScope.SUBMITS)

    async def park(self, step: str, request_id: str, row_id: str, error: BaseException, *, reason: str) -> None:
        """Write the reason to the row, whose state stays as it is, and count the failure.

        Args:
            reason: begins the row's reason, e.g. NOT_SENT.
        """
        words = error_words(error)
        try:
            await self._recorder.record(request_id, Event.NOTE, {"reason": f"{reason}{words}"})
        # The note on the row may fail as well, for the same cause. The user's line and the count must follow all the
        # same.
        except BaseException as failed:
            if is_cancellation(failed):
                raise
        self._notify(f"{row_id}: {reason}{words}")
        self.failed(step, request_id, error)
