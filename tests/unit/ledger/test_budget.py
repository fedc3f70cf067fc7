"""No order of events takes the ledger above a cap, and the cap that refuses is named."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger.budget import NO_CAPS, CapReached, Caps, Spent, cap_reached, lowest

amounts = st.integers(min_value=1, max_value=600_000)
some_cap = st.none() | st.integers(min_value=0, max_value=5_000_000)
caps = st.builds(Caps, run_microusd=some_cap, day_microusd=some_cap, month_microusd=some_cap)


def test_a_cap_may_be_reached_and_not_passed() -> None:
    day = Caps(day_microusd=270_000)
    assert cap_reached(135_000, day, Spent(day_microusd=135_000)) is None
    refusal = cap_reached(135_000, day, Spent(day_microusd=135_001))
    assert refusal == CapReached(span="day", cap_microusd=270_000, spent_microusd=135_001, price_microusd=135_000)
    assert str(refusal) == "the day budget of $0.270 has $0.135 taken; one more at $0.135 would pass it"


def test_without_a_cap_everything_may_be_bought() -> None:
    assert cap_reached(10**12, NO_CAPS, Spent(run_microusd=10**12)) is None
    assert not NO_CAPS.any
    assert Caps(month_microusd=0).any


def test_a_cap_of_nothing_refuses_everything() -> None:
    assert cap_reached(1, Caps(run_microusd=0), Spent()) is not None


@given(caps, st.lists(amounts, max_size=40))
def test_buying_until_refused_never_passes_any_cap(limit: Caps, prices: list[int]) -> None:
    taken = 0
    for price in prices:
        spent = Spent(run_microusd=taken, day_microusd=taken, month_microusd=taken)
        if cap_reached(price, limit, spent) is None:
            taken += price
    named = [cap for cap in (limit.run_microusd, limit.day_microusd, limit.month_microusd) if cap is not None]
    assert all(taken <= cap for cap in named)


@given(st.lists(caps, max_size=5))
def test_the_lowest_of_several_caps_holds(several: list[Caps]) -> None:
    chosen = lowest(several)
    for name in ("run_microusd", "day_microusd", "month_microusd"):
        given = [value for value in (getattr(one, name) for one in several) if value is not None]
        assert getattr(chosen, name) == (min(given) if given else None)
