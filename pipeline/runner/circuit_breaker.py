"""Stops the buying when submits end without a readable answer, and starts it again with the least money at risk.

Pure: the time is an argument, in seconds of any clock that only goes forward. It never waits and never calls anything.

Every submit of unknown outcome may have been paid. After 3 of them in a row, or 5 among the last 20, nothing more is
submitted. After a pause the gateway has to answer a poll, which is free; then ONE row may be submitted. Its answer
closes the breaker, another unknown opens it again for longer. So a gateway that is down, however long, costs at most
3 + the submits that were in flight; one that answers polls but loses submits costs one more with each probe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from typing import Literal, get_args

IN_A_ROW = 3
"""Unknown outcomes in a row that open the breaker: each may be paid, and three are no accident."""
IN_WINDOW = 5
"""Unknown outcomes among the last WINDOW that open the breaker, for a gateway that fails now and then."""
WINDOW = 20
"""Unknown outcomes that open the breaker: in a row, or among the last WINDOW."""

FIRST_PAUSE_S = 30.0
"""Seconds of the first pause after unknown outcomes; each further pause is twice as long, up to MAX_PAUSE_S."""
MAX_PAUSE_S = 300.0
"""Pause after unknown outcomes: doubled each time, back to the first after WINDOW outcomes without a new one."""

MAX_PAUSE_WITH_POLLS_S = 60.0
"""Longest pause, in seconds, while polls are answered: the gateway is there, and a longer wait saves nothing."""

FIRST_DOWN_S = 1.0
"""Seconds of the first pause after submits that provably never left."""
MAX_DOWN_S = 60.0
"""Pause after submits that provably never left: they cost nothing, so it is shorter."""

PROBE_LEASE_S = 1260.0
"""After this a probe that reported nothing is taken for lost: longest wait hint, connect and read time-out, rounded."""

POLL_INTERVAL_S = 1.0
"""What `wait_s` says while only an event, not time, can change the state."""

Outcome = Literal["answered", "unknown", "unreachable"]
OUTCOMES: tuple[str, ...] = get_args(Outcome)


class BreakerState(StrEnum):
    """What may be done now."""

    CLOSED = "closed"
    """submit"""
    OPEN = "open"
    """nothing is submitted; polls and downloads go on"""
    POLL_PROBE = "poll_probe"
    """a free poll of a known job must be answered first"""
    ROW_PROBE = "row_probe"
    """one row may be submitted, the first that asks"""


class CircuitBreaker:
    """The breaker of one run's submits.

    Call `may_submit` as late as possible, after all other waits; every True is followed by one `record`, or by
    `withdraw` when nothing was sent after all.
    """

    def __init__(
        self,
        *,
        in_a_row: int = IN_A_ROW,
        in_window: int = IN_WINDOW,
        window: int = WINDOW,
        first_pause_s: float = FIRST_PAUSE_S,
        longest_pause_s: float = MAX_PAUSE_S,
        first_down_s: float = FIRST_DOWN_S,
        longest_down_s: float = MAX_DOWN_S,
        probe_lease_s: float = PROBE_LEASE_S,
    ) -> None:
        self._in_a_row_limit = in_a_row
        self._in_window_limit = in_window
        self._pause = _Pause(first_pause_s, longest_pause_s)
        self._down = _Pause(first_down_s, longest_down_s)
        self._lease_s = probe_lease_s
        self._recent: deque[bool] = deque(maxlen=window)  # True is unknown
        self._in_a_row = 0
        self._poll_answered = False
        self._prober: str | None = None
        self._probe_until = 0.0
        self.probes_lost = 0
        """Probes of unknown outcome since the breaker opened: what it cost beyond its promise."""

    def state(self, now: float) -> BreakerState:
        """What may be done at `now`."""
        if self._down.lasts(now) or self._pause.lasts(now):
            return BreakerState.OPEN
        if self._pause.on and not self._poll_answered:
            return BreakerState.POLL_PROBE
        return BreakerState.ROW_PROBE if self._pause.on or self._down.on else BreakerState.CLOSED

    def may_submit(self, now: float, who: str | None = None) -> bool:
        """Whether a row may be submitted now. As a probe it goes to one caller, until its outcome is recorded.

        Args:
            who: the request's id. The holder of the probe may ask again; without an id no request may.
        Pays: True lets a paid call go.
        """
        state = self.state(now)
        if state is not BreakerState.ROW_PROBE:
            return state is BreakerState.CLOSED
        # The right to probe is a lease: a probe whose worker was killed must not stop the buying for ever.
        if self.is_probing(now) and (who is None or who != self._prober):
            return False
        # A caller without an id still holds the probe: "" is no request's id, and None would mean that no probe is out.
        self._prober, self._probe_until = who or "", now + self._lease_s
        return True

    def withdraw(self, who: str | None = None) -> None:
        """`who` does not submit after all: if it was to probe, another may."""
        if self._is_prober(who):
            self._prober = None

    def record(self, outcome: Outcome, now: float, who: str | None = None) -> None:
        """One submit has ended. While the breaker is open only its probe's outcome changes it; the rest were in flight.

        Args:
            outcome: "answered" = accepted, rejected or throttled, in words that were understood; "unknown" = perhaps
                paid; "unreachable" = proved that nothing was sent.
            who: as in `may_submit`; without a name it is taken for the probe's, if there is one.
        """
        if outcome not in OUTCOMES:
            raise ValueError(f"{outcome!r} is no outcome of a submit")
        was_probe = self._is_prober(who)
        if was_probe:
            self._prober = None
        if outcome == "unreachable":
            self._unreachable(now)
            return
        # A response of any kind shows that the gateway can be reached, whatever it says of this request.
        self._down.end()
        self._down.forget()
        unknown = outcome == "unknown"
        self._recent.append(unknown)
        self._in_a_row = self._in_a_row + 1 if unknown else 0
        # While the breaker is open, what was in flight when it opened says how the gateway was, not how it is.
        if not self._pause.on:
            self._count(now)
        elif was_probe:
            self._probed(unknown, now)

    def poll_answered(self, now: float) -> None:
        """The gateway answered a poll: after the pause that lets one row probe."""
        self._pause.shorten(MAX_PAUSE_WITH_POLLS_S)
        # Only an answer after the pause counts: one from its beginning may come from before the outage.
        if self._pause.on and not self._pause.lasts(now):
            self._poll_answered = True

    def submit_answered(self) -> None:
        """The gateway answered a submit that was sent again under its key: it takes submits, and the pause is over."""
        self._in_a_row = 0
        self._recent.clear()
        self._pause.end()
        self._pause.forget()

    def nothing_to_poll(self, now: float) -> None:
        """No job is known whose poll could be answered: the pause alone must do, or the run would wait for ever."""
        if self._pause.on and not self._pause.lasts(now):
            self._poll_answered = True

    def restore(self, outcomes: Sequence[tuple[Outcome, float]]) -> None:
        """Begin from the newest outcomes of earlier runs, oldest first, each with its time on this breaker's clock.

        A gateway that lost the last submits of the run before may lose the first ones of this one.
        """
        for outcome, at in outcomes:
            self.record(outcome, at)

    @property
    def paused_until(self) -> float | None:
        """When the pause after unknown outcomes ends; None while there is none."""
        return self._pause.until

    def wait_s(self, now: float) -> float:
        """Seconds until it is worth asking again: 0 when a row may be submitted."""
        if self.state(now) is BreakerState.OPEN:
            return max(self._pause.left_s(now), self._down.left_s(now))
        return POLL_INTERVAL_S if self.is_probing(now) or self.state(now) is BreakerState.POLL_PROBE else 0.0

    def is_probing(self, now: float) -> bool:
        """Whether a row was let go while the breaker is open, and its outcome is awaited."""
        return self._prober is not None and now < self._probe_until

    def _is_prober(self, who: str | None) -> bool:
        return self._prober is not None and (who is None or who == self._prober)

    def _count(self, now: float) -> None:
        self._prober = None  # the gateway was reached: no probe is needed any more
        if self._in_a_row >= self._in_a_row_limit or sum(self._recent) >= self._in_window_limit:
            self._open(now)
        # A whole window without a loss: the next trouble begins with the shortest pause again.
        elif len(self._recent) == self._recent.maxlen and not any(self._recent):
            self._pause.forget()

    def _probed(self, unknown: bool, now: float) -> None:
        if unknown:
            self.probes_lost += 1
            # The probe was lost: `begin` doubles the pause each time.
            self._open(now)
            return
        # Outcomes from before the outage are forgotten: with them the first loss after it would open the breaker again.
        self._pause.end()
        self._recent.clear()
        self.probes_lost = 0

    def _unreachable(self, now: float) -> None:
        # A poll that was answered before the connections failed proves nothing about the gateway now.
        self._poll_answered = False
        if not self._down.lasts(now):  # many fail at once when a gateway goes: one step of the back-off
            self._down.begin(now)

    def _open(self, now: float) -> None:
        self._poll_answered = False
        self._pause.begin(now)


class _Pause:
    """A pause that doubles each time it begins, until it is forgotten."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._next_s = first_s
        self._until: float | None = None
        self._began = 0.0

    @property
    def until(self) -> float | None:
        """When it ends."""
        return self._until

    def shorten(self, longest_s: float) -> None:
        """Let it last no longer than this from its beginning."""
        if self._until is not None:
            self._until = min(self._until, self._began + longest_s)

    @property
    def on(self) -> bool:
        """Begun and not ended, whether it still lasts or not."""
        return self._until is not None

    def lasts(self, now: float) -> bool:
        return self._until is not None and now < self._until

    def left_s(self, now: float) -> float:
        return 0.0 if self._until is None else max(0.0, self._until - now)

    def begin(self, now: float) -> None:
        self._began, self._until = now, now + self._next_s
        self._next_s = min(self._next_s * 2, self._longest_s)

    def end(self) -> None:
        self._until = None

    def forget(self) -> None:
        self._next_s = self._first_s
