"""`dop motions` as a user types it."""

from __future__ import annotations

import json

from tests.support.cli_driver import Dop, shots


def motions(dop: Dop, *words: object) -> tuple[str, str]:
    end = dop.call("motions", *words)
    assert end.code == 0, end.err
    return end.out, end.err


def test_the_list_is_searched_refreshed_and_used_by_manifests(rehearsal: Dop) -> None:
    out, err = motions(rehearsal, "--search", "crash zoom")
    assert [line.split("  ")[0].strip() for line in out.splitlines()] == ["name", "Crash Zoom In", "Crash Zoom Out"]
    assert "source: seen in two public lists" in err
    _, err = motions(rehearsal, "--refresh", "--search", "doly in")
    assert "0 new, 0 gone, 0 renamed" in err
    assert "did you mean Dolly In?" in err
    printed = json.loads(motions(rehearsal, "--json")[0])
    assert printed["gateway"] == "sandbox"
    assert printed["source"].startswith("sandbox, 20")
    assert len(printed["motions"]) == 120
    kept = rehearsal.outputs / "motions-sandbox.csv"
    kept.write_text(kept.read_text().replace("Dolly In,", "Push Closer,"))
    manifest = rehearsal.csv(shots(1, motion="Push Closer"))
    assert rehearsal.call("validate", manifest).code == 0
    end = rehearsal.call("validate", rehearsal.csv(shots(1, motion="Dolly In")))
    assert end.code == 2
    assert "'Dolly In' is not a motion of the catalogue" in end.err
