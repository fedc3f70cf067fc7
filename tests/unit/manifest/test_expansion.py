"""Sweeps: what axes multiply to, what patterns take out and change, and that nothing explodes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ManifestError
from pipeline.manifest import TooManyRowsError, ranges, seeds
from pipeline.records import Cell
from tests.support.manifests import ONE, cells, message_of, opened, written

SHARED = "defaults: {image: https://cdn.example.com/mill.jpg, prompt: Old mill}\n"


def ids(found: list[Cell]) -> list[str]:
    return [cell.row_id for cell in found]


def found_seeds(found: list[Cell]) -> list[int]:
    return [cell.params.seed for cell in found if cell.params]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("7", [7]),
        ("7, 77", [7, 77]),
        ("1000-1005", [1000, 1001, 1002, 1003, 1004, 1005]),
        ("1-10 (+3)", [1, 4, 7, 10]),
        ("1-9 (+3)", [1, 4, 7]),
        ("1-10 [4]", [1, 4, 7, 10]),
        ("5-5 [1]", [5]),
        ("1, 2, ..., 6", [1, 2, 3, 4, 5, 6]),
        ("10, 20, ..., 50", [10, 20, 30, 40, 50]),
        ("1-3, 7, 20-22", [1, 2, 3, 7, 20, 21, 22]),
        ("9, 1-3", [9, 1, 2, 3]),
    ],
)
def test_a_seed_expression_gives_its_values_in_order(text: str, values: list[int]) -> None:
    assert list(ranges.values_of(ranges.SEED, text)) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1-10 [5]", "5 values do not divide it evenly: 1, 3.25, 5.5, 7.75, 10 are not each a whole number"),
        ("1-2 [4]", "1, 1.3333..., 1.6666..., 2 are not each a whole number"),
        ("10-1", "10 to 1 runs backwards"),
        ("1-10 (+0)", "step 0 is not a whole number above 0"),
        ("1-10 (+0.5)", "step 0.5 is not a whole number above 0"),
        ("1-10 [1]", "1 values cannot run from 1 to 10"),
        ("0-10", "0 is outside 1..1000000"),
        ("1-1000001", "1000001 is outside 1..1000000"),
        ("1.5", "1.5 is not a whole number"),
        ("1, 1", "1 is given twice"),
        ("1-5, 3", "3 is given twice"),
        (",".join(["1-1000000"] * 50), "some stand twice"),
        ("1, 2, ..., 10, 10", "10 is given twice"),
        ("1, ..., 10", "dots stand between values"),
        ("..., 10", "dots stand between values"),
        ("1, 2, ...", "dots stand between values"),
        ("range(1,10)", "range() leaves out its end"),
        ("1–10", "write a range with a hyphen"),
        ("1..10", "write a range with a hyphen"),
        ("1,,2", "a value is missing beside a comma"),
        ("7-Oct", "rewritten by a spreadsheet?"),
        ("1E+05", "rewritten by a spreadsheet?"),
        ("5, x3", "xN is written alone"),
        ("seven", "is not a number or a range"),
        ("-5", "is not a number or a range"),
        ("１-３", "is not a number or a range"),
    ],
)
def test_an_expression_that_is_none_says_why(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what is tested
        ranges.values_of(ranges.SEED, text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("axis", "labels"),
    [
        ("[0.3, 0.55, 1]", ["0.3", "0.55", "1"]),
        ("{from: 0.3, to: 0.9, count: 3}", ["0.3", "0.6", "0.9"]),
        ("{from: 0.1, to: 0.45, step: 0.1}", ["0.1", "0.2", "0.3", "0.4"]),
        ('"0.2-0.8 [4]"', ["0.2", "0.4", "0.6", "0.8"]),
        ('"0.7, .75"', ["0.7", "0.75"]),
        ("0.5", ["0.5"]),
    ],
)
def test_strength_is_counted_in_hundredths_and_never_rounded(tmp_path: Path, axis: str, labels: list[str]) -> None:
    found = cells(tmp_path, f"{SHARED}matrix: {{strength: {axis}, seed: [1]}}\n")
    assert [cell.axes[0] for cell in found] == [("strength", label) for label in labels]
    assert [cell.params and cell.params.strength_hundredths for cell in found] == [
        round(float(label) * 100) for label in labels
    ]


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("{from: 0.3, to: 0.9}", "a range of strength needs a step or a count"),
        ("{from: 0.3, to: 0.9, step: 0.3, count: 3}", "say the same thing twice"),
        ("{from: 0, to: 1, count: 4}", "0, 0.3333..., 0.6666..., 1 are not each a number with at most 2 decimals"),
        ("{from: 0.3, to: 0.9, step: 0.005}", "step 0.005 is not a number with at most 2 decimals above 0"),
        ("{from: 0.3}", "to: is missing"),
        ("[0.3, 0.30]", "0.3 is given twice"),
        ("[[0.3, 0.4]]", "a list is an axis"),
        ("{count: 3, key: a}", "unknown key"),
        ("[]", "is empty"),
    ],
)
def test_a_strength_axis_that_cannot_be_says_why(tmp_path: Path, axis: str, message: str) -> None:
    assert message in message_of(tmp_path, f"{SHARED}matrix: {{strength: {axis}, seed: [1]}}\n")


@given(
    first=st.integers(1, 1000),
    gap=st.integers(1, 50),
    count=st.integers(2, 40),
)
def test_three_ways_to_write_a_range_agree(first: int, gap: int, count: int) -> None:
    last = first + gap * (count - 1)
    values = list(range(first, last + 1, gap))
    assert list(ranges.values_of(ranges.SEED, f"{first}-{last} (+{gap})")) == values
    assert list(ranges.values_of(ranges.SEED, f"{first}-{last} [{count}]")) == values
    assert list(ranges.values_of(ranges.SEED, ", ".join(map(str, values)))) == values


def test_the_first_axis_varies_slowest_and_zip_before_it(tmp_path: Path) -> None:
    text = """\
zip: {image: [https://x.test/lake.jpg, https://x.test/mill.jpg], prompt: [Lake, Mill]}
matrix: {strength: [0.2, 0.1], seed: [2, 1]}
"""
    found = cells(tmp_path, text)
    assert ids(found) == [
        f"batch@{zipped}-{strength}-{seed}"
        for zipped in ("lake", "mill")
        for strength in ("0.2", "0.1")
        for seed in (2, 1)
    ]
    assert [cell.params and cell.params.prompt for cell in found] == ["Lake"] * 4 + ["Mill"] * 4
    assert found[0].axes == (("zip", "lake"), ("strength", "0.2"), ("seed", "2"))


def test_zipped_lists_of_unequal_length_are_reported_with_their_lengths(tmp_path: Path) -> None:
    text = "zip: {image: [sandbox:cat, sandbox:rocket], prompt: [A, B, C]}\nmatrix: {seed: [1]}\n"
    assert "zip: needs lists of equal length, and has image 2, prompt 3" in message_of(tmp_path, text)


def test_a_row_may_have_its_own_zip_and_seeds(tmp_path: Path) -> None:
    text = (
        "rows:\n  - {id: a, seeds: 1-2, zip: {label: [x, y], image: [sandbox:cat, sandbox:rocket], prompt: [A, B]}}\n"
    )
    found = cells(tmp_path, text)
    assert ids(found) == ["a@x-1", "a@x-2", "a@y-1", "a@y-2"]
    assert found[2].axes == (("zip", "y"), ("seed", "1"))


def test_a_field_in_a_row_and_in_a_shared_axis_is_a_mistake_unless_the_row_replaces_the_axis(tmp_path: Path) -> None:
    rows = f"rows:\n  - {{id: a, {ONE}, strength: 0.5%s}}\nmatrix: {{strength: [0.1, 0.2], seed: [1, 2]}}\n"
    assert "strength is set in the row and by the axis 'strength'" in message_of(tmp_path, rows % "")
    assert "strength is set in the row and by" in message_of(tmp_path, rows % ", matrix: {seed: [1]}")
    own = f"rows:\n  - {{id: a, {ONE}, matrix: {{strength: [0.5]}}}}\nmatrix: {{strength: [0.1, 0.2], seed: [1, 2]}}\n"
    assert ids(cells(tmp_path, own)) == ["a@0.5-1", "a@0.5-2"]
    (tmp_path / "rows.csv").write_text("id,image,prompt,seed\na,sandbox:cat,p,5\nb,sandbox:cat,p,\n")
    sheet = message_of(tmp_path, "rows: {file: rows.csv}\nmatrix: {seed: [1, 2]}\n")
    assert sheet == (
        "rows.csv:2: column 'seed': seed is set in the row and by the axis 'seed': "
        "empty the cell, or take the axis out of matrix"
    )
    own = f"rows:\n  - {{id: a, {ONE}, seeds: 5-6}}\nmatrix: {{seed: [1, 2]}}\n"
    assert "seed is set by seeds and by the axis 'seed'" in message_of(tmp_path, own)


def test_an_axis_beats_the_defaults_and_a_rows_new_axis_varies_fastest(tmp_path: Path) -> None:
    text = f"{SHARED}rows:\n  - {{id: a, matrix: {{motion: [General, Dolly In]}}}}\nmatrix: {{seed: [1, 2]}}\n"
    assert ids(cells(tmp_path, text)) == ["a@1-general", "a@1-dolly-in", "a@2-general", "a@2-dolly-in"]


def test_two_axes_that_set_one_field_are_a_mistake(tmp_path: Path) -> None:
    text = f"{SHARED}matrix:\n  look: [{{label: a, strength: 0.1}}]\n  strength: [0.2]\n  seed: [1]\n"
    assert "matrix.strength: the axis 'look' sets strength too" in message_of(tmp_path, text)


def test_a_linked_value_brings_variables_and_tags_and_needs_a_label(tmp_path: Path) -> None:
    text = """\
defaults: {image: sandbox:cat, prompt: "Cat, {{ light }}", tags: [all]}
rows: [{id: a}]
matrix:
  light:
    - {label: Soft Light, vars: {light: soft}, tags: [s, all]}
    - {label: hard, vars: {light: hard}}
  seed: [1]
"""
    found = cells(tmp_path, text)
    assert ids(found) == ["a@soft-light-1", "a@hard-1"]
    assert [cell.params and cell.params.prompt for cell in found] == ["Cat, soft", "Cat, hard"]
    assert [cell.tags for cell in found] == [("all", "s"), ("all",)]
    assert "needs a label" in message_of(tmp_path, text.replace("label: hard, ", "strength: 0.1, "))
    assert "two values are called 'Soft Light'" in message_of(
        tmp_path, text.replace("label: hard", "label: Soft Light")
    )


def test_an_axis_of_an_unknown_name_with_plain_values_is_reported(tmp_path: Path) -> None:
    text = f"{SHARED}matrix: {{strenght: [0.1], seed: [1]}}\n"
    lines = message_of(tmp_path, text)
    assert "matrix.strenght[0]: 'strenght' is not a field" in lines
    assert "Did you mean 'strength'?" in lines


def test_excluded_cells_go_first_then_overrides_look_at_what_is_left(tmp_path: Path) -> None:
    text = f"""\
{SHARED}matrix:
  model: [dop-lite, dop-turbo]
  seed: [1, 2]
  exclude: [{{model: dop-turbo, seed: 2}}]
  override:
    - {{where: {{model: dop-turbo}}, set: {{strength: 0.25, tags: [dear]}}}}
    - {{where: {{seed: 2}}, set: {{skip: true}}}}
  include: [{{id: extra, seed: 9, prompt: Extra}}, {{id: more, seeds: "5-6"}}]
"""
    found = cells(tmp_path, text)
    assert ids(found) == [
        "batch@dop-lite-1",
        "batch@dop-lite-2",
        "batch@dop-turbo-1",
        "extra",
        "more@5",
        "more@6",
    ]
    assert [cell.params and cell.params.strength_hundredths for cell in found] == [70, None, 25, 70, 70, 70]
    assert found[2].tags == ("dear",)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{model: dop-preview}", "matches no cell"),
        ("{modle: dop-lite}", "is not a field or an axis. Did you mean 'model'?"),
        ("{model: dop-lit}", "'dop-lit' is not a model"),
        ("{seed: [1, 2]}", "is not a single value"),
        ("{}", "is empty"),
        ("{id: none}", "matches no cell"),
        ("{look: soft}", "matches no cell"),
    ],
)
def test_a_pattern_that_takes_nothing_out_is_a_mistake(tmp_path: Path, pattern: str, message: str) -> None:
    text = f"{SHARED}matrix:\n  look: [{{label: hard, strength: 0.9}}]\n  seed: [1]\n  exclude: [{pattern}]\n"
    assert message in message_of(tmp_path, text)
    change = text.replace(f"exclude: [{pattern}]", f"override: [{{where: {pattern}, set: {{strength: 0.1}}}}]")
    assert message in message_of(tmp_path, change)


def test_patterns_match_labels_row_ids_and_fields_that_are_no_axis(tmp_path: Path) -> None:
    text = f"""\
rows: [{{id: a, {ONE}}}, {{id: b, {ONE}}}, {{id: c, {ONE}, seed: 3, matrix: {{}}}}]
matrix:
  look: [{{label: soft, strength: 0.1}}, {{label: hard, strength: 0.9}}]
  exclude: [{{id: a, look: soft}}, {{id: b, strength: 0.90}}, {{id: c, motion: general}}]
defaults: {{seed: 1}}
"""
    assert ids(cells(tmp_path, text)) == ["a@hard", "b@soft"]


def test_a_skipped_row_or_value_stays_as_an_empty_cell(tmp_path: Path) -> None:
    text = f"""\
rows: [{{id: a, {ONE}}}, {{id: b, skip: true}}]
matrix:
  look: [{{label: soft, strength: 0.1, skip: true}}, {{label: hard, strength: 0.9}}]
  seed: [1]
"""
    found = cells(tmp_path, text)
    assert [(cell.row_id, cell.params is None) for cell in found] == [
        ("a@soft-1", True),
        ("a@hard-1", False),
        ("b@soft-1", True),
        ("b@hard-1", True),
    ]
    assert found[2].axes == (("look", "soft"), ("seed", "1"))


def test_repeat_buys_the_first_takes_and_take_exactly_one(tmp_path: Path) -> None:
    text = f"rows: [{{id: a, {ONE}, seed: 1, repeat: 3}}, {{id: b, {ONE}, seed: 1, take: 2}}]\n"
    found = cells(tmp_path, text)
    assert [(cell.row_id, cell.take) for cell in found] == [("a", 1), ("a@take2", 2), ("a@take3", 3), ("b", 2)]
    swept = cells(tmp_path, f"rows: [{{id: a, {ONE}, seeds: 5-6, repeat: 2}}]\n")
    assert ids(swept) == ["a@5", "a@5-take2", "a@6", "a@6-take2"]
    assert swept[1].axes == (("seed", "5"), ("take", "2"))
    defaulted = f"defaults: {{repeat: 2}}\nrows: [{{id: a, {ONE}, seed: 1}}, {{id: b, {ONE}, seed: 1, take: 5}}]\n"
    assert [(cell.row_id, cell.take) for cell in cells(tmp_path, defaulted)] == [("a", 1), ("a@take2", 2), ("b", 5)]


def test_a_template_takes_the_rows_value_before_the_files_and_leaves_other_braces(tmp_path: Path) -> None:
    text = """\
vars: {light: soft, n: 0.50}
rows: [{id: a, image: sandbox:cat, seed: 1, vars: {light: "{{ n }}"},
        prompt: "{{row.id}} {{ light }} {{n}} {x} ${y} {% z %} }}"}]
"""
    found = cells(tmp_path, text)
    assert found[0].params
    assert found[0].params.prompt == "a {{ n }} 0.50 {x} ${y} {% z %} }}"


def test_every_unknown_name_of_a_prompt_is_reported(tmp_path: Path) -> None:
    text = 'vars: {light: soft}\nrows: [{image: sandbox:cat, seed: 1, prompt: "{{ ligth }} {{ a b }}"}]\n'
    assert "{{ ligth }}, {{ a b }} is not in vars. Did you mean 'light'?" in message_of(tmp_path, text)


def test_own_motion_names_are_used_before_the_catalogues(tmp_path: Path) -> None:
    text = f"""\
motions: {{push: d21ff628-0000-4000-8000-000000000000, Dolly In: ea035f68-b350-40f1-b7f4-7dff999fdd67}}
rows: [{{{ONE}, seed: 1, motion: PUSH}}, {{{ONE}, seed: 2, motion: dolly_in}}]
"""
    manifest = opened(written(tmp_path, text))
    found = list(manifest.cells())
    assert [cell.motion for cell in found] == ["push", "Dolly In"]
    assert found[1].params
    assert found[1].params.motions_id == "ea035f68-b350-40f1-b7f4-7dff999fdd67"
    assert len(manifest.warnings) == 1


def test_derived_seeds_hang_on_the_rows_id_or_on_a_shared_key(tmp_path: Path) -> None:
    rows = f"rows: [{{id: a, {ONE}}}, {{id: b, {ONE}}}]\n"
    own = cells(tmp_path, f"{rows}matrix: {{seed: {{count: 3}}}}\n")
    assert found_seeds(own) == [*seeds.derived("a", 3), *seeds.derived("b", 3)]
    shared = cells(tmp_path, f"{rows}matrix: {{seed: {{count: 3, key: k}}}}\n")
    assert found_seeds(shared) == [*seeds.derived("k", 3)] * 2


def test_random_seeds_are_drawn_once_for_a_plan_and_come_back_frozen(tmp_path: Path) -> None:
    path = written(tmp_path, f"rows: [{{id: a, {ONE}}}, {{id: b, {ONE}}}]\nmatrix: {{seed: {{random: 2}}}}\n")
    asked: list[str] = []

    def draw(place: str, count: int) -> tuple[int, ...]:
        asked.append(place)
        return tuple(range(len(asked) * 10, len(asked) * 10 + count))

    manifest = opened(path, draw=draw)
    assert manifest.uses_random_seeds
    assert found_seeds(list(manifest.cells())) == [10, 11, 20, 21]
    assert found_seeds(list(manifest.cells())) == [10, 11, 20, 21]
    assert asked == ["a", "b"]
    assert manifest.drawn == {"a": (10, 11), "b": (20, 21)}
    frozen = opened(path, frozen_seeds=manifest.drawn)
    assert list(frozen.cells()) == list(manifest.cells())
    with pytest.raises(ManifestError, match="the saved plan has no 2 seeds for 'b'"):
        list(opened(path, frozen_seeds={"a": (10, 11)}).cells())
    with pytest.raises(ManifestError, match="through a saved plan"):
        list(opened(path).cells())


def test_a_sweep_of_billions_is_refused_before_it_is_expanded(tmp_path: Path) -> None:
    text = f"""\
{SHARED}matrix:
  model: [dop-lite, dop-turbo]
  strength: {{from: 0, to: 1, step: 0.01}}
  seed: {{from: 1, to: 1000000}}
  take: "1-10"
"""
    before = time.process_time()
    with pytest.raises(TooManyRowsError) as caught:
        opened(written(tmp_path, text))
    assert time.process_time() - before < 1
    error = caught.value
    assert error.total == 2_020_000_000
    assert error.axes == (("model", 2), ("strength", 101), ("seed", 1_000_000), ("take", 10))
    assert error.by_model == {"dop-lite": 1_010_000_000, "dop-turbo": 1_010_000_000}
    assert "model 2 x strength 101 x seed 1,000,000 x take 10 = 2,020,000,000 videos" in str(error)


def test_the_size_guard_counts_rows_axes_and_repeats_and_max_rows_lifts_it(tmp_path: Path) -> None:
    rows = ", ".join(f"{{id: r{number}, {ONE}}}" for number in range(10))
    text = f"rows: [{rows}]\ndefaults: {{repeat: 3}}\nmatrix: {{seed: 1-10}}\n"
    lines = message_of(tmp_path, text)
    assert "rows 10 x seed 10 x take 3 = 300 videos, more than max_rows 256. Raise max_rows if you mean it" in lines
    assert len(cells(tmp_path, f"max_rows: 300\n{text}")) == 300
    assert len(cells(tmp_path, text, max_rows=300)) == 300


def test_rows_written_out_are_not_counted(tmp_path: Path) -> None:
    rows = ", ".join(f"{{{ONE}, seed: {number + 1}}}" for number in range(300))
    assert len(cells(tmp_path, f"rows: [{rows}]\n")) == 300


def test_ids_that_would_meet_are_reported(tmp_path: Path) -> None:
    text = f"rows: [{{id: a, {ONE}, seeds: 1-2}}, {{id: a@2, {ONE}, seed: 3}}]\n"
    assert "the id 'a@2' is taken" in message_of(tmp_path, text)
    axes = "matrix: {x: [{label: a-b, strength: 0.1}, {label: a, strength: 0.2}], "
    axes += "y: [{label: c, seed: 1}, {label: b-c, seed: 2}]}\n"
    assert "two cells would be called 'batch@a-b-c'" in message_of(tmp_path, SHARED + axes)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (
            "{seeds: 1-10}",
            "'seeds' is not a field, so this axis needs a list of mappings with labels. Did you mean 'seed'?",
        ),
        ("{seeds: [{label: a, seed: 1}]}", "an axis cannot be called 'seeds'. Write 'seed'."),
        ("{motions_id: [{label: a, seed: 1}]}", "an axis cannot be called 'motions_id'. Write 'motion'."),
        ("{tags: [{label: a, seed: 1}]}", "an axis cannot be called 'tags'."),
    ],
)
def test_an_axis_with_a_name_that_means_something_else_is_reported(tmp_path: Path, axes: str, message: str) -> None:
    assert message in message_of(tmp_path, f"{SHARED}matrix: {axes}\n")


@pytest.mark.parametrize("name", ["exclude", "override", "include"])
def test_patterns_in_a_rows_own_matrix_are_reported_and_not_passed_over(tmp_path: Path, name: str) -> None:
    item = "{where: {seed: 1}, set: {skip: true}}" if name == "override" else "{seed: 1}"
    text = f"rows: [{{id: a, {ONE}, matrix: {{seed: [1, 2], {name}: [{item}]}}}}]\n"
    assert f"rows[0].matrix.{name}" in message_of(tmp_path, text)


def test_loop_is_the_tag_loop_and_changes_no_request(tmp_path: Path) -> None:
    text = f"rows: [{{id: a, {ONE}, seed: 1, tags: [b]}}, {{id: c, {ONE}, seed: 1, take: 2, tags: [b], loop: true}}]\n"
    plain, looped = cells(tmp_path, text)
    assert (plain.tags, looped.tags) == (("b",), ("b", "loop"))
    assert looped.params == plain.params
    assert cells(tmp_path, text.replace("loop: true", "loop: false"))[1].tags == ("b",)
