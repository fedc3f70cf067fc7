"""What must hold for every manifest: identity hangs on content alone, and patterns are plain set algebra."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ManifestError
from pipeline.manifest.prompt_checks import debris
from pipeline.records import Cell, request_key
from tests.support.manifests import CATALOGUE, MODELS, cells, opened, written

FEW = settings(max_examples=20, deadline=None)
MORE = settings(max_examples=60, deadline=None)
URL = "https://cdn.example.com/mill.jpg"
PROMPTS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Zl", "Zp"]), min_size=1, max_size=30).filter(
    lambda text: text.strip() and "{{" not in text and not text.lstrip().startswith("#") and debris(text) is None
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "prompt": PROMPTS,
            "seed": st.integers(1, 1_000_000),
            "strength": st.integers(0, 100).map(lambda hundredths: f"{hundredths // 100}.{hundredths % 100:02d}"),
            "model": st.sampled_from(MODELS),
            "motion": st.sampled_from([preset.name for preset in CATALOGUE.presets]),
        }
    ),
    min_size=1,
    max_size=8,
)
AXES = st.fixed_dictionaries(
    {
        "model": st.lists(st.sampled_from(MODELS), min_size=1, max_size=3, unique=True),
        "strength": st.lists(st.sampled_from([0.1, 0.25, 0.5, 1]), min_size=1, max_size=3, unique=True),
        "seed": st.lists(st.integers(1, 9), min_size=1, max_size=4, unique=True),
    }
)


def written_out(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def keys(found: list[Cell]) -> list[str]:
    return [request_key(cell.params, take=cell.take, gateway="sandbox") for cell in found if cell.params]


def sheet(rows: list[dict[str, object]], columns: list[str]) -> str:
    text = io.StringIO(newline="")
    lines = csv.writer(text)
    lines.writerow(["image", *columns])
    for row in rows:
        lines.writerow([URL, *(row[column] for column in columns)])
    return text.getvalue()


def manifest(matrix: dict[str, object], **more: object) -> str:
    return written_out({"defaults": {"image": URL, "prompt": "Old mill"}, "matrix": matrix, **more})


@FEW
@given(rows=ROWS, data=st.data())
def test_sorting_rows_and_columns_changes_no_identity_and_no_id(
    rows: list[dict[str, object]], data: st.DataObject
) -> None:
    columns = ["prompt", "seed", "strength", "model", "motion"]
    with folder() as home:
        before = cells(home, sheet(rows, columns), "a.csv")
        turned = data.draw(st.permutations(rows))
        after = cells(home, sheet(turned, data.draw(st.permutations(columns))), "b.csv")
    assert sorted(keys(before)) == sorted(keys(after))
    assert sorted(cell.row_id for cell in before) == sorted(cell.row_id for cell in after)


@FEW
@given(rows=ROWS, more=ROWS)
def test_inserting_rows_leaves_the_others_as_they_were(
    rows: list[dict[str, object]], more: list[dict[str, object]]
) -> None:
    columns = ["prompt", "seed", "strength", "model", "motion"]
    with folder() as home:
        before = cells(home, sheet(rows, columns), "a.csv")
        after = cells(home, sheet([*more, *rows], columns), "b.csv")
    assert keys(before) == keys(after)[len(more) :]


@FEW
@given(rows=ROWS)
def test_a_sheet_and_a_yaml_list_of_the_same_rows_ask_for_the_same(rows: list[dict[str, object]]) -> None:
    columns = ["prompt", "seed", "strength", "model", "motion"]
    as_yaml = [{**row, "image": URL, "strength": float(str(row["strength"]))} for row in rows]
    with folder() as home:
        assert keys(cells(home, sheet(rows, columns), "a.csv")) == keys(
            cells(home, written_out({"rows": as_yaml}), "b.yaml")
        )


@FEW
@given(prompt=PROMPTS)
def test_a_prompt_in_a_sheet_arrives_to_the_letter(prompt: str) -> None:
    with folder() as home:
        found = cells(home, sheet([{"prompt": prompt, "seed": 1}], ["prompt", "seed"]), "a.csv")
    assert found[0].params
    assert found[0].params.prompt == prompt


@FEW
@given(axes=AXES, data=st.data())
def test_the_order_of_axes_and_of_their_values_changes_no_identity(
    axes: dict[str, list[object]], data: st.DataObject
) -> None:
    turned = {name: data.draw(st.permutations(axes[name])) for name in data.draw(st.permutations(list(axes)))}
    with folder() as home:
        before, after = cells(home, manifest(dict(axes)), "a.yaml"), cells(home, manifest(dict(turned)), "b.yaml")
    assert len(set(keys(before))) == len(before) == len(axes["model"]) * len(axes["strength"]) * len(axes["seed"])
    assert set(keys(before)) == set(keys(after))


@FEW
@given(axes=AXES, data=st.data())
def test_exclude_takes_out_exactly_what_it_matches_and_skip_by_override_empties_the_same_cells(
    axes: dict[str, list[object]], data: st.DataObject
) -> None:
    patterns = data.draw(
        st.lists(
            st.dictionaries(st.sampled_from(list(axes)), st.none(), min_size=1).map(
                lambda pattern: {name: data.draw(st.sampled_from(axes[name])) for name in pattern}
            ),
            min_size=1,
            max_size=3,
        )
    )
    overrides = [{"where": pattern, "set": {"skip": True}} for pattern in patterns]
    with folder() as home:
        whole = cells(home, manifest(dict(axes)), "a.yaml")
        left = cells(home, manifest({**axes, "exclude": patterns}), "a.yaml")
        emptied = cells(home, manifest({**axes, "override": overrides}), "a.yaml")

    def matches(cell: Cell) -> bool:
        values = dict(cell.axes)
        return any(all(values[name] == f"{value:g}" if name == "strength" else values[name] == str(value)
                       for name, value in pattern.items()) for pattern in patterns)  # fmt: skip

    assert left == [cell for cell in whole if not matches(cell)]
    assert [cell.row_id for cell in emptied if cell.params is None] == [c.row_id for c in whole if matches(c)]
    assert [cell for cell in emptied if cell.params is not None] == left


@FEW
@given(axes=AXES, seeds=st.lists(st.integers(100, 999), min_size=1, max_size=3, unique=True))
def test_included_rows_come_last_and_change_no_other_cell(axes: dict[str, list[object]], seeds: list[int]) -> None:
    extra = [{"id": f"x{seed}", "seed": seed} for seed in seeds]
    with folder() as home:
        whole = cells(home, manifest(dict(axes)), "a.yaml")
        more = cells(home, manifest({**axes, "include": extra}), "a.yaml")
    assert more[: len(whole)] == whole
    assert [cell.row_id for cell in more[len(whole) :]] == [row["id"] for row in extra]


@FEW
@given(axes=AXES, name=st.sampled_from(["model", "strength", "seed"]))
def test_excluding_every_value_of_an_axis_leaves_nothing(axes: dict[str, list[object]], name: str) -> None:
    with folder() as home:
        assert cells(home, manifest({**axes, "exclude": [{name: value} for value in axes[name]]}), "a.yaml") == []


@FEW
@given(first=st.integers(1, 20), more=st.integers(0, 20), others=st.lists(st.sampled_from("bcdef"), unique=True))
def test_more_seeds_and_more_rows_keep_what_was_bought(first: int, more: int, others: list[str]) -> None:
    def asked(count: int, names: list[str]) -> str:
        rows = [{"id": name, "image": URL, "prompt": name} for name in names]
        return written_out({"rows": rows, "matrix": {"seed": {"count": count}}})

    with folder() as home:
        before = keys(cells(home, asked(first, ["a"]), "a.yaml"))
        after = keys(cells(home, asked(first + more, [*others, "a"]), "a.yaml", max_rows=10_000))
    assert len(set(before)) == first
    assert set(before) <= set(after)


@MORE
@given(st.binary(max_size=200), st.sampled_from(["a.csv", "a.yaml"]))
def test_no_file_at_all_brings_anything_but_cells_or_mistakes(raw: bytes, name: str) -> None:
    with folder() as home:
        try:
            found = cells(home, raw, name)
        except ManifestError as error:
            found = []
            outcome = str(error)
        else:
            outcome = "read"
    assert found or outcome.endswith((" mistake", " mistakes"))


LEAVES = st.one_of(
    st.integers(-2, 2_000_000),
    st.booleans(),
    st.sampled_from(["x3", "1-3", "General", "", "a", "{{ b }}", "sandbox:cat"]),
)
WORDS = st.sampled_from(
    [
        "version",
        "name",
        "budget",
        "max_cost",
        "defaults",
        "vars",
        "motions",
        "rows",
        "zip",
        "matrix",
        "sheet",
        "x",
        "id",
        "image",
        "prompt",
        "seed",
        "seeds",
        "motion",
        "model",
        "strength",
        "exclude",
        "include",
        "override",
        "where",
        "set",
        "look",
        "label",
        "skip",
        "count",
        "key",
        "from",
        "to",
        "step",
        "random",
        "file",
        "take",
        "repeat",
        "tags",
    ]
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=4)),
    max_leaves=25,
)


@MORE
@given(st.dictionaries(WORDS, TREES, max_size=5))
def test_no_arrangement_of_known_words_makes_it_stumble(value: dict[str, object]) -> None:
    with folder() as home:
        try:
            found = cells(home, written_out(value), "a.yaml")
        except ManifestError as error:
            assert error.problems  # noqa: PT017 - both ends of the road are allowed, a traceback is not
        else:
            assert isinstance(found, list)


def test_the_same_manifest_in_another_folder_asks_for_the_same(tmp_path: Path) -> None:
    text = manifest({"seed": {"count": 4, "key": "k"}})
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first, second = (opened(written(tmp_path / name, text, "a.yaml")) for name in ("one", "two"))
    assert first.sha256 == second.sha256
    assert list(first.cells()) == list(second.cells())


@pytest.mark.long
def test_a_large_sweep_streams_in_flat_memory(tmp_path: Path) -> None:
    import tracemalloc

    text = 'max_rows: 100000\ndefaults: {image: "https://x.test/a.jpg", prompt: p}\nmatrix: {seed: 1-100000}\n'
    manifest = opened(written(tmp_path, text))
    tracemalloc.start()
    try:
        assert sum(1 for _ in manifest.cells()) == 100_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 25_000_000
