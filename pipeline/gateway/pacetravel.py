"""How long calls are under way, as far as that was seen: what decides how closely they may follow each other. Pure."""

from __future__ import annotations

LATENCY_MEMORY = 8
LEAST_KEPT = 1.001
"""by which the shortest latency grows with each call that is slower: what was quick once may be so no longer"""
LEAD_MEMORY = 64
"""calls over which the time between slot and call may seem to grow; when it is shorter that counts at once"""


class Travel:
    """Seconds from sending to answer, and from a slot to its sending. All are 0 until a call was seen."""

    def __init__(self) -> None:
        self.latency_s = self.least_latency_s = 0.0
        """the usual time to an answer, and the shortest"""
        self.jitter_s = 0.0
        """how far latencies differ"""
        self.lead_s = 0.0
        """so long after its slot a call goes out at the earliest"""

    def answered(self, took_s: float) -> None:
        """A call had its answer."""
        if not self.latency_s:
            self.latency_s = self.least_latency_s = took_s
            self.jitter_s = took_s / 8
        self.least_latency_s = min(took_s, LEAST_KEPT * self.least_latency_s)
        self.jitter_s += (abs(took_s - self.latency_s) - self.jitter_s) / LATENCY_MEMORY
        self.latency_s += (took_s - self.latency_s) / LATENCY_MEMORY

    def left(self, lag_s: float) -> None:
        """A call went out so long after its slot was taken."""
        self.lead_s += min(lag_s - self.lead_s, (lag_s - self.lead_s) / LEAD_MEMORY)
