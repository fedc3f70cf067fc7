"""The Python interface: manifests of every kind, typed results in dollars, and nothing bought by an oversight."""

from __future__ import annotations

import asyncio
import json
import os
import pydoc
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest

import pipeline
import pipeline.api.results
from pipeline.errors import FatalError, LockedError, UsageError
from pipeline.ledger.file_lock import locked
from tests.acceptance.conftest import Opened
from tests.support.cli_driver import KEY, Dop, shots

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CSV of three shots in an empty folder that a notebook is started in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in {"generation_s": "0", "size": "180p"}.items():
        monkeypatch.setenv(f"DOP_SANDBOX__{name.upper()}", value)
    for name in ("first_s", "min_s"):
        monkeypatch.setenv(f"DOP_POLL__{name.upper()}", "0.05")
    monkeypatch.setenv("DOP_CHECKS__ENABLED", "false")
    path = tmp_path / "shots.csv"
    path.write_text(shots(3), encoding="utf-8")
    return path


def sizes(files: Iterable[str]) -> list[int]:
    """The files' sizes in bytes."""
    return [Path(file).stat().st_size for file in files]


async def test_a_sheet_is_planned_bought_and_read_as_a_table(sheet: Path) -> None:
    plan = pipeline.plan(sheet)
    assert (plan.new, plan.new_price_usd) == (3, Decimal("0.405"))

    result = await pipeline.arun(sheet, progress=False)
    assert await result is result, "`await run(..)` still gives the result"
    assert (result.exit_code, result.done, result.confirmed_usd) == (0, 3, Decimal("0.405"))
    assert result.counts == {"done": 3}
    assert result.reasons == ()
    assert result.folder == sheet.parent / "outputs" / result.run_id
    assert pipeline.plan(sheet).done == 3

    report = pipeline.report(result)
    assert list(report.frame["row_id"]) == ["row-1", "row-2", "row-3"]
    assert (report.confirmed_usd, report.counts) == (Decimal("0.405"), {"done": 3})
    assert isinstance(report.frame, pd.DataFrame)
    assert report.frame["cost_usd"].sum() == pytest.approx(0.405)
    assert min(sizes(report.frame["video"])) > 1000
    assert pipeline.report().run_id == pipeline.report(result.run_id[:18]).run_id == result.run_id


@pytest.mark.long
async def test_settings_are_given_by_name(sheet: Path) -> None:
    elsewhere = sheet.parent / "films"
    result = await pipeline.arun(sheet, progress=False, outputs__dir=elsewhere, download__enabled=False)
    assert result.folder.parent == elsewhere
    assert pipeline.report(result).frame["video"].isna().all()
    with pytest.raises(UsageError, match="unknown section"):
        pipeline.plan(sheet, output__dir="x")
    with pytest.raises(UsageError, match="Did you mean 'outputs__dir'"):
        pipeline.plan(sheet, outputs_dir="x")


@pytest.fixture
def live(sheet: Path, against: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch) -> Opened:
    """A gateway that charges, and its key."""
    opened = against()
    monkeypatch.setenv("PIXAZO_API_KEY", KEY)
    monkeypatch.setenv("DOP_GATEWAY__BASE_URL", opened[1].base_url)
    return opened


async def test_a_live_gateway_needs_to_know_what_may_be_spent(sheet: Path, live: Opened) -> None:
    _, gateway = live
    with pytest.raises(UsageError, match=r"give max_cost=5\.00, or yes=True"):
        await pipeline.arun(sheet, budget__max_cost="9.00")
    for wrong in (float("nan"), float("inf"), -1, 0.00000001, True, "two"):
        with pytest.raises(UsageError, match="give dollars"):
            await pipeline.arun(sheet, max_cost=wrong)
    assert gateway.charged == 0

    short = await pipeline.arun(sheet, max_cost=0.3, progress=False)
    assert (short.exit_code, short.done, gateway.charged) == (8, 2, 2)
    assert "budget" in " ".join(short.reasons)
    again = await pipeline.arun(sheet, yes=True, progress=False)
    assert again.exit_code == 8, "the cap of the first call holds for those that continue it"
    whole = await pipeline.arun(sheet, max_cost="1.00", progress=False)
    assert (whole.run_id, whole.exit_code, gateway.charged) == (short.run_id, 0, 3)


async def test_without_a_key_no_run_is_begun(sheet: Path, live: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIXAZO_API_KEY")
    with pytest.raises(FatalError, match="no key"):
        await pipeline.arun(sheet, yes=True)
    with pytest.raises(UsageError, match="no run yet"):
        pipeline.report()


async def test_a_second_run_at_once_is_refused(sheet: Path) -> None:
    (sheet.parent / "outputs").mkdir()
    with locked(sheet.parent / "outputs" / "ledger.db", wait_s=0, now=0), pytest.raises(LockedError):
        await pipeline.arun(sheet)


def test_an_interrupted_notebook_finds_its_run_again(rehearsal: Dop) -> None:
    """The command and the notebook share one ledger."""
    manifest = rehearsal.csv(shots(2))
    assert rehearsal.buy(manifest, "--set", "sandbox.generation_s=0", "--set", "sandbox.size=180p").code == 0
    assert pipeline.plan(manifest, outputs__dir=rehearsal.outputs).done == 2


MOOD = {"mood": "hot"}
ROWS = [
    {"id": "a", "image": "sandbox:cat", "prompt": "A cat", "seed": 1, "tags": ["x", "y"], "vars": {"mood": "calm"}},
    {
        "id": "b",
        "image": Path("sandbox:coffee"),
        "prompt": "A {{ mood }} cup",
        "seeds": [2, 3],
        "vars": {"mood": "hot"},
    },
    {"id": "c", "image": "sandbox:cat", "prompt": "A dog", "seed": 4, "strength": 0.1 + 0.2},
]
FRAME = pd.DataFrame(
    {
        "id": ["a", "b", "c"],
        "image": "sandbox:cat",
        "prompt": ["A cat", "A cup", "A dog"],
        "seed": [1, 2, None],  # pandas makes the whole numbers floats
        "strength": [0.1 + 0.2, None, 0.5],
        "enhance_prompt": [True, False, None],
    }
)


def rows_of(manifest: object, **choice: object) -> list[tuple[object, ...]]:
    frame = pipeline.plan(manifest, **choice).frame  # type: ignore[arg-type] # a test's shorthand
    return list(frame[["row_id", "seed", "strength", "prompt"]].itertuples(index=False, name=None))


def test_a_list_of_rows_is_a_manifest(sheet: Path) -> None:
    assert rows_of(ROWS[:1] + ROWS[2:]) == [("a", 1, 0.7, "A cat"), ("c", 4, 0.3, "A dog")]
    assert rows_of(ROWS[1:2]) == [("b@2", 2, 0.7, "A hot cup"), ("b@3", 3, 0.7, "A hot cup")]
    assert rows_of(ROWS[:1] + ROWS[2:], tags="y") == [("a", 1, 0.7, "A cat")]
    assert rows_of(ROWS[:1] + ROWS[2:], first=1) == [("a", 1, 0.7, "A cat")]
    assert len(rows_of(ROWS[:1] + ROWS[2:], sample=1)) == 1


def test_a_frame_is_a_manifest_and_its_empty_cells_take_the_default(sheet: Path) -> None:
    assert rows_of(FRAME.iloc[:2]) == [("a", 1, 0.3, "A cat"), ("b", 2, 0.7, "A cup")]
    with pytest.raises(UsageError, match=r"^notebook, row 3: .*seed"):
        pipeline.plan(FRAME)


def test_a_mistake_names_the_row_of_the_table_and_no_file_that_only_the_program_knows(sheet: Path) -> None:
    rows = [{**ROWS[0], "prompt": "two\nlines"}, {**ROWS[0], "id": "z", "seed": 0}]
    with pytest.raises(UsageError) as of_list:
        pipeline.plan(rows, name="tests")
    assert str(of_list.value) == "tests, row 2: column 'seed': 0 is outside 1..1,000,000\n1 mistake"
    with pytest.raises(UsageError) as of_document:
        pipeline.plan({"rows": [{"id": "a", "image": "sandbox:cat", "prompt": "x", "sed": 1, "seed": 1}]})
    assert str(of_document.value).splitlines()[0].startswith("notebook: rows[0].sed: unknown key")


def test_a_dictionary_is_a_whole_manifest(sheet: Path) -> None:
    document = {
        "defaults": {"image": "sandbox:cat"},
        "rows": [{"id": "z", "prompt": "A cat"}],
        "matrix": {"strength": [0.1 + 0.2, 0.6], "seed": [1, 2]},
    }
    assert [row[:3] for row in rows_of(document)] == [
        ("z@0.3-1", 1, 0.3),
        ("z@0.3-2", 2, 0.3),
        ("z@0.6-1", 1, 0.6),
        ("z@0.6-2", 2, 0.6),
    ]


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (7, "int is no manifest"),
        ([1, 2], "list is no manifest"),
        ([{"id": "a", "promt": "x"}], "Did you mean 'prompt'"),
        ([{"id": "a", "matrix": {"seed": [1]}}], "row 1, 'matrix'"),
        ({"rows": [{"id": "a", "strenght": 1}]}, "Did you mean 'strength'"),
    ],
)
def test_what_is_no_manifest_is_refused_with_what_to_write(sheet: Path, manifest: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        pipeline.plan(manifest)


def test_a_table_continues_under_its_name_and_shares_what_was_bought(sheet: Path, live: Opened) -> None:
    _, gateway = live
    rows = ROWS[:1] + ROWS[2:]
    first = pipeline.run(rows, max_cost=0.2, progress=False)
    assert (first.exit_code, first.done, gateway.charged) == (8, 1, 1)
    second = pipeline.run(pd.DataFrame(rows[::-1]), max_cost=2.0, progress=False)
    assert (second.run_id, second.exit_code, second.done, gateway.charged) == (first.run_id, 0, 2, 2)
    assert "notebook" in first.run_id
    assert "dogs" in pipeline.run(rows, name="dogs", yes=True, progress=False).run_id
    assert gateway.charged == 2


async def test_run_needs_no_await_where_a_loop_runs_already(sheet: Path) -> None:
    """As in a notebook, whose cells are run by an event loop."""
    result = pipeline.run(sheet, progress=False)
    assert (result.exit_code, result.done) == (0, 3)


def test_interrupting_a_run_in_a_loop_drains_it(sheet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is in a thread then, which no signal reaches directly."""
    monkeypatch.setenv("DOP_SANDBOX__GENERATION_S", "60")
    in_flight = threading.Event()

    async def cell() -> pipeline.api.results.RunResult:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as a kernel has it
        return pipeline.run(sheet, progress=False)

    def interrupt() -> None:
        while not (logs := list(sheet.parent.glob("outputs/*/run.log"))) or '"accepted"' not in logs[0].read_text():
            if in_flight.wait(0.02):
                return
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        result = asyncio.run(cell())
    finally:
        in_flight.set()
        thread.join()
    assert result.exit_code == 130
    assert result.counts.get("unknown", 0) == 0
    assert result.reserved_usd > 0


def test_a_pilot_that_succeeds_is_followed_by_the_rest(
    sheet: Path, against: Callable[..., Opened], live: Opened
) -> None:
    rows = [{"id": f"r{n}", "image": "sandbox:cat", "prompt": f"scene {n} x", "seed": n} for n in (1, 2, 3)]
    good = pipeline.run(rows[:2], max_cost=2, pilot=1, progress=False)
    assert (good.exit_code, good.done) == (0, 2)
    more = pipeline.run(rows, max_cost=2, pilot=1, progress=False, download__enabled=False)
    assert (more.exit_code, more.done) == (0, 3), "videos that are not fetched are not missing"


def test_a_pilot_that_is_refused_ends_the_purchase(
    sheet: Path, against: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, gateway = against(prompts={"scene": {"status": 422, "body": {"detail": "no"}}})
    monkeypatch.setenv("PIXAZO_API_KEY", KEY)
    monkeypatch.setenv("DOP_GATEWAY__BASE_URL", gateway.base_url)
    rows = [{"id": f"r{n}", "image": "sandbox:cat", "prompt": f"scene {n}", "seed": n} for n in (1, 2, 3)]
    result = pipeline.run(rows, max_cost=2, pilot=1, progress=False)
    assert (result.exit_code, len(gateway.submits)) == (5, 1)
    assert "pilot" in result.reasons[-1]


@pytest.mark.long
def test_picks_derive_collect_spend_and_check(sheet: Path) -> None:
    result = pipeline.run(sheet, progress=False)
    assert pipeline.picks(result) == []
    picks = {"version": 1, "run": result.run_id, "picks": [{"row_id": "row-2"}]}
    (result.folder / "picks.json").write_text(json.dumps(picks), encoding="utf-8")
    assert pipeline.picks(result) == pipeline.picks() == ["row-2"]
    winners = pipeline.derive(result, model="dop-preview")
    assert pipeline.plan(winners).new_price_usd == Decimal("0.573")
    two = pipeline.derive(result, rows=["row-1", "row-3"], strength=0.5, output="two.yaml")
    assert [row[2] for row in rows_of(two)] == [0.5, 0.5]
    with pytest.raises(UsageError, match="Did you mean 'model'"):
        pipeline.derive(result, modl="x")
    assert pipeline.collect(progress=False) == []
    assert [one.done for one in pipeline.collect(result.run_id, progress=False)] == [3]
    spent = pipeline.spend()
    assert list(spent["confirmed_usd"]) == [pytest.approx(0.405)]
    checked = pipeline.check(result.run_id, progress=False, checks__enabled=True)
    assert list(checked["row_id"]) == ["row-1", "row-2", "row-3"]


def test_results_show_in_a_notebook_with_tiles_and_without_paths_or_scripts(sheet: Path) -> None:
    rows = [{"id": "a", "image": "sandbox:cat", "prompt": "<script>alert(1)</script>", "seed": 1, "tags": "<b>"}]
    plan = pipeline.plan(rows)._repr_html_()
    page = pipeline.run(rows, progress=False)._repr_html_()
    assert "$0.135" in plan
    assert page.count("data:image/jpeg;base64,") == 1
    assert "<b>a</b>" in page
    assert "sandbox" in page
    assert "<script" not in page
    assert 'src="/' not in page
    assert pipeline.report()._repr_html_().count("<img") == 1


def test_help_lists_the_functions_and_no_module_of_the_program() -> None:
    text = pydoc.plain(pydoc.render_doc(pipeline))
    contents = text.split("PACKAGE CONTENTS", 1)[1].split("FUNCTIONS", 1)
    assert contents[0].split() == []
    shown = set(re.findall(r"^    (?:async )?(\w+)\(", contents[1], flags=re.M))
    assert shown == set(pipeline.__all__) | {"run"}
    assert {name for name in dir(pipeline) if not name.startswith("_")} == shown
    assert "microusd" not in text


def test_importing_the_package_loads_nothing() -> None:
    script = (
        "import sys; before = set(sys.modules); import pipeline\n"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))\n"
        "print(sorted(name for name in sys.modules if name.startswith('pipeline.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == ["['pipeline']", "[]"]


@pytest.mark.long
@pytest.mark.parametrize(
    "first", ["pipeline.runner.engine", "pipeline.reports.tables", "pipeline.planning.binding", "pipeline.api"]
)
def test_a_function_stays_one_whatever_was_imported_before(first: str) -> None:
    functions = "[callable(one) for one in (pipeline.plan, pipeline.run, pipeline.report)]"
    script = f"import pipeline, {first}; print({functions})"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[True, True, True]"


def test_a_name_that_the_package_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'buy'"):
        pipeline.buy  # noqa: B018


@pytest.mark.long
def test_the_guides_example_prints_what_the_guide_shows(
    sheet: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (REPO / "docs" / "guides" / "notebook.md").read_text(encoding="utf-8")
    found = re.findall(r"```python\n(.*?)```\s+```\n(.*?)```", page, flags=re.S)
    assert len(found) == 2
    names: dict[str, object] = {}
    for source, output in found:
        exec(source.replace("max_cost=2.00", "max_cost=2.00, progress=False"), names)
        assert capsys.readouterr().out.split() == output.split()


def test_every_call_of_the_guide_is_one(sheet: Path) -> None:
    page = (REPO / "docs" / "guides" / "notebook.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"`(?:await )?dop\.(\w+)\(", page))
    assert shown == set(pipeline.__all__)
