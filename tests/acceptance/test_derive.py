"""The pick loop: clips of a rehearsal become a manifest for the dearer model, whose price is shown and true."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli_driver import Dop, shots

SMALL = ("--set", "sandbox.generation_s=0", "--set", "sandbox.size=180p")


@pytest.mark.long
def test_picked_clips_are_bought_again_on_the_dearer_model(rehearsal: Dop) -> None:
    bought = rehearsal.buy(rehearsal.csv(shots(3)), *SMALL)
    assert bought.code == 0, bought.err
    rows = rehearsal.rows()
    picks = rehearsal.folder / "picks.json"
    chosen = [{"row_id": row["row_id"], "request_id": row["request_id"], "attempt": 1} for row in rows[:2]]
    picks.write_text(json.dumps({"version": 1, "run": bought.run, "gateway": "sandbox", "picks": chosen}))

    made = rehearsal.call("derive", "--picks", picks, "--set", "model=dop-preview")
    assert made.code == 0, made.err
    assert "to buy now: 2 for $1.146" in made.out
    manifest = rehearsal.folder / "shots-dop-preview.yaml"
    again = rehearsal.buy(manifest, *SMALL)
    assert again.code == 0, again.err
    new = rehearsal.rows()
    assert [row["row_id"] for row in new] == ["row-1+dop-preview", "row-2+dop-preview"]
    same = ("seed", "prompt", "image", "motions_id", "motions_strength", "enhance_prompt")
    assert [[row[name] for name in same] for row in new] == [[row[name] for name in same] for row in rows[:2]]
    assert {row["model"] for row in new} == {"dop-preview"}


def test_rows_can_be_named_and_the_same_again_is_nothing_new(rehearsal: Dop) -> None:
    assert rehearsal.buy(rehearsal.csv(shots(2)), *SMALL).code == 0
    made = rehearsal.call("derive", "latest", "--row", "row-2", "-o", rehearsal.folder / "again.yaml")
    assert made.code == 0, made.err
    assert "done 1" in made.out
    assert "nothing in it is new" in made.err


def test_nothing_is_overwritten_and_no_draft_stays(rehearsal: Dop) -> None:
    assert rehearsal.buy(rehearsal.csv(shots(1)), *SMALL).code == 0
    taken = rehearsal.folder / "mine.yaml"
    taken.write_text("mine")
    refused = rehearsal.call("derive", "--row", "row-1", "--set", "model=dop-preview", "-o", taken)
    assert refused.code == 2
    assert "exists already" in refused.err
    assert taken.read_text() == "mine"
    for _ in range(2):
        assert rehearsal.call("derive", "--row", "row-1", "--set", "model=dop-preview").code == 0
    left = sorted(path.name for path in rehearsal.folder.iterdir() if path.is_file())
    assert left == ["mine.yaml", "shots-dop-preview-2.yaml", "shots-dop-preview.yaml", "shots.csv"]


def refusal(dop: Dop, *words: object) -> str:
    """What a refused command says; nothing may have been written."""
    before = sorted(dop.folder.iterdir())
    ending = dop.call("derive", *words)
    assert ending.code == 2, ending.err
    assert sorted(dop.folder.iterdir()) == before
    return ending.err


def test_what_cannot_be_derived_is_refused_in_words(rehearsal: Dop, tmp_path: Path) -> None:
    assert rehearsal.buy(rehearsal.csv(shots(1)), *SMALL).code == 0
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"run": rehearsal.latest.name, "picks": []}))
    assert "is kept: keep some in `dop view`" in refusal(rehearsal)
    assert "not in the run: absent" in refusal(rehearsal, "--row", "absent")
    assert "Did you mean 'model'" in refusal(rehearsal, "--row", "row-1", "--set", "modell=dop-lite")
    said = refusal(rehearsal, "--row", "row-1", "--set", "seed=0", "-o", tmp_path / "new.yaml")
    assert f"{tmp_path}/new.yaml" in said
    assert "1,000,000" in said
    assert "no clip is picked" in refusal(rehearsal, "--picks", other)
    other.write_text(json.dumps({"run": "another", "picks": ["row-1"]}))
    assert "the picks are of run another" in refusal(rehearsal, "latest", "--picks", other)
