"""How long calls take to be ready and to be answered, as far as that was seen."""

from __future__ import annotations

LATENCY_MEMORY = 8
"""Calls over which latency and jitter are averaged: each new one counts an eighth, as in TCP (RFC 6298)."""
NOISE_PART, MIN_NOISE_S = 0.7, 0.001
"""Part of the round trips' difference by which arrivals differ; and the least (seconds), of clocks and schedulers."""
OUTLIER, MIN_JITTER = 3.0, 0.02
"""Times the usual difference, at least this part of the latency: more counts as that much, so that one pause does not
look like calls that overtake each other"""
LEAD_RISE, LEAD_FALL, MAX_LEAD_S = 1 / 4, 1 / 64, 0.05
"""How quickly the time to get a call ready is taken to be longer, or shorter, than before; and the longest"""


class SlotLeadTime:
    """So long before it goes a call's slot is handed out, since it takes about as long to get it ready.

    Handed out when it may go, each call would be late by the time that it takes to make its intent durable.
    """

    def __init__(self) -> None:
        self.s = 0.0
        """seconds within which most calls are ready"""

    def ready(self, took_s: float) -> None:
        """A call was ready to go so long after its slot was handed out."""
        more_s = min(took_s, MAX_LEAD_S) - self.s
        self.s += more_s * (LEAD_RISE if more_s > 0 else LEAD_FALL)


class LatencyTracker:
    """Seconds from sending to answer: what decides how closely calls may follow each other. 0 until a call was seen."""

    def __init__(self) -> None:
        self.latency_s = 0.0
        """the usual time to an answer"""
        self.jitter_s = 0.0
        """how far latencies differ"""

    @property
    def max_half_s(self) -> float:
        """The longest that a call may be on its way to the gateway (seconds); without end until one was answered."""
        return self.latency_s / 2 + self.jitter_s if self.latency_s else float("inf")

    @property
    def noise_s(self) -> float:
        """The standard deviation of a call's arrival, at least a millisecond."""
        return max(NOISE_PART * self.jitter_s, MIN_NOISE_S)

    def answered(self, took_s: float) -> None:
        """A call had its answer."""
        if not self.latency_s:
            self.latency_s = took_s
            self.jitter_s = took_s / 8
        usual_s = max(self.jitter_s, MIN_JITTER * self.latency_s)
        far_s = min(abs(took_s - self.latency_s), OUTLIER * usual_s)
        self.jitter_s += (far_s - self.jitter_s) / LATENCY_MEMORY
        self.latency_s += (took_s - self.latency_s) / LATENCY_MEMORY
