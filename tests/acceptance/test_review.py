"""`dop review`: reviews come and go as files and follow the clip into later runs; `derive` takes what is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.cli_driver import Dop, shots

SMALL = ("--set", "sandbox.generation_s=0", "--set", "sandbox.size=180p")


def reviews(path: Path, *items: Mapping[str, object]) -> Path:
    path.write_text(json.dumps({"version": 1, "reviews": items}))
    return path


def verdicts(dop: Dop) -> list[tuple[str, str, str, str]]:
    assert dop.call("report").code == 0
    return [(row["row_id"], row["verdict"], row["stars"], row["note"]) for row in dop.rows()]


def test_reviews_follow_the_clip_and_derive_takes_what_is_kept(rehearsal: Dop) -> None:
    manifest = rehearsal.csv(shots(3))
    assert rehearsal.buy(manifest, *SMALL).code == 0
    first, second, third = (row["request_id"] for row in rehearsal.rows())
    ana = reviews(
        rehearsal.folder / "ana.json",
        {"request_id": first, "verdict": "keep", "stars": 5, "at": "2026-01-01T10:00:00Z"},
        {"request_id": second, "verdict": "keep", "note": "=the hand", "at": "2026-01-01T10:00:01Z"},
    )
    ben = reviews(
        rehearsal.folder / "ben.json",
        {"request_id": second, "verdict": "reject", "at": "2026-01-02T10:00:00Z"},
        {"request_id": third, "stars": 2, "at": "2026-01-02T10:00:01Z"},
    )
    done = rehearsal.call("review import", ana, "--as", "ana")
    assert (done.code, "2 reviews added" in done.err) == (0, True), done.err
    assert rehearsal.call("review import", ben, "--as", "ben").code == 0
    assert "0 reviews added, 2 were there already" in rehearsal.call("review import", ana, "--as", "ana").err
    assert verdicts(rehearsal) == [
        ("row-1", "keep", "5", ""),
        ("row-2", "reject", "", "'=the hand"),
        ("row-3", "", "2", ""),
    ]

    assert rehearsal.buy(rehearsal.csv(shots(4)), *SMALL).code == 0
    assert [line[1] for line in verdicts(rehearsal)] == ["keep", "reject", "", ""]
    made = rehearsal.call("derive", "--set", "model=dop-preview")
    assert made.code == 0, made.err
    assert "to buy now: 1 for $0.573" in made.out

    kept = rehearsal.folder / "all.json"
    assert rehearsal.call("review export", "-o", kept).code == 0
    found = json.loads(kept.read_text())["reviews"]
    assert [(one["who"], one["request_id"]) for one in found] == [
        ("ana", first),
        ("ana", second),
        ("ben", second),
        ("ben", third),
    ]
    assert "0 reviews added, 4 were there already" in rehearsal.call("review import", kept).err


def test_a_file_with_a_mistake_adds_nothing(rehearsal: Dop) -> None:
    assert rehearsal.buy(rehearsal.csv(shots(1)), *SMALL).code == 0
    (row,) = rehearsal.rows()
    for item, why in (
        ({"request_id": row["request_id"], "stars": 9}, "stars is 9"),
        ({"request_id": "x"}, "no request x"),
    ):
        path = reviews(rehearsal.folder / "bad.json", {"request_id": row["request_id"], "verdict": "keep"}, item)
        refused = rehearsal.call("review import", path)
        assert refused.code == 2
        assert why in refused.err
    assert json.loads(rehearsal.call("review export").out)["reviews"] == []


def test_picks_of_an_earlier_version_still_count(rehearsal: Dop) -> None:
    bought = rehearsal.buy(rehearsal.csv(shots(2)), *SMALL)
    rows = rehearsal.rows()
    picks = rehearsal.latest / "picks.json"
    picks.write_text(json.dumps({"version": 1, "run": bought.run, "picks": [{"request_id": rows[1]["request_id"]}]}))
    assert "done 1" in rehearsal.call("derive", "-o", rehearsal.folder / "a.yaml").out
    path = reviews(rehearsal.folder / "late.json", {"request_id": rows[1]["request_id"], "verdict": "reject"})
    assert rehearsal.call("review import", path).code == 0
    assert "is kept: keep" in rehearsal.call("derive", "-o", rehearsal.folder / "b.yaml").err
    assert rehearsal.call("review import", picks).code == 0
    assert [one["verdict"] for one in json.loads(rehearsal.call("review export").out)["reviews"]] == [
        "keep",
        "reject",
    ]


@pytest.mark.parametrize("name", ["", " ", "x" * 81])
def test_a_reviewer_has_a_name(rehearsal: Dop, name: str) -> None:
    assert "give a name" in rehearsal.call("review import", "x.json", "--as", name).err
