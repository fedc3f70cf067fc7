"""`--halt fail=3` or `fail=10%`: stop buying when too much comes out badly."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.errors import UsageError
from pipeline.records import FAILED_FOR_GOOD, State, Totals

MIN_ENDED = 10
"""A share is judged only after this many requests have ended; before that one failure would be 100 %."""

_RULE = re.compile(r"fail=(\d+)(%?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureLimit:
    """At most `count` failures, or `percent` of what has ended."""

    count: int | None = None
    percent: int | None = None

    def reached(self, before: Totals, now: Totals) -> bool:
        """Whether this command's failures (those since `before`) reach the rule."""
        failed = now.count(*FAILED_FOR_GOOD) - before.count(*FAILED_FOR_GOOD)
        if self.count is not None:
            return failed >= self.count
        ended = failed + now.count(State.DONE) - before.count(State.DONE)
        return ended >= MIN_ENDED and self.percent is not None and failed * 100 >= self.percent * ended


def parse_failure_limit(text: str) -> FailureLimit:
    """The rule of `fail=3` or `fail=10%`.

    Raises:
        UsageError: anything else.
    """
    match = _RULE.fullmatch(text)
    if match is None or int(match[1]) < 1 or (match[2] and int(match[1]) > 100):
        raise UsageError(f"--halt {text!r}: write fail=3 or fail=10%")
    return FailureLimit(percent=int(match[1])) if match[2] else FailureLimit(count=int(match[1]))
