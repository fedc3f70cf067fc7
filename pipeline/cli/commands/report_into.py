"""`dop report RUN -o shots-done.csv --into shots.csv`: the results, in a copy of the sheet that the run was made of."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path

from pipeline.config.settings import Settings
from pipeline.errors import ManifestError, UsageError
from pipeline.ledger.run_registry import Run
from pipeline.manifest import source_files
from pipeline.manifest.delimited import is_blank
from pipeline.manifest.sheet_row import RESULT_COLUMNS, is_column
from pipeline.planning.requests import bind_manifest
from pipeline.reports.into_sheet import Source, with_results, write

Row = Mapping[str, object]

TEXT_SHEETS = (".csv", ".tsv")
"""Sheets whose text can be kept as it is, so that only columns are added."""


def write_into(
    sheet: Path, targets: list[Path], run: Run, rows: Iterable[Row], *, run_folder: Path, settings: Settings
) -> Path:
    """Writes the copy; returns its path. The sheet itself is only read.

    Raises:
        UsageError: what is asked for cannot be done; nothing was written.
    """
    why = source_files.why_not_a_file(sheet)
    ending = sheet.suffix.lower()
    if why is None and ending not in TEXT_SHEETS:
        why = "is not a .csv file: export it as 'CSV UTF-8', and use that as the manifest too"
    if why is not None:
        raise UsageError(f"{sheet} {why}")
    if len(targets) != 1 or targets[0].suffix.lower() != ending:
        example = f"-o {sheet.stem}-done{ending} --into {sheet.name}"
        raise UsageError(f"--into needs -o with the name of one {ending} file, e.g. {example}")
    target = targets[0]
    if target.exists() and target.samefile(sheet):
        raise UsageError(f"{target} is the sheet itself: give the copy another name")
    by_row = _by_row(rows, run_folder)
    results = {
        line: [by_row[name] for name in names if name in by_row] for line, names in _names(sheet, run, settings).items()
    }
    if not any(results.values()):
        raise UsageError(f"{sheet}: none of its rows is in the run {run.run_id}")
    write(with_results(_source(sheet), results, target.resolve().parent), target, _encoding(sheet))
    return target


def _by_row(rows: Iterable[Row], run_folder: Path) -> dict[str, Row]:
    """The last attempt of each row, with the cost of all of them and the absolute path of its video."""
    found: dict[str, Row] = {}
    for row in rows:
        name = str(row["row_id"])
        before = found[name]["cost_usd"] if name in found else 0
        cost = Decimal(str(before)) + Decimal(str(row["cost_usd"] or 0))
        video = (run_folder / str(row["local_path"])).resolve() if row["local_path"] else None
        found[name] = {**row, "cost_usd": cost, "video": video}
    return found


def _names(sheet: Path, run: Run, settings: Settings) -> dict[int, list[str]]:
    """Line of the sheet -> the names under which its videos are in the run."""
    # The run may be of a YAML manifest that names the sheet: only that says which rows each line became.
    for path in (Path(run.manifest_path), sheet):
        if not path.is_file():
            continue
        try:
            cells = list(bind_manifest(path, settings).manifest.cells())
        except ManifestError:
            if path == sheet:
                raise
            continue
        names: dict[int, list[str]] = {}
        for cell in cells:
            if cell.file is not None and cell.line is not None and cell.file.resolve() == sheet.resolve():
                names.setdefault(cell.line, []).append(cell.row_id)
        if names:
            return names
    return {}


def _source(sheet: Path) -> Source:
    found = source_files.table(sheet, is_column)
    line, header = next((at, cells) for at, cells in found.records if isinstance(cells, str) or not is_blank(cells))
    twice = [name for name in RESULT_COLUMNS if name in header]
    if twice:
        raise UsageError(f"{sheet} has the column {twice[0]!r} already: give the sheet without results")
    text = "".join(source_files.lines(sheet))
    return Source(text=text, separator=found.separator, header_line=line, line_end="\r\n" if "\r\n" in text else "\n")


def _encoding(sheet: Path) -> str:
    with sheet.open("rb") as file:
        start = file.read(3)
    found = source_files.encoding_of(start)
    # The reading of UTF-8 takes a mark or none; the copy has one where the sheet has.
    return "utf-8" if found == "utf-8-sig" and start != codecs.BOM_UTF8 else found
