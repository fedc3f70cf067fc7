"""The clips of two runs on one page: takes of one seed are neighbours, and a few of them get columns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.records import Attempt, Totals
from pipeline.reports.sheet.beside import run_labels
from pipeline.reports.sheet.page import build_sheet
from pipeline.reports.sheet.run_view import RunView
from tests.support.factories import make_attempt


def take(row: str, seed: int, *, model: str = "dop-lite", suffix: str = "") -> Attempt:
    return make_attempt(row_id=f"{row}@{seed}{suffix}", seed=seed, model=model, prompt=row)


def run_of(name: str, *lines: Attempt, title: str = "") -> RunView:
    return RunView(run=name, title=title or name, gateway="g", lines=lines, totals=Totals(), outputs=Path("/o"))


def two_runs(takes: int) -> RunView:
    lite = run_of("lite", *(take(row, seed) for row in ("mill", "lake") for seed in range(1, takes + 1)))
    better = [take(row, 1, model="dop-preview", suffix="+dop-preview") for row in ("mill", "lake")]
    return replace(run_of("preview", *better), beside=(lite,))


def test_a_take_and_what_another_model_made_of_it_are_neighbours() -> None:
    sheet = build_sheet(two_runs(takes=8), Path("/o"))
    assert [(cell.row_id, cell.place["run"]) for cell in sheet.cells[:3]] == [
        ("mill@1+dop-preview", "preview"),
        ("mill@1", "lite"),
        ("lake@1+dop-preview", "preview"),
    ]
    assert {cell.place["row"] for cell in sheet.cells} == {"mill", "lake"}
    assert (sheet.arrangement.x, sheet.arrangement.y) == (None, "row")


def test_a_few_takes_of_each_run_get_a_column() -> None:
    sheet = build_sheet(two_runs(takes=2), Path("/o"))
    assert (sheet.arrangement.x, sheet.arrangement.y, sheet.arrangement.tabs) == ("run", "row", ())


def test_a_clip_that_both_runs_list_is_there_once() -> None:
    shared = take("mill", 1)
    view = replace(run_of("new", shared, take("mill", 2)), beside=(run_of("old", shared),))
    assert [cell.place["run"] for cell in build_sheet(view, Path("/o")).cells] == ["new", "new"]


def test_runs_of_one_name_are_called_by_their_ids() -> None:
    view = replace(run_of("r1", title="shots"), beside=(run_of("r2", title="shots"),))
    assert run_labels(view) == {"r1": "r1", "r2": "r2"}
    assert run_labels(replace(view, title="better")) == {"r1": "better", "r2": "shots"}
