"""The two ends of time (seconds of a monotonic clock), for what has not happened and what will not."""

from __future__ import annotations

LONG_AGO, NEVER = float("-inf"), float("inf")
