"""Derived seeds never change: not today, not with another count, not in ten years."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.manifest import seeds

GOLDEN = Path(__file__).parents[2] / "fixtures" / "golden" / "seeds.json"


def test_the_seeds_of_known_keys_are_those_of_the_golden_file() -> None:
    golden: dict[str, list[int]] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert len(golden) == 5
    assert {key: list(seeds.derived(key, len(known))) for key, known in golden.items()} == golden


@given(key=st.text(max_size=20), count=st.integers(0, 60), more=st.integers(0, 60))
def test_asking_for_more_keeps_the_first_ones_and_all_are_distinct_and_in_range(
    key: str, count: int, more: int
) -> None:
    many = seeds.derived(key, count + more)
    assert many[:count] == seeds.derived(key, count)
    assert len(set(many)) == count + more
    assert all(1 <= seed <= 1_000_000 for seed in many)


def test_other_keys_have_other_seeds() -> None:
    assert seeds.derived("mill-v1", 8) != seeds.derived("mill-v2", 8)


def test_seeds_spread_over_the_whole_range() -> None:
    found = seeds.derived("spread", 10_000)
    tenths = [sum(1 for seed in found if (seed - 1) // 100_000 == tenth) for tenth in range(10)]
    assert min(tenths) > 800
    assert max(tenths) < 1_200


def test_there_are_no_more_than_a_million() -> None:
    with pytest.raises(ValueError, match="1,000,000 different"):
        seeds.derived("key", 1_000_001)


def test_drawn_seeds_are_distinct_even_when_the_dice_repeat_themselves() -> None:
    rolls = iter([4, 4, 4, 5, 5, 6])
    assert seeds.drawn(3, lambda _: next(rolls)) == (5, 6, 7)


def test_drawn_seeds_come_from_the_whole_range() -> None:
    found = seeds.drawn(1_000, random.Random(1).randrange)
    assert len(set(found)) == 1_000
    assert min(found) >= 1
    assert max(found) <= 1_000_000
