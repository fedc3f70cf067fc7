"""Which limiters explain everything that an allowance has answered: a version space, fitted in batch. Pure functions.

A limiter is consistent when it would have admitted what was admitted and rejected what was rejected. Two families are
enough, since every usual limiter is one of them seen from the outside:

    window(count, span)   at most `count` calls in each `span`, sliding or fixed
    bucket(rate, burst)   at most `burst + rate * t` calls in each t seconds (an arrival curve of network calculus)

For each span the count is between the most calls admitted within one span and the fewest calls before a rejection.
For each rate the burst is between the largest backlog that was admitted and the smallest one that was rejected; the
backlog of a queue with arrivals u is u less its smallest value so far (Reich 1958, Lindley 1952), so one accumulated
minimum gives it for all rates at once. Arrivals are known to a tolerance, which widens every interval: with half the
longest round trip as tolerance the true limiter is always inside (tests/unit/test_identification.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.gateway.ratelimit.fits import SPANS_S, BucketFit, WindowFit, max_wait_s, min_wait_s
from pipeline.gateway.ratelimit.fixed_windows import fit_fixed
from pipeline.gateway.ratelimit.history import Rejection

Floats = NDArray[np.float64]

MAX_CALLS = 1_200
"""Calls that one fit uses: 0.3 ms. 350 are too few at 100 calls a second."""
FIRST_CELLS, MIN_RATES, MAX_RATES = 20_000, 24, 160
"""At first as many rates are tried as events times rates allow: a short history has narrow peaks."""
RATES, ZOOMS = 24, 5
"""Rates tried at once, and how often: each time in the range that is left."""
SHRINKS = 0.7
"""Part of the range (of its logarithm) that a further zoom must leave at most: else it shows nothing new."""
MIN_TOLERANCE, MAX_TOLERANCE, EACH_TOLERANCE = 0.3, 0.6, 0.05
"""Tolerance (calls) of a fit: a constant part, at most so much for calls that travelled at unlike speeds, and a part
for each rejection. One that grew with the rate would let every high rate in; without the last part one seed of ten of
fixed 20 in 1 s with whole hints loses a tenth."""
MAX_WHOLE_BURST = 8
"""Bursts below are whole numbers of calls: this decides between 3/s that holds 1 and 2/s that holds 1.3."""
WINDOW_SLACK = 1.005
"""A window may admit this times its count: one call of two hundred is misjudged. Without it one run of 150 in 1 s
without hints was taken for a slow bucket, which cost half of it."""
FIXED_MISFIT = 1.2
"""Misfit (calls) of a fixed window, which has a phase more to explain two rejections with; of more, a part of it."""
HOPELESS_CALLS = 6
"""So many calls more than its count were surely admitted: it is no such window, and no more is worth knowing of it."""


def most_within(arrivals: Floats, span_s: float, tolerance_s: float) -> int:
    """Most calls that surely arrived within one span, sorted and known to +- `tolerance_s`: a window's least count.

    A fixed window's count is at least half as many.
    """
    ends = np.searchsorted(arrivals, arrivals + span_s - 2 * tolerance_s, side="left")
    return int((ends - np.arange(len(arrivals))).max()) if len(arrivals) else 0


def _are_more_within(calls: int, arrivals: Floats, span_s: float, tolerance_s: float) -> bool:
    """Whether more than `calls` surely arrived within one span: quicker than to count the most."""
    return bool((arrivals[calls:] - arrivals[:-calls] < span_s - 2 * tolerance_s).any())


def calls_before(arrivals: Floats, rejections: Sequence[Rejection], span_s: float, tolerance_s: float) -> list[int]:
    """For each rejection the calls possibly in the span that it ended; a window's count is at most each of them."""
    last = [it.at + it.half_s + tolerance_s for it in rejections]
    first = [it.at + min_wait_s(it.retry_after_s) - span_s - it.half_s - tolerance_s for it in rejections]
    found = np.searchsorted(arrivals, last, side="right") - np.searchsorted(arrivals, first, side="left")
    return [int(calls) for calls in found]


@dataclass(frozen=True, slots=True)
class Events:
    """Admitted and rejected calls in one order, for the backlog: seconds since the first, and what each one was."""

    at: Floats
    is_rejected: NDArray[np.bool_]
    min_wait_s: Floats
    max_wait_s: Floats
    """of the rejected ones: between which the true wait was"""


def events_of(arrivals: Floats, rejections: Sequence[Rejection], tolerance_s: float = 0.0) -> Events:
    """Merges them: a rejection comes after every call that may have arrived before it, +- the tolerance."""
    places = [int(np.searchsorted(arrivals, it.at + it.half_s + tolerance_s, side="right")) for it in rejections]
    order = sorted(range(len(places)), key=lambda k: (places[k], rejections[k].at))
    at = np.insert(arrivals, [places[k] for k in order], [rejections[k].at for k in order])
    mask = np.zeros(len(at), dtype=bool)
    mask[[places[k] + n for n, k in enumerate(order)]] = True
    at = np.maximum.accumulate(at - at[0])
    hints = [rejections[k].retry_after_s for k in order]
    least, most = (np.array([of(hint) for hint in hints]) for of in (min_wait_s, max_wait_s))
    return Events(at, mask, least, most)


def bucket_bounds(events: Events, rates: Floats, used: float = 0.0) -> tuple[Floats, Floats]:
    """For each rate (per second) the smallest burst, and below which each rejection says that the burst is.

    Shapes: (rates,) and (rates, rejections). `used` calls are missing from the bucket before the first event. A full
    bucket rejects nothing, and none asks to wait for longer than one call takes to flow in: a rate at which that
    happened is impossible, and its burst is said to be below one.
    """
    before: Floats = (np.cumsum(~events.is_rejected) - ~events.is_rejected).astype(np.float64)
    u = before[None, :] - rates[:, None] * events.at[None, :]
    lowest = u.copy()
    lowest[:, 0] -= used
    backlog = u - np.minimum.accumulate(lowest, axis=1)
    low = (backlog[:, ~events.is_rejected] + 1).max(axis=1, initial=1.0)
    rejected = backlog[:, events.is_rejected]
    shortest, longest = rates[:, None] * events.min_wait_s[None, :], rates[:, None] * events.max_wait_s[None, :]
    high = np.where((rejected > 1e-9) & (shortest < 1), rejected + 1 - shortest, 0.5)
    return np.maximum(low, (rejected + 1 - longest).max(axis=1, initial=1.0)), high


def fit_windows(
    arrivals: Floats, rejections: Sequence[Rejection], *, tolerance_s: float, since: float
) -> list[WindowFit]:
    """Every usual window with its misfit; `since` is when the fit begins, minus infinity for the very first call."""
    found: list[WindowFit] = []
    if len(arrivals) < 2 or not rejections:
        return found
    ends = [it.at + min_wait_s(it.retry_after_s) for it in rejections]
    seen_s = max(arrivals[-1], *ends) - arrivals[0]
    for span_s in SPANS_S:
        if span_s > seen_s + 1e-9:
            break
        whole = [
            it for it in rejections if since == -math.inf or it.at + min_wait_s(it.retry_after_s) - span_s >= since - 1
        ]
        if not whole:
            continue
        highs = calls_before(arrivals, whole, span_s, tolerance_s)
        high = min(highs)
        if high < 1:
            continue
        times = _times(whole, span_s)  # one burst of rejections is one piece of evidence, however many they are
        is_fixed = times > 1 and not _are_more_within(2 * high + 1, arrivals, span_s, tolerance_s)
        if not is_fixed and _are_more_within(high + HOPELESS_CALLS, arrivals, span_s, tolerance_s):
            continue
        low = most_within(arrivals, span_s, tolerance_s)
        count, misfit = min(low, high), max(0.0, low - WINDOW_SLACK * high)
        if misfit and is_fixed:
            fixed_count, fixed_misfit = fit_fixed(arrivals, whole, span_s, tolerance_s)
            fixed_misfit += FIXED_MISFIT / (times - 1)
            if fixed_count and fixed_misfit < misfit:
                count, misfit = fixed_count, fixed_misfit
        found.append(WindowFit(count, span_s, misfit + (0.0 if times > 1 else 1.0)))
    return found


def _times(rejections: Sequence[Rejection], span_s: float) -> int:
    """In how many windows of their own calls were rejected: one ends when its hint says, if not half a span later."""
    times, ended_at = 0, -math.inf
    for it in rejections:
        if it.at > ended_at:
            times, ended_at = times + 1, it.at + min(0.5 * span_s, max_wait_s(it.retry_after_s))
    return times


def fit_bucket(
    arrivals: Floats,
    rejections: Sequence[Rejection],
    *,
    used: float = 0.0,
    bursts: tuple[float, float] = (1.0, 1e9),
    max_rate: float,
    tolerance_s: float = 0.0,
) -> BucketFit | None:
    """The bucket that explains everything best. `bursts` bounds its burst, and `max_rate` (calls a second) its rate."""
    if len(arrivals) < 2 or not rejections:
        return None
    span_s = max(max(arrivals[-1], rejections[-1].at) - arrivals[0], 1e-3)
    limits = (0.3 / span_s, max(max_rate, 0.6 / span_s))
    events = events_of(arrivals, rejections)
    for zoom in range(ZOOMS):
        tried = RATES if zoom else min(max(MIN_RATES, FIRST_CELLS // len(events.at)), MAX_RATES)
        rates = np.exp(np.linspace(math.log(limits[0]), math.log(limits[1]), tried))
        low, high = bucket_bounds(events, rates, used)
        low, high = np.maximum(low, bursts[0]), np.minimum(_one_of_each_burst(events, high), bursts[1])
        score, burst = _score(low, high)
        best = float(score.max())
        noise = MIN_TOLERANCE + min(float(rates[int(score.argmax())]) * tolerance_s, MAX_TOLERANCE)
        last = zoom == ZOOMS - 1
        near = np.flatnonzero(score > best - (max(noise, 0.5) if last else 1.0))
        before, limits = limits, (float(rates[max(near[0] - 1, 0)]), float(rates[min(near[-1] + 1, tried - 1)]))
        if last or math.log(limits[1] / limits[0]) > SHRINKS * math.log(before[1] / before[0]):
            break
    near = np.flatnonzero(score > best - max(noise, 0.5))
    equal = np.flatnonzero(score > best - 0.02)
    chosen = int(equal[len(equal) // 2])
    min_rate, max_rate = float(rates[near[0]]), float(rates[near[-1]])
    if max_rate > 1.5 * min_rate:  # so unsure that all orders of magnitude between are alike
        chosen = int(near[np.argmin(np.abs(np.log(rates[near]) - 0.5 * math.log(min_rate * max_rate)))])
    misfit = max(0.0, -best - noise - EACH_TOLERANCE * high.shape[1])
    return BucketFit(float(rates[chosen]), float(min(burst[chosen], 1e6)), misfit, min_rate, max_rate)


def _one_of_each_burst(events: Events, high: Floats) -> Floats:
    """Rejections with no admitted call between them are one piece of evidence: the mildest of them counts."""
    order = np.cumsum(~events.is_rejected)[events.is_rejected]
    starts = np.flatnonzero(np.diff(order, prepend=-1))
    return np.maximum.reduceat(high, starts, axis=1)


def _score(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """For each rate (how well it explains everything, the burst that does it best).

    Positive: by how many calls (at most one) the interval of the burst is open. Negative: by how many calls the
    constraints are violated in all, so that one misjudged arrival is outvoted by the others.
    """
    bursts = np.concatenate([low[:, None], high], axis=1)
    over = np.maximum(bursts[:, :, None] - high[:, None, :], 0.0).sum(axis=2)
    under = np.maximum(low[:, None] - bursts, 0.0)
    misfit = over + under
    chosen = misfit.argmin(axis=1)
    rows = np.arange(len(low))
    least = high.min(axis=1)
    score = np.where(least >= low, np.minimum(least - low, 1.0), -misfit[rows, chosen])
    burst = np.where(least >= low, (low + np.minimum(least, low + 1)) / 2, bursts[rows, chosen])
    if low.min() < MAX_WHOLE_BURST:
        score = score - np.clip(2 * np.maximum(low - np.floor(np.maximum(least, burst) + 0.005), 0), 0, 1.0)
    return score, np.maximum(burst, 1.0)
