"""The same corridor from a notebook: typed results, the document's own example, and nothing bought by an oversight."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest

import pipeline
from pipeline.errors import FatalError, LockedError, UsageError
from pipeline.ledger.file_lock import locked
from tests.acceptance.conftest import Opened
from tests.support.cli_driver import KEY, Dop, shots

REPO = Path(__file__).resolve().parents[2]
DOCUMENT = (REPO / "docs" / "notebook.md").read_text(encoding="utf-8")


@pytest.fixture
def sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CSV of three shots in an empty folder that a notebook is started in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in {"generation_s": "0", "size": "180p"}.items():
        monkeypatch.setenv(f"DOP_SANDBOX__{name.upper()}", value)
    for name in ("first_s", "min_s"):
        monkeypatch.setenv(f"DOP_POLL__{name.upper()}", "0.05")
    path = tmp_path / "shots.csv"
    path.write_text(shots(3), encoding="utf-8")
    return path


def sizes(files: Iterable[str]) -> list[int]:
    """The files' sizes in bytes."""
    return [Path(file).stat().st_size for file in files]


async def test_a_sheet_is_planned_bought_and_read_as_a_table(sheet: Path) -> None:
    plan = pipeline.plan(sheet)
    assert (plan.new, plan.new_price_microusd) == (3, 405_000)

    result = await pipeline.run(sheet, progress=False)
    assert (result.exit_code, result.done, result.confirmed_usd) == (0, 3, Decimal("0.405"))
    assert result.counts == {"done": 3}
    assert result.reasons == ()
    assert result.folder == sheet.parent / "outputs" / result.run_id
    assert pipeline.plan(sheet).done == 3

    report = pipeline.report(result)
    assert [attempt.row_id for attempt in report.attempts] == ["row-1", "row-2", "row-3"]
    assert report.totals.confirmed_microusd == 405_000
    assert isinstance(report.frame, pd.DataFrame)
    assert report.frame["cost_usd"].sum() == pytest.approx(0.405)
    assert min(sizes(report.frame["video"])) > 1000
    assert pipeline.report().run_id == pipeline.report(result.run_id[:18]).run_id == result.run_id


async def test_the_documents_example_runs_as_it_stands(sheet: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.S)
    assert len(blocks) >= 1
    source = "async def cell():\n" + "".join(
        f"    {line}\n" for block in blocks for line in block.splitlines() if line.strip()
    )
    names: dict[str, Callable[[], object]] = {}
    exec(source + "    return result, report\n", names)
    made = names["cell"]()
    assert asyncio.iscoroutine(made)
    result, report = await made
    assert result.done == 3
    assert len(report.frame) == 3


async def test_settings_are_given_by_name(sheet: Path) -> None:
    elsewhere = sheet.parent / "films"
    result = await pipeline.run(sheet, progress=False, outputs__dir=elsewhere, download__enabled=False)
    assert result.folder.parent == elsewhere
    assert pipeline.report(result).frame["video"].isna().all()
    with pytest.raises(UsageError, match="unknown section"):
        pipeline.plan(sheet, output__dir="x")


@pytest.fixture
def live(sheet: Path, against: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch) -> Opened:
    """A gateway that charges, and its key."""
    opened = against()
    monkeypatch.setenv("PIXAZO_API_KEY", KEY)
    monkeypatch.setenv("DOP_GATEWAY__BASE_URL", opened[1].base_url)
    return opened


async def test_a_live_gateway_wants_to_be_told_what_may_be_spent(sheet: Path, live: Opened) -> None:
    _, gateway = live
    with pytest.raises(UsageError, match=r"say max_cost='5\.00', or yes=True"):
        await pipeline.run(sheet, budget__max_cost="9.00")
    with pytest.raises(UsageError, match="give dollars as text"):
        await pipeline.run(sheet, max_cost=0.3)  # type: ignore[arg-type] # what a hurried person writes
    assert gateway.charged == 0

    short = await pipeline.run(sheet, max_cost="0.30", progress=False)
    assert (short.exit_code, short.done, gateway.charged) == (8, 2, 2)
    assert "budget" in " ".join(short.reasons)
    again = await pipeline.run(sheet, yes=True, progress=False)
    assert again.exit_code == 8, "the cap of the first call holds for those that continue it"
    whole = await pipeline.run(sheet, max_cost="1.00", progress=False)
    assert (whole.run_id, whole.exit_code, gateway.charged) == (short.run_id, 0, 3)


async def test_without_a_key_no_run_is_begun(sheet: Path, live: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIXAZO_API_KEY")
    with pytest.raises(FatalError, match="no key"):
        await pipeline.run(sheet, yes=True)
    with pytest.raises(UsageError, match="no run yet"):
        pipeline.report()


async def test_a_second_run_at_once_is_refused(sheet: Path) -> None:
    (sheet.parent / "outputs").mkdir()
    with locked(sheet.parent / "outputs" / "ledger.db", wait_s=0, now=0), pytest.raises(LockedError):
        await pipeline.run(sheet)


def test_an_interrupted_notebook_finds_its_run_again(rehearsal: Dop) -> None:
    """The command and the notebook share one ledger."""
    manifest = rehearsal.csv(shots(2))
    assert rehearsal.buy(manifest, "--set", "sandbox.generation_s=0", "--set", "sandbox.size=180p").code == 0
    assert pipeline.plan(manifest, outputs__dir=rehearsal.outputs).done == 2


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
