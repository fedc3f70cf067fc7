"""Three ways to work, from the first command to the last: every night, an artist with many seeds, a studio of two."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from pipeline.ledger.file_lock import locked
from tests.acceptance.conftest import Opened
from tests.support.cli_driver import Dop, Ended

Against = Callable[..., Opened]
HEAD = "id,image,prompt,motion,seeds\n"
SHEET = f"{HEAD}coffee,sandbox:coffee,Steam rises,Dolly In,11\ncat,sandbox:cat,Cat looks,Dolly In,7\n"


def run_folders(dop: Dop) -> list[Path]:
    return sorted(folder for folder in dop.outputs.iterdir() if folder.is_dir() and (folder / "videos").is_dir())


def test_eight_nights_of_a_growing_sheet(against: Against) -> None:
    """One failure ends one night with 1, by name; nights without news are silent and leave no folder."""
    dop, gateway = against(jobs={"4": {"end": "failed", "reason": "no luck"}})
    sheet = dop.csv(SHEET)

    def night() -> Ended:
        return dop.call("run", sheet, "-q", "--max-cost", "5", "--lock-wait", "1m")

    def add(line: str) -> None:
        sheet.write_text(sheet.read_text(encoding="utf-8") + line, encoding="utf-8")

    first, second = night(), night()
    assert (first.code, first.out + first.err) == (second.code, second.out + second.err) == (0, "")
    assert (gateway.charged, len({folder.resolve() for folder in run_folders(dop)})) == (2, 1)
    add("rocket,sandbox:rocket,Lift off,Dolly In,3\n")
    assert (night().code, gateway.charged) == (0, 3)
    add("bad,sandbox:rocket,broken,Dolly In,3\n")
    failed = night()
    assert failed.code == 1
    assert "bad@3" in failed.err
    after = night()
    assert (after.code, after.out + after.err, gateway.charged) == (0, "", 4)
    assert dop.call("dismiss", "bad@3").code == 0
    before = sheet.read_text(encoding="utf-8")
    add("typo,sandbox:cat,Cat,Dolly In,x\n")
    wrong = night()
    assert wrong.code == 2
    assert "shots.csv:6" in wrong.err
    sheet.write_text(before, encoding="utf-8")
    assert (night().code, gateway.charged) == (0, 4)
    assert len({folder.resolve() for folder in run_folders(dop)}) == 3


def test_an_artists_choice_stays_with_the_clip(against: Against) -> None:
    """Many seeds on the cheap model, winners on the expensive one; more seeds later keep what was chosen."""
    dop, gateway = against()
    manifest = dop.folder / "bracket.yaml"
    text = (
        "name: bracket\nrows:\n  - {{id: cat, image: sandbox:cat, prompt: Cat looks up, motion: Dolly In}}\n"
        "matrix:\n  seed: {{count: {count}}}\n"
    )
    manifest.write_text(text.format(count=6), encoding="utf-8")
    assert dop.buy(manifest).code == 0
    chosen = dop.rows()[4]
    picks = {"version": 1, "run": dop.latest.resolve().name, "picks": [{"row_id": chosen["row_id"]}]}
    (dop.folder / "picks.json").write_text(json.dumps(picks), encoding="utf-8")
    assert dop.typed("review", "import", "picks.json", "--outputs", str(dop.outputs)).code == 0
    manifest.write_text(text.format(count=8), encoding="utf-8")
    assert dop.buy(manifest).code == 0
    assert gateway.charged == 8
    derived = dop.call("derive", "latest", "--set", "model=dop-preview", "-o", "winners.yaml")
    assert derived.code == 0, derived.err
    assert dop.buy(dop.folder / "winners.yaml").code == 0
    bought = gateway.submits[-1]["body"]
    assert (bought["model"], str(bought["seed"])) == ("dop-preview", chosen["seed"])
    assert gateway.charged == 9


def test_a_studio_buys_parts_of_one_sheet_and_one_operator_waits(against: Against) -> None:
    dop, gateway = against()
    lines = [
        f"sq{part}_sh{shot},sandbox:cat,shot {shot} of {part},Dolly In,{shot},sq{part}\n"
        for part in (1, 2)
        for shot in (1, 2, 3)
    ]
    sheet = dop.csv("id,image,prompt,motion,seed,tags\n" + "".join(lines), "studio.csv")
    part = dop.buy(sheet, "--filter-tag", "sq1", "--max-new", "2")
    assert (part.code, gateway.charged) == (5, 2)
    with locked(dop.outputs / "ledger.db", wait_s=0, now=0):
        busy = dop.buy(sheet, "--filter-tag", "sq2")
        reading = [dop.call(verb) for verb in ("list", "status", "spend")]
    assert (busy.code, gateway.charged) == (11, 2)
    assert "--lock-wait" in busy.err
    assert [end.code for end in reading] == [0, 0, 0]
    assert (dop.buy(sheet, "--filter-tag", "sq2").code, gateway.charged) == (0, 5)
    capped = dop.buy(sheet, "--max-cost", "0.10")
    assert (capped.code, gateway.charged) == (8, 5)
    whole = dop.buy(sheet, "--max-cost", "1")
    assert (whole.code, gateway.charged) == (0, 6)
    assert len(dop.rows()) == 6
