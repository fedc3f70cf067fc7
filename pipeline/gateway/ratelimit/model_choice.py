"""Which of the consistent limiters is followed, and from where in the history: the best explanation.

Everything since the last known change should be explained by one limiter. If only a late part of the history can be,
the limit changed; each part left out costs misfit, so a change is believed only where it explains clearly more.

The fits, and numpy with them, are imported at the first rejection: a run that meets none starts 0.1 s of CPU sooner.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.gateway.ratelimit.bucket_follower import BucketFollower
from pipeline.gateway.ratelimit.fits import SPANS_S, BucketFit, WindowFit, is_telling, is_whole
from pipeline.gateway.ratelimit.history import History, Rejection
from pipeline.gateway.ratelimit.times import LONG_AGO
from pipeline.gateway.ratelimit.window_follower import WindowFollower

Follower = WindowFollower | BucketFollower

DROPPED_MISFIT = 1.5
"""Misfit (calls) of a history without the calls up to the newest rejection but one: the limit changed then."""
MAX_MISFIT, GOOD_MISFIT = 2.2, 1.0
"""Above the first (calls) nothing explains it; below the second no shorter history is tried."""
KNOWN_MISFIT = 3.0
"""A window must explain so many calls better than a measured bucket, since a fall looks like a long window; a quicker
one of a second need not."""
SEEN_PART = 0.5
"""Part of the history that the span of such a window may be: a fall and a rise within 18 s were taken for one of 15.
Buckets 40-15-60 with whole hints: 0.93 instead of 0.91, and never below 0.88 instead of 0.73."""
DEEP_S, DEEP_MISFIT = 15.0, 0.3
"""Misfit (calls) of a bucket that fills up in so many seconds, and once more for each doubling of them. A window that
fits as well is followed first: if it is wrong, that costs a rejection or two; a slow bucket that is wrong costs half a
minute of silence, and one of 100 that gains one a minute cost half an hour at 100 a minute."""
SLOW_MISFIT, SLOW_RATIO, SHORT_S = 1.0, 1.1, 1.0
"""Misfit (calls) of a first bucket that is slower by this ratio than a window up to so many seconds long, where a hold
is made up for: a first fill that reached into the next fixed window looks like it. The window, if it is wrong, is
rejected within a few spans; the bucket would lose a quarter for long. Without it seven of ten seeds of fixed 20 in 1 s,
50 ms, whole hints lose 0.01 to 0.03."""
UNSURE_MISFIT, LONGER_MISFIT = 0.4, 0.01
"""Misfit (calls) of rates unsure by a factor of two; and of each longer span, where several explain the same."""
SURE_RATIO, KNOWN_RATIO = 1.15, 1.5
"""Ratio of the largest to the smallest possible rate: up to the first the rate is measured, up to the second the burst
is; without what is known of the burst 10 of 180 limiters lost more than 0.02, and none gained."""
TELLING_CALLS = 12
"""So many calls tell a rate to 5 %; fewer leave it unsure."""
RATE_MARGIN = 1.1
"""A bucket that rejected a flow gains less than that flow, give or take this factor."""


@dataclass(frozen=True, slots=True)
class Option:
    """One explanation: how badly it fits (calls), the history it explains, and the limiter."""

    misfit: float
    since: float
    used: float
    fit: WindowFit | BucketFit
    handicap: float = 0.0
    """by how much (calls) it must explain more than the others"""


def _is_slow(bucket: BucketFit, windows: list[Option], hold_s: float) -> bool:
    """Whether a short window that explains as much is quicker than the bucket, which makes up for a hold."""
    per_s = (o.fit.count / o.fit.span_s for o in windows if isinstance(o.fit, WindowFit) and o.fit.span_s <= SHORT_S)
    return bucket.burst >= bucket.rate * hold_s and max(per_s, default=0.0) > SLOW_RATIO * bucket.rate


def _max_ratio(calls: int) -> float:
    """How many times the rate may be higher that was seen of so many calls."""
    return 1.05 if calls >= TELLING_CALLS else 1 + TELLING_CALLS / max(calls, 1)


class ModelChoice:
    """Remembers from where on the history counts, and what was learned of a bucket's burst."""

    def __init__(self, history: History) -> None:
        self.fits = 0
        """fits that measured a bucket's rate"""
        self._history = history
        self._since, self._used = LONG_AGO, 0.0
        self._burst: float | None = None

    def begin_at(self, at: float) -> None:
        """Nothing before counts: it was an outage."""
        self._since, self._used = at, 0.0

    def refute_bucket(self) -> None:
        """The bucket that was measured gained nothing in a silence: what was learned of it counts no more."""
        self.fits, self._burst = 0, None

    def choose(self, old: Follower, *, noise_s: float, max_rate: float) -> WindowFit | BucketFit | None:
        """The best explanation after a rejection; None when the limit changed and nothing explains it.

        No bucket gains more than `max_rate` calls a second.
        """
        best = min(
            self._options(old, noise_s=noise_s, max_rate=max_rate),
            key=lambda option: option.misfit + option.handicap,
            default=None,
        )
        if best is None or best.misfit >= (GOOD_MISFIT if best.handicap else MAX_MISFIT):
            return None
        if best.since > self._since:
            self._since, self._used = best.since, best.used
        fit = best.fit
        if isinstance(fit, WindowFit):
            self.fits = 0
            return fit
        self.fits += fit.max_rate < SURE_RATIO * fit.min_rate
        if fit.max_rate < KNOWN_RATIO * fit.min_rate:
            self._burst = fit.burst
        return fit

    def lately(self, it: Rejection, old: Follower, *, reopened_at: float) -> WindowFit | BucketFit:
        """The limit changed: what was admitted since the last rejection is the rate."""
        self.fits = min(self.fits, 1)
        if isinstance(old, WindowFollower):
            calls = max(self._history.count(it.at - old.span_s, it.at), 1)
            if is_telling(it.retry_after_s):
                self.fits, self._since, self._used = 0, it.at, 0.0
                return WindowFit(calls, old.span_s, 0.0)
            rate, burst = calls / old.span_s, self._burst or 1.0
            self._since, self._used = it.at, burst
            return BucketFit(rate, burst, 0.0, rate, _max_ratio(calls) * rate)
        since = max([reopened_at, *(r.at for r in self._history.rejections if r.at < it.at - 1e-9)])
        calls, took_s = self._history.count(since, it.at), max(it.at - since, 1e-3)
        rate = max(calls, 0.5) / took_s
        rises = calls > 60 and old.sending_rate > RATE_MARGIN * old.rate
        steep = self._steepest(it, old.burst, calls) if rises else 0.0
        rate = min(max(rate, 0.25 * old.rate, steep), 0.97 * old.sending_rate)
        self._since, self._used = since, old.burst
        return BucketFit(rate, old.burst, 0.0, rate, _max_ratio(calls) * rate)

    def _options(self, old: Follower, *, noise_s: float, max_rate: float) -> Iterator[Option]:
        bucket_before = old if isinstance(old, BucketFollower) else None
        # One fit is a guess where hints are whole or missing: a first fill that reached into the next fixed window
        # looks like a bucket. An exact hint tells a bucket's wait for one call from a window's end.
        hint = self._history.rejections[-1].retry_after_s
        is_exact = hint is not None and not is_whole(hint)
        known = bucket_before is not None and self.fits > (0 if is_exact else 1)
        later = [r.at for r in self._history.rejections[:-1] if r.at > self._since][-1:]
        for dropped, since in enumerate((self._since, *later)):
            used = self._used if dropped == 0 else (bucket_before.burst if bucket_before is not None else 0.0)
            cost = DROPPED_MISFIT * dropped
            found = []
            seen_s = self._history.rejections[-1].at - self._history.first_after(since)
            for fit in self._windows(since, noise_s):
                if known and fit.span_s > SEEN_PART * seen_s:
                    continue
                longer = LONGER_MISFIT * SPANS_S.index(fit.span_s)
                is_quicker = fit.span_s <= SHORT_S and fit.count > SLOW_RATIO * old.rate * fit.span_s
                handicap = KNOWN_MISFIT * (known and not is_quicker)
                found.append(Option(fit.misfit + longer + cost, since, used, fit, handicap))
            bucket = self._bucket(since, used, bucket_before, noise_s, max_rate)
            if bucket is not None:
                unsure = UNSURE_MISFIT * (bucket.max_rate > 2 * bucket.min_rate)
                deep = DEEP_MISFIT * max(0.0, 1 + math.log2(bucket.burst / (DEEP_S * bucket.rate)))
                is_first = since == LONG_AGO and not known and not is_exact
                slow = SLOW_MISFIT * (is_first and _is_slow(bucket, found, hint or 0.0))
                found.append(Option(bucket.misfit + unsure + deep + slow + cost, since, used, bucket))
            yield from found
            # Less of the history counts only while nothing explains more of it.
            if any(option.misfit + option.handicap < GOOD_MISFIT for option in found):
                return

    def _windows(self, since: float, noise_s: float) -> list[WindowFit]:
        from pipeline.gateway.ratelimit.identification import fit_windows  # noqa: PLC0415 - see the top

        rejections = [r for r in self._history.rejections if r.at >= since - 1e-9]
        arrivals = self._history.arrivals(since)
        return fit_windows(arrivals, rejections, tolerance_s=noise_s, since=since)

    def _bucket(
        self, since: float, used: float, old: BucketFollower | None, noise_s: float, max_rate: float
    ) -> BucketFit | None:
        from pipeline.gateway.ratelimit.identification import MAX_CALLS, fit_bucket  # noqa: PLC0415 - see the top

        arrivals = self._history.arrivals(since)
        rejections = [r for r in self._history.rejections if r.at >= since - 1e-9]
        known, max_burst = self._burst, 1e9
        if len(arrivals) > MAX_CALLS:
            late = [r for r in rejections if r.at >= arrivals[-MAX_CALLS]]
            if late and old is not None:
                arrivals, rejections, used = arrivals[arrivals > late[0].at], late, old.burst
                max_burst = SURE_RATIO * (known or old.burst) + 1
            else:
                arrivals, rejections = arrivals[-MAX_CALLS:], late
        elif since > LONG_AGO and known:
            max_burst = SURE_RATIO * known + 1
        min_burst = max(1.0, 0.8 * used)
        if known and self.fits:
            min_burst, max_burst = max(min_burst, 0.75 * known), min(max_burst, 1.2 * known + 1)
        return fit_bucket(
            arrivals, rejections, used=used, bursts=(min_burst, max_burst), max_rate=max_rate, tolerance_s=noise_s
        )

    def _steepest(self, it: Rejection, burst: float, calls: int) -> float:
        """The flow (calls a second) that a bucket of `burst` needed at least to admit what came last."""
        import numpy as np  # noqa: PLC0415 - see the top

        arrivals = self._history.arrivals(it.at - 60.0)
        arrivals = arrivals[arrivals <= it.at]
        counts = np.arange(int(burst) + 10, min(calls, 300, len(arrivals)) + 1)
        if not len(counts):
            return 0.0
        return float(((counts - burst) / np.maximum(it.at - arrivals[len(arrivals) - counts], 1e-3)).max())
