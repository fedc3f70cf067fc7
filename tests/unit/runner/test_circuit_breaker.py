"""The breaker: how little may be lost while a gateway loses submits, and how buying starts again."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from pipeline.runner.circuit_breaker import (
    FIRST_DOWN_S,
    FIRST_PAUSE_S,
    IN_A_ROW,
    MAX_DOWN_S,
    MAX_PAUSE_S,
    MAX_PAUSE_WITH_POLLS_S,
    PROBE_LEASE_S,
    WINDOW,
    BreakerState,
    CircuitBreaker,
    Outcome,
)

CLOSED, OPEN, POLL_PROBE, ROW_PROBE = BreakerState


def tripped(now: float = 0.0) -> CircuitBreaker:
    breaker = CircuitBreaker()
    for _ in range(IN_A_ROW):
        breaker.record("unknown", now)
    return breaker


def probing(now: float = FIRST_PAUSE_S) -> CircuitBreaker:
    """Open, pause over, poll answered: one row may go."""
    breaker = tripped()
    breaker.poll_answered(now)
    assert breaker.state(now) is ROW_PROBE
    return breaker


def test_a_new_breaker_lets_everybody_submit() -> None:
    breaker = CircuitBreaker()
    assert breaker.state(0.0) is CLOSED
    assert all(breaker.may_submit(0.0, who) for who in "abc")
    assert breaker.wait_s(0.0) == 0.0


def test_two_unknowns_do_not_open_it_and_the_third_does() -> None:
    breaker = CircuitBreaker()
    breaker.record("unknown", 0.0)
    breaker.record("unknown", 0.0)
    assert breaker.state(0.0) is CLOSED
    breaker.record("unknown", 0.0)
    assert breaker.state(0.0) is OPEN
    assert not breaker.may_submit(0.0, "a")


def test_an_answer_between_unknowns_starts_the_row_again() -> None:
    breaker = CircuitBreaker()
    outcomes: tuple[Outcome, ...] = ("unknown", "unknown", "answered", "unknown", "unknown")
    for outcome in outcomes:
        breaker.record(outcome, 0.0)
    assert breaker.state(0.0) is CLOSED


@pytest.mark.parametrize(("answers_between", "state"), [(3, OPEN), (4, CLOSED)])
def test_five_unknowns_among_the_last_twenty_open_it(answers_between: int, state: BreakerState) -> None:
    """Five with 3 answers between span 17 outcomes; with 4 between they span 21."""
    breaker = CircuitBreaker()
    for _ in range(5):
        breaker.record("unknown", 0.0)
        if breaker.state(0.0) is CLOSED:
            for _ in range(answers_between):
                breaker.record("answered", 0.0)
    assert breaker.state(0.0) is state


def test_time_alone_never_lets_a_row_go() -> None:
    breaker = tripped()
    assert breaker.state(FIRST_PAUSE_S - 0.001) is OPEN
    assert breaker.state(FIRST_PAUSE_S) is POLL_PROBE
    assert not breaker.may_submit(10**9, "a")


def test_a_poll_that_is_answered_during_the_pause_proves_nothing() -> None:
    breaker = tripped()
    breaker.poll_answered(FIRST_PAUSE_S - 1)
    assert breaker.state(FIRST_PAUSE_S) is POLL_PROBE


def test_after_the_pause_an_answered_poll_lets_one_row_go_and_no_second() -> None:
    breaker = probing()
    assert breaker.may_submit(FIRST_PAUSE_S, "a")
    assert not breaker.may_submit(FIRST_PAUSE_S, "b")
    assert breaker.may_submit(FIRST_PAUSE_S, "a"), "the same row may ask again"


def test_without_names_the_probe_goes_to_one_caller_too() -> None:
    breaker = probing()
    assert breaker.may_submit(FIRST_PAUSE_S)
    assert not breaker.may_submit(FIRST_PAUSE_S)
    breaker.record("unknown", FIRST_PAUSE_S)
    assert breaker.state(FIRST_PAUSE_S) is OPEN


def test_a_word_that_is_no_outcome_is_refused() -> None:
    with pytest.raises(ValueError, match="lost"):
        CircuitBreaker().record("lost", 0.0)  # type: ignore[arg-type]


def test_without_any_job_to_poll_the_pause_must_do() -> None:
    breaker = tripped()
    breaker.nothing_to_poll(FIRST_PAUSE_S - 1)
    assert breaker.state(FIRST_PAUSE_S) is POLL_PROBE
    breaker.nothing_to_poll(FIRST_PAUSE_S)
    assert breaker.may_submit(FIRST_PAUSE_S, "a")


def test_an_answered_probe_closes_it_and_forgets_the_unknowns() -> None:
    breaker = probing()
    assert breaker.may_submit(FIRST_PAUSE_S, "a")
    breaker.record("answered", FIRST_PAUSE_S + 1)
    assert breaker.state(FIRST_PAUSE_S + 1) is CLOSED
    breaker.record("unknown", FIRST_PAUSE_S + 1)
    breaker.record("unknown", FIRST_PAUSE_S + 1)
    assert breaker.state(FIRST_PAUSE_S + 1) is CLOSED


def test_an_unknown_probe_opens_it_again_for_twice_as_long_up_to_five_minutes() -> None:
    breaker, now, pauses = tripped(), 0.0, []
    for _ in range(6):
        pauses.append(breaker.wait_s(now))
        now += pauses[-1]
        breaker.poll_answered(now)
        assert breaker.may_submit(now, "a")
        breaker.record("unknown", now, "a")
    assert pauses == [30.0, 60.0, 120.0, 240.0, MAX_PAUSE_S, MAX_PAUSE_S]
    assert breaker.probes_lost == 6


def test_the_pause_is_short_again_only_after_a_window_without_unknowns() -> None:
    for good, pause_s in ((WINDOW - 1, 2 * FIRST_PAUSE_S), (WINDOW, FIRST_PAUSE_S)):
        breaker = probing()
        assert breaker.may_submit(FIRST_PAUSE_S)
        breaker.record("answered", FIRST_PAUSE_S)
        for _ in range(good):
            breaker.record("answered", FIRST_PAUSE_S)
        for _ in range(IN_A_ROW):
            breaker.record("unknown", FIRST_PAUSE_S)
        assert breaker.wait_s(FIRST_PAUSE_S) == pause_s


@pytest.mark.parametrize("straggler", ["answered", "unknown"])
def test_while_a_probe_is_in_flight_only_its_own_outcome_counts(straggler: Outcome) -> None:
    breaker = probing()
    assert breaker.may_submit(FIRST_PAUSE_S, "a")
    breaker.record(straggler, FIRST_PAUSE_S, "b")
    assert breaker.state(FIRST_PAUSE_S) is ROW_PROBE
    assert not breaker.may_submit(FIRST_PAUSE_S, "c")
    breaker.record("answered", FIRST_PAUSE_S, "a")
    assert breaker.state(FIRST_PAUSE_S) is CLOSED


def test_stragglers_neither_close_it_nor_lengthen_the_pause() -> None:
    breaker = tripped()
    breaker.record("unknown", 20.0)
    breaker.record("answered", 21.0)
    assert breaker.state(21.0) is OPEN
    assert breaker.wait_s(21.0) == FIRST_PAUSE_S - 21.0
    breaker.record("answered", FIRST_PAUSE_S + 1)
    assert breaker.state(FIRST_PAUSE_S + 1) is POLL_PROBE


def test_a_withdrawn_probe_goes_to_the_next_and_only_its_owner_can_withdraw_it() -> None:
    breaker = probing()
    assert breaker.may_submit(FIRST_PAUSE_S, "a")
    breaker.withdraw("b")
    assert not breaker.may_submit(FIRST_PAUSE_S, "b")
    breaker.withdraw("a")
    assert breaker.may_submit(FIRST_PAUSE_S, "b")


def test_a_probe_that_never_reports_is_replaced_after_its_lease() -> None:
    breaker = probing()
    assert breaker.may_submit(FIRST_PAUSE_S, "a")
    assert not breaker.may_submit(FIRST_PAUSE_S + PROBE_LEASE_S - 1, "b")
    assert breaker.may_submit(FIRST_PAUSE_S + PROBE_LEASE_S, "b")


def test_a_gateway_that_cannot_be_reached_is_tried_by_one_row_at_growing_intervals() -> None:
    breaker, now, pauses = CircuitBreaker(), 0.0, []
    for _ in range(8):
        breaker.record("unreachable", now, "a")
        pauses.append(breaker.wait_s(now))
        now += pauses[-1]
        assert breaker.state(now) is ROW_PROBE
        assert breaker.may_submit(now, "a")
        assert not breaker.may_submit(now, "b")
    assert pauses == [FIRST_DOWN_S, 2.0, 4.0, 8.0, 16.0, 32.0, MAX_DOWN_S, MAX_DOWN_S]
    breaker.record("answered", now)
    assert breaker.state(now) is CLOSED
    breaker.record("unreachable", now)
    assert breaker.wait_s(now) == FIRST_DOWN_S


def test_many_submits_that_fail_to_connect_at_once_are_one_step_of_the_back_off() -> None:
    breaker = CircuitBreaker()
    for _ in range(16):
        breaker.record("unreachable", 0.0)
    assert breaker.wait_s(0.0) == FIRST_DOWN_S


def test_submits_that_were_never_sent_open_nothing() -> None:
    breaker = CircuitBreaker()
    breaker.record("unknown", 0.0)
    for now in range(0, 1000, 100):
        breaker.record("unreachable", float(now))
    breaker.record("unknown", 1000.0)
    assert breaker.state(1000.0) is CLOSED


def test_a_probe_that_cannot_connect_needs_an_answered_poll_again() -> None:
    breaker = probing()
    assert breaker.may_submit(FIRST_PAUSE_S, "a")
    breaker.record("unreachable", FIRST_PAUSE_S)
    assert breaker.state(FIRST_PAUSE_S) is OPEN
    assert breaker.state(FIRST_PAUSE_S + FIRST_DOWN_S) is POLL_PROBE
    assert breaker.probes_lost == 0


def test_waiting_for_an_event_is_a_short_look_and_never_zero() -> None:
    breaker = tripped()
    assert breaker.wait_s(FIRST_PAUSE_S) > 0.0
    breaker.poll_answered(FIRST_PAUSE_S)
    assert breaker.wait_s(FIRST_PAUSE_S) == 0.0
    assert breaker.may_submit(FIRST_PAUSE_S, "a")
    assert breaker.wait_s(FIRST_PAUSE_S) > 0.0


ENDS = ["unknown", "unknown", "answered", "unreachable", "withdrawn"]


class Exposure(RuleBasedStateMachine):
    """Workers, a gateway that does anything, and a count of what is perhaps paid since it last answered a submit."""

    breaker_type: type[CircuitBreaker] = CircuitBreaker
    workers = 6

    def __init__(self) -> None:
        super().__init__()
        self.breaker = self.breaker_type(probe_lease_s=1e12)
        self.now = 0.0
        self.asked = 0
        self.in_flight: list[str] = []
        self.probes: set[str] = set()
        self.unknown = 0
        self.allowed: int | None = None
        self.opened_at = 0.0
        self.polled_at = -1.0

    @precondition(lambda self: len(self.in_flight) < self.workers)
    @rule()
    def submit(self) -> None:
        self.asked += 1
        who = f"row-{self.asked}"
        closed = self.breaker.state(self.now) is CLOSED
        if not self.breaker.may_submit(self.now, who):
            return
        self.in_flight.append(who)
        if self.allowed is not None and not closed:
            assert not self.probes & {*self.in_flight}, "two probes at once"
            assert self.polled_at >= self.opened_at + FIRST_PAUSE_S, "a probe before the pause and an answered poll"
            self.probes.add(who)
            self.allowed += 1

    @precondition(lambda self: self.in_flight)
    @rule(
        outcome=st.sampled_from(["unknown", "unknown", "answered", "unreachable", "withdrawn"]), which=st.integers(0, 9)
    )
    def end(self, outcome: str, which: int) -> None:
        who = self.in_flight.pop(which % len(self.in_flight))
        if outcome == "withdrawn":
            self.breaker.withdraw(who)
            return
        self.breaker.record(outcome, self.now, who)  # type: ignore[arg-type]
        if outcome == "unknown":
            self.unknown += 1
            if self.unknown == IN_A_ROW and self.allowed is None:
                self.allowed, self.opened_at = IN_A_ROW + len(self.in_flight), self.now
            elif who in self.probes:
                self.opened_at = self.now
        elif outcome == "answered":
            self.unknown = 0
            if who in self.probes:
                self.allowed = None
                self.probes.clear()

    @rule(seconds=st.sampled_from([0.5, 5.0, 31.0, 61.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def all_are_lost(self) -> None:
        while self.in_flight:
            self.end("unknown", 0)

    @rule()
    def everybody_submits(self) -> None:
        for _ in range(self.workers - len(self.in_flight)):
            self.submit()

    @rule()
    def poll_is_answered(self) -> None:
        self.polled_at = self.now
        self.breaker.poll_answered(self.now)

    @invariant()
    def what_is_perhaps_paid_stays_within_the_promise(self) -> None:
        if self.allowed is None:
            assert self.unknown < IN_A_ROW
        else:
            assert self.unknown <= self.allowed


class NeverOpens(CircuitBreaker):
    """Broken twin: counts, but lets everybody go on."""

    def may_submit(self, now: float, who: str | None = None) -> bool:
        return True


class ManyProbes(CircuitBreaker):
    """Broken twin: after the pause any request may probe."""

    def may_submit(self, now: float, who: str | None = None) -> bool:
        return self.state(now) in (CLOSED, ROW_PROBE)


class NeedsNoPoll(CircuitBreaker):
    """Broken twin: the pause alone lets a row go."""

    def state(self, now: float) -> BreakerState:
        state = super().state(now)
        return ROW_PROBE if state is POLL_PROBE else state


STEADY = settings(
    max_examples=60,
    stateful_step_count=30,
    derandomize=True,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    phases=[Phase.generate],
)


def test_whatever_happens_no_more_is_at_risk_than_promised() -> None:
    run_state_machine_as_test(Exposure, settings=STEADY)


@pytest.mark.parametrize("twin", [NeverOpens, ManyProbes, NeedsNoPoll])
def test_a_broken_breaker_is_caught(twin: type[CircuitBreaker]) -> None:
    class Broken(Exposure):
        breaker_type = twin

    with pytest.raises(AssertionError):
        run_state_machine_as_test(Broken, settings=STEADY)


def test_a_gateway_that_is_down_for_an_hour_costs_three_and_what_was_in_flight() -> None:
    """16 workers, every submit of unknown outcome, no poll answered."""
    breaker, unknown = CircuitBreaker(), 0
    for now in range(3600):
        sent = [who for who in range(16) if breaker.may_submit(float(now), str(who))]
        for who in sent:
            breaker.record("unknown", float(now), str(who))
        unknown += len(sent)
    assert unknown == 16


def test_a_breaker_begins_from_the_outcomes_of_the_run_before() -> None:
    breaker = CircuitBreaker()
    breaker.restore([("answered", -100.0), ("unknown", -3.0), ("unknown", -2.0), ("unknown", -1.0)])
    assert breaker.state(0.0) is BreakerState.OPEN
    assert breaker.paused_until == FIRST_PAUSE_S - 1.0
    assert breaker.state(40.0) is BreakerState.POLL_PROBE
    breaker.poll_answered(40.0)
    assert breaker.may_submit(40.0, "a")
    assert not breaker.may_submit(40.0, "b"), "one row at risk"


def test_a_pause_is_shorter_while_polls_are_answered() -> None:
    breaker, now = CircuitBreaker(), 0.0
    for _ in range(IN_A_ROW):
        breaker.record("unknown", now)
    for _ in range(6):
        now = (breaker.paused_until or 0.0) + 1.0
        breaker.poll_answered(now)
        assert breaker.may_submit(now, "probe")
        breaker.record("unknown", now, "probe")
    assert (breaker.paused_until or 0.0) - now == MAX_PAUSE_S
    breaker.poll_answered(now + 1.0)
    assert (breaker.paused_until or 0.0) - now == MAX_PAUSE_WITH_POLLS_S
