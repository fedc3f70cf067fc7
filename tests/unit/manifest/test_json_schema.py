"""The published schema and the reader are made of one model: they agree, and the file is not stale."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pipeline.config import strict_yaml
from pipeline.manifest import json_schema
from tests.support.manifests import ONE, REPO, problems
from tests.unit.manifest.test_examples import SPIN, STUDY

GENERATED = json_schema.generated()
PUBLISHED = REPO / "configs" / "manifest.schema.json"
MODELINE = "# yaml-language-server: $schema=../configs/manifest.schema.json\n"

GOOD = [
    STUDY,
    SPIN,
    f"rows: [{{{ONE}, seed: 1}}]",
    f"rows: [{{{ONE}, seeds: x3, id: a}}]",
    f"rows: [{{{ONE}, seeds: [1, 2]}}]",
    f"rows: [{{{ONE}, seeds: {{from: 1, to: 3}}}}]",
    f"rows: [{{{ONE}, seeds: '7'}}]",
    f"rows: [{{{ONE}, seed: 1, tags: a, take: 2}}, {{{ONE}, seed: 1, tags: [a, b c], repeat: 2}}]",
    "rows: [{prompt: p, seed: 1, input_images: [sandbox:cat], motions_strength: 1, motions_id: General}]",
    f"rows: [{{{ONE}, seed: 1, end_image: [sandbox:cat, sandbox:rocket]}}]",
    f"rows: [{{{ONE}, vars: {{a: 1, b: true, c: x}}, seed: 1, skip: true}}]",
    f"defaults: {{{ONE}}}\nmatrix: {{take: 1-2, enhance_prompt: [true, false], seed: [1, {{label: x, seed: 2}}]}}",
    f"defaults: {{{ONE}}}\nzip: {{seed: [1, 2], label: [a, b]}}",
    f"defaults: {{{ONE}}}\nmatrix: {{seed: [1], override: [{{where: {{seed: 1}}, set: {{check_nsfw: true}}}}]}}",
    f"defaults: {{{ONE}}}\nmatrix: {{strength: '0.1-0.3 (+0.1)', seed: '1, 2, ..., 5'}}\nmax_rows: 20",
    f"rows: [{{{ONE}, seed: 1, motion: push}}]\nmotions: {{push: ea035f68-b350-40f1-b7f4-7dff999fdd67}}",
]

BAD_SHAPES = [
    "version: 2\nrows: [{}]",
    "nam: x\nrows: [{}]",
    "rows: []",
    "rows: nothing",
    "rows: [nothing]",
    "rows: {fiel: a.csv}",
    "rows: {file: a.csv, more: 1}",
    "rows: [{strenght: 0.5}]",
    "rows: [{seed: 0}]",
    "rows: [{seed: 1000001}]",
    "rows: [{seed: '7'}]",
    "rows: [{seed: 1.5}]",
    "rows: [{seed: true}]",
    "rows: [{seed: [1]}]",
    "rows: [{strength: 1.01}]",
    "rows: [{strength: '0.5'}]",
    "rows: [{enhance_prompt: yes}]",
    "rows: [{model: [dop-lite]}]",
    "rows: [{prompt: ''}]",
    "rows: [{prompt: 5}]",
    "rows: [{image: []}]",
    "rows: [{image: [a, b]}]",
    "rows: [{end_image: []}]",
    "rows: [{webhook_url: x}]",
    "rows: [{take: 0}]",
    "rows: [{tags: [5]}]",
    "rows: [{tags: ['a,b']}]",
    "rows: [{id: ' a'}]",
    "rows: [{seed: }]",
    "rows: [{vars: {a: [1]}}]",
    "rows: [{matrix: {exclude: [{seed: 1}]}}]",
    "rows: [{budget: {max_cost: 1}}]",
    "budget: {max_cost: -1}",
    "budget: {max_cost: '7'}",
    "budget: {per_year: 1}",
    "max_rows: 0",
    "motions: {push: Dolly In}",
    "sheet: {z: seed}",
    "zip: {imag: [a]}",
    "zip: {image: []}",
    "matrix: {strenght: [0.1]}",
    "matrix: {look: [{labl: x}]}",
    "matrix: {seeds: 1-10}",
    "matrix: {seeds: [{label: a, seed: 1}]}",
    "matrix: {motions_id: [{label: a, seed: 1}]}",
    "matrix: {look: {from: 1, to: 2}}",
    "matrix: {model: dop-lite}",
    "matrix: {model: []}",
    "matrix: {strength: {from: 0.1}}",
    "matrix: {strength: {count: 3, key: a}}",
    "matrix: {seed: {count: 0}}",
    "matrix: {seed: {count: 3, random: 3}}",
    "matrix: {seed: {random: x}}",
    "matrix: {seed: [0]}",
    "matrix: {seed: [[1]]}",
    "matrix: {exclude: []}",
    "matrix: {exclude: [{}]}",
    "matrix: {exclude: [{seed: [1]}]}",
    "matrix: {override: [{where: {seed: 1}}]}",
    "matrix: {override: [{where: {seed: 1}, set: {id: a}}]}",
    "matrix: {include: [{sed: 1}]}",
    "defaults: {id: a}",
    "defaults: {strenght: 1}",
]

BAD_BEYOND_SHAPE = [
    f"rows: [{{{ONE}}}]",
    f"rows: [{{{ONE}, seed: 1, model: sora}}]",
    f"rows: [{{{ONE}, seed: 1, motion: Doly}}]",
    f"rows: [{{{ONE}, seed: 1, strength: 0.755}}]",
    f"rows: [{{{ONE}, seed: 1, id: a}}, {{{ONE}, seed: 2, id: a}}]",
    f"defaults: {{{ONE}}}\nmatrix: {{seed: '1-10 [5]'}}",
    f"rows: [{{{ONE}, seed: 1, take: 2, repeat: 2}}]",
    "rows: [{prompt: p, seed: 1, image: nowhere.jpg}]",
    f"rows: [{{{ONE}, seed: 1}}]\nsheet: {{x: nothing}}",
]


def plain(value: Any) -> Any:
    """The values as an editor sees them: JSON's numbers, and null where a key has no value."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return float(value) if isinstance(value, Decimal) else value


def schema_refuses(text: str) -> bool:
    document = strict_yaml.read(text)
    value = plain(document.value)
    for path in document.nulls:
        home = value
        for step in path[:-1]:
            home = home[step]
        home[path[-1]] = None
    return any(jsonschema.Draft202012Validator(GENERATED).iter_errors(value))


def test_the_published_schema_is_the_generated_one() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == json_schema.text()
    jsonschema.Draft202012Validator.check_schema(json.loads(PUBLISHED.read_text(encoding="utf-8")))


@pytest.mark.parametrize("text", GOOD)
def test_what_the_reader_takes_the_schema_takes(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text) == []
    assert not schema_refuses(text)


@pytest.mark.parametrize("text", BAD_SHAPES)
def test_a_wrong_shape_is_refused_by_both(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text) != []
    assert schema_refuses(text)


@pytest.mark.parametrize("text", BAD_BEYOND_SHAPE)
def test_what_only_the_reader_can_know_the_schema_lets_pass(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text) != []
    assert not schema_refuses(text)


@pytest.mark.parametrize("path", sorted((REPO / "manifests").glob("*.yaml")), ids=lambda path: path.name)
def test_each_shipped_manifest_names_the_schema_and_keeps_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(MODELINE)
    assert not schema_refuses(text)


def test_a_typing_error_anywhere_is_marked_in_the_editor() -> None:
    """Every mapping of the schema is closed, but for those whose keys are the user's own words."""
    open_ends = {"vars", "motions", "where", "exclude"}
    found: set[str] = set()

    def walk(part: Any, name: str) -> None:
        if isinstance(part, dict):
            if part.get("type") == "object" and part.get("additionalProperties") is not False:
                found.add(name)
            for key, value in part.items():
                walk(value, key if key not in ("items", "anyOf", "oneOf") else name)
        elif isinstance(part, list):
            for value in part:
                walk(value, name)

    walk(json_schema.generated(), "Document")
    assert found == {*open_ends, "AxesModel", "MatrixModel"}
