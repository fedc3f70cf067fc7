"""What one allowance of the gateway has answered so far: calls with their arrival, rejections with their wait hint.

Nothing is known of an arrival but that it happened between sending and answer. It is taken to be in the
middle; for certainty, half the round trip is added on both sides (`half_s`).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_CALLS = 16_384
"""Calls kept; the oldest half is dropped when there are more. A fit needs `identification.MAX_CALLS` of them; the
longest windows need as many as they count."""
MAX_REJECTIONS = 16
"""Rejections kept. Each adds one constraint to a fit; more than 16 changed no row of the held-out grid."""
MAX_IN_BURST = 3
"""Rejections kept of those that arrived within two round trips: with all of them two runs of 120 lost two fifths."""
MAX_EVIDENCE_S = 60.0
"""Longer hints (seconds) may be wrong, as a constant `3600` is, so they are no evidence of the limit."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """One call that the limit rejected.

    Attributes:
        at: its estimated arrival.
        half_s: half of its round trip; the arrival is within `at` +- `half_s`.
        retry_after_s: the wait hint where it may be believed, else None.
    """

    at: float
    half_s: float
    retry_after_s: float | None


class Calls:
    """Calls in the order of sending, with their estimated arrivals, and when each had surely arrived: at its answer."""

    def __init__(
        self, sent: Sequence[float] = (), arrived: Sequence[float] = (), answered: Sequence[float] = ()
    ) -> None:
        self.sent = list(sent)
        self.arrived = list(arrived)
        self.answered = list(answered)

    def add(self, sent_at: float, arrived: float) -> None:
        """Add a call without an answer; of several workers' calls an earlier one may come later."""
        place = len(self.sent)
        if self.sent and sent_at < self.sent[-1]:
            place = bisect_right(self.sent, sent_at)
        self.sent.insert(place, sent_at)
        self.arrived.insert(place, arrived)
        self.answered.insert(place, 2 * arrived - sent_at)
        if len(self.sent) > MAX_CALLS:
            # Half of them at once: taking one away at the front moves all the others.
            self.keep(MAX_CALLS // 2)

    def keep(self, newest: int) -> None:
        """Drop all but the newest calls."""
        old = len(self.sent) - newest
        if old > 0:
            del self.sent[:old], self.arrived[:old], self.answered[:old]

    def since(self, at: float, at_most: int) -> Calls:
        first = max(bisect_left(self.sent, at), len(self.sent) - at_most)
        return Calls(self.sent[first:], self.arrived[first:], self.answered[first:])

    def place(self, sent_at: float) -> int | None:
        place = bisect_right(self.sent, sent_at) - 1
        return place if place >= 0 and self.sent[place] == sent_at else None

    def correct(self, sent_at: float, arrived: float, answered: float) -> None:
        place = self.place(sent_at)
        if place is not None:
            self.arrived[place], self.answered[place] = arrived, answered

    def remove(self, sent_at: float) -> None:
        place = self.place(sent_at)
        if place is not None:
            del self.sent[place], self.arrived[place], self.answered[place]


class History:
    """Arrivals in the order of sending, and rejections in the order of arrival."""

    def __init__(self, admitted: Calls | None = None, sent: Calls | None = None) -> None:
        self._admitted = admitted or Calls()
        self._all = sent or Calls()
        self.rejections: list[Rejection] = []

    def since(self, at: float, *, at_most: int) -> History:
        """The newest calls that were sent at `at` or later, without rejections."""
        return History(self._admitted.since(at, at_most), self._all.since(at, at_most))

    def keep(self, newest: int) -> None:
        """Drop all but the newest calls, admitted and sent."""
        self._admitted.keep(newest)
        self._all.keep(newest)

    def __len__(self) -> int:
        return len(self._admitted.sent)

    def sent(self, now: float, half_s: float) -> None:
        """A call goes out and probably arrives `half_s` later; it counts until it is rejected."""
        self._admitted.add(now, now + half_s)
        self._all.add(now, now + half_s)

    def admitted(self, sent_at: float, now: float, max_half_s: float = math.inf) -> float:
        """The call sent at `sent_at` was admitted; its answer came at `now`. Returns its estimated arrival.

        An answer later than twice `max_half_s` waited for this client rather than for the network.
        """
        arrived = sent_at + min((now - sent_at) / 2, max_half_s)
        self._admitted.correct(sent_at, arrived, now)
        self._all.correct(sent_at, arrived, now)
        return arrived

    def rejected(
        self, sent_at: float, now: float, retry_after_s: float | None, max_half_s: float = math.inf
    ) -> Rejection:
        """The call sent at `sent_at` was rejected; as `admitted`."""
        hint = retry_after_s if retry_after_s is not None and retry_after_s <= MAX_EVIDENCE_S else None
        half_s = min((now - sent_at) / 2, max_half_s)
        rejection = Rejection(sent_at + half_s, half_s, hint)
        self._admitted.remove(sent_at)
        # It stays among all calls, for windows that count rejected ones as well.
        self._all.correct(sent_at, rejection.at, now)
        if not self._is_in_burst(rejection):
            insort(self.rejections, rejection, key=lambda it: it.at)
            del self.rejections[:-MAX_REJECTIONS]
        return rejection

    def forget(self, sent_at: float) -> None:
        """The call sent at `sent_at` was rejected, at a time that is not known."""
        self._admitted.remove(sent_at)

    @property
    def last_rejected_at(self) -> float:
        """Arrival of the newest rejection that is kept."""
        return self.rejections[-1].at if self.rejections else -math.inf

    def forget_rejections(self) -> None:
        """What was rejected so far says nothing of the limit."""
        self.rejections.clear()

    def rejected_between(self, after: float, until: float) -> int:
        """How many rejected calls arrived in (after, until]."""
        arrived = self._all.arrived
        return bisect_right(arrived, until) - bisect_right(arrived, after) - self.count(after, until)

    def _is_in_burst(self, it: Rejection) -> bool:
        """Whether enough rejections of this moment are kept: calls in flight together are one piece of evidence."""
        near = [r for r in self.rejections[-MAX_IN_BURST:] if abs(r.at - it.at) <= 4 * it.half_s]
        return len(near) == MAX_IN_BURST and it.at >= near[0].at

    def nth_last(self, n: int, *, counting_rejected: bool = False) -> float | None:
        """When the n-th call from the end arrived (the last one for n < 1); None when there are fewer.

        Some windows count rejected calls as well.
        """
        arrived = self._all.arrived if counting_rejected else self._admitted.arrived
        n = max(n, 1)
        return arrived[-n] if n <= len(arrived) else None

    def nth_last_answered(self, n: int, *, counting_rejected: bool = False) -> float:
        """When the call that `nth_last` finds was answered, which is expected a usual round trip after it was sent."""
        calls = self._all if counting_rejected else self._admitted
        return calls.answered[-max(n, 1)]

    def first_after(self, at: float) -> float:
        """When the first admitted call from `at` on arrived; infinity when there is none."""
        arrived = self._admitted.arrived
        place = bisect_left(arrived, at - 1e-9)
        return arrived[place] if place < len(arrived) else math.inf

    def nth_last_sent(self, n: int) -> float | None:
        """When the n-th call from the end, rejected ones included, was sent; None when there are fewer."""
        return self._all.sent[-n] if 0 < n <= len(self._all.sent) else None

    def count(self, after: float, until: float) -> int:
        """How many admitted calls arrived in (after, until]."""
        arrived = self._admitted.arrived
        return bisect_right(arrived, until) - bisect_right(arrived, after)

    def arrivals(self, since: float) -> NDArray[np.float64]:
        """Sorted arrivals of admitted calls from `since` on."""
        import numpy as np  # noqa: PLC0415 - 0.1 s of CPU that a run without a rejection does not need

        arrived = self._admitted.arrived
        return np.sort(np.array(arrived[bisect_left(arrived, since - 1e-9) :], dtype=np.float64))
