"""One pass over a manifest: rows come in order, and what it met is known only when all of them were read."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from pipeline.config.loader import load
from pipeline.planning.requests import BoundManifest, bind_manifest
from pipeline.records import FoldedRow, Request

SHEET = "id,image,prompt,seed\n" + "".join(
    f"row-{number},https://cdn.example.com/a.jpg,a lake,{seed}\n" for number, seed in enumerate((1, 2, 1))
)


@pytest.fixture
def bound(tmp_path: Path) -> BoundManifest:
    sheet = tmp_path / "shots.csv"
    sheet.write_text(SHEET, encoding="utf-8")
    return bind_manifest(sheet, load(None, overrides={"outputs.dir": str(tmp_path)}, environ={}))


def test_a_pass_returns_what_was_made_of_the_rows_and_what_it_met(bound: BoundManifest) -> None:
    kinds, summary = bound.read(lambda rows: [type(row) for row in rows])
    assert kinds == [Request, Request, FoldedRow]
    assert summary.duplicates == 1
    assert summary.images == ("https://cdn.example.com/a.jpg",)
    assert summary.sha256_of == {}
    assert "1 row asks for a video that another row asks for already" in summary.warnings[-1]


def test_each_pass_begins_with_nothing(bound: BoundManifest) -> None:
    first, second = (bound.read(list) for _ in range(2))
    assert first == second


def test_rows_that_are_used_before_the_last_one_is_read_are_an_error(bound: BoundManifest) -> None:
    with pytest.raises(RuntimeError, match="before they were read to their end"):
        bound.read(lambda rows: list(islice(rows, 1)))
