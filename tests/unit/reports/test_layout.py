"""Which axes the sheet offers and how it lays them out by default."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from pipeline.reports.sheet.layout import SheetLayout, arrange, axes_of, places_of, tabs_needed
from pipeline.reports.sheet.run_view import Line, SkippedLine, latest_lines
from tests.support.factories import make_attempt


def sweep(**axes: tuple[str, ...]) -> list[Line]:
    """A row `mill` multiplied by axes; `seed` and `model` are paid fields, others only labels."""
    lines: list[Line] = []
    for values in product(*axes.values()):
        named = tuple(zip(axes, values, strict=True))
        typed = {"model": str, "seed": int}
        paid: dict[str, Any] = {name: typed[name](value) for name, value in named if name in typed}
        lines.append(make_attempt(row_id="mill@" + "-".join(values), axes=named, **paid))
    return lines


def arranged(lines: list[Line], **asked: Any) -> SheetLayout:
    places = places_of(lines)
    wanted = [name for name in (asked.get("x"), asked.get("y"), *asked.get("tabs", ())) if name]
    return arrange(axes_of(lines, places, wanted), places, **asked)


def names(lines: list[Line]) -> list[str]:
    return [axis.name for axis in axes_of(lines, places_of(lines))]


def test_a_sweep_offers_its_own_axes_in_the_order_of_the_manifest() -> None:
    lines = sweep(model=("dop-lite", "dop-turbo"), look=("calm", "bold"), seed=("3", "1"))
    axes = axes_of(lines, places_of(lines))
    assert [axis.name for axis in axes] == ["model", "look", "seed"]
    assert axes[2].values == ("3", "1")


def test_the_asked_arrangement_is_kept() -> None:
    lines = sweep(model=("dop-lite", "dop-turbo"), look=("calm", "bold"), seed=("1", "2"))
    assert arranged(lines, x="seed", y="look", tabs=("model",)) == SheetLayout(x="seed", y="look", tabs=("model",))
    assert arranged(lines, x="model", y="seed") == SheetLayout(x="model", y="seed", tabs=())


def test_unasked_seeds_are_columns_and_what_is_left_is_stacked_or_becomes_tabs() -> None:
    lines = sweep(model=("dop-lite", "dop-turbo"), look=("calm", "bold"), seed=("1", "2", "3"))
    assert arranged(lines) == SheetLayout(x="seed", y="model", tabs=())
    lines = sweep(model=("dop-lite", "dop-turbo"), look=tuple("abcde"), seed=("1", "2", "3"))
    assert arranged(lines) == SheetLayout(x="seed", y="model", tabs=("look",))


def test_rows_with_the_same_seeds_become_a_table() -> None:
    lines: list[Line] = [
        make_attempt(row_id=f"{row}@{seed}", axes=(("seed", str(seed)),), seed=seed, prompt=row)
        for row in ("lake", "mill", "pier")
        for seed in (1, 2)
    ]
    assert arranged(lines) == SheetLayout(x="seed", y="row", tabs=())


def test_rows_with_seeds_of_their_own_flow_instead_of_leaving_holes() -> None:
    lines: list[Line] = [make_attempt(row_id=f"row-{seed}", seed=seed) for seed in range(1, 20)]
    assert arranged(lines) == SheetLayout(x=None, y=None, tabs=())


def test_a_few_values_of_one_axis_lie_beside_each_other_and_many_flow() -> None:
    assert arranged(sweep(seed=("1", "2", "3"))) == SheetLayout(x="seed", y=None, tabs=())
    assert arranged(sweep(seed=tuple(map(str, range(1, 30))))) == SheetLayout(x=None, y=None, tabs=())


def test_a_single_clip_has_no_axes() -> None:
    lines: list[Line] = [make_attempt()]
    assert names(lines) == []
    assert arranged(lines) == SheetLayout(x=None, y=None, tabs=())
    assert arranged([]) == SheetLayout(x=None, y=None, tabs=())


def test_an_axis_that_only_repeats_another_is_not_offered() -> None:
    lines: list[Line] = [make_attempt(row_id=name, prompt=name, seed=5) for name in ("lake", "mill")]
    assert names(lines) == ["row"]


def test_a_row_of_its_own_joins_the_axes_by_its_paid_fields() -> None:
    lines = sweep(model=("dop-lite", "dop-turbo"), seed=("1", "2"))
    lines.append(make_attempt(row_id="reference", model="dop-preview", seed=42))
    places = places_of(lines)
    assert (places[-1]["model"], places[-1]["seed"]) == ("dop-preview", "42")
    assert axes_of(lines, places)[0].values == ("dop-lite", "dop-turbo", "dop-preview")


def test_a_placeholder_keeps_its_place_and_makes_no_axis_of_its_own() -> None:
    lines = sweep(seed=("1", "2"))
    lines.append(SkippedLine(row_id="mill@3", axes=(("seed", "3"),)))
    assert names(lines) == ["seed"]
    assert places_of(lines)[-1]["seed"] == "3"


def test_unknown_names_in_the_arrangement_are_left_out() -> None:
    lines = sweep(look=("calm", "bold"), seed=("1", "2"))
    plan = arranged(lines, x="nothing", y="seed")
    assert plan == SheetLayout(x="look", y="seed", tabs=())


@pytest.mark.parametrize(("x", "y", "tabs"), [("seed", None, ["look"]), ("seed", "look", []), (None, "seed", [])])
def test_tabs_are_needed_only_where_many_clips_would_share_a_crossing(
    x: str | None, y: str | None, tabs: list[str]
) -> None:
    lines = sweep(look=tuple("abcde"), seed=("1", "2"))
    places = places_of(lines)
    assert tabs_needed(axes_of(lines, places), places, x=x, y=y) == tabs


def test_the_latest_attempt_is_the_cell_and_the_others_its_history() -> None:
    first, other, third, second = (
        make_attempt(seed=1, attempt=1),
        make_attempt(seed=2),
        make_attempt(seed=1, attempt=3),
        make_attempt(seed=1, attempt=2),
    )
    skipped = SkippedLine(row_id="x")
    assert latest_lines((first, other, third, skipped, second)) == [
        (third, (first, second)),
        (other, ()),
        (skipped, ()),
    ]


def test_rows_that_share_hardly_a_seed_flow_each_in_its_row() -> None:
    lines: list[Line] = [
        make_attempt(row_id=f"{name}@{seed}", seed=seed, axes=(("row", name), ("seed", str(seed))))
        for name, seeds in (("cup", (11, 12, 13)), ("rocket", (7, 77)), ("cat", (3, 4)))
        for seed in seeds
    ]
    assert arranged(lines) == SheetLayout(x=None, y="row", tabs=())
