"""The count of a window, and the tests whether it holds one call more. Pure.

A test is one call more than the window allows. Once it is admitted the surplus must hold for a whole window, since it
may have been the next one's; meanwhile more may follow. A failed test makes tests rarer, a fall more frequent.
"""

from __future__ import annotations

TEST_INTERVAL, MAX_TEST_INTERVAL = 150, 600
"""Calls between two tests whether the window holds one more; doubles with each that fails, a cost of 0.2 %."""
HINTED_INTERVAL, HINTED_WINDOWS = 600, 10
"""The same, at least, where a test may cost a hold: calls, and windows."""
UNSETTLED_CALLS, UNSETTLED_INTERVAL, MIN_UNSETTLED = 600, 2, 6
"""For so many calls after a fall or a rise, so many windows, at least so many calls, lie between two tests: what moves
is tested more often."""
TESTS_PER_COST, UNSETTLED_PER_COST = 100, 8
"""Calls between two tests for each call that a failed test costs: 1 %, and more soon after a fall."""
MAX_SURGE = 3.0
"""Share of the window's count that may be sent beyond it in the same window, once a test call was admitted. With 1
a rise from 15 to 60 a second takes two seconds more: sliding 40-15-60 with whole hints 0.89 instead of 0.95."""
PROVEN_WINDOWS = 2
"""Windows after which a model is proven."""


class WindowCount:
    """How many calls a window admits: what is proven, and what is tried beyond it."""

    def __init__(self, count: int) -> None:
        self.believed = self.proven = max(count, 1)
        """calls that are sent in a window; those that are known to be admitted"""
        self.is_sure = True
        """whether no bucket explains what was admitted; else it is tested soon"""
        self.has_grown = False
        """whether more than at first was proven"""
        self.is_testing = self.is_surging = False
        """whether the call in flight is one more than the model allows; whether more may follow an admitted one"""
        self._admitted = self._confirm_at = self._since_test = 0
        self._moved_at = -UNSETTLED_CALLS
        self._interval: float = TEST_INTERVAL

    @property
    def has_surplus(self) -> bool:
        """Whether more is sent than is proven."""
        return self.believed > self.proven

    @property
    def has_risen(self) -> bool:
        """Whether more was tried than two fixed windows of the proven count admit in one span."""
        return self.believed > 2 * self.proven + 1

    @property
    def is_model_proven(self) -> bool:
        """Whether it explained several windows."""
        return self._admitted > PROVEN_WINDOWS * self.believed

    @property
    def is_unsettled(self) -> bool:
        """Whether the limit fell lately, or rose as far as was tried."""
        return self._admitted - self._moved_at < UNSETTLED_CALLS

    def may_test(self, *, hinted: bool) -> bool:
        """Whether it is time for a test; where rejections come with hints tests are dearer."""
        if self.is_surging:
            return True
        interval = self._interval
        if not self.is_sure:
            interval = UNSETTLED_INTERVAL * self.believed
        elif hinted and not self.is_unsettled:
            interval = max(interval, HINTED_INTERVAL, HINTED_WINDOWS * self.believed)
        return self._since_test >= interval and self._admitted >= self._confirm_at

    def is_worth(self, lost_calls: float) -> bool:
        """Whether a test may be made that costs so many calls when it fails."""
        per_cost = UNSETTLED_PER_COST if self.is_unsettled else TESTS_PER_COST
        return self._since_test >= per_cost * lost_calls

    def begin_test(self) -> None:
        """The call that goes now is a test."""
        self.is_testing, self._since_test = True, 0

    def withdraw_test(self) -> None:
        """The call in flight was not sent, or proves nothing."""
        self.is_testing = False

    def doubt_model(self, *, is_sure: bool) -> None:
        """A first fill was admitted again; `is_sure`: no bucket would have admitted as many."""
        self.is_sure = is_sure

    def admitted(self) -> None:
        """A call was admitted; while a test is in flight it is the test."""
        self._admitted += 1
        self._since_test += 1
        if self.is_testing:
            self.is_testing = False
            self.believed += 1
            self.is_surging = self.believed < (1 + MAX_SURGE) * self.proven
            # A whole window from now: until then the surplus may have been the next window's.
            self._confirm_at = self._admitted + self.believed + 1
            # What has risen may rise further.
            self._interval = max(min(self._interval / 4, self.believed / 2), 1)
        elif self.has_surplus and self._admitted >= self._confirm_at:
            if self.believed >= (1 + MAX_SURGE) * self.proven:
                self._moved_at = self._admitted  # it has risen as far as was tried, and may be higher still
            self.proven, self.is_surging, self.has_grown = self.believed, False, True

    def rejected(self) -> bool:
        """A call was rejected; returns whether it was the test."""
        tested, self.is_testing, self.is_surging = self.is_testing, False, False
        # It has cost what a test costs, so the next test waits for its whole interval.
        if not tested:
            self._since_test = 0
        return tested

    def test_failed(self, calls: int) -> None:
        """The test was rejected, `calls` after the window's begin."""
        self.is_sure = True
        if self.has_surplus:
            self.believed = max(min(self.believed, calls), self.proven)
        self._interval = min(2 * self._interval, MAX_TEST_INTERVAL)
        self._test_sooner()

    def surplus_failed(self) -> None:
        """What was admitted beyond the proven count belonged to the next window, so it does not hold."""
        if self.has_risen:  # though not as far
            self._moved_at, self.has_grown = self._admitted, True
        self.believed = self.proven
        self._interval = min(TEST_INTERVAL, 2 * self.believed)
        self._test_sooner()

    def lower_to(self, count: int) -> None:
        """What was believed to be proven was the next window's."""
        self.believed = self.proven = max(count, 1)
        self._interval = TEST_INTERVAL

    def fall_to(self, count: int) -> None:
        """The limit fell: what was admitted is the count now, and it is tested more often."""
        self.believed = self.proven = max(count, 1)
        self._moved_at = self._admitted
        self._interval = max(MIN_UNSETTLED, UNSETTLED_INTERVAL * self.believed)

    def interrupted(self) -> None:
        """A test in flight, and what it seemed to prove, do not count."""
        self.is_testing = self.is_surging = False
        self.believed = self.proven

    def _test_sooner(self) -> None:
        if self.is_unsettled:
            self._interval = min(self._interval, max(MIN_UNSETTLED, 2 * UNSETTLED_INTERVAL * self.believed))
