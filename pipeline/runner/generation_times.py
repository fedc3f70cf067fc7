"""How long a model takes: generation times, learned from polls that came too early or too late.

A poll tells only that a job was still at work at one age, or finished between two ages; jobs in flight still are.
The estimate is the self-consistent one for such intervals (Turnbull 1976), on bins of equal ratio, with a faint prior.
Times are seconds since the gateway accepted the job.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from itertools import accumulate
from math import exp, log

MIN_AGE_S, RATIO, BINS = 0.05, 1.08, 200
"""First edge in seconds, ratio and number of the bins: they run from 0.05 s by steps of 8 % to 2.6 days."""
EDGES_S = tuple(MIN_AGE_S * RATIO**step for step in range(BINS))
PRIOR_WEIGHT = 0.5
"""Number of jobs that the prior counts as, so that the first real ones outweigh it."""
PRIOR_SPREAD = 0.7
"""Spread of the prior in the logarithm of the time: two thirds of the jobs within half to twice its centre."""
REMEMBERED = 2_000
"""Ended jobs that count in full; older ones fade, so that a model that becomes slower is followed."""
ROUNDS = 12
"""Rounds of the estimate's iteration; it starts from the estimate before and needs few."""
REFIT_SHARE = 0.1
"""Share of new polls, or of ended jobs, after which the estimate is refitted: a hundred polls say less than one end."""


def bin_of(age_s: float) -> int:
    """The bin that holds `age_s`: its upper edge is the first edge at or above."""
    return min(bisect_left(EDGES_S, age_s), BINS - 1)


class GenerationTimes:
    """What is known of one model's generation time."""

    def __init__(self, typical_s: float) -> None:
        """`typical_s` is the guess before anything is known."""
        prior = _prior(typical_s)
        self._prior_weights = [PRIOR_WEIGHT * weight for weight in prior]
        self._ended: Counter[tuple[int, int]] = Counter()
        self._at_work: Counter[int] = Counter()
        self._polls = 0
        self._fitted_at = (0, 0)
        self._weights = prior
        self._done_by = list(accumulate(self._weights))
        self.ended = 0

    def at_work(self, age_s: float, before_s: float | None) -> None:
        """A poll found a job of this age still at work; `before_s` was its age at the poll before."""
        if before_s is not None:
            self._forget_at_work(before_s)
        self._at_work[bin_of(age_s)] += 1
        self._polls += 1

    def remove(self, before_s: float | None) -> None:
        """A job is no longer polled; its end is unknown."""
        if before_s is not None:
            self._forget_at_work(before_s)

    def finished(self, age_s: float, before_s: float | None) -> None:
        """A job ended at `age_s` or before, and after `before_s` where an earlier poll found it at work."""
        self.remove(before_s)
        # No poll sees the end itself: it is between the last poll that found the job at work and the one that did not.
        low = -1 if before_s is None else bin_of(before_s)
        high = max(bin_of(age_s), low + 1)
        self._ended[min(low, BINS - 2), min(high, BINS - 1)] += 1
        self.ended += 1
        self._polls += 1
        if self.ended % REMEMBERED == 0:
            # Halved, not dropped: the shape stays as it is, and from now on a new job weighs as much as two old ones.
            self._ended = Counter({span: count / 2 for span, count in self._ended.items()})

    def done_share(self, age_s: float) -> float:
        """The share of jobs that are finished at this age, 0..1."""
        self._refit()
        place = bin_of(age_s)
        below = self._done_by[place - 1] if place else 0.0
        low_s = EDGES_S[place - 1] if place else 0.0
        # Within a bin the ends are taken to be spread evenly.
        part = (age_s - low_s) / (EDGES_S[place] - low_s) if age_s < EDGES_S[place] else 1.0
        return below + part * self._weights[place]

    def quantile(self, q: float, older_than_s: float = 0.0) -> float:
        """The age by which a share `q` is finished of the jobs still at work at `older_than_s`."""
        self._refit()
        before = self.done_share(older_than_s) if older_than_s > 0 else 0.0
        # P(T <= t | T > a) = q, solved for P(T <= t), with a the age at which the job was still at work.
        target = before + q * (1 - before)
        place = min(bisect_left(self._done_by, target), BINS - 1)
        below = self._done_by[place - 1] if place else 0.0
        low_s = EDGES_S[place - 1] if place else 0.0
        part = (target - below) / self._weights[place] if self._weights[place] > 0 else 1.0
        return max(low_s + min(max(part, 0.0), 1.0) * (EDGES_S[place] - low_s), older_than_s)

    def _forget_at_work(self, age_s: float) -> None:
        place = bin_of(age_s)
        self._at_work[place] -= 1
        if self._at_work[place] <= 0:
            del self._at_work[place]

    def _refit(self) -> None:
        polls, ends = self._fitted_at
        if self._polls <= polls * (1 + REFIT_SHARE) and self.ended <= ends * (1 + REFIT_SHARE):
            return
        self._fitted_at = (self._polls, self.ended)
        # Jobs still at work count as well, from their age to infinity: without them the estimate would know only the
        # quick ones while a batch is young, and every poll would come too early.
        spans = [(low, high, float(count)) for (low, high), count in self._ended.items()]
        spans += [(low, BINS - 1, float(count)) for low, count in self._at_work.items() if low < BINS - 1]
        for _ in range(ROUNDS):
            self._weights = self._round(spans)
            self._done_by = list(accumulate(self._weights))

    def _round(self, spans: list[tuple[int, int, float]]) -> list[float]:
        """One step of expectation and maximisation: each job's weight spreads over its span as estimated."""
        steps = [0.0] * (BINS + 1)
        for low, high, count in spans:
            mass = self._done_by[high] - (self._done_by[low] if low >= 0 else 0.0)
            share = count / max(mass, 1e-12)
            # A difference array: the sum below turns the marks at both ends of a span into the factor of each bin in
            # it, so that a span costs two additions, however long it is.
            steps[low + 1] += share
            steps[high + 1] -= share
        # The prior keeps a little weight in every bin: a job that takes longer than all before it is unlikely, not
        # impossible, and its quantiles stay finite.
        factors = accumulate(steps[:BINS])
        raised = [
            prior + factor * weight if factor > 0.0 else prior
            for prior, factor, weight in zip(self._prior_weights, factors, self._weights, strict=True)
        ]
        total = sum(raised)
        return [weight / total for weight in raised]


def _prior(typical_s: float) -> list[float]:
    centre = log(max(typical_s, MIN_AGE_S))
    # Log-normal around the guess; the last term leaves every bin possible.
    weights = [exp(-(((log(edge) - centre) / PRIOR_SPREAD) ** 2) / 2) + 1e-6 for edge in EDGES_S]
    total = sum(weights)
    return [weight / total for weight in weights]
