"""The gate's rules, call by call: configured rates, hints for all calls, caps on jobs, and whose turn it is."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pipeline.errors import UsageError
from pipeline.gateway.ratelimit.limiter import (
    AdaptiveRateLimiter,
    CallInFlight,
    CallKind,
    LearnedLimits,
    LimitFeedback,
    Rate,
    Slot,
    parse_rate,
)


def go(pace: AdaptiveRateLimiter, now: float, kind: CallKind = CallKind.SUBMIT) -> CallInFlight:
    """Asks, must get a slot, and uses it."""
    assert isinstance(pace.next_slot(now, kind), Slot)
    return pace.mark_sent(now, kind)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("10/1m", Rate(10, 60)), ("5/s", Rate(5, 1)), ("600/1h", Rate(600, 3600)), ("3/2m", Rate(3, 120)), ("auto", None)],
)
def test_a_rate_is_read_as_people_write_it(text: str, rate: Rate | None) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["10", "0/1m", "10/1d", "-3/s", "ten/m", ""])
def test_what_is_no_rate_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError, match="10/1m"):
        parse_rate(text)


def test_a_configured_rate_is_spaced_evenly_where_no_burst_is_allowed() -> None:
    pace = AdaptiveRateLimiter(rate=Rate(10, 60), burst=1)
    go(pace, 0.0)
    assert pace.next_slot(0.0) == pytest.approx(6.0)
    assert pace.next_slot(5.9) == pytest.approx(0.1)
    go(pace, 6.0)


def test_a_burst_is_allowed_where_configured() -> None:
    pace = AdaptiveRateLimiter(rate=Rate(10, 60), burst=3)
    for _ in range(3):
        go(pace, 0.0)
    assert pace.next_slot(0.0) == pytest.approx(6.0)


def test_slots_that_wait_for_a_slow_disk_leave_no_room_for_more_than_the_configured_number() -> None:
    pace = AdaptiveRateLimiter(rate=Rate(5, 1))
    for _ in range(5):
        assert isinstance(pace.next_slot(0.0), Slot)
    assert not isinstance(pace.next_slot(0.5), Slot), "all five may still leave within a second of this one"
    for _ in range(5):
        pace.mark_sent(0.6, CallKind.SUBMIT)
    assert not isinstance(pace.next_slot(1.5), Slot)
    assert isinstance(pace.next_slot(1.9), Slot)


def test_a_slot_given_back_is_free_again() -> None:
    pace = AdaptiveRateLimiter(rate=Rate(10, 60))
    assert isinstance(pace.next_slot(0.0), Slot)
    pace.release(0.0)
    go(pace, 0.0)


def test_a_configured_rate_still_slows_down_when_refused() -> None:
    pace = AdaptiveRateLimiter(rate=Rate(100, 1))
    ticket = go(pace, 0.0)
    pace.answered(ticket, 0.01, LimitFeedback.THROTTLED, 5.0)
    assert pace.next_slot(0.02) == pytest.approx(4.99)


def test_a_hint_holds_everybody_to_the_second_and_no_longer() -> None:
    pace = AdaptiveRateLimiter(rate=None)
    pace.answered(go(pace, 0.0), 1.0, LimitFeedback.THROTTLED, 60.0)
    assert not isinstance(pace.next_slot(60.9), Slot)
    go(pace, 61.0)


def test_a_hint_to_another_call_holds_too_and_a_slot_in_hand_is_not_used() -> None:
    pace = AdaptiveRateLimiter(rate=Rate(10, 1), burst=2)
    other = go(pace, 0.0)
    assert isinstance(pace.next_slot(0.0), Slot)
    pace.answered(other, 0.1, LimitFeedback.THROTTLED, 7.0)
    assert pace.slot_is_void(0.1)
    pace.release(0.1)
    assert not isinstance(pace.next_slot(7.0), Slot)
    go(pace, 7.2)


def test_a_hint_beyond_a_minute_allows_one_probe_a_minute() -> None:
    pace = AdaptiveRateLimiter(rate=None)
    pace.answered(go(pace, 0.0), 0.0, LimitFeedback.THROTTLED, 600.0)
    assert pace.next_slot(59.9) == pytest.approx(0.1)
    probe = go(pace, 60.0)
    assert not pace.slot_is_void(60.0)
    assert not isinstance(pace.next_slot(60.0), Slot)
    pace.answered(probe, 60.5, LimitFeedback.THROTTLED, 540.0)
    assert not isinstance(pace.next_slot(100.0), Slot)
    go(pace, 120.0)


def test_the_longest_hint_ends_after_a_quarter_of_an_hour() -> None:
    pace = AdaptiveRateLimiter(rate=None)
    pace.answered(go(pace, 0.0), 0.0, LimitFeedback.THROTTLED, 86_400.0)
    for minute in range(1, 15):
        pace.answered(go(pace, 60.0 * minute), 60.0 * minute, LimitFeedback.UNKNOWN)
        break
    assert isinstance(pace.next_slot(900.0), Slot)


def test_a_probe_that_is_let_in_ends_a_long_hold_for_all() -> None:
    pace = AdaptiveRateLimiter(rate=None)
    pace.answered(go(pace, 0.0), 0.0, LimitFeedback.THROTTLED, 3600.0)
    pace.answered(go(pace, 60.0), 60.1, LimitFeedback.ACCEPTED)
    go(pace, 60.2)


def test_a_refuted_long_hint_is_not_believed_the_next_time() -> None:
    pace = AdaptiveRateLimiter(rate=None)
    pace.answered(go(pace, 0.0), 0.0, LimitFeedback.THROTTLED, 3600.0)
    pace.answered(go(pace, 60.0), 60.1, LimitFeedback.ACCEPTED)
    pace.answered(go(pace, 60.2), 60.3, LimitFeedback.THROTTLED, 3600.0)
    assert isinstance(pace.next_slot(62.4), Slot)


def test_too_many_jobs_in_flight_is_a_cap_that_is_learned_and_tested_again() -> None:
    pace = AdaptiveRateLimiter(rate=Rate(1000, 1))
    now = 0.0
    for _ in range(4):
        now += 1.0
        pace.answered(go(pace, now), now, LimitFeedback.ACCEPTED)
    pace.answered(go(pace, now + 1), now + 1, LimitFeedback.CONCURRENCY)
    assert pace.in_flight_cap() == 4
    assert not isinstance(pace.next_slot(now + 100), Slot)
    pace.job_ended(now + 100)
    pace.answered(go(pace, now + 100), now + 100, LimitFeedback.ACCEPTED)
    assert not isinstance(pace.next_slot(now + 101), Slot)
    for _ in range(16):
        pace.job_ended(now + 200)
        pace.answered(go(pace, now + 200), now + 200, LimitFeedback.ACCEPTED)
        now += 1.0
    assert pace.in_flight_cap() == 5


def test_the_number_of_jobs_that_the_gateway_states_is_the_cap_and_is_not_tested() -> None:
    pace = AdaptiveRateLimiter(rate=Rate(1000, 1))
    pace.answered(go(pace, 1.0), 1.0, LimitFeedback.ACCEPTED)
    pace.answered(go(pace, 2.0), 2.0, LimitFeedback.CONCURRENCY, job_cap=3)
    assert pace.in_flight_cap() == 3
    assert not isinstance(pace.next_slot(3.0), Slot), "others use the rest now: submits pause"
    now = 100.0
    for _ in range(2):
        now += 1.0
        pace.answered(go(pace, now), now, LimitFeedback.ACCEPTED)
    assert not isinstance(pace.next_slot(now + 100), Slot)
    for _ in range(50):
        pace.job_ended(now + 200)
        pace.answered(go(pace, now + 200), now + 200, LimitFeedback.ACCEPTED)
        now += 1.0
    assert pace.in_flight_cap() == 3


def test_a_hint_of_milliseconds_is_obeyed_as_it_is() -> None:
    pace = AdaptiveRateLimiter(rate=None)
    pace.answered(go(pace, 0.0), 0.1, LimitFeedback.THROTTLED, 0.02)
    assert pace.next_slot(0.11) == pytest.approx(0.01)
    go(pace, 0.1201)


def test_a_configured_rate_sends_its_count_at_once_and_never_more_within_its_span() -> None:
    pace = AdaptiveRateLimiter(rate=Rate(10, 60))
    for call in range(10):
        pace.answered(go(pace, 0.1 * call), 0.1 * call + 0.05, LimitFeedback.ACCEPTED)
    wait_s = pace.next_slot(1.0)
    assert isinstance(wait_s, float)
    assert 59.0 <= wait_s <= 59.3
    go(pace, 1.0 + wait_s)


def test_an_hours_rate_sends_a_minutes_worth_at_once() -> None:
    assert Rate(600, 3600).default_burst == 10
    assert Rate(5, 1).default_burst == 5


def test_a_configured_cap_counts_submits_in_flight() -> None:
    pace = AdaptiveRateLimiter(rate=Rate(1000, 1), max_in_flight=2, jobs_in_flight=1)
    go(pace, 0.0)
    assert not isinstance(pace.next_slot(1.0), Slot)
    assert pace.in_flight_cap() == 2


def test_what_was_learned_survives_its_json_and_nonsense_is_ignored() -> None:
    learned = LearnedLimits(submit_per_s=1.5, burst=3.0, in_flight_cap=4, shared=True)
    assert LearnedLimits.from_json(learned.as_json()) == learned
    assert LearnedLimits.from_json({"submit_per_s": "fast", "in_flight_cap": -1, "span_s": True}) == LearnedLimits(
        span_s=1.0
    )
    assert LearnedLimits.from_json({}) == LearnedLimits()


def test_polls_do_not_wait_for_the_submits_limit_where_they_have_their_own() -> None:
    pace = AdaptiveRateLimiter(rate=Rate(1, 60))
    go(pace, 0.0)
    assert not isinstance(pace.next_slot(0.0), Slot)
    go(pace, 0.0, CallKind.POLL)


def test_polls_and_submits_refused_together_share_from_then_on() -> None:
    pace = AdaptiveRateLimiter(rate=None)
    pace.answered(go(pace, 0.0), 0.1, LimitFeedback.THROTTLED)
    assert not pace.is_shared
    pace.answered(go(pace, 0.2, CallKind.POLL), 0.3, LimitFeedback.THROTTLED)
    assert pace.is_shared
    assert pace.learned().shared


def test_of_a_shared_limit_polls_get_their_part_while_both_wait() -> None:
    pace = AdaptiveRateLimiter(rate=Rate(10, 1), shared=True)
    taken = {CallKind.SUBMIT: 0, CallKind.POLL: 0}
    now = 0.0
    while now < 100.0:
        for kind in CallKind:
            if isinstance(pace.next_slot(now, kind), Slot):
                taken[kind] += 1
                pace.answered(pace.mark_sent(now, kind), now, LimitFeedback.ACCEPTED)
        now += 0.005
    assert sum(taken.values()) == pytest.approx(1000, rel=0.02)
    assert taken[CallKind.POLL] == pytest.approx(150, rel=0.1)


def test_of_a_shared_limit_either_kind_alone_gets_all() -> None:
    for kind in CallKind:
        pace = AdaptiveRateLimiter(rate=Rate(10, 1), shared=True)
        taken, now = 0, 0.0
        while now < 10.0:
            if isinstance(pace.next_slot(now, kind), Slot):
                taken += 1
                pace.answered(pace.mark_sent(now, kind), now, LimitFeedback.ACCEPTED)
            now += 0.005
        assert taken >= 95


def test_a_call_that_is_never_answered_blocks_the_others_for_a_short_time() -> None:
    pace = AdaptiveRateLimiter(rate=None)
    assert isinstance(pace.next_slot(0.0), Slot)
    silent = pace.mark_sent(0.0)
    assert not isinstance(pace.next_slot(1.0), Slot), "the first answer shows what the gateway bears"
    assert isinstance(pace.next_slot(6.0), Slot)
    pace.answered(pace.mark_sent(6.0), 6.1, LimitFeedback.ACCEPTED)
    assert isinstance(pace.next_slot(6.2), Slot)
    pace.mark_sent(6.2)
    pace.answered(silent, 300.0, LimitFeedback.UNKNOWN)
    assert isinstance(pace.next_slot(300.1), Slot)


def test_a_gateway_that_answers_nothing_at_all_gets_few_calls() -> None:
    pace = AdaptiveRateLimiter(rate=None)
    now, sent = 0.0, 0
    while now < 300.0:
        if isinstance(pace.next_slot(now), Slot):
            pace.mark_sent(now)
            sent += 1
        now += 0.5
    assert sent <= 5, "each of them may turn out to be paid"


def test_a_slot_in_hand_is_void_once_the_limit_is_met() -> None:
    pace, now = AdaptiveRateLimiter(rate=None), 0.0
    for _ in range(40):
        pace.answered(go(pace, now), now + 0.1, LimitFeedback.ACCEPTED)
        now += 0.1
    first = go(pace, now)
    assert isinstance(pace.next_slot(now), Slot)
    assert not pace.slot_is_void(now)
    pace.answered(first, now + 0.1, LimitFeedback.THROTTLED)
    assert pace.slot_is_void(now + 0.1), "it would be refused as well"
    pace.release(now + 0.1)
    assert not pace.slot_is_void(now + 0.1)


def test_a_slot_is_handed_out_before_it_is_due_by_the_time_that_calls_take_to_get_ready() -> None:
    pace, now = AdaptiveRateLimiter(rate=Rate(10, 1), burst=1), 0.0
    gone_at, early_s = [], []
    for _ in range(40):
        while not isinstance(slot := pace.next_slot(now), Slot):
            now += slot
        assert slot.taken_at == now
        early_s.append(slot.due_at - now)
        now += 0.03
        pace.ready(slot, now)
        now = max(now, slot.due_at)
        gone_at.append(now)
        pace.answered(pace.mark_sent(now), now + 0.01, LimitFeedback.ACCEPTED)
    assert early_s[0] == 0.0
    assert early_s[-1] == pytest.approx(0.03, abs=0.001)
    assert [b - a for a, b in pairwise(gone_at[20:])] == pytest.approx([0.1] * 19, abs=0.003), (
        "and then it leaves on time"
    )
