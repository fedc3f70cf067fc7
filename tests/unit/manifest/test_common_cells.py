"""Rows of a sheet that differ in id, prompt and seed alone are worked out once: the result is that of each alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import ManifestError, Problem
from pipeline.manifest.document import PartColumn
from pipeline.manifest.sheet_row import RowBuilder
from pipeline.planning.request_keys import RequestKeys
from pipeline.records import Cell, request_key
from tests.support.factories import make_params
from tests.support.manifests import opened, written

HEADER = "id,prompt,seed,image,end_image,motion,strength,take,tags,skip,keep,var:mood"
PLAIN = "https://cdn.example.com/mill.jpg,,General,0.7,,hero,,,"
LINES = (
    f"a1,Old mill,1,{PLAIN}calm",
    f"a2,Old mill at dawn,2,{PLAIN}calm",
    f"a3,{{{{ mood }}}} mill,3,{PLAIN}calm",
    f"a4,{{{{ mood }}}} mill,4,{PLAIN}wild",
    f"a5,Old [wooden] mill < 5 %,5,{PLAIN}calm",
    f"a6,Mühle im Nebel,6,{PLAIN}calm",
    f",Old mill,7,{PLAIN}calm",
    "b1,Old mill,8,https://cdn.example.com/mill.jpg,,General,0.7,2,,,,",
    "b2,New mill,9,https://cdn.example.com/mill.jpg,,General,0.7,2,,,,",
    "b3,Old mill,14,https://cdn.example.com/mill.jpg,,,0.7,,hero,,,",
    "b4,New mill,15,https://cdn.example.com/mill.jpg,,,0.7,,hero,,,",
    "c1,Old mill,10,https://cdn.example.com/mill.jpg,,General,0.7,,,true,,",
    "c2,New mill,11,https://cdn.example.com/mill.jpg,,General,0.7,,,true,,",
    "d1,Old mill,12,https://cdn.example.com/mill.jpg,,General,0.7,,,,1,",
    "d2,New mill,13,https://cdn.example.com/mill.jpg,,General,0.7,,,,1,",
)
MISTAKES = (
    (f"a8,{{{{ moood }}}} mill,1,{PLAIN}calm", "moood"),
    (f"a8,[mood] mill,1,{PLAIN}calm", "write {{ mood }}"),
    (f"a8,Old mill,1000001,{PLAIN}calm", "outside"),
    (f"a8,,1,{PLAIN}calm", "needs prompt"),
    (f"a8,#REF!,1,{PLAIN}calm", "spreadsheet's error"),
    (f"a1,Old mill,1,{PLAIN}calm", "is taken, see line 2"),
    ("a8,Old mill,1,https://cdn.example.com/mill.jpg,,General,7,,hero,,,calm", "outside"),
)


@pytest.fixture
def unremembered(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Every row is worked out from its own cells."""
    monkeypatch.setattr(RowBuilder, "_remember", lambda self, cells, own: None)
    return monkeypatch


def _outcome(path: Path) -> tuple[list[Cell], list[PartColumn], list[Problem]]:
    manifest = opened(path, max_rows=100)
    cells: list[Cell] = []
    problems: list[Problem] = []
    try:
        cells += manifest.cells()
    except ManifestError as error:
        problems += error.problems
    return cells, manifest.partly_filled, problems


def test_rows_with_the_same_other_cells_are_what_they_are_alone(
    tmp_path: Path, unremembered: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, "\n".join((HEADER, *LINES)), "batch.csv")
    alone = _outcome(path)
    unremembered.undo()
    assert len(alone[0]) == len(LINES)
    assert alone[1]
    assert _outcome(path) == alone


@pytest.mark.parametrize(("line", "why"), MISTAKES)
def test_a_mistake_behind_such_rows_is_reported(
    tmp_path: Path, unremembered: pytest.MonkeyPatch, line: str, why: str
) -> None:
    path = written(tmp_path, "\n".join((HEADER, *LINES[:2], line, LINES[5])), "batch.csv")
    alone = _outcome(path)
    unremembered.undo()
    found = _outcome(path)
    assert found == alone
    assert why in str(found[2][0])


def test_another_prompt_and_seed_make_the_same_params_as_a_new_object() -> None:
    params = make_params(check_nsfw=True, input_images_end=("https://example.com/b.jpg",))
    made = params.varied(prompt="New mill", seed=1_000_000)
    assert made == replace(params, prompt="New mill", seed=1_000_000)
    assert hash(made) == hash(replace(params, prompt="New mill", seed=1_000_000))
    for wrong in ({"prompt": " ", "seed": 1}, {"prompt": "mill", "seed": 0}, {"prompt": "mill", "seed": 1_000_001}):
        with pytest.raises(ValueError, match=r"empty|outside"):
            params.varied(prompt=str(wrong["prompt"]), seed=int(str(wrong["seed"])))


def test_the_keys_of_many_requests_are_those_of_each() -> None:
    keys = RequestKeys("sandbox")
    pictures = {"https://example.com/a.jpg": "sha256:12"}
    many = [
        make_params(prompt=prompt, seed=seed, check_nsfw=nsfw, input_images=(image,), strength_hundredths=strength)
        for prompt in ("a", "a\ud800", "5:x")
        for seed in (1, 10)
        for nsfw in (None, True, False)
        for image in ("https://example.com/a.jpg", "https://example.com/b.jpg")
        for strength in (0, 1)
    ]
    for take in (1, 2):
        for params in many:
            expected = request_key(params, take=take, gateway="sandbox", image_keys=pictures)
            assert keys.key(params, take=take, image_keys=pictures) == expected
