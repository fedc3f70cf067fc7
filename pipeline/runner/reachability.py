"""Whether the gateway can be reached: an outage is reported after 3 s with its cause, a permanent fault ends a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.gateway.responses import SendProof
from pipeline.reports.progress import span
from pipeline.runner.stop import StopScope, StopSignal

NOTICE_S = 3.0
"""Seconds without a connection after which the cause is printed: shorter ones pass before anyone has read it."""

PERMANENT_EXIT_CODE = 7
"""Exit code of a fault that waiting does not put right."""


class Reachability:
    """One run's view of the connection to its gateway; the submitter and the poller report every call to it.

    Args:
        address: the gateway's address, for messages.
        notify: prints one line for the user.
    """

    def __init__(self, address: str, stop: StopSignal, notify: Callable[[str], None]) -> None:
        self._address, self._stop, self._notify = address, stop, notify
        self._failing_since: float | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._is_reported = False
        self.cause = ""
        """why the newest call found no connection; empty while the gateway answers"""
        self.ever_reached = False

    @property
    def pause_text(self) -> str:
        """For the progress line while an outage lasts; empty otherwise."""
        return f"waiting for the gateway ({self.cause})" if self._is_reported else ""

    def reached(self) -> None:
        """A call was answered, or left this machine."""
        self.ever_reached = True
        if self._failing_since is not None and self._is_reported:
            lasted = asyncio.get_running_loop().time() - self._failing_since
            self._notify(f"the gateway can be reached again, after {span(lasted)}")
        self._failing_since, self._is_reported, self.cause = None, False, ""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def failed(self, cause: str, *, is_permanent: bool) -> None:
        """A call found no connection, so that nothing was sent."""
        self.cause = cause
        # Once the gateway was reached, address and network were right: then even "unknown host" is an outage that
        # passes.
        if is_permanent and not self.ever_reached:
            text = f"the gateway {self._address} can't be reached: {cause}; check the address and the network"
            self._stop.request(text, exit_code=PERMANENT_EXIT_CODE, reach=StopScope.ALL)
            return
        self._begin()

    @contextmanager
    def watch(self, proof: SendProof) -> Iterator[None]:
        """While a call is made: one that finds no connection for 3 s is an outage before it fails."""
        alarm = asyncio.get_running_loop().call_later(NOTICE_S, self._slow, proof)
        try:
            yield
        finally:
            alarm.cancel()

    def close(self) -> None:
        """The run ends: nothing is reported any more."""
        if self._alarm is not None:
            self._alarm.cancel()

    def _slow(self, proof: SendProof) -> None:
        if not proof.sent and not self._is_reported:
            self.cause = self.cause or f"no connection within {NOTICE_S:g} s"
            # The call has been silent for NOTICE_S already, so the outage began that long ago and is reported at once.
            self._begin(NOTICE_S)
            self._report()

    def _begin(self, since_s: float = 0.0) -> None:
        if self._failing_since is None:
            loop = asyncio.get_running_loop()
            self._failing_since = loop.time() - since_s
            self._alarm = loop.call_later(max(0.0, NOTICE_S - since_s), self._report)

    def _report(self) -> None:
        if self._is_reported or self._failing_since is None:
            return
        self._is_reported = True
        self._notify(f"the gateway {self._address} can't be reached: {self.cause}; nothing is sent meanwhile")
