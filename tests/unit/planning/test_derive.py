"""From picked clips to a new manifest: what stays the same, what changes, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.loader import packaged
from pipeline.errors import ManifestError, UsageError
from pipeline.gateway.motions import load
from pipeline.manifest import read
from pipeline.manifest.prompt_checks import debris
from pipeline.planning.derive import DerivedManifest, derive_manifest, differences, field_of, suffix_of
from pipeline.records import Attempt, Cell
from pipeline.reports.picks import Picks, parse_picks, picked
from tests.support.factories import make_attempt

CATALOGUE = load(packaged("motions.csv"))
MODELS = ("dop-lite", "dop-preview", "dop-turbo")


def make(chosen: Sequence[Attempt], changes: Mapping[str, str], folder: Path) -> DerivedManifest:
    """The derived manifest of a run called lake."""
    return derive_manifest(chosen, changes, run="run-1", name="lake", folder=folder, catalogue=CATALOGUE)


def cells_of(made: DerivedManifest, folder: Path, picture_folders: tuple[Path, ...] = ()) -> list[Cell]:
    """What the manifest's own reader makes of it, under defaults that must not matter."""
    path = folder / "derived.yaml"
    path.write_text(made.text, encoding="utf-8")
    defaults: dict[str, object] = {"strength": Decimal("0.01"), "enhance_prompt": True, "model": "dop-turbo"}
    manifest = read(path, defaults=defaults, models=MODELS, catalogue=CATALOGUE, picture_folders=picture_folders)
    return list(manifest.cells())


def test_only_the_changed_field_differs(tmp_path: Path) -> None:
    chosen = [make_attempt(seed=11, tags=("hero", "v2"), row_id="lamp@calm-11"), make_attempt(seed=12, take=2)]
    changes = {"model": "dop-preview"}
    made = make(chosen, changes, tmp_path)
    cells = cells_of(made, tmp_path)
    assert [cell.params.model for cell in cells if cell.params] == ["dop-preview"] * 2
    assert [cell.row_id for cell in cells] == ["lamp@calm-11+dop-preview", "lake-12+dop-preview"]
    assert [(cell.tags, cell.take) for cell in cells] == [(("hero", "v2"), 1), ((), 2)]
    assert differences(made, chosen, cells, changes) == []


def test_a_field_that_would_change_unasked_is_noticed(tmp_path: Path) -> None:
    chosen = [make_attempt(seed=11)]
    made = make(chosen, {"model": "dop-preview"}, tmp_path)
    cells = cells_of(made, tmp_path)
    assert differences(made, [make_attempt(seed=12, row_id="lake-11")], cells, {"model": "x"}) == [
        "lake-11+dop-preview: seed would not be the same"
    ]
    assert differences(made, chosen, [], {}) == ["0 rows instead of 1, or under other ids"]


def test_without_changes_the_same_requests_come_back_under_their_own_ids(tmp_path: Path) -> None:
    chosen = [make_attempt(seed=seed, motion="General") for seed in (3, 4)]
    cells = cells_of(make(chosen, {}, tmp_path), tmp_path)
    assert [(cell.row_id, cell.params, cell.motion) for cell in cells] == [
        (attempt.row_id, attempt.params, "General") for attempt in chosen
    ]


@given(
    prompt=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60).filter(
        lambda text: text.strip() and debris(text) is None
    ),
    row_id=st.from_regex(r"[A-Za-z0-9@._+-]{1,20}", fullmatch=True),
)
def test_any_prompt_and_id_survive_the_way_through_yaml(
    tmp_path_factory: pytest.TempPathFactory, prompt: str, row_id: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    chosen = [make_attempt(prompt=prompt, row_id=row_id)]
    made = make(chosen, {}, folder)
    assert differences(made, chosen, cells_of(made, folder), {}) == []


@pytest.mark.parametrize("prompt", ["{{ lamp }} on a plinth", "{{{{", "{% if %}", "a {{ prompt }} b"])
def test_a_prompt_with_braces_is_no_template_the_second_time(tmp_path: Path, prompt: str) -> None:
    chosen = [make_attempt(prompt=prompt), make_attempt(prompt=prompt, seed=8)]
    made = make(chosen, {}, tmp_path)
    assert differences(made, chosen, cells_of(made, tmp_path), {}) == []


def test_an_own_motion_name_becomes_the_presets_id(tmp_path: Path) -> None:
    own = make_attempt(motion="push", motions_id="0123abcd-0000-4000-8000-000000000001")
    usurped = make_attempt(motion="Dolly In", motions_id="0123abcd-0000-4000-8000-000000000001", seed=8)
    cells = cells_of(make([own, usurped], {}, tmp_path), tmp_path)
    assert {cell.params.motions_id for cell in cells if cell.params} == {"0123abcd-0000-4000-8000-000000000001"}


def test_a_picture_below_the_manifest_is_named_relative_to_it_and_others_by_their_whole_path(tmp_path: Path) -> None:
    inside, outside = tmp_path / "new" / "photos" / "a.png", tmp_path / "b.png"
    inside.parent.mkdir(parents=True)
    for picture in (inside, outside):
        picture.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\0IEND0000")
    chosen = [
        make_attempt(input_images=(str(picture),), seed=seed) for seed, picture in enumerate((inside, outside), 1)
    ]
    made = make(chosen, {}, tmp_path / "new")
    assert '"photos/a.png"' in made.text
    assert f'"{outside}"' in made.text
    with pytest.raises(ManifestError, match=r"images\.allow"):
        cells_of(made, tmp_path / "new")
    assert differences(made, chosen, cells_of(made, tmp_path / "new", picture_folders=(tmp_path,)), {}) == []


def test_more_rows_than_the_usual_cap_can_be_derived(tmp_path: Path) -> None:
    chosen = [make_attempt(seed=seed) for seed in range(1, 400)]
    assert len(cells_of(make(chosen, {"strength": "0.9"}, tmp_path), tmp_path)) == 399


def test_the_suffix_tells_what_was_changed_and_stays_short() -> None:
    assert suffix_of({}) == ""
    assert suffix_of({"model": "dop-preview", "strength": "0.9"}) == "dop-preview-0.9"
    long = suffix_of({"prompt": "An old mill by the river, the wheel turns slowly", "model": "dop-turbo"})
    assert len(long) <= 40


def test_a_field_that_rows_do_not_have_is_refused_with_the_nearest_name() -> None:
    assert field_of("motions_strength") == "strength"
    with pytest.raises(UsageError, match="Did you mean 'model'"):
        field_of("modle")


def test_picks_are_found_by_request_id_first_and_come_in_the_runs_order_once() -> None:
    run = [make_attempt(seed=1), make_attempt(seed=2), make_attempt(seed=2, row_id="lake-2")]
    text = json.dumps(
        {
            "version": 1,
            "run": "run-1",
            "gateway": "sandbox",
            "picks": [
                {"row_id": "renamed", "request_id": run[1].request_id, "attempt": 1},
                "lake-1",
                {"row_id": "lake-1"},
            ],
        }
    )
    assert [attempt.row_id for attempt in picked(parse_picks(text), run)] == ["lake-1", "lake-2"]


def test_of_several_attempts_the_latest_is_picked() -> None:
    first, second = make_attempt(seed=1), make_attempt(seed=1)
    assert picked(Picks(run=None, names=(("lake-1",),)), [first, second]) == [second]


def test_picks_that_are_not_in_the_run_are_all_named() -> None:
    with pytest.raises(UsageError, match=r"not in the run: one, two$"):
        picked(Picks(run=None, names=(("one",), ("lake-1",), ("two",))), [make_attempt(seed=1)])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"picks": 3}',
        '{"picks": [1]}',
        '{"picks": [{}]}',
        '{"picks": [null]}',
        '{"picks": [{"row_id": 1}]}',
        '{"version": 2, "picks": []}',
        '{"run": 3, "picks": []}',
        "[" * 100_000,
    ],
)
def test_what_is_no_picks_file_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_picks(text)
