"""The report as a data frame and as Parquet. Never the place where money is counted.

pandas and pyarrow are imported inside the functions that need them: importing pandas costs half a second that
`dop --help` must not pay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.files import whole_path
from pipeline.reports.tables import KINDS, METRICS_COLUMN, REPORT_COLUMNS, ReportRow

if TYPE_CHECKING:
    import pandas as pd

_FRAME_TYPES = {
    "text": "string",
    "int": "Int64",
    "float": "Float64",
    "bool": "boolean",
    "time": "datetime64[us, UTC]",
}


def to_frame(rows: Iterable[ReportRow]) -> pd.DataFrame:
    """The report as a data frame with typed columns, for a notebook.

    Text is `string`, counts `Int64`, booleans `boolean`, times `datetime64[us, UTC]`, lists stay lists, money is float
    dollars (exact amounts: the CSV, the Parquet file or the ledger).
    """
    frame = _exact_frame(rows)
    money = [column for column, kind in KINDS.items() if kind == "money"]
    return frame.astype(dict.fromkeys(money, "float64"))


def _exact_frame(rows: Iterable[ReportRow]) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415

    columns = [*REPORT_COLUMNS, METRICS_COLUMN]
    frame = pd.DataFrame([[row.get(name) for name in columns] for row in rows], columns=columns, dtype=object)
    types = {column: _FRAME_TYPES[kind] for column, kind in KINDS.items() if kind in _FRAME_TYPES}
    return frame.astype(types)


PARQUET_LINES = 20_000
"""Rows of one group in the Parquet file: what is in memory at a time."""


def write_parquet(rows: Iterable[ReportRow], path: Path) -> int:
    """Writes the report as Parquet: money decimal(18, 6), times in microseconds UTC, lists as lists of strings.

    Raises:
        UsageError: pyarrow is not installed.
    """
    pa, pq = _arrow("pyarrow"), _arrow("pyarrow.parquet")
    columns = [(column, _type_of(kind)) for column, kind in KINDS.items()]
    schema = pa.schema([*columns, (METRICS_COLUMN, pa.map_(pa.string(), pa.float64()))])
    count = 0
    with whole_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for batch in _batches(rows):
            frame = _exact_frame(batch)
            frame[METRICS_COLUMN] = frame[METRICS_COLUMN].map(lambda value: list(value.items()), na_action="ignore")
            writer.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))
            count += len(batch)
    return count


def _arrow(module: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        message = "Parquet needs pyarrow: `pip install pyarrow`, or write .csv or .jsonl instead"
        raise UsageError(message) from error


def _type_of(kind: str) -> object:
    pa = _arrow("pyarrow")
    return {
        "text": pa.string(),
        "list": pa.list_(pa.string()),
        "reasons": pa.list_(pa.string()),
        "int": pa.int64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "money": pa.decimal128(18, 6),
        "time": pa.timestamp("us", tz="UTC"),
    }[kind]


def _batches(rows: Iterable[ReportRow]) -> Iterator[list[ReportRow]]:
    batch: list[ReportRow] = []
    for row in rows:
        batch.append(row)
        if len(batch) == PARQUET_LINES:
            yield batch
            batch = []
    yield batch
