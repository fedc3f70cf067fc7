"""The report as a data frame and as Parquet."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.records import State
from pipeline.reports.checks.findings import ClipCheck, Grade, Kind
from pipeline.reports.dataframe import to_frame, write_parquet
from pipeline.reports.tables import report_row
from tests.support.factories import make_attempt
from tests.unit.reports.test_tables import DONE, row_of


def test_the_data_frame_has_typed_columns() -> None:
    frame = to_frame([row_of(**DONE), row_of(state=State.UNKNOWN)])
    types = {column: str(kind) for column, kind in frame.dtypes.items()}
    assert types["seed"] == types["size_bytes"] == "Int64"
    assert types["cost_usd"] == "float64"
    assert types["check_nsfw"] == "boolean"
    assert types["submitted_at"] == "datetime64[us, UTC]"
    assert frame["cost_usd"].sum() == pytest.approx(0.270)
    assert frame.groupby("status")["price_usd"].sum().to_dict() == {"done": 0.135, "unknown": 0.135}


def test_an_empty_data_frame_has_the_columns_and_types_of_a_full_one() -> None:
    assert dict(to_frame([]).dtypes) == dict(to_frame([row_of(**DONE)]).dtypes)


def test_parquet_keeps_money_exact_and_lists_as_lists(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [row_of(**DONE, price_microusd=135_001, tags=("a", "b")), row_of(prompt="x\ny")]
    assert write_parquet(rows, tmp_path / "report.parquet") == 2
    first, second = parquet.read_table(tmp_path / "report.parquet").to_pylist()
    assert first["cost_usd"] == Decimal("0.135001")
    assert first["tags"] == ["a", "b"]
    assert first["submitted_at"].isoformat() == "2025-11-02T09:10:00.200000+00:00"
    assert (second["prompt"], second["size_bytes"], second["tags"]) == ("x\ny", None, [])


def test_parquet_has_the_metrics_of_a_check(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    check = ClipCheck(grade=Grade.WARN, reasons=("soft 0.31",), kinds=(Kind.SOFT,), metrics={"detail_left": 0.31})
    row = report_row(make_attempt(**DONE), outputs=Path("/o"), run_folder=Path("/o/r"), check=check)
    write_parquet([row, row_of()], tmp_path / "report.parquet")
    first, second = parquet.read_table(tmp_path / "report.parquet").to_pylist()
    assert (first["check"], first["check_reasons"]) == ("warn", ["soft 0.31"])
    assert dict(first["check_metrics"]) == {"detail_left": 0.31}
    assert (second["check"], second["check_metrics"]) == (None, None)


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="pip install pyarrow"):
        write_parquet([row_of()], tmp_path / "report.parquet")
