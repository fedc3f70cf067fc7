"""The follower after a rejection that the present one did not expect: fitted to the history, and tested as it deserves.

A bucket whose rate each fit confirms is tested less and less often; a limit that fell is tested more often.
"""

from __future__ import annotations

from pipeline.gateway.ratelimit.bucket_follower import BucketFollower, bucket_of_fit
from pipeline.gateway.ratelimit.fits import BucketFit, WindowFit
from pipeline.gateway.ratelimit.history import History, Rejection
from pipeline.gateway.ratelimit.latency import LatencyTracker
from pipeline.gateway.ratelimit.model_choice import Follower, ModelChoice
from pipeline.gateway.ratelimit.window_follower import WindowFollower

FELL = 0.85
"""A limit below this part of what was proven has fallen."""
PROVEN_CALLS, PROVEN_RATIO = 30, 1.1
"""A rate is proven by so many calls without a rejection, up to this ratio of the highest possible rate to it."""
MIN_INTERVAL, MAX_INTERVAL, SETTLED_PART = 40.0, 250.0, 1 / 8
"""Calls between two tests of a bucket's rate: doubled with each that confirms it, up to 0.4 % rejections; and no more
than this part of the calls since the last fall, since what moves is tested more often. 250 calls from the start cost
0.03 of all random limiters."""
SAME_RATE = 0.05
"""A rate measured within this part of the last one confirms it."""


class Refitting:
    """What is remembered from one fit to the next."""

    def __init__(self, history: History, latency: LatencyTracker) -> None:
        self._history, self._latency = history, latency
        self.choice = ModelChoice(history)
        self._interval = MIN_INTERVAL
        self._fell_at = -1_000_000
        self._proven_rate = 0.0

    def refit(
        self,
        it: Rejection,
        old: Follower,
        *,
        now: float,
        hold_s: float,
        answers: int,
        max_rate: float,
        reopened_at: float,
    ) -> Follower:
        """The follower of what explains the history best.

        Args:
            hold_s: how long the rejection `it` holds everything (seconds).
            answers: calls that were answered so far.
            max_rate: no bucket gains more calls a second.
            reopened_at: when the limit was last open after a probe.
        """
        fit = self.choice.choose(old, noise_s=self._latency.noise_s, max_rate=max_rate)
        if fit is None:
            fit = self.choice.lately(it, old, reopened_at=reopened_at)
        rate = fit.count / fit.span_s if isinstance(fit, WindowFit) else fit.rate
        quiet = max(old.quiet, 1) if isinstance(old, BucketFollower) else 1
        self._notice_fall(fit, rate, old, quiet=quiet, answers=answers)
        if isinstance(fit, WindowFit):
            return WindowFollower(self._history, self._latency, count=fit.count, span_s=fit.span_s, hold_s=hold_s)
        same = isinstance(old, BucketFollower) and abs(fit.rate - old.rate) < SAME_RATE * old.rate
        settled = max(MIN_INTERVAL, (answers - self._fell_at) * SETTLED_PART)
        self._interval = min(2 * self._interval, MAX_INTERVAL, settled) if same else MIN_INTERVAL
        return bucket_of_fit(
            fit,
            self._latency,
            now=now,
            hold_s=hold_s,
            interval=self._interval,
            quiet=quiet,
            settled_calls=answers - self._fell_at,
        )

    def _notice_fall(self, fit: WindowFit | BucketFit, rate: float, old: Follower, *, quiet: int, answers: int) -> None:
        """Remember when the limit fell below what was proven, and what is proven now."""
        if isinstance(old, WindowFollower) and old.is_proven:
            self._proven_rate = old.rate
        if rate < FELL * self._proven_rate:
            self._fell_at, self._proven_rate = answers, 0.0
        if isinstance(fit, BucketFit) and quiet >= PROVEN_CALLS and fit.max_rate < PROVEN_RATIO * rate:
            self._proven_rate = rate


def is_measured(old: Follower) -> bool:
    """Whether the model was more than a guess, so that less than it is a fall."""
    if isinstance(old, WindowFollower):
        return old.is_proven
    return old.ramp_after is None and old.test.unsure < 0.1 and old.sending_rate < 1.2 * old.rate
