"""What the steps of a run report to each other: an event sink. A step knows who reads its events as little as a logger.

Events are for bookkeeping and display; work is handed over by the queues of `RunContext`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.errors import LedgerError
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import ChangeResult
from pipeline.records import Attempt, Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecorded:
    """The ledger answered one change; `totals` are the run's after it."""

    request_id: str
    event: Event
    result: ChangeResult
    totals: Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerFailed:
    """The ledger could not be written."""

    error: LedgerError


@dataclass(frozen=True, slots=True, kw_only=True)
class JobAccepted:
    """A job was handed to the poller's queue."""

    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeUnknown:
    """A submit was recorded as unknown."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSetAside:
    """A planned request is not tried again in this run: it was refused, or could not be sent."""

    request_id: str


RunEvent = EventRecorded | LedgerFailed | JobAccepted | OutcomeUnknown | RequestSetAside
E = TypeVar("E", EventRecorded, LedgerFailed, JobAccepted, OutcomeUnknown, RequestSetAside)


class EventSink:
    """Passes each event to those who subscribed to its class, at once and in the order of their subscription."""

    def __init__(self, on_error: Callable[[BaseException], None] = lambda error: None) -> None:
        """`on_error` is called with what a listener raised; the step that emitted the event never sees it."""
        self._on_error = on_error
        self._listeners: dict[type, list[Callable[[Any], None]]] = {}

    def subscribe(self, kind: type[E], listener: Callable[[E], None]) -> None:
        """Call `listener` with every event of this class. It must return at once."""
        self._listeners.setdefault(kind, []).append(listener)

    def emit(self, event: RunEvent) -> None:
        """Report one event."""
        for listener in self._listeners.get(type(event), ()):
            try:
                listener(event)
            except BaseException as error:  # noqa: BLE001 - MONEY: a listener's error must not end a step
                self._on_error(error)
