"""The language by its examples: each gives exactly the videos, and so the price, that its page says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from pipeline.errors import ManifestError
from pipeline.manifest import yaml_model
from pipeline.records import Cell, usd
from tests.support.manifests import REPO, cells, message_of, opened, written

PRICES = {"dop-lite": 135_000, "dop-turbo": 416_000, "dop-preview": 573_000}

SHOTS = """\
id,image,prompt,motion,strength,seeds,model,tags
lake,https://cdn.example.com/lake.jpg,"Still lake at dawn, mist drifting",Dolly In,0.6,1000-1003,,hero
mill,https://cdn.example.com/mill.jpg,"Old mill, the wheel turning slowly",360 Orbit,,"7, 77",dop-turbo,"hero,v2"
pier,https://cdn.example.com/pier.jpg,"Wooden pier, waves below",Dolly In,0.4,x3,,
"""

STUDY = """\
version: 1
name: strength-study
budget: {max_cost: 7.00}
defaults: {image: https://cdn.example.com/mill.jpg, prompt: "Old mill, the wheel turning slowly", \
motion: 360 Orbit, enhance_prompt: false}
matrix:
  model: [dop-lite, dop-turbo]
  strength: {from: 0.3, to: 0.9, count: 3}
  seed: {count: 5, key: mill-v1}
  exclude:
    - {model: dop-turbo, strength: 0.3}
  include:
    - {id: reference, model: dop-preview, strength: 0.6, seed: 42}
sheet: {x: seed, y: strength, tabs: model}
"""

SPIN = """\
version: 1
name: product-spin
budget: {max_cost: 3.00}
vars: {brand: Aster, light: "soft studio light"}
defaults: {model: dop-lite, prompt: "{{ brand }} {{ item }} on a plinth, {{ light }}", enhance_prompt: false}
rows:
  - {id: lamp, vars: {item: desk lamp}, image: https://cdn.example.com/lamp-front.png, \
end_image: https://cdn.example.com/lamp-back.png, tags: [spring, lamp]}
  - {id: vase, vars: {item: glass vase, light: "hard side light"}, image: https://cdn.example.com/vase.png, \
model: dop-turbo, matrix: {seed: [5]}}
matrix:
  look:
    - {label: calm, motion: 360 Orbit, strength: 0.3}
    - {label: bold, motion: Dolly In, strength: 0.9}
  seed: [11, 12, 13]
"""

NIGHTLY = """\
version: 1
name: nightly-social
rows: {file: shots.csv}
defaults: {model: dop-lite, strength: 0.7, enhance_prompt: false}
budget: {max_cost: 3.00, per_day: 5.00, per_month: 60.00}
"""


def price(found: list[Cell]) -> str:
    return usd(sum(PRICES[cell.params.model] for cell in found if cell.params))


def models(found: list[Cell]) -> Counter[str]:
    return Counter(cell.params.model for cell in found if cell.params)


def test_a_sheet_alone_is_a_manifest_of_nine_videos(tmp_path: Path) -> None:
    found = cells(tmp_path, SHOTS, "shots.csv")
    assert models(found) == {"dop-lite": 7, "dop-turbo": 2}
    assert price(found) == "1.777"
    assert [cell.row_id for cell in found[:6]] == [
        "lake@1000",
        "lake@1001",
        "lake@1002",
        "lake@1003",
        "mill@7",
        "mill@77",
    ]
    assert found[4].tags == ("hero", "v2")
    assert found[4].line == 3
    assert found[4].params
    assert found[4].params.strength_hundredths == 70
    assert found[4].axes == (("seed", "7"),)


def test_a_sweep_loses_what_is_excluded_and_gains_what_is_included(tmp_path: Path) -> None:
    manifest = opened(written(tmp_path, STUDY))
    found = list(manifest.cells())
    assert models(found) == {"dop-lite": 15, "dop-turbo": 10, "dop-preview": 1}
    assert price(found) == "6.758"
    assert manifest.axes == (("model", 2), ("strength", 3), ("seed", 5))
    assert manifest.size == 30
    assert manifest.budget.max_cost_microusd == 7_000_000
    assert manifest.sheet
    assert (manifest.sheet.x, manifest.sheet.y, manifest.sheet.tabs) == ("seed", "strength", "model")
    assert found[-1].row_id == "reference"
    assert [label for _, label in found[0].axes][:2] == ["dop-lite", "0.3"]


def test_linked_values_templates_and_a_rows_own_matrix(tmp_path: Path) -> None:
    found = cells(tmp_path, SPIN)
    assert price(found) == "1.642"
    assert [cell.row_id for cell in found] == [
        "lamp@calm-11",
        "lamp@calm-12",
        "lamp@calm-13",
        "lamp@bold-11",
        "lamp@bold-12",
        "lamp@bold-13",
        "vase@calm-5",
        "vase@bold-5",
    ]
    lamp, vase = found[3], found[6]
    assert lamp.params
    assert lamp.params.prompt == "Aster desk lamp on a plinth, soft studio light"
    assert (lamp.params.strength_hundredths, lamp.motion, lamp.params.seed) == (90, "Dolly In", 11)
    assert lamp.params.input_images_end == ("https://cdn.example.com/lamp-back.png",)
    assert lamp.tags == ("spring", "lamp")
    assert lamp.axes == (("look", "bold"), ("seed", "11"))
    assert vase.params
    assert vase.params.prompt == "Aster glass vase on a plinth, hard side light"


def test_a_nightly_manifest_asks_for_the_very_cells_of_its_sheet(tmp_path: Path) -> None:
    sheet = cells(tmp_path, SHOTS, "shots.csv")
    manifest = opened(written(tmp_path, NIGHTLY))
    assert list(manifest.cells()) == sheet
    assert manifest.files == (tmp_path / "batch.yaml", tmp_path / "shots.csv")
    assert manifest.budget.per_day_microusd == 5_000_000
    assert manifest.budget.per_month_microusd == 60_000_000
    assert manifest.name == "nightly-social"


def test_cells_can_be_asked_for_again(tmp_path: Path) -> None:
    manifest = opened(written(tmp_path, STUDY))
    assert list(manifest.cells()) == list(manifest.cells())


def test_the_digest_covers_manifest_and_sheet(tmp_path: Path) -> None:
    written(tmp_path, SHOTS, "shots.csv")
    path = written(tmp_path, NIGHTLY)
    before = opened(path).sha256
    assert opened(path).sha256 == before
    written(tmp_path, SHOTS.replace("dawn", "dusk"), "shots.csv")
    assert opened(path).sha256 != before


def test_a_sheet_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    stream = opened(written(tmp_path, SHOTS, "shots.csv")).cells()
    next(stream)
    written(tmp_path, SHOTS + "\n", "shots.csv")
    with pytest.raises(ManifestError, match="changed while it was read"):
        list(stream)


@pytest.mark.parametrize(
    ("name", "videos", "cost"),
    [
        ("example.yaml", {"dop-lite": 12, "dop-turbo": 3}, "2.868"),
        ("product-spin.yaml", {"dop-lite": 6, "dop-turbo": 2}, "1.642"),
        ("strength-study.yaml", {"dop-lite": 15, "dop-turbo": 10, "dop-preview": 1}, "6.758"),
        ("shots.csv", {"dop-lite": 7, "dop-turbo": 2}, "1.777"),
        ("nightly-social.yaml", {"dop-lite": 7, "dop-turbo": 2}, "1.777"),
        ("seed-bracket.yaml", {"dop-lite": 24}, "3.240"),
    ],
)
def test_each_shipped_manifest_asks_for_what_its_page_says(name: str, videos: dict[str, int], cost: str) -> None:
    manifest = opened(REPO / "manifests" / name)
    found = list(manifest.cells())
    assert models(found) == videos
    assert price(found) == cost
    assert manifest.warnings == []
    images = {image for cell in found if cell.params for image in cell.params.input_images}
    photographs = REPO / "pipeline" / "sandbox" / "photos"
    assert all((photographs / f"{image.removeprefix('sandbox:')}.jpg").is_file() for image in images)


def test_every_shipped_manifest_is_tried_here() -> None:
    shipped = {path.name for path in (REPO / "manifests").iterdir()}
    assert shipped == {
        "example.yaml",
        "product-spin.yaml",
        "strength-study.yaml",
        "shots.csv",
        "nightly-social.yaml",
        "seed-bracket.yaml",
    }


def test_the_manifest_and_the_mistakes_on_the_languages_page_are_real(tmp_path: Path) -> None:
    page = (REPO / "docs" / "reference" / "manifest.md").read_text(encoding="utf-8")
    example = page.split("```yaml\n")[1].split("```")[0]
    found = cells(tmp_path, example)
    assert [found[0].row_id, found[-1].row_id, len(found)] == ["coffee@calm-11", "coffee@bold-13", 6]
    row = "image: sandbox:cat\n    prompt: p\n    seed: 1"
    bad = f"rows:\n  - id: a\n    {row}\n    strenght: 0.5\n  - id: b\n    {row}\n    strength: 0.755\n"
    for problem in message_of(tmp_path, bad).splitlines():
        assert problem.split(": ", 2)[2] in page


def test_every_key_of_the_language_is_on_its_page() -> None:
    page = (REPO / "docs" / "reference" / "manifest.md").read_text(encoding="utf-8")
    keys = {
        *yaml_model.DocumentModel.model_fields,
        *yaml_model.RowModel.model_fields,
        *yaml_model.MatrixModel.model_fields,
        *yaml_model.BudgetModel.model_fields,
    }
    assert [
        key for key in sorted(keys) if f"`{key}`" not in page and f"`{key}," not in page and f"{key}:" not in page
    ] == []
