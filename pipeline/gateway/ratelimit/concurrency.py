"""The cap on jobs in flight: configured, or learned from rejections; now and then one more is tried."""

from __future__ import annotations

FIRST_TEST_INTERVAL_JOBS, MAX_TEST_INTERVAL_JOBS = 2, 32
"""Jobs that must end, as a multiple of the learned cap, before one more than the cap is tried; doubles when refused."""
PAUSE_S = 5.0
"""Seconds of the first pause when jobs are rejected and none of ours is in flight: another client fills the queue."""
MAX_PAUSE_S = 60.0
"""Seconds of the longest pause before another job is tried: a queue of other clients may empty any minute."""


class InFlightLimit:
    """How many jobs may be in flight. Too many is said by 400 "concurren...", 423 or a full queue (`seen`)."""

    def __init__(self, *, configured: int | None, learned: int | None, in_flight: int) -> None:
        self.learned = learned
        self.in_flight = in_flight
        self._configured = configured
        self._stated = False
        self._ended = 0
        self._patience = FIRST_TEST_INTERVAL_JOBS
        self._paused_until = float("-inf")
        self._pause_s = PAUSE_S

    @property
    def cap(self) -> int | None:
        """The lower of the configured and the learned cap; None while there is neither."""
        return min((cap for cap in (self._configured, self.learned) if cap is not None), default=None)

    def ready_at(self, now: float, submits_in_flight: int) -> float:
        """The earliest time one more may be submitted; infinity while a job must end first."""
        if self.cap is not None and self.in_flight + submits_in_flight >= self.cap:
            return float("inf")
        return max(now, self._paused_until)

    def recount(self, in_flight: int) -> None:
        """So many jobs are in flight, says the ledger, which knows those of other workers as well."""
        self.in_flight = in_flight

    def accepted(self) -> None:
        """One more job is in flight."""
        self.in_flight += 1
        self._pause_s = PAUSE_S

    def refused(self, now: float, wait_s: float | None, stated: int | None = None) -> None:
        """The gateway said too many: the cap is what it stated, else what is in flight now.

        With fewer jobs of ours in flight than it stated, other clients of the account use the rest: submits pause.
        """
        self._stated = stated is not None and stated > 0
        self.learned = stated if stated is not None and self._stated else max(self.in_flight, 1)
        self._ended, self._patience = 0, min(self._patience * 2, MAX_TEST_INTERVAL_JOBS)
        if self.in_flight == 0 or wait_s is not None or self.in_flight < self.learned:
            pause_s = self._pause_s if wait_s is None else min(max(wait_s, 1.0), MAX_PAUSE_S)
            self._paused_until = max(self._paused_until, now + pause_s)
            self._pause_s = min(2 * self._pause_s, MAX_PAUSE_S)

    def ended(self) -> None:
        """One job fewer is in flight; after enough of them a cap that was guessed is tested by one more."""
        self.in_flight = max(0, self.in_flight - 1)
        self._ended += 1
        if self.learned is not None and not self._stated and self._ended >= self._patience * self.learned:
            self.learned, self._ended = self.learned + 1, 0
